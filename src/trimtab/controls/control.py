"""A control: a named training parameter that may be changed live, and the limits on changing it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Literal

from trimtab.controls.bounds import Bounds
from trimtab.controls.moves import Moves
from trimtab.errors import ControlError

Scale = Literal["ratio", "difference"]
When = Literal["live", "boundary"]
Cost = Literal["free", "recompiles"]
RateScaling = Literal["none", "linear", "sqrt"]

CONTROL_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}(/[a-z0-9_]{1,40})?")
_CHOICES: Final = {
    "scale": ("ratio", "difference"),
    "when": ("live", "boundary"),
    "cost": ("free", "recompiles"),
    "rate_scaling": ("none", "linear", "sqrt"),
}


@dataclass(frozen=True, slots=True)
class Control:
    """What the user allows for one training parameter.

    Args:
        name: A registered control name, such as ``learning_rate``.
        bounds: Inclusive range of its value.
        moves: The values reachable in one intervention.
        scale: How a change is measured: as a ratio (rates) or as a difference (probabilities).
        largest_change: Most that one intervention may change the value, inclusive: a ratio of at
            least 1, or a difference above 0.
        cumulative_drift: Most that the value may be away from where the run started, inclusive,
            in the same measure.
        dwell_steps: Steps for which a changed value must stand before it may be changed again.
        unit: What the value counts, for people: ``probability``, ``items``.
        effect_lag_steps: Steps until a change can show in the objective; evaluations before that do
            not measure an intervention, >= 0.
        when: ``live``: after any step; ``boundary``: only after a step that is a multiple of the
            envelope's ``boundary_every_steps``.
        cost: ``recompiles`` if each new value recompiles a compiled model or optimizer once.
        is_whole: Whether only whole numbers make sense.
        max_values: Most distinct values over a run, the starting one included, >= 1; None for any number.
        rate_scaling: Whether a change takes ``learning_rate`` along, by the same ratio or its square root.
        modules: For ``dropout``: pattern of the module names it acts on, as in `fnmatch`; None for all.

    Raises:
        ControlError: Change the argument that the message names.
    """

    name: str
    bounds: Bounds
    moves: Moves
    scale: Scale
    largest_change: float
    cumulative_drift: float
    dwell_steps: int
    unit: str = ""
    effect_lag_steps: int = 0
    when: When = "live"
    cost: Cost = "free"
    is_whole: bool = False
    max_values: int | None = None
    rate_scaling: RateScaling = "none"
    modules: str | None = None

    def __post_init__(self) -> None:
        if not CONTROL_NAME.fullmatch(self.name):
            raise ControlError("the control's name is malformed", received=self.name, allowed="lower_case or lower/case")
        for what, choices in _CHOICES.items():
            if getattr(self, what) not in choices:
                raise ControlError(
                    f"{what} of {self.name} is unknown", received=getattr(self, what), allowed=" or ".join(choices)
                )
        if not isinstance(self.moves, Moves):
            raise ControlError(
                f"the moves of {self.name} are not moves",
                received=repr(self.moves)[:200],
                allowed="trimtab.Multiply((...)), trimtab.SetTo((...)) or trimtab.Add((...))",
            )
        self._check_limits()
        for what in ("dwell_steps", "effect_lag_steps"):
            if getattr(self, what) < 0:
                raise ControlError(f"{what} of {self.name} is negative", received=getattr(self, what), allowed=">= 0 steps")
        if self.max_values is not None and self.max_values < 1:
            raise ControlError(f"max_values of {self.name} is out of range", received=self.max_values, allowed=">= 1, or none")
        if self.rate_scaling != "none" and self.scale != "ratio":
            raise ControlError(
                f"{self.name} cannot take the learning rate along", received=f"scale={self.scale}", allowed="scale=ratio"
            )

    def _check_limits(self) -> None:
        least = 1.0 if self.scale == "ratio" else 0.0
        for what, limit in (("largest_change", self.largest_change), ("cumulative_drift", self.cumulative_drift)):
            if not math.isfinite(limit) or limit <= least:
                raise ControlError(
                    f"{what} of {self.name} forbids every change", received=limit, allowed=f"a finite {self.scale} > {least:g}"
                )
        if self.scale == "ratio" and self.bounds.low <= 0:
            raise ControlError(
                f"{self.name} is measured as a ratio, so it cannot reach 0",
                received=f"low={self.bounds.low!r}",
                allowed="low > 0",
            )

    def distance(self, one: float, other: float) -> float:
        """Return how far two values are apart in this control's measure; infinite if not comparable."""
        if self.scale == "difference":
            return abs(one - other)
        if one <= 0 or other <= 0:
            return math.inf
        return max(one / other, other / one)

    def within(self, distance: float, limit: float) -> bool:
        """Return whether ``distance`` keeps to ``limit``, both in this control's measure.

        A relative slack of 1e-9 absorbs the rounding of repeated moves (0.1 + 0.2 > 0.3); bounds
        have none.
        """
        return distance <= limit * (1 + 1e-9)

    def least_within(self, limit: float, value: float) -> float:
        """Return the lowest value that is no farther than ``limit`` from ``value``, in this control's measure."""
        return value / limit if self.scale == "ratio" else value - limit

    def admits(self, value: float) -> bool:
        """Return whether ``value`` is within the bounds, and whole if it has to be."""
        return self.bounds.contain(value) and (not self.is_whole or float(value).is_integer())

    def keeps_limits(self, value: float, base: float, initial: float) -> bool:
        """Return whether ``value``, reached from ``base``, keeps to bounds, largest change and drift."""
        return (
            self.admits(value)
            and self.within(self.distance(base, value), self.largest_change)
            and self.within(self.distance(initial, value), self.cumulative_drift)
        )

    def reachable(self, value: float, initial: float) -> tuple[float, ...]:
        """Return the values one move from ``value`` that keep to bounds, largest change and drift."""
        return tuple(target for target in self.moves.targets(value) if self.keeps_limits(target, value, initial))
