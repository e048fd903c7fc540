"""noisy_metrics: the objective jumps about by more than it moves, so that single evaluations decide nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, median

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.overfitting import RECENT
from trimtab.diagnosis.progress import newest_values
from trimtab.telemetry.snapshot import noise_of


@dataclass(frozen=True, slots=True)
class NoisyMetrics:
    """Finds an objective whose noise is larger than what it moved, recently and since the start.

    A notice: no control of the recipe makes a measurement better. It tells whoever reads the symptoms how
    much to trust the others: more data per evaluation, or ``evaluations_needed``, would.

    A run that has come far and now stands still is not noisy but on a plateau. So the noise must also be
    material: beside the level, and beside all that the window shows to have been gained.

    Args:
        patience_evaluations: Evaluations before the run is judged.
        relative: Least noise, as a fraction of the objective's magnitude.
        of_range: Least noise, as a fraction of what the objective moved over the window.
        large: Noise that is large beside the magnitude, as a fraction of it.
        of_range_if_large: As ``of_range``, for large noise.

    References:
        Henderson et al. (2018), "Deep Reinforcement Learning That Matters": conclusions from too few
        noisy evaluations do not hold.
    """

    patience_evaluations: int = 8
    relative: float = 0.05
    of_range: float = 0.5
    large: float = 0.3
    of_range_if_large: float = 0.02

    def detect(self, view: View) -> Symptom | None:
        """Return a notice if the objective is too noisy to decide on."""
        window = view.objective_window()
        if window is None or len(window.points) < self.patience_evaluations:
            return None
        recent = newest_values(window, RECENT)
        noise, half = noise_of(recent), len(recent) // 2
        older, newer = fmean(recent[:half]), fmean(recent[-half:])
        movement = abs(newer - older)
        history = newest_values(window, len(window.points))
        levels = [median(history[at : at + 4]) for at in range(0, len(history) - 3, 4)]
        moved_in_all = max([*levels, history[0]]) - min([*levels, history[0]])
        level = fmean(abs(value) for value in recent)
        of_range = self.of_range if noise <= self.large * level else self.of_range_if_large
        if noise <= max(self.relative * level, movement, of_range * moved_in_all):
            return None
        # Two means of n values each differ visibly by two standard errors: by 2 * noise * sqrt(2 / n).
        worth_seeing = max(movement, self.relative * level)
        needed = math.ceil(8 * (noise / worth_seeing) ** 2)
        evidence = (
            Evidence("noise", noise),
            Evidence("movement", movement),
            Evidence("evaluations", float(len(recent))),
            Evidence("visible_between_two_evaluations", 2 * math.sqrt(2.0) * noise),
            Evidence("evaluations_needed", float(needed)),
        )
        return Symptom("noisy_metrics", "notice", view.step, view.objective.signal, evidence)
