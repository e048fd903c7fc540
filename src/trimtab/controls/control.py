"""A control: a named training parameter that may be changed live, and the limits on changing it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from trimtab.controls.bounds import Bounds
from trimtab.controls.moves import Moves
from trimtab.errors import ControlError

Scale = Literal["ratio", "difference"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}(/[a-z0-9_]{1,40})?")


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

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ControlError("the control's name is malformed", received=self.name, allowed="lower_case or lower/case")
        least = 1.0 if self.scale == "ratio" else 0.0
        for what, limit in (("largest_change", self.largest_change), ("cumulative_drift", self.cumulative_drift)):
            if not math.isfinite(limit) or limit <= least:
                raise ControlError(
                    f"{what} of {self.name} forbids every change", received=limit, allowed=f"a finite {self.scale} > {least:g}"
                )
        if self.dwell_steps < 0:
            raise ControlError(f"dwell_steps of {self.name} is negative", received=self.dwell_steps, allowed=">= 0 steps")
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

    def reachable(self, value: float, initial: float) -> tuple[float, ...]:
        """Return the values one move from ``value`` that keep to bounds, largest change and drift."""
        return tuple(
            target
            for target in self.moves.targets(value)
            if self.bounds.contain(target)
            and self.within(self.distance(value, target), self.largest_change)
            and self.within(self.distance(initial, target), self.cumulative_drift)
        )
