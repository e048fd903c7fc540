"""unsafe_exploration: too many episodes are unsafe, or more and more of them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.climb import climb, values_over
from trimtab.telemetry.roles import UNSAFE_RATE
from trimtab.telemetry.snapshot import noise_of


@dataclass(frozen=True, slots=True)
class UnsafeExploration:
    """Finds an unsafe rate that is high and does not fall, or that has risen beyond its noise.

    Args:
        high: Unsafe rate from which it is high.
        least_risen: Unsafe rate below which a rise is no matter.
        least_rise: Least rise above the lowest level so far.
        deviations: Least rise in deviations of the rate's noise.
        least_fall: A rate that has fallen by this fraction of it is on its way down.
        evaluations: Newest evaluations over which a high rate must not fall, >= 4.

    References:
        Rao and Advani (2026), "AI Training Manager", arXiv 2606.29871: the aggressive regime; Ray, Achiam, Amodei
        (2019), "Benchmarking Safe Exploration in Deep Reinforcement Learning": the cost rate.
    """

    high: float = 0.4
    least_risen: float = 0.2
    least_rise: float = 0.15
    deviations: float = 3.0
    least_fall: float = 0.07
    evaluations: int = 6

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if exploration is unsafe."""
        window = view.window(UNSAFE_RATE)
        newest = values_over(window, view, self.evaluations)
        if window is None or newest is None:
            return None
        course = [value for _, value in window.points]
        half = len(newest) // 2  # as many values to a level as half of the time looked at
        levels = [fmean(course[at : at + half]) for at in range(len(course) - half + 1)]
        now, lowest, trend = levels[-1], min(levels), climb(newest, course)
        is_falling = trend.height <= -self.least_fall * now
        is_high = now >= self.high
        has_risen = now >= self.least_risen and now - lowest > max(self.least_rise, self.deviations * noise_of(course))
        if is_falling or not (is_high or has_risen):
            return None
        return Symptom(
            "unsafe_exploration",
            "warning",
            view.step,
            view.name(UNSAFE_RATE),
            (
                Evidence("unsafe_rate", now),
                Evidence("lowest_level", lowest),
                Evidence("newest_rise", trend.height),
                Evidence("newest_rise_error", trend.error),
            ),
        )
