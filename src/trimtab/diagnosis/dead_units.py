"""dead_units: many units give no output, and so get no gradient, whatever the input."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.progress import newest_values
from trimtab.telemetry.roles import DEAD_UNITS


@dataclass(frozen=True, slots=True)
class DeadUnits:
    """Finds a large or suddenly grown fraction of dead units.

    The signal is a fraction in [0, 1]; a run that reports a count or percent is not judged. Few dead units are
    common and harmless, so only what lasts counts.

    Args:
        threshold: Fraction that counts as large.
        jump: Growth over the median of earlier values that counts as sudden.
        patience: Newest values that must all show it.

    References:
        Lu et al. (2020), "Dying ReLU and Initialization: Theory and Numerical Examples".
        Sokar et al. (2023), "The Dormant Neuron Phenomenon in Deep Reinforcement Learning".
    """

    threshold: float = 0.5
    jump: float = 0.25
    patience: int = 3

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if too many units are dead."""
        window = view.window(DEAD_UNITS)
        if window is None or len(window.points) < self.patience:
            return None
        values = newest_values(window, len(window.points))
        newest, earlier = values[-self.patience :], values[: -self.patience]
        if min(values) < 0 or max(values) > 1:
            return None
        before = median(earlier) if len(earlier) >= self.patience else 1.0
        if min(newest) < self.threshold and min(newest) - before < self.jump:
            return None
        evidence = (Evidence("dead_fraction", values[-1]), Evidence("lowest_of_newest", min(newest)))
        if len(earlier) >= self.patience:
            evidence += (Evidence("median_before", before),)
        return Symptom("dead_units", "warning", view.step, view.name(DEAD_UNITS), evidence)
