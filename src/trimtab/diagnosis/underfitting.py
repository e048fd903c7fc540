"""underfitting: after many steps little has been learned, and not because learning has come to its end."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.progress import is_held_out_loss, newest_values
from trimtab.telemetry.roles import EFFECTIVE_RATE
from trimtab.telemetry.signal import LOSS, LOSS_AT_EVALUATION
from trimtab.telemetry.snapshot import noise_of, trend


@dataclass(frozen=True, slots=True)
class Underfitting:
    """Finds a run in which training loss and objective are still near where they began.

    Both have gained little since the start, and at an even pace: what is gained in the second half of
    the run is neither small nor large beside the first half. A run that has learned what it can, however little of
    the loss that is, gains early and then slows down: that is a plateau. One that gains faster and faster
    is about to leave its first level. Either the objective improves
    beyond chance, but slowly; or, after twice the time, nothing at all was gained. A learning rate that is
    still being warmed up is given its time.

    A loss that began near 0, as one that takes both signs may, has no scale for "little": there the
    detector is silent rather than wrong. A run that begins with a trained model may have little to
    gain: that looks the same.

    Args:
        most_gained: Most that training loss and objective may have gained, each as a fraction of the
            magnitude it began with.
        most_gained_score: The same for an objective that is no loss, such as an accuracy.
        nothing: What counts as nothing gained, likewise.
        least_losses: Training losses before the run is judged; twice as many if nothing was gained.
        least_evaluations: Evaluations before the run is judged; twice as many if nothing was gained.

    References:
        Goodfellow, Bengio, Courville (2016), "Deep Learning", sections 5.2 and 11.4.1: a high training
        loss is underfitting, and the learning rate is the first thing to change.
    """

    most_gained: float = 0.05
    most_gained_score: float = 0.2
    nothing: float = 0.01
    least_losses: int = 200
    least_evaluations: int = 5

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if the run learns too little."""
        loss, at_evaluations = view.window(LOSS), view.telemetry.window(LOSS_AT_EVALUATION)
        objective = view.objective_window()
        if loss is None or at_evaluations is None or objective is None or loss.count < self.least_losses:
            return None
        if len(objective.points) < self.least_evaluations or _is_warming_up(view):
            return None
        levels = [loss.initial, *(value for _, value in at_evaluations.points)]
        scores = [view.objective.gain(value, 0.0) for _, value in objective.points]  # lower is better, as for a loss
        # One batch differs from the next, and so does a level that is a mean of few of them.
        most = self.most_gained if is_held_out_loss(view.objective) else self.most_gained_score
        gained, gained_objective = _gain(levels, loss.deviation, self.most_gained), _gain(scores, 0.0, most)
        if gained is None or gained_objective is None:
            return None
        steps = [float(step) for step, _ in objective.points]
        slope, slope_error = trend(steps, scores)
        is_slow = -slope > 5 * slope_error  # five, as few evaluations make a poor standard error
        has_had_time = min(len(scores) / self.least_evaluations, loss.count / self.least_losses) >= 2
        has_learned = loss.initial - loss.lowest_fast > self.most_gained * abs(loss.initial)
        is_stuck = has_had_time and not has_learned and max(abs(gained), abs(gained_objective)) <= self.nothing
        if not is_slow and not is_stuck:
            return None
        return Symptom(
            "underfitting",
            "warning",
            view.step,
            LOSS,
            (
                Evidence("initial_loss", loss.initial),
                Evidence("training_loss", levels[-1]),
                Evidence("gained_fraction", gained),
                Evidence("objective", objective.points[-1][1]),
                Evidence("objective_gained_fraction", gained_objective),
                Evidence("losses", float(loss.count)),
            ),
        )


def _gain(levels: list[float], error: float, most: float) -> float | None:
    """Return the gained fraction if it is small and gained at an even pace, else None."""
    gained = levels[0] - levels[-1]
    if len(levels) < 3 or levels[0] == 0 or abs(gained) > most * abs(levels[0]):
        return None
    middle = levels[len(levels) // 2]
    early, late = levels[0] - middle, middle - levels[-1]
    margin = max(error, 3 * noise_of(levels))
    if early > 2 * max(late, 0.0) + margin or late > 2 * max(early, 0.0) + margin:
        return None
    return gained / abs(levels[0])


def _is_warming_up(view: View) -> bool:
    window = view.window(EFFECTIVE_RATE)
    if window is None or len(window.points) < 2:
        return False
    rates = newest_values(window, 20)
    return rates[-1] > 1.001 * rates[0]
