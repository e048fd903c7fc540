"""over_regularization: dropout, label smoothing or weight decay keep the model from what it could learn."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from trimtab.controls.entries import DROPOUT, LABEL_SMOOTHING, WEIGHT_DECAY
from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.overfitting import RECENT
from trimtab.diagnosis.progress import is_held_out_loss, newest_values
from trimtab.telemetry.signal import LOSS, LOSS_AT_EVALUATION
from trimtab.telemetry.snapshot import noise_of
from trimtab.telemetry.window import Window


@dataclass(frozen=True, slots=True)
class OverRegularization:
    """Finds a strong regularizer in the recipe together with its mark on the losses.

    Dropout and label smoothing act on the training loss alone, so their mark is a training loss above the
    held-out one while that improves slowly. The mark of all, and the only one of weight decay, is that both
    losses have stopped falling and the held-out one is not above the other. Silent where the objective is no
    loss like the training loss (see `is_held_out_loss`), and where no such control is in the recipe.

    Args:
        patience_evaluations: Newest evaluations that must all show it.
        gap: Least gap for dropout and label smoothing, as a fraction of the held-out loss.
        most_gain: Most that the held-out loss may gain over those evaluations, as a fraction of itself,
            under dropout and label smoothing.
        still: Most that both losses may gain over those evaluations to have stopped falling, likewise.
        dropout: Probability from which dropout counts as strong, inclusive.
        label_smoothing: From which it counts as strong, inclusive.
        weight_decay: From which it counts as strong, inclusive.

    References:
        Srivastava et al. (2014), "Dropout", section 7.3: units kept with too low a probability underfit.
        Zhang et al. (2021), "Understanding Deep Learning (Still) Requires Rethinking Generalization":
        strong regularization shows in the training loss.
    """

    patience_evaluations: int = 4
    gap: float = 0.05
    most_gain: float = 0.15
    still: float = 0.02
    dropout: float = 0.5
    label_smoothing: float = 0.3
    weight_decay: float = 0.5

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if the model is held back by its regularizers."""
        strong = self._strong(view)
        objective, training = view.objective_window(), view.telemetry.window(LOSS_AT_EVALUATION)
        if not strong or objective is None or training is None or not is_held_out_loss(view.objective):
            return None
        newest = self.patience_evaluations + 1
        if min(len(objective.points), len(training.points)) < newest + 1 or self._is_changed(view, objective):
            return None
        held_out, fitted = newest_values(objective, newest), newest_values(training, newest)
        acts_on_training = any(not name.startswith(WEIGHT_DECAY) for name, _ in strong)
        noise = noise_of(newest_values(objective, RECENT))
        if not (acts_on_training and self._has_gap(held_out, fitted, noise)) and not self._is_held(held_out, fitted):
            return None
        evidence = (
            Evidence("training_loss", fitted[-1]),
            Evidence("objective", held_out[-1]),
            Evidence("training_loss_above_objective_by", fitted[-1] - held_out[-1]),
            Evidence("objective_gained", held_out[0] - held_out[-1]),
        )
        return Symptom(
            "over_regularization",
            "warning",
            view.step,
            view.objective.signal,
            evidence + tuple(Evidence(name, value) for name, value in strong),
        )

    def _strong(self, view: View) -> list[tuple[str, float]]:
        """Return the regularizers of the recipe that are strong, with their values."""
        limits = {DROPOUT: self.dropout, LABEL_SMOOTHING: self.label_smoothing, WEIGHT_DECAY: self.weight_decay}
        bases = [(name, value, name.partition("/")[0]) for name, value in view.recipe.values]
        return [(name, value) for name, value, base in bases if base in limits and value >= limits[base]]

    def _is_changed(self, view: View, objective: Window) -> bool:
        """Return whether the recipe was changed since the oldest of the evaluations, which then tell nothing of it."""
        loss = view.window(LOSS)
        since = objective.points[-1 - self.patience_evaluations][0]
        return loss is None or loss.settled < sum(step > since for step, _ in loss.points)

    def _has_gap(self, held_out: list[float], fitted: list[float], noise: float) -> bool:
        # The training loss is an average over past steps: while it falls, it lags by up to what it fell since.
        falls = [max(0.0, before - after) for before, after in pairwise(fitted)]
        gaps = [
            mean - fall - value > max(self.gap * abs(value), 2 * noise)
            for mean, fall, value in zip(fitted[1:], falls, held_out[1:], strict=True)
        ]
        return all(gaps) and held_out[0] - held_out[-1] <= self.most_gain * abs(held_out[0])

    def _is_held(self, held_out: list[float], fitted: list[float]) -> bool:
        # While the training loss is above the other, its fall is the model coping with the noise put into it.
        compared = (
            (held_out,) if all(mean > value for mean, value in zip(fitted, held_out, strict=True)) else (held_out, fitted)
        )
        has_stopped = all(values[0] - values[-1] <= self.still * abs(values[0]) for values in compared)
        return has_stopped and all(value - mean <= self.gap * abs(value) for mean, value in zip(fitted, held_out, strict=True))
