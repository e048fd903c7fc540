"""metric_stale: a signal has stopped coming, or comes with the same value again and again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, pairwise

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.progress import is_held_out_loss, newest_points, newest_values
from trimtab.telemetry.signal import GRAD_NORM, LOSS
from trimtab.telemetry.snapshot import noise_of
from trimtab.telemetry.window import Window

_GAPS = 32

# After a rollback the signals are as they were at the checkpoint, and the count of steps goes on. Steps that were undone
# are no silence: it begins anew at the rewind, and a wait across one is none.


@dataclass(frozen=True, slots=True)
class MetricStale:
    """Finds a signal that is overdue, or a loss, gradient norm or objective that is frozen.

    A notice: no control repairs a measurement, and decisions on a stale one are decisions on nothing.

    Overdue is a signal that came at least ``least_values`` times and then not for ``patience`` times its
    longest wait; steps that a rollback has undone do not count. Frozen is one that differed from value to
    value and now repeats the newest exactly.
    Other signals may be constant for good reasons (a learning rate, a success rate), and so may these at
    their best value: an accuracy of 1, a loss near 0. A loss that jumps to exactly 0 is not here but in
    non_finite, as some trainers report NaN so.

    Args:
        patience: Longest waits without a value before a signal is overdue.
        least_values: Values a signal must have had to be expected again.
        least_steps: Steps without a value before a signal can be overdue.
        repeats: Equal values in a row before a signal is frozen.
        repeats_held_out: The same for an objective that is a loss: that is not rounded as an accuracy is.
        least_noise: Noise it must have had before, as a fraction of its value; less may have converged.

    References:
        Breck et al. (2017), "The ML Test Score: A Rubric for ML Production Readiness": monitor that
        what is measured is still being measured.
    """

    patience: float = 5.0
    least_values: int = 8
    least_steps: int = 20
    repeats: int = 12
    repeats_held_out: int = 5
    least_noise: float = 1e-3

    def detect(self, view: View) -> Symptom | None:
        """Return a notice if a signal is overdue or frozen."""
        overdue = [(name, window) for name, window in _windows(view) if self._is_overdue(view, window)]
        if overdue:
            name, window = max(overdue, key=lambda entry: _silence(view, entry[1]))
            evidence = (
                Evidence("steps_without_a_value", float(_silence(view, window))),
                Evidence("longest_wait_before", float(_longest_wait(view, window))),
                Evidence("signals_overdue", float(len(overdue))),
            )
            return Symptom("metric_stale", "notice", view.step, name, evidence)
        return self._frozen(view)

    def _is_overdue(self, view: View, window: Window) -> bool:
        age = _silence(view, window)
        # A value that came but was not finite is no missing one.
        if window.last_non_finite_step is not None and view.step - window.last_non_finite_step < age:
            return False
        if window.count < self.least_values or age < self.least_steps or age <= self.patience * window.spacing:
            return False
        return age > self.patience * _longest_wait(view, window)

    def _frozen(self, view: View) -> Symptom | None:
        for name in (view.name(LOSS), view.name(GRAD_NORM), view.objective.signal):
            window = view.telemetry.window(name)
            is_held_out = name == view.objective.signal and is_held_out_loss(view.objective)
            least = self.repeats_held_out if is_held_out else self.repeats
            if window is None or len(window.points) < 2 * least:
                continue
            values = newest_values(window, len(window.points))
            last = values[-1]
            repeats = next((at for at, value in enumerate(reversed(values)) if value != last), len(values))
            noise = noise_of(values[:-repeats][-least:])
            if repeats >= least and noise > self.least_noise * abs(last) and not _is_at_best(view, name, window):
                evidence = (Evidence("value", last), Evidence("repeats", float(repeats)), Evidence("noise_before", noise))
                return Symptom("metric_stale", "notice", view.step, name, evidence)
        return None


def _is_at_best(view: View, name: str, window: Window) -> bool:
    last = window.points[-1][1]
    if name == view.objective.signal and not is_held_out_loss(view.objective):
        return not any(view.objective.better(value, last) for _, value in window.points)
    return abs(last) <= 1e-3 * max(abs(window.initial), abs(window.points[0][1]))


def _windows(view: View) -> list[tuple[str, Window]]:
    found = ((name, view.telemetry.window(name)) for name in view.telemetry.names())
    return [(name, window) for name, window in found if window is not None and window.points]


def _silence(view: View, window: Window) -> int:
    rewinds = view.telemetry.rewinds
    age = window.age(view.step)
    return min(age, view.step - rewinds[-1]) if rewinds else age


def _longest_wait(view: View, window: Window) -> int:
    return max(_waits(view, [step for step, _ in newest_points(window, _GAPS)]), default=0)


def _waits(view: View, steps: Iterable[int]) -> list[int]:
    """Return the distances between steps in order, but for those across a rewind."""
    rewinds = view.telemetry.rewinds
    return [later - earlier for earlier, later in pairwise(steps) if not any(earlier < rewind <= later for rewind in rewinds)]


@dataclass(frozen=True, slots=True)
class ObjectiveOverdue:
    """Finds an objective that is no longer reported; after every step, as evaluations no longer come to tell.

    O(1): it looks at the newest three evaluations, and how often the run meant to evaluate.

    Args:
        patience: Usual waits without an evaluation.

    References:
        As for `MetricStale`.
    """

    patience: float = 3.0

    def detect(self, view: View) -> Symptom | None:
        """Return a notice if the objective is overdue."""
        window = view.objective_window()
        if view.is_in_trial or window is None or window.count < 3:
            return None
        newest = [step for step, _ in islice(reversed(window.points), 3)]
        wait = max((view.evaluate_every_steps, *_waits(view, reversed(newest))))
        age = _silence(view, window)
        reported = window.last_non_finite_step
        if age <= self.patience * wait or (reported is not None and view.step - reported < age):
            return None
        evidence = (Evidence("steps_without_a_value", float(age)), Evidence("longest_wait_before", float(wait)))
        return Symptom("metric_stale", "notice", view.step, view.objective.signal, evidence)
