"""overfitting: the training loss still falls, but the objective gets worse or stands still."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from trimtab.controls.envelope import Objective
from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.progress import is_held_out_loss, is_reinforcement
from trimtab.telemetry.signal import LOSS_AT_EVALUATION
from trimtab.telemetry.snapshot import noise_of

RECENT = 16


@dataclass(frozen=True, slots=True)
class Overfitting:
    """Finds an objective that has parted from a falling training loss.

    Either its level is worse than its best level by more than the noise while the training loss fell
    beyond its own, or it is a held-out loss that, as surely as the noise allows, gains but a small part of what
    the training loss does. Levels are means of neighbouring evaluations, so that one lucky evaluation is not taken
    for the level that was lost. Silent in reinforcement learning, known by what it reports: nothing is held out there.

    Args:
        patience_worse: Evaluations since the best level before it counts as worse.
        patience_still: Newest evaluations that are compared with as many before them.
        most_gained: Most that a held-out loss may gain beside the training loss's fall to stand still.
        relative: Least margin for the objective, as a fraction of its magnitude.
        relative_fall: Least fall of the training loss, as a fraction of its magnitude.

    References:
        Prechelt (1998), "Early Stopping - But When?": generalization loss and progress quotient.
    """

    patience_worse: int = 2
    patience_still: int = 4
    most_gained: float = 0.25
    relative: float = 0.002
    relative_fall: float = 0.02

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if the run overfits."""
        window = view.objective_window()
        if window is None or is_reinforcement(view):
            return None
        values = [value for _, value in window.points][-RECENT:]
        finding = self._worse(view.objective, values) or self._still(view, values)
        if finding is None:
            return None
        length, evidence = finding
        fall = training_fall(view, length)
        if fall is None or fall[0] <= max(self.relative_fall * abs(fall[1]), fall[2]):
            return None
        found = (Evidence("objective", values[-1]), *evidence, Evidence("training_loss", fall[1]))
        evidence_of_fall = (Evidence("training_loss_fell_by", fall[0]),)
        return Symptom("overfitting", "warning", view.step, view.objective.signal, found + evidence_of_fall)

    def _worse(self, objective: Objective, values: list[float]) -> tuple[int, tuple[Evidence, ...]] | None:
        """Return the evaluations since the best and the evidence, if they are worse than it."""
        if len(values) <= self.patience_worse:
            return None
        levels = smooth(values)
        gains = [objective.gain(levels[0], level) for level in levels]
        best = max(range(len(levels)), key=gains.__getitem__)
        since = levels[best + 1 :]
        if len(since) < self.patience_worse:
            return None
        worse_by = objective.gain(levels[-1], levels[best])
        # Both are means of two, and the best was chosen among many: their difference is noisy, and not around 0.
        margin = max(self.relative * abs(levels[best]), 2 * noise_of(values))
        if worse_by <= margin:
            return None
        evidence = (Evidence("best_level", levels[best]), Evidence("worse_by", worse_by), Evidence("margin", margin))
        return len(since), (*evidence, Evidence("evaluations_since_best", float(len(since))))

    def _still(self, view: View, values: list[float]) -> tuple[int, tuple[Evidence, ...]] | None:
        """Return the newest evaluations and the evidence, if the objective surely gains little beside the training loss."""
        newest, training = self.patience_still, view.telemetry.window(LOSS_AT_EVALUATION)
        if training is None or min(len(values), len(training.points)) < 2 * newest or not is_held_out_loss(view.objective):
            return None
        losses = [value for _, value in training.points]
        gain, fall = _fall_of_means(values, newest), _fall_of_means(losses, newest)
        error = noise_of(values) * math.sqrt(2 / newest)
        # Where the training loss is the higher one it only catches up, being an average over past steps.
        if gain + error > self.most_gained * fall or losses[-1] >= values[-1]:
            return None
        return newest, (Evidence("gain", gain), Evidence("error_of_gain", error), Evidence("training_loss_gained", fall))


def _fall_of_means(values: list[float], newest: int) -> float:
    """Return by how much the mean of the ``newest`` values is below that of as many before them."""
    return fmean(values[-2 * newest : -newest]) - fmean(values[-newest:])


def smooth(values: list[float]) -> list[float]:
    """Return the mean of each value and the one before it; one fewer than ``values``."""
    return [fmean(pair) for pair in pairwise(values)]


def newest_gain(objective: Objective, values: list[float], newest: int, relative: float) -> tuple[float, float]:
    """Return the best gain of the ``newest`` levels over all before, and the margin it must pass."""
    levels = smooth(values)
    gains = [objective.gain(levels[0], level) for level in levels]
    gain = max(gains[-newest:]) - max(gains[:-newest])
    return gain, max(relative * abs(values[-1]), noise_of(values))


def training_fall(view: View, evaluations: int) -> tuple[float, float, float] | None:
    """Return how far the training loss fell over the newest evaluations, its value, and its noise.

    None if it was not reported often enough to tell.
    """
    window = view.telemetry.window(LOSS_AT_EVALUATION)
    if window is None or len(window.points) <= evaluations:
        return None
    losses = [value for _, value in window.points][-RECENT:]
    return losses[-1 - evaluations] - losses[-1], losses[-1], noise_of(losses)
