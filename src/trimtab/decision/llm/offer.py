"""What a prompt offers: the executable surface as labels, or as much of it as there is room for.

A label stands for exactly one value of a control, whatever else is left out; so a reply can be read without knowing what
was shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Final

from trimtab.decision.briefing import Briefing
from trimtab.decision.llm.detail import FULL, Detail
from trimtab.decision.llm.plain import is_name, labels_of, number
from trimtab.decision.surface import Options, RollbackOption, Surface
from trimtab.telemetry.roles import USUAL_NAMES
from trimtab.telemetry.signal import GRAD_NORM, LOSS, LOSS_AT_EVALUATION
from trimtab.telemetry.snapshot import Summary

MAX_WATCHED: Final = 16
WITHIN: Final = ("1", "2", "3")

_MAX_WATCHABLE: Final = 24
_NUM_GAINS: Final = 5
_MAX_GAINS: Final = 12
_USUAL: Final = frozenset(one for names in USUAL_NAMES.values() for one in names)

Labels = dict[float, str]


@dataclass(frozen=True, slots=True)
class Choices:
    """The values one control may take, by their labels."""

    control: str
    values: tuple[tuple[float, str], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the values."""
        return tuple(label for _, label in self.values)


@dataclass(frozen=True, slots=True)
class Return:
    """A checkpoint that can be rolled back to, and what may be adjusted with it."""

    option: RollbackOption
    adjustable: tuple[Choices, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a prompt offers besides no_action.

    Args:
        adjustable: Values per control.
        returns: Checkpoints, oldest first.
        max_controls: Most controls in one intervention.
        skips: Counts of batches that may be skipped.
        may_stop: Whether stop is offered.
        gains: Labels of the expected gain.
        watchable: Signals that may be watched.
    """

    adjustable: tuple[Choices, ...]
    returns: tuple[Return, ...]
    max_controls: int
    skips: tuple[str, ...]
    may_stop: bool
    gains: tuple[str, ...]
    watchable: tuple[str, ...]


def offer_of(briefing: Briefing, detail: Detail = FULL) -> Offer:
    """Return what a prompt with so much detail offers."""
    surface, labels = briefing.surface, control_labels(briefing)
    can_adjust = surface.max_controls > 0

    def choices(options: Iterable[Options]) -> tuple[Choices, ...]:
        known = [option for option in options if is_name(option.control)] if can_adjust else []
        return tuple(_choices(briefing, option, labels[option.control], detail.values) for option in known[: detail.controls])

    returns = [option for option in surface.rollbacks if is_name(option.checkpoint)]
    # The best first, then the newest; shown in the order of the surface.
    ranked = sorted(returns, key=lambda option: (not option.is_best, -option.step))
    combined = ranked[: detail.combined]
    return Offer(
        adjustable=choices(surface.adjustable),
        returns=tuple(
            Return(option, choices(option.adjustable) if option in combined else ())
            for option in returns
            if option in ranked[: detail.rollbacks]
        ),
        max_controls=surface.max_controls,
        skips=skip_labels(surface.max_skip) if detail.others else (),
        may_stop=surface.may_stop and bool(detail.others),
        gains=gain_labels(briefing),
        watchable=watchable(briefing)[: max(1, min(detail.signals, _MAX_WATCHABLE))],
    )


def kinds_of(surface: Surface) -> tuple[str, ...]:
    """Return the kinds of action that are executable."""
    can_adjust = surface.max_controls > 0
    kinds = {
        "no_action": True,
        "adjust": can_adjust and bool(surface.adjustable),
        "rollback": bool(surface.rollbacks),
        "rollback_and_adjust": can_adjust and any(option.adjustable for option in surface.rollbacks),
        "skip_batches": surface.max_skip > 0,
        "stop": surface.may_stop,
    }
    return tuple(kind for kind, is_executable in kinds.items() if is_executable)


def control_labels(briefing: Briefing) -> dict[str, Labels]:
    """Return for every control the label of each value that is on the surface somewhere."""
    values: dict[str, set[float]] = {}
    options = [*briefing.surface.adjustable, *(one for back in briefing.surface.rollbacks for one in back.adjustable)]
    for option in options:
        values.setdefault(option.control, set()).update(option.values)
    labels: dict[str, Labels] = {}
    for control, found in values.items():
        # The present value stands in the recipe: it must not read like another one.
        present = {briefing.recipe[control]} if control in briefing.recipe else set[float]()
        labels[control] = labels_of(value for value in found | present if math.isfinite(value))
    return labels


def _choices(briefing: Briefing, option: Options, labels: Labels, most: int) -> Choices:
    values = list(option.values)
    if len(values) > most and option.control in briefing.recipe:
        now = briefing.recipe[option.control]
        below = [value for value in reversed(values) if value < now]
        above = [value for value in values if value >= now]
        # By turns the nearest below and above.
        turns = sorted([*enumerate(below), *enumerate(above)], key=lambda place: place[0])
        values = sorted(value for _, value in turns[:most])
    return Choices(option.control, tuple((value, labels[value]) for value in values[:most]))


def skip_labels(max_skip: int) -> tuple[str, ...]:
    """Return a few counts of batches up to the most that may be skipped."""
    counts = {max_skip // part for part in (1, 2, 4, 10)}
    return tuple(str(count) for count in sorted(counts) if count >= 1)


def gain_labels(briefing: Briefing) -> tuple[str, ...]:
    """Return amounts by which the objective may be expected to get better: none, then from its noise upwards.

    They reach at least what a rollback to an offered checkpoint would gain.
    """
    summary = briefing.snapshot.get(briefing.objective.signal)
    level = summary.last if summary is not None else briefing.best.objective if briefing.best is not None else None
    size = abs(level) if level is not None and math.isfinite(level) else 0.0
    noise = summary.noise if summary is not None and math.isfinite(summary.noise) else 0.0
    # Noise of few evaluations is a rough guess: it counts between a thousandth and a fiftieth of the level.
    least = min(max(noise, size / 1000), size / 50) if size else noise
    if not 1e-12 <= least <= 1e12:
        least = 0.001
    return ("0", *(number(amount, 1) for amount in _one_two_five(least, _largest_return(briefing))))


def _largest_return(briefing: Briefing) -> float:
    """Return by how much the best checkpoint that can be rolled back to is better than now; 0 if none is."""
    now = briefing.snapshot.get(briefing.objective.signal)
    if now is None:
        return 0.0
    known = [one.objective for one in briefing.surface.rollbacks if is_name(one.checkpoint)]
    gains = [briefing.objective.gain(now.last, objective) for objective in known]
    return max((gain for gain in gains if math.isfinite(gain)), default=0.0)


def _one_two_five(least: float, reach: float) -> list[float]:
    """Return a few numbers from ``least`` upwards, and more if ``reach`` is not reached; where those are many, the last."""
    place = math.floor(math.log10(least))
    amounts: list[float] = []
    for power in count(place):
        amounts += [amount for digit in (1, 2, 5) if (amount := float(f"{digit}e{power}")) >= least]
        if len(amounts) >= _NUM_GAINS and amounts[-1] >= reach:
            break
    needed = next(at for at, amount in enumerate(amounts, 1) if amount >= reach)
    return amounts[: max(_NUM_GAINS, needed)][-_MAX_GAINS:]


def ranked_signals(briefing: Briefing) -> tuple[Summary, ...]:
    """Return the signals, the most useful for a decision first."""
    named = {symptom.signal for symptom in briefing.symptoms}

    def rank(summary: Summary) -> tuple[int, float, str]:
        if summary.name == briefing.objective.signal:
            tier = 0
        elif summary.name in (LOSS, LOSS_AT_EVALUATION):
            tier = 1
        elif summary.name in named:
            tier = 2
        else:
            tier = 3 if summary.name == GRAD_NORM or summary.name in _USUAL else 4
        return tier, -significance(summary), summary.name

    return tuple(sorted((one for one in briefing.snapshot.summaries if is_name(one.name)), key=rank))


def significance(summary: Summary) -> float:
    """Return how many of its standard errors a slope is away from flat; 0 if that is not known."""
    if summary.num_samples < 3 or not summary.slope_error > 0:
        return 0.0
    ratio = abs(summary.slope_per_step) / summary.slope_error
    return ratio if math.isfinite(ratio) else 0.0


def watchable(briefing: Briefing) -> tuple[str, ...]:
    """Return the names of the signals that may be watched, never empty."""
    names = tuple(summary.name for summary in ranked_signals(briefing))
    objective = briefing.objective.signal
    return names or ((objective,) if is_name(objective) else (LOSS,))
