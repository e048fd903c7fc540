"""value_fit_poor: the value function explains little of the returns, long after it should."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.climb import climb
from trimtab.telemetry.roles import EXPLAINED_VARIANCE, VALUE_LOSS


@dataclass(frozen=True, slots=True)
class ValueFitPoor:
    """Finds an explained variance that stays low.

    Once every return is the same there is no variance to explain, and the figure means nothing. Where the value loss
    is reported, a low one therefore clears the run.

    Args:
        low: Explained variance below which the fit is poor; 0 is no better than a constant.
        warm_up: Updates before anything is found.
        newest: Newest updates over which the median must be low and the course must not rise.
        least_rise: Least rise beyond the noise over them that counts as one.
        low_loss: A value loss below this fraction of its high level (the 90th percentile) is a low one.

    References:
        Huang et al. (2022), "The 37 Implementation Details of Proximal Policy Optimization": explained variance as a
        debug variable; Ilyas et al. (2020), "A Closer Look at Deep Policy Gradients": how well values fit.
    """

    low: float = 0.2
    warm_up: int = 50
    newest: int = 20
    least_rise: float = 0.05
    low_loss: float = 0.1

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if the value function does not fit."""
        window = view.window(EXPLAINED_VARIANCE)
        if window is None or window.count < self.warm_up:
            return None
        known = [value for _, value in window.points]
        values = known[-self.newest :]
        level = median(values)
        trend = climb(values, known)
        if level >= self.low or (trend.is_up and trend.height > self.least_rise):
            return None
        evidence = [Evidence("explained_variance", level), Evidence("updates", float(len(values)))]
        losses = view.window(VALUE_LOSS)
        if losses is not None and len(losses.points) >= self.newest:
            course = [value for _, value in losses.points]
            loss, high = median(course[-self.newest :]), sorted(course)[int(0.9 * (len(course) - 1))]
            if loss < self.low_loss * high:
                return None
            evidence += [Evidence("value_loss", loss), Evidence("high_value_loss", high)]
        return Symptom("value_fit_poor", "warning", view.step, view.name(EXPLAINED_VARIANCE), tuple(evidence))
