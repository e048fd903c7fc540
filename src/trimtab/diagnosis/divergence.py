"""divergence: the training loss has left the level it had reached, and stays away."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.telemetry.signal import LOSS


@dataclass(frozen=True, slots=True)
class Divergence:
    """Finds a loss that stays above its best level by both a relative and a noise margin.

    Args:
        relative: Margin as a fraction of the best level's magnitude.
        deviations: Margin in mean absolute deviations, as they were at the best level.
        patience_steps: Losses in a row that must be above the margin.
        settling_steps: Steps after a change of the recipe for which only a loss above the level the
            run began with counts.

    References:
        Cohen et al. (2021), "Gradient Descent on Neural Networks Typically Occurs at the Edge of
        Stability": short excursions recover by themselves, so only lasting ones count.
    """

    relative: float = 0.5
    deviations: float = 8.0
    patience_steps: int = 5
    settling_steps: int = 300

    def detect(self, view: View) -> Symptom | None:
        """Return a critical symptom if the loss has diverged."""
        window = view.window(LOSS)
        if window is None or window.settled < 20:
            return None
        level = window.lowest_fast
        margin = max(self.relative * abs(level), self.deviations * window.calm_deviation)
        if window.settled < min(window.count, self.settling_steps):
            # The recipe was changed: stronger regularization may undo what was memorized, but not more than all of it.
            margin = max(margin, window.initial - level)
        if window.fast <= level + margin:
            return None
        newest = [value for _, value in islice(reversed(window.points), self.patience_steps)]
        if min(newest) <= level + margin:
            return None
        return Symptom(
            "divergence",
            "critical",
            view.step,
            view.name(LOSS),
            (
                Evidence("loss", newest[0]),
                Evidence("lowest_average_loss", level),
                Evidence("margin", margin),
                Evidence("steps_above", float(len(newest))),
            ),
        )
