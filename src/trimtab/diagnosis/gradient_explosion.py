"""gradient_explosion: gradients again and again far above their level, finite or clipped though they may be."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Final

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.progress import newest_values
from trimtab.telemetry.signal import GRAD_NORM

_SHOCK: Final = 100.0


@dataclass(frozen=True, slots=True)
class GradientExplosion:
    """Finds several gradient norms in a short time that are orders above the level before.

    Report the norm as it was before clipping: clipping hides an explosion from the loss, not from here. The
    level is a median over up to 256 values, which neither a burst nor a slow growth carries along, and
    norms below those the run began with are no explosion however small the last ones were: a run that
    has nearly converged makes large leaps above a tiny level.

    O(1) after nearly every step: the median is taken only if the newest norm is far above the calmest level.

    Args:
        factor: How far above the level a norm must be.
        above_initial: How far above the level the run began with it must be as well.
        among: Newest norms that are looked at.
        patience: How many of them must be that large; one alone is left to clipping.
        only_onset: Whether to tell only when that many are reached, not at each step that they last: for
            use after every step.

    References:
        Pascanu, Mikolov, Bengio (2013), "On the Difficulty of Training Recurrent Neural Networks".
    """

    factor: float = 10.0
    above_initial: float = 2.0
    among: int = 16
    patience: int = 3
    only_onset: bool = True

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if the gradients explode."""
        window = view.window(GRAD_NORM)
        if window is None or window.count < 3 * self.among:
            return None
        newest = window.points[-1][1]
        floor = self.above_initial * window.initial
        if newest <= floor or newest <= self.factor * min(window.lowest_fast, window.slow) or window.points[-1][0] != view.step:
            return None
        values = newest_values(window, len(window.points))
        level = median(values[: -self.among])
        threshold = max(floor, self.factor * level)
        large = sum(value > threshold for value in values[-self.among :])
        if newest <= threshold or large < self.patience or (self.only_onset and large > self.patience):
            return None
        return Symptom(
            "gradient_explosion",
            "warning",
            view.step,
            view.name(GRAD_NORM),
            (
                Evidence("gradient_norm", newest),
                Evidence("level_before", level),
                Evidence("initial_level", window.initial),
                Evidence("large_norms", float(large)),
                Evidence("among_steps", float(self.among)),
            ),
        )


def is_shock(view: View) -> bool:
    """Return whether the newest gradient norm is so far above its level that it may have ruined the optimizer's state.

    Whether it has, is for the state to say: clipping, or the optimizer itself, absorbs most. O(1).
    """
    window = view.window(GRAD_NORM)
    if window is None or window.settled < 20 or window.points[-1][0] != view.step:
        return False
    return window.points[-1][1] > _SHOCK * window.slow > 0
