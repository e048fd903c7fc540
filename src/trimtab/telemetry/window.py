"""One signal's recent past, in constant memory and constant time per value.

A window keeps the last values for trends, and running averages for the detectors that look at every
step. Non-finite values are counted and kept out of every statistic, and so are values whose squares
might overflow.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

_LENGTH = 256
_FAST = 0.1
_SLOW = 0.02
_LARGEST = 1e100


@dataclass(slots=True)
class Window:
    """The recent past of one signal.

    Args:
        points: The last finite values with their steps, oldest first.
        count: Finite values seen in all.
        num_non_finite: Non-finite values seen in all.
        last_non_finite_step: Step of the newest non-finite value.
        fast: Exponential average over about 10 values.
        slow: Exponential average over about 50 values.
        deviation: Exponential average of the absolute distance from ``slow``, over about 50 values.
        lowest_fast: Lowest ``fast`` so far, once 20 values were seen.
        calm_deviation: ``deviation`` when ``fast`` was lowest; what follows does not inflate it.
        settled: Finite values since the run began or its recipe last changed; averages and detectors
            start over with it.
        initial: ``fast`` when 20 values had been seen: the level the run began with.
        jump: Distance of the last value from ``slow``, in units of ``deviation``, before it was
            added; 0 until 20 values were seen.
    """

    points: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_LENGTH))
    count: int = 0
    num_non_finite: int = 0
    last_non_finite_step: int | None = None
    fast: float = 0.0
    slow: float = 0.0
    deviation: float = 0.0
    lowest_fast: float = math.inf
    calm_deviation: float = 0.0
    settled: int = 0
    initial: float = 0.0
    jump: float = 0.0

    def add(self, step: int, value: float) -> None:
        """Take in the value measured after ``step``."""
        if not abs(value) <= _LARGEST:  # a NaN compares false
            self.num_non_finite += 1
            self.last_non_finite_step = step
            return
        self.points.append((step, value))
        self.count += 1
        self.settled += 1
        distance = value - self.slow
        if self.settled == 1:
            self.fast = self.slow = value
            return
        self.jump = distance / self.deviation if self.settled > 20 and self.deviation > 0 else 0.0
        # The first values weigh evenly, so that the averages do not start stuck to value one.
        fast, slow = max(_FAST, 1 / self.settled), max(_SLOW, 1 / self.settled)
        # An outlier is clipped to 10 deviations, so that one spike does not blind the window to the next.
        clipped = distance if self.settled <= 20 else max(-10 * self.deviation, min(10 * self.deviation, distance))
        self.fast += fast * (value - self.fast)
        self.deviation += slow * (abs(clipped) - self.deviation)
        self.slow += slow * clipped
        if self.count == 20:
            self.initial = self.fast
        if self.settled >= 20 and self.fast <= self.lowest_fast:
            self.lowest_fast, self.calm_deviation = self.fast, self.deviation

    def rebase(self) -> None:
        """Start the running averages over; the points stay."""
        self.settled = 0
        self.fast = self.slow = self.deviation = self.jump = 0.0
        self.lowest_fast = math.inf

    def state(self) -> dict[str, Any]:
        """Return everything as JSON-ready values; infinity as None."""
        return {
            "points": [[step, value] for step, value in self.points],
            "count": self.count,
            "num_non_finite": self.num_non_finite,
            "last_non_finite_step": self.last_non_finite_step,
            "fast": self.fast,
            "slow": self.slow,
            "deviation": self.deviation,
            "lowest_fast": None if math.isinf(self.lowest_fast) else self.lowest_fast,
            "calm_deviation": self.calm_deviation,
            "settled": self.settled,
            "initial": self.initial,
            "jump": self.jump,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Window:
        """Rebuild a window from what ``state`` returned."""
        values = dict(state)
        points = deque(((int(step), float(value)) for step, value in values.pop("points")), maxlen=_LENGTH)
        lowest = values.pop("lowest_fast")
        return cls(points=points, lowest_fast=math.inf if lowest is None else lowest, **values)
