"""oscillation: the loss swings to and fro instead of falling, as it does when the steps are too large."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, median

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.progress import is_held_out_loss, newest_points, newest_values
from trimtab.telemetry.roles import ENTROPY, KL, VALUE_LOSS
from trimtab.telemetry.signal import LOSS
from trimtab.telemetry.snapshot import noise_of, trend


@dataclass(frozen=True, slots=True)
class Oscillation:
    """Finds swings of the training loss with a period, or swings of the held-out loss.

    Two marks, either suffices. The training loss goes to and fro with a period of a few steps: its
    autocorrelation is strongly negative after half a period and positive after a whole one, which noise
    between batches never is. Or the held-out loss, whose data do not change, turns again and again with
    swings that are large beside its level, while the training loss is restless too. In both cases the
    loss must not fall by more than it swings: many healthy runs swing while they learn.

    Two batches in turn without shuffling look like a period of two steps if their losses differ as much. Where a
    run reports the signals of a policy, its losses follow the rollouts they are taken over, and a period
    says nothing.
    Swings of an objective that is no loss, such as a return, are its sampling noise as often as not: they
    are left to noisy_metrics.

    Args:
        window_losses: Newest training losses searched for a period.
        most_half_period: Longest half period, in losses.
        least_against: Least magnitude of the negative autocorrelation after half a period.
        least_again: Least autocorrelation after a whole one.
        relative: Least standard deviation of the training loss around its trend, as a fraction of its level.
        window_evaluations: Newest evaluations searched for swings.
        relative_held_out: Least swing between evaluations, as a fraction of their level.
        of_initial: Least swing between evaluations, as a fraction of the training loss at the start: near the
            end of learning swings that are large beside a tiny level do no harm.

    References:
        Cohen et al. (2021), "Gradient Descent on Neural Networks Typically Occurs at the Edge of
        Stability"; LeCun et al. (1998), "Efficient BackProp", section 5: rates beyond twice the optimal
        one overshoot to and fro.
    """

    window_losses: int = 128
    most_half_period: int = 4
    least_against: float = 0.5
    least_again: float = 0.4
    relative: float = 0.1
    window_evaluations: int = 8
    relative_held_out: float = 0.15
    of_initial: float = 0.04

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if the loss oscillates."""
        return self._periodic(view) or self._held_out(view)

    def _periodic(self, view: View) -> Symptom | None:
        window = view.window(LOSS)
        is_policy = any(view.window(role) is not None for role in (ENTROPY, KL, VALUE_LOSS))
        if window is None or is_policy or len(window.points) < self.window_losses:
            return None
        steps, values = zip(*newest_points(window, self.window_losses), strict=True)
        slope, _ = trend([float(step) for step in steps], list(values))
        middle, level = fmean(steps), fmean(values)
        rest = [value - level - slope * (step - middle) for step, value in zip(steps, values, strict=True)]
        swing = math.sqrt(fmean(value * value for value in rest))
        fall = -slope * (steps[-1] - steps[0])
        if swing == 0 or swing < self.relative * abs(level) or fall > 2 * swing:
            return None
        scaled = [value / swing for value in rest]
        found = self._half_period(scaled)
        if found is None:
            return None
        half, against, again = found
        evidence = (Evidence("loss_level", level), Evidence("swing", swing), Evidence("period_losses", float(2 * half)))
        evidence += (Evidence("correlation_after_half", against), Evidence("correlation_after_period", again))
        return Symptom("oscillation", "warning", view.step, view.name(LOSS), evidence)

    def _half_period(self, values: list[float]) -> tuple[int, float, float] | None:
        """Return the shortest half period with the autocorrelations after it and after a whole one."""
        for half in range(1, self.most_half_period + 1):
            against = _again(values, half)
            if against <= -self.least_against and (again := _again(values, 2 * half)) >= self.least_again:
                return half, against, again
        return None

    def _held_out(self, view: View) -> Symptom | None:
        window, training = view.objective_window(), view.window(LOSS)
        if window is None or training is None or not is_held_out_loss(view.objective):
            return None
        values = newest_values(window, self.window_evaluations)
        if len(values) < self.window_evaluations:
            return None
        level, swing = abs(median(values)), noise_of(values)
        turns = sum((b - a) * (c - b) < 0 for a, b, c in zip(values, values[1:], values[2:], strict=False))
        half = len(values) // 2
        fall = median(values[:half]) - median(values[half:])
        # Swings of the weights are seen in both losses; those of the held-out one alone are its sampling noise.
        is_restless = training.deviation * level > max(self.relative * level, swing / 2) * abs(training.slow)
        least = max(self.relative_held_out * level, self.of_initial * abs(training.initial))
        if swing <= least or 2 * turns < len(values) - 2 or fall > swing or not is_restless:
            return None
        evidence = (Evidence("objective_level", level), Evidence("swing", swing), Evidence("turns", float(turns)))
        evidence += (Evidence("evaluations", float(len(values))), Evidence("training_loss_deviation", training.deviation))
        return Symptom("oscillation", "warning", view.step, view.objective.signal, evidence)


def _again(values: list[float], lag: int) -> float:
    """Return the autocorrelation of values with mean square 1 after ``lag``."""
    return math.fsum(a * b for a, b in zip(values, values[lag:], strict=False)) / (len(values) - lag)
