"""non_finite: the loss, the gradient norm or the objective is NaN or infinite, or hidden behind a loss of 0."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.progress import newest_values
from trimtab.telemetry.signal import GRAD_NORM, LOSS


@dataclass(frozen=True, slots=True)
class NonFinite:
    """Finds a non-finite value that was measured after the present step.

    Some trainers report 0 for a loss that is NaN (trl issue 6702: loss 0.0 in the log from the first NaN on).
    So a loss that was well above 0 at every step and is then exactly 0 several times in a row counts
    too, unless a gradient that is finite and not 0 shows it to be real. A loss that came near 0 before,
    or is 0 now and then, as a hinge loss may be, is left alone.

    Args:
        zeros: Losses of exactly 0 in a row that count as hidden.
        before: Losses before them that must be well above 0.
        apart: How well: the least of them, as a fraction of their mean.

    References:
        Chowdhery et al. (2022), PaLM, section 5.1: restart from before the fault and skip batches.
    """

    zeros: int = 3
    before: int = 20
    apart: float = 0.2

    def detect(self, view: View) -> Symptom | None:
        """Return a critical symptom if one of the three signals is non-finite at this step."""
        for name in (view.name(LOSS), view.name(GRAD_NORM), view.objective.signal):
            window = view.telemetry.window(name)
            if window is not None and window.last_non_finite_step == view.step:
                evidence = (Evidence("non_finite_values_so_far", float(window.num_non_finite)),)
                return Symptom("non_finite", "critical", view.step, name, evidence)
        return self._hidden(view)

    def _hidden(self, view: View) -> Symptom | None:
        window, gradient = view.window(LOSS), view.window(GRAD_NORM)
        if window is None or len(window.points) < self.zeros + self.before or window.points[-1] != (view.step, 0.0):
            return None
        values = newest_values(window, self.zeros + self.before)
        before, zeros = values[: self.before], values[self.before :]
        if any(zeros) or min(before) <= self.apart * fmean(before):
            return None
        if gradient is not None and gradient.points and gradient.points[-1][0] == view.step and gradient.points[-1][1] != 0:
            return None
        evidence = (
            Evidence("loss", 0.0),
            Evidence("zeros_in_a_row", float(self.zeros)),
            Evidence("loss_before", fmean(before)),
        )
        return Symptom("non_finite", "critical", view.step, view.name(LOSS), evidence)
