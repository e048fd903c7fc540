"""Inclusive bounds on a control's value.

Non-finite values are rejected before any comparison: a NaN passes ``x < low or x > high``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab.errors import ControlError


@dataclass(frozen=True, slots=True)
class Bounds:
    """The inclusive range ``[low, high]`` a control's value may take.

    Raises:
        ControlError: Give finite numbers with ``low <= high``.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        for side, value in (("low", self.low), ("high", self.high)):
            if not is_finite_number(value):
                raise ControlError(f"the {side} bound is not a finite number", received=repr(value), allowed="a finite number")
        if self.low > self.high:
            raise ControlError(
                "the bounds are reversed",
                received=f"low={self.low!r}, high={self.high!r}",
                allowed="low <= high",
                next_step="swap them",
            )

    def contain(self, value: float) -> bool:
        """Return whether ``value`` is finite and within the bounds, both ends included."""
        return is_finite_number(value) and self.low <= value <= self.high


def is_finite_number(value: object) -> bool:
    """Return whether ``value`` is a finite number that a float can hold; a boolean is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False
