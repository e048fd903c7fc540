"""One signal's recent past, in constant memory and constant time per value.

A window keeps the last values for trends, and running averages for the detectors that look at every
step. Non-finite values are counted and kept out of every statistic, and so are values whose squares
might overflow.

Points are ordered by step and hold one value a step. A value that comes late, for a step before the newest one,
takes its place among them, and one for a step that has a value already replaces it. The running averages follow
the values in the order in which they were measured, so they take in neither.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from itertools import islice, pairwise
from operator import itemgetter
from statistics import median
from typing import Any

_LENGTH = 256
_FAST = 0.1
_SLOW = 0.02
_EVEN = round(1 / _SLOW)  # from then on both weights are constant
_LARGEST = 1e100
_SPACING_OVER = 16


@dataclass(slots=True)
class Window:
    """The recent past of one signal.

    Args:
        points: The last finite values with their steps, oldest first; no step twice.
        count: Finite values seen in all, but for late and repeated ones.
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
        num_late: Finite values for a step before the newest one, seen in all; those older than a full
            window are only counted.
        num_repeated: Finite values for a step that had one already, seen in all.
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
    num_late: int = 0
    num_repeated: int = 0

    @property
    def spacing(self) -> float:
        """Typical distance between the newest values, in steps: the median over at most 16; 0 with fewer than two values."""
        newest = [step for step, _ in islice(reversed(self.points), _SPACING_OVER + 1)]
        return median(later - earlier for later, earlier in pairwise(newest)) if len(newest) > 1 else 0.0

    def age(self, step: int) -> int:
        """Return the steps from the newest finite value to ``step``; ``step`` itself if there is none."""
        return step - self.points[-1][0] if self.points else step

    def add(self, step: int, value: float) -> None:
        """Take in the value measured after ``step``."""
        if not -_LARGEST <= value <= _LARGEST:  # a NaN compares false
            self._count_non_finite(step)
            return
        points = self.points
        if points and step <= points[-1][0]:
            self._put_in_place(step, value)
            return
        # Called for every signal of every step: locals, and no call that is not needed.
        points.append((step, value))
        self.count += 1
        self.settled = settled = self.settled + 1
        if settled == 1:
            self.fast = self.slow = value
            return
        # The first values weigh evenly, so that the averages do not start stuck to value one.
        by_fast, by_slow = (_FAST, _SLOW) if settled >= _EVEN else (max(_FAST, 1 / settled), max(_SLOW, 1 / settled))
        slow, deviation = self.slow, self.deviation
        distance = value - slow
        if settled > 20:
            self.jump = distance / deviation if deviation > 0 else 0.0
            # An outlier is clipped to 10 deviations, so that one spike does not blind the window to the next.
            limit = 10 * deviation
            if distance > limit:
                distance = limit
            elif distance < -limit:
                distance = -limit
        self.fast = fast = self.fast + by_fast * (value - self.fast)
        self.deviation = deviation + by_slow * (abs(distance) - deviation)
        self.slow = slow + by_slow * distance
        if self.count == 20:
            self.initial = fast
        if fast <= self.lowest_fast and settled >= 20:
            self.lowest_fast, self.calm_deviation = fast, self.deviation

    def _count_non_finite(self, step: int) -> None:
        self.num_non_finite += 1
        if self.last_non_finite_step is None or step > self.last_non_finite_step:
            self.last_non_finite_step = step

    def _put_in_place(self, step: int, value: float) -> None:
        points = self.points
        self.num_late += step < points[-1][0]
        place = bisect_left(points, step, key=itemgetter(0))
        if points[place][0] == step:
            self.num_repeated += 1
            points[place] = (step, value)
        elif len(points) < _LENGTH:
            points.insert(place, (step, value))
        elif place > 0:
            points.popleft()
            points.insert(place - 1, (step, value))

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
            "num_late": self.num_late,
            "num_repeated": self.num_repeated,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Window:
        """Rebuild a window from what ``state`` returned."""
        values = dict(state)
        points = deque(((int(step), float(value)) for step, value in values.pop("points")), maxlen=_LENGTH)
        lowest = values.pop("lowest_fast")
        return cls(points=points, lowest_fast=math.inf if lowest is None else lowest, **values)
