"""non_finite: the loss, the gradient norm or the objective is NaN or infinite."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.telemetry.signal import GRAD_NORM, LOSS


@dataclass(frozen=True, slots=True)
class NonFinite:
    """Finds a non-finite value that was measured after the present step.

    References:
        Chowdhery et al. (2022), PaLM, section 5.1: restart from before the fault and skip batches.
    """

    def detect(self, view: View) -> Symptom | None:
        """Return a critical symptom if one of the three signals is non-finite at this step."""
        for name in (LOSS, GRAD_NORM, view.objective.signal):
            window = view.telemetry.window(name)
            if window is not None and window.last_non_finite_step == view.step:
                evidence = (Evidence("non_finite_values_so_far", float(window.num_non_finite)),)
                return Symptom("non_finite", "critical", view.step, name, evidence)
        return None
