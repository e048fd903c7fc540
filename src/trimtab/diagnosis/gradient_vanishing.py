"""gradient_vanishing: the gradients are too small to learn from, though there is much left to learn."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.progress import Progress, newest_values, progress
from trimtab.telemetry.roles import GRAD_NORM_OF_GROUP
from trimtab.telemetry.signal import GRAD_NORM

_NEWEST = 16


@dataclass(frozen=True, slots=True)
class GradientVanishing:
    """Finds gradients orders below their early level, or those of one group orders below another's.

    Small gradients at the end of learning are as they should be. So they count only while the training
    loss does not fall and is near where it began, or back there after it had learned. A group that has
    lost orders against the others since the start counts whatever the loss does, as the end of learning
    shrinks all. A group whose gradient was exactly 0 from the start is taken to be frozen on purpose, and
    so is one whose gradient became 0 in a run that learns.

    Args:
        fallen_to: Fraction of its early level to which the norm must have fallen.
        of_largest: Fraction of the largest group's norm below which another's counts.
        of_early_ratio: Fraction of its early ratio to the largest group below which a group has lost against it.
        least_losses: Training losses before the run is judged.

    References:
        Glorot and Bengio (2010), "Understanding the Difficulty of Training Deep Feedforward Neural
        Networks": gradients that shrink from layer to layer while the loss stays on its first plateau.
    """

    fallen_to: float = 1e-3
    of_largest: float = 1e-4
    of_early_ratio: float = 1e-2
    least_losses: int = 60

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if the gradients vanish while the run does not learn."""
        course = progress(view, self.least_losses)
        if course is None:
            return None
        finding = self._beside_others(view, only_lost=course.is_falling or not course.is_near_start)
        if finding is None and not course.is_falling and course.is_near_start:
            finding = self._fallen(view)
        if finding is None:
            return None
        signal, evidence = finding
        return Symptom("gradient_vanishing", "warning", view.step, signal, evidence + _evidence_of(course))

    def _fallen(self, view: View) -> tuple[str, tuple[Evidence, ...]] | None:
        window = view.window(GRAD_NORM)
        if window is None or window.count < 20 + _NEWEST:
            return None
        level = median(newest_values(window, _NEWEST))
        if level >= self.fallen_to * window.initial:
            return None
        return view.name(GRAD_NORM), (Evidence("gradient_norm", level), Evidence("initial_gradient_norm", window.initial))

    def _beside_others(self, view: View, *, only_lost: bool) -> tuple[str, tuple[Evidence, ...]] | None:
        levels, early = dict[str, float](), dict[str, float]()
        for name in view.telemetry.names("step"):
            window = view.telemetry.window(name) if name.startswith(GRAD_NORM_OF_GROUP) else None
            if window is not None and window.count >= 20 + _NEWEST:
                level = median(newest_values(window, _NEWEST))
                if level > 0 or window.initial > 0:
                    levels[name], early[name] = level, window.initial
        if len(levels) < 2:
            return None
        smallest, largest = min(levels, key=levels.__getitem__), max(levels.values())
        if levels[smallest] >= self.of_largest * largest:
            return None
        has_lost = levels[smallest] * max(early.values()) < self.of_early_ratio * early[smallest] * largest
        if only_lost and (levels[smallest] == 0 or not has_lost):
            return None
        return smallest, (Evidence("gradient_norm", levels[smallest]), Evidence("largest_of_groups", largest))


def _evidence_of(course: Progress) -> tuple[Evidence, ...]:
    return Evidence("training_loss", course.level), Evidence("initial_loss", course.initial)
