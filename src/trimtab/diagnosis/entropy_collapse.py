"""entropy_collapse: the policy has stopped exploring before it became good."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, median

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.climb import climb, showing, starting_values, values_over
from trimtab.telemetry.roles import ENTROPY, SUCCESS_RATE
from trimtab.telemetry.snapshot import noise_of


@dataclass(frozen=True, slots=True)
class EntropyCollapse:
    """Finds a low entropy under an objective that has little to show for it.

    That the entropy falls is what learning looks like; so the objective, too, has to have stood still all the while,
    to have lost half of what was gained, or, where a success rate is reported, to stand still far from success.

    Args:
        fraction: Fall since the start, as a fraction of the entropy then, from which it counts as low.
        fraction_below_zero: The same for real actions, whose entropy passes zero without any collapse; known by a
            negative entropy.
        least_reference: Least entropy at the start that fractions are taken of, in nats.
        deviations: Least fall in deviations of the entropy's noise.
        evaluations: Newest evaluations over which the objective is judged, >= 4.
        low_success: Success rate up to which the run counts as far from success.
        good_success: Success rate from which a low entropy is no matter.
        least_values: Entropies before anything is found.

    References:
        Mnih et al. (2016), "Asynchronous Methods for Deep Reinforcement Learning": premature convergence to
        suboptimal deterministic policies; Cui et al. (2025), "The Entropy Mechanism of Reinforcement Learning for
        Reasoning Language Models".
    """

    fraction: float = 0.8
    fraction_below_zero: float = 2.0
    least_reference: float = 0.1
    deviations: float = 5.0
    evaluations: int = 4
    low_success: float = 0.3
    good_success: float = 0.8
    least_values: int = 10

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if the entropy has collapsed."""
        window = view.window(ENTROPY)
        if window is None or window.count < self.least_values:
            return None
        start = starting_values(window, 3)
        if start is None:
            return None
        values = [value for _, value in window.points]
        # The highest: a collapse within the first updates has lowered the others already.
        begin, now = max(start), median(values[-5:])
        is_real = min(values) < 0 or begin < 0
        limit = (self.fraction_below_zero if is_real else self.fraction) * max(abs(begin), self.least_reference)
        fall = begin - now
        if fall < max(limit, self.deviations * noise_of(values)):
            return None
        stuck = self._stuck(view)
        if stuck is None:
            return None
        evidence = (Evidence("entropy", now), Evidence("entropy_at_start", begin), Evidence("fell_by", fall), *stuck)
        return Symptom("entropy_collapse", "warning", view.step, view.name(ENTROPY), evidence)

    def _stuck(self, view: View) -> tuple[Evidence, ...] | None:
        """Return the evidence that the objective has little to show, or None."""
        state = showing(view, self.evaluations)
        if state is None:
            return None
        rates = values_over(view.window(SUCCESS_RATE), view, self.evaluations)
        rate = None if rates is None else fmean(rates)
        if rate is not None and rate >= self.good_success:
            return None
        is_still = not state.trend.is_up and (rates is None or not climb(rates).is_up)
        is_far = rate is not None and rate <= self.low_success
        if not is_still or not (state.is_flat or state.has_lost or is_far):
            return None
        found = (Evidence("objective_gain_since_start", state.gained), Evidence("objective_below_best_by", state.lost))
        return found if rate is None else (*found, Evidence("success_rate", rate))
