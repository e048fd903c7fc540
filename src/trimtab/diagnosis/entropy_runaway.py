"""entropy_runaway: the policy becomes ever more random, and the objective does not gain by it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.climb import climb, showing, starting_values
from trimtab.telemetry.roles import ENTROPY
from trimtab.telemetry.snapshot import noise_of


@dataclass(frozen=True, slots=True)
class EntropyRunaway:
    """Finds an entropy that has risen and does not come back, without a gain.

    An entropy bonus has no end where actions are real: it can widen them until nothing else counts. Where actions are
    choices the entropy cannot pass the level of pure chance, near which most runs begin; so a rise from the lowest
    level counts as well, if it is as large or takes back most of the fall, and half of what the objective had gained
    is lost under it.

    Args:
        fraction: Least rise since the start, or from the lowest level, as a fraction of the entropy at the start.
        least_rise: Least rise since the start, in nats.
        taken_back: Least part of the fall that such a rise takes back.
        deviations: Least rise of any kind in deviations of the entropy's noise.
        recent: Newest entropies that must not be falling, >= 4.
        evaluations: Newest evaluations over which the objective must not improve, >= 4.
        least_values: Entropies before anything is found.

    References:
        Andrychowicz et al. (2021), "What Matters for On-Policy Deep Actor-Critic Methods?": initial action deviation
        and entropy regularization; Haarnoja et al. (2018), "Soft Actor-Critic Algorithms and Applications": why a
        fixed entropy coefficient does not fit a whole run.
    """

    fraction: float = 0.25
    least_rise: float = 0.3
    taken_back: float = 0.8
    deviations: float = 5.0
    recent: int = 10
    evaluations: int = 4
    least_values: int = 10

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if the entropy runs away."""
        window = view.window(ENTROPY)
        if window is None or window.count < self.least_values:
            return None
        start, state = starting_values(window, 3), showing(view, self.evaluations)
        if start is None or state is None:
            return None
        values = [value for _, value in window.points]
        levels = [fmean(values[at : at + 5]) for at in range(len(values) - 4)]
        begin, now, lowest = fmean(start), levels[-1], min(levels)
        seen = self.deviations * noise_of(values)
        least = max(self.fraction * abs(begin), seen)
        is_above_start = now - begin > max(least, self.least_rise)
        fall = begin - lowest
        from_lowest = max(seen, self.taken_back * fall) if 2 * fall > least else least
        has_come_back = now - lowest > min(least, from_lowest) and state.has_lost
        course = climb(values[-self.recent :], values)
        if not (is_above_start or has_come_back) or course.is_down or state.trend.is_up:
            return None
        return Symptom(
            "entropy_runaway",
            "warning",
            view.step,
            view.name(ENTROPY),
            (
                Evidence("entropy", now),
                Evidence("entropy_at_start", begin),
                Evidence("lowest_level", lowest),
                Evidence("least_rise", least),
                Evidence("objective_gain", state.trend.height),
                Evidence("objective_gain_error", state.trend.error),
            ),
        )
