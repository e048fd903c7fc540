"""cautious_exploration: the policy keeps out of harm's way, and gets nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, median

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.climb import climb, showing, values_over
from trimtab.telemetry.roles import ENTROPY, KL, SUCCESS_RATE, UNSAFE_RATE


@dataclass(frozen=True, slots=True)
class CautiousExploration:
    """Finds a run that is hardly ever unsafe and hardly ever succeeds, and does not get better at it.

    Args:
        low_unsafe: Unsafe rate up to which the run counts as cautious.
        low_success: Success rate up to which it counts as getting nowhere.
        evaluations: Newest evaluations over which all of this must hold, >= 4.
        progress: A gain of the objective over them is progress from this fraction of its whole range on.
        high_kl: Median divergence per update from which the policy does move, in nats; only where reported.

    References:
        Rao and Advani (2026), "AI Training Manager", arXiv 2606.29871: the conservative regime; Achiam et al. (2017),
        "Constrained Policy Optimization": what a large fixed penalty does.
    """

    low_unsafe: float = 0.1
    low_success: float = 0.1
    evaluations: int = 6
    progress: float = 0.1
    high_kl: float = 0.05

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if the policy is too cautious."""
        successes = values_over(view.window(SUCCESS_RATE), view, self.evaluations)
        unsafe = values_over(view.window(UNSAFE_RATE), view, self.evaluations)
        if successes is None or unsafe is None:
            return None
        success_rate, unsafe_rate = fmean(successes), fmean(unsafe)
        if success_rate > self.low_success or unsafe_rate > self.low_unsafe:
            return None
        trend = climb(successes)
        if (trend.is_up and trend.height > 0.5 * self.low_success) or self._gets_on(view):
            return None
        evidence = [Evidence("success_rate", success_rate), Evidence("unsafe_rate", unsafe_rate)]
        kl = view.window(KL)
        if kl is not None and kl.points:
            typical = median([value for _, value in kl.points][-10:])
            if typical >= self.high_kl:
                return None
            evidence.append(Evidence("kl", typical))
        entropy = view.window(ENTROPY)
        if entropy is not None and entropy.points:
            evidence.append(Evidence("entropy", entropy.points[-1][1]))
        return Symptom("cautious_exploration", "warning", view.step, view.name(SUCCESS_RATE), tuple(evidence))

    def _gets_on(self, view: View) -> bool:
        """Return whether the objective gains; a slow start is no caution."""
        state = showing(view, self.evaluations)
        return state is not None and state.trend.is_up and state.trend.height > self.progress * state.span
