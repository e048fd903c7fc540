"""What the demo came to, in figures and in a sentence that follows from them, whatever they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from trimtab.cli.arms import Result
from trimtab.report.account import json_ready
from trimtab.report.curves import draw_curves
from trimtab.report.scale import Curve, Level, Mark, MarkKind

_SAME: Final = 0.0005  # a relative difference that nobody would see
_KINDS: Final[dict[str, MarkKind]] = {"rollback": "rollback", "reflex": "reflex"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of both arms of one seed; all losses are validation losses, lower is better."""

    seed: int
    steps: int
    manager: str
    unmanaged: Result
    managed: Result
    seconds: float

    @property
    def early_stopping(self) -> float:
        """What early stopping would have kept of the unmanaged run: its lowest finite loss."""
        losses = [loss for _, loss in self.unmanaged.points if math.isfinite(loss)]
        return min(losses, default=self.unmanaged.best)

    @property
    def curves(self) -> list[Curve]:
        """Both curves, the unmanaged one first."""
        return [Curve("unmanaged", self.unmanaged.points), Curve("managed", self.managed.points)]

    @property
    def marks(self) -> list[Mark]:
        """The interventions."""
        return [Mark(step, text, _KINDS.get(kind, "adjust")) for step, text, kind in self.managed.marks]

    def sentence(self) -> str:
        """Say what happened, for better or worse."""
        parts = [self._compared(), self._judged()]
        if self.managed.stopped is not None:
            parts.append("The managed run was stopped early.")
        return " ".join(part for part in parts if part) + " This is one seed; another may differ."

    def _compared(self) -> str:
        final, other, early = self.managed.final, self.unmanaged.final, self.early_stopping
        if not math.isfinite(final) and not math.isfinite(other):
            return "Neither run ended with a finite validation loss."
        if not math.isfinite(final):
            return "The managed run ended without a finite validation loss: it failed."
        if not math.isfinite(other):
            against = f", {compare(final, early)} what early stopping would have kept" if math.isfinite(early) else ""
            return f"The unmanaged run ended without a finite validation loss; the managed run ended at {final:.4f}{against}."
        return (
            f"The managed run's final validation loss is {compare(final, other)} the unmanaged run's and "
            f"{compare(final, early)} what early stopping would have kept of that run."
        )

    def _judged(self) -> str:
        if self.managed.interventions == 0:
            return "The manager never intervened."
        if not math.isfinite(self.managed.final) and not math.isfinite(self.unmanaged.final):
            return ""
        over_final = direction(self.managed.final, self.unmanaged.final)
        over_early = direction(self.managed.final, self.early_stopping)
        match (over_final, over_early):
            case ("lower", "lower"):
                return "Managing it was better than either."
            case ("lower", "higher"):
                return "Managing it helped, but stopping early would have been better."
            case ("lower", "same"):
                return "Managing it helped as much as stopping early would have."
            case ("same", _):
                return "Managing it made no difference."
            case ("higher", _):
                return "Managing it did harm here."
            case _:
                return ""

    def as_json(self, run_dirs: dict[str, str], svg: str | None) -> dict[str, Any]:
        """Return the outcome as JSON-ready values."""
        early = self.early_stopping
        tree = {
            "seed": self.seed,
            "steps": self.steps,
            "manager": self.manager,
            "unmanaged": _figures(self.unmanaged),
            "managed": _figures(self.managed),
            "early_stopping": early,
            "managed_versus_unmanaged_percent": percent(self.managed.final, self.unmanaged.final),
            "managed_versus_early_stopping_percent": percent(self.managed.final, early),
            "interventions": self.managed.interventions,
            "stopped": self.managed.stopped,
            "sentence": self.sentence(),
            "run_dirs": run_dirs,
            "svg": svg,
            "seconds": round(self.seconds, 3),
        }
        return json_ready(tree)

    def drawn(self) -> str:
        """Return both curves as an SVG."""
        early = self.early_stopping
        title = f"The same run with and without a manager ({self.manager}, seed {self.seed})"
        level = [Level(f"early stopping keeps {early:.4g}", early)]
        return draw_curves(title, self.curves, self.marks, "step", "validation loss (nats per character)", level)


def _figures(result: Result) -> dict[str, Any]:
    figures = {"final": result.final, "best": result.best, "best_step": result.best_step}
    return {**figures, "seconds": round(result.seconds, 3) if math.isfinite(result.seconds) else result.seconds}


def percent(value: float, reference: float) -> float | None:
    """Return by how many percent ``value`` is above ``reference``; None if that makes no sense."""
    if not (math.isfinite(value) and math.isfinite(reference)) or reference <= 0:
        return None
    return 100.0 * (value / reference - 1.0)


def direction(value: float, reference: float) -> str:
    """Return ``lower``, ``higher`` or ``same``; a non-finite value is the highest."""
    if not math.isfinite(value):
        return "higher" if math.isfinite(reference) else "same"
    if not math.isfinite(reference):
        return "lower"
    if abs(value - reference) <= _SAME * max(abs(value), abs(reference)):
        return "same"
    return "lower" if value < reference else "higher"


def compare(value: float, reference: float) -> str:
    """Return how two losses compare, such as ``6.7% lower than``."""
    way = direction(value, reference)
    if way == "same":
        return "the same as"
    by = percent(value, reference)
    return f"{way} than" if by is None else f"{abs(by):.1f}% {way} than"
