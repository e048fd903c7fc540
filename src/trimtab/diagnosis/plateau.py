"""plateau: the objective has stopped improving, without getting worse."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.overfitting import RECENT, newest_gain


@dataclass(frozen=True, slots=True)
class Plateau:
    """Finds an objective whose newest evaluations bring no gain beyond the noise.

    Args:
        patience_evaluations: Newest evaluations compared with those before them.
        relative: Least gain that counts, as a fraction of the objective's magnitude.

    References:
        ReduceLROnPlateau in PyTorch: patience and relative threshold.
    """

    patience_evaluations: int = 8
    relative: float = 0.002

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if the objective is on a plateau."""
        window = view.objective_window()
        if window is None or len(window.points) < self.patience_evaluations + 2:
            return None
        values = [value for _, value in window.points][-RECENT:]
        gain, margin = newest_gain(view.objective, values, self.patience_evaluations, self.relative)
        if abs(gain) > margin:
            return None
        return Symptom(
            "plateau",
            "warning",
            view.step,
            view.objective.signal,
            (
                Evidence("objective", values[-1]),
                Evidence("gain", gain),
                Evidence("margin", margin),
                Evidence("evaluations", float(self.patience_evaluations)),
            ),
        )
