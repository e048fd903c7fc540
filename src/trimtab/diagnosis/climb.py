"""How detectors of few and noisy values tell progress from standstill: never from one point.

A climb compares the newer half of some values with the older half; a showing is what the objective has to show for
the whole run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from trimtab.diagnosis.base import View
from trimtab.telemetry.snapshot import noise_of
from trimtab.telemetry.window import Window


@dataclass(frozen=True, slots=True)
class Climb:
    """By how much the newer half of some values is above the older half.

    Args:
        height: Difference of the two means, in the values' unit; negative if they fall.
        error: Standard error of that difference, from the noise around the values' trend.
    """

    height: float
    error: float

    @property
    def is_up(self) -> bool:
        """Whether the values rise beyond their noise."""
        return self.height > 2.0 * self.error

    @property
    def is_down(self) -> bool:
        """Whether the values fall beyond their noise."""
        return self.height < -2.0 * self.error


@dataclass(frozen=True, slots=True)
class Showing:
    """What a run has to show for itself; the objective is turned so that higher is better.

    Args:
        first: Its level over the first three evaluations.
        gained: By how much its newest level is better than that; negative if it is worse.
        lost: By how much that level is below the best one, >= 0.
        margin: Two deviations of the objective's noise.
        trend: Its newest course.
        span: Distance between its best and its worst value.
    """

    first: float
    gained: float
    lost: float
    margin: float
    trend: Climb
    span: float

    @property
    def is_flat(self) -> bool:
        """Whether nothing was gained since the first evaluations that is more than noise, or than a tenth of it."""
        return self.gained <= max(self.margin, 0.1 * abs(self.first))

    @property
    def has_lost(self) -> bool:
        """Whether half of what was once gained is lost again."""
        return self.lost > max(self.margin, 0.5 * (self.gained + self.lost)) > 0


def climb(values: Sequence[float], known: Sequence[float] = ()) -> Climb:
    """Compare the newer half of at least four values with the older half; an odd one in the middle is left out.

    Args:
        values: The values, oldest first.
        known: More values of the same signal to take the noise from, ``values`` included: few tell little of it.
    """
    half = len(values) // 2
    assert half >= 2, "two values are no trend"
    height = fmean(values[-half:]) - fmean(values[:half])
    return Climb(height, noise_of(list(known or values)) * math.sqrt(2.0 / half))


def showing(view: View, evaluations: int) -> Showing | None:
    """Judge the objective by its newest ``evaluations``; None if it has not been reported for that long."""
    window = view.objective_window()
    newest = values_over(window, view, evaluations)
    if window is None or newest is None:
        return None
    course = [view.objective.gain(0.0, value) for _, value in window.points]
    newest = course[-len(newest) :]
    levels = [fmean(course[at : at + 3]) for at in range(len(course) - 2)]
    now = fmean(newest)
    return Showing(
        first=levels[0],
        gained=now - levels[0],
        lost=max(0.0, max(levels) - now),
        margin=2.0 * noise_of(course),
        trend=climb(newest, course),
        span=max(course) - min(course),
    )


def values_over(window: Window | None, view: View, evaluations: int) -> list[float] | None:
    """Return a signal's values over the time of the newest ``evaluations``.

    None if it has not been reported for that long, or fewer than ``evaluations`` times: then no trend is known. A
    signal that is measured every step gives more values over the same time.
    """
    if window is None or not window.points:
        return None
    since = view.step - evaluations * view.evaluate_every_steps
    values = [value for step, value in window.points if step > since]
    is_long_known = window.points[0][0] <= since + view.evaluate_every_steps
    return values if is_long_known and len(values) >= max(4, evaluations) else None


def starting_values(window: Window, length: int) -> list[float] | None:
    """Return the run's first ``length`` values, or the average they left; None before so many were seen."""
    if window.count < length:
        return None
    if len(window.points) == window.points.maxlen:  # the first ones have left the window
        return [window.initial]
    return [value for _, value in window.points][:length]
