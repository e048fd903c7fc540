"""divergence: the training loss has left the level it had reached, and stays away."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from trimtab.diagnosis.base import SINCE_STEP, Evidence, Symptom, View
from trimtab.diagnosis.progress import is_reinforcement
from trimtab.telemetry.signal import LOSS
from trimtab.telemetry.window import Window


@dataclass(frozen=True, slots=True)
class Divergence:
    """Finds a loss that stays above its best level by both a relative and a noise margin, or that has lost what was learned.

    While a loss falls fast its deviations are large, and where it is large to begin with half of it is more than there was to
    learn: then either margin is wider than all of the way that the loss has come. So a loss that is back at the level the run
    began with counts too, if that way was well above the noise.

    Args:
        relative: Margin as a fraction of the best level's magnitude.
        deviations: Margin in mean absolute deviations, as they were at the best level.
        patience_steps: Losses in a row that must be above the margin.
        settling_steps: Steps after a change of the recipe for which only a loss above the level the
            run began with counts.
        lost: Share of the way from the level the run began with to its best that counts as all of it.
        least_way: Least length of that way, as a fraction of where it began.
        least_deviations: Least length of that way, in mean absolute deviations, as they were at the best level.
        bootstrapped: Margin in reinforcement learning, where a loss grows with the values that are learned, in multiples of
            the larger of the level that the run began with and its best; of healthy DQNs it came to 84 times the best.

    References:
        Cohen et al. (2021), "Gradient Descent on Neural Networks Typically Occurs at the Edge of
        Stability": short excursions recover by themselves, so only lasting ones count.
    """

    relative: float = 0.5
    deviations: float = 8.0
    patience_steps: int = 5
    settling_steps: int = 300
    lost: float = 0.9
    least_way: float = 0.2
    least_deviations: float = 4.0
    bootstrapped: float = 1000.0

    def detect(self, view: View) -> Symptom | None:
        """Return a critical symptom if the loss has diverged."""
        window = view.window(LOSS)
        if window is None or window.settled < 20:
            return None
        level = window.lowest_fast
        margin = self._margin(window)
        if window.fast > level + margin and is_reinforcement(view):
            margin = max(margin, self.bootstrapped * max(abs(level), abs(window.initial)))
        if window.fast <= level + margin:
            return None
        above = [step for step, _ in takewhile(lambda point: point[1] > level + margin, reversed(window.points))]
        if len(above) < self.patience_steps:
            return None
        return Symptom(
            "divergence",
            "critical",
            view.step,
            view.name(LOSS),
            (
                Evidence("loss", window.points[-1][1]),
                Evidence("lowest_average_loss", level),
                Evidence("margin", margin),
                Evidence("steps_above", float(len(above))),
                Evidence(SINCE_STEP, float(above[-1])),
            ),
        )

    def _margin(self, window: Window) -> float:
        margin = max(self.relative * abs(window.lowest_fast), self.deviations * window.calm_deviation)
        way = window.initial - window.lowest_fast
        if window.settled < min(window.count, self.settling_steps):
            # The recipe was changed: stronger regularization may undo what was memorized, but not more than all of it.
            return max(margin, way)
        least = max(self.least_way * abs(window.initial), self.least_deviations * window.calm_deviation)
        return min(margin, self.lost * way) if way > least else margin
