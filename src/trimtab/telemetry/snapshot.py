"""The compact frozen view of the telemetry that is given to a manager.

Each summary carries trend, noise and sample count, so that nobody infers a trend from one point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Final

from trimtab.telemetry.signal import Kind
from trimtab.telemetry.window import Window

MAX_NEWEST: Final = 6


@dataclass(frozen=True, slots=True)
class Summary:
    """One signal, summarized over its recent window.

    Args:
        name: Registered name.
        kind: Whether it is measured every step or at evaluations.
        num_samples: Finite values in the window.
        num_non_finite: Non-finite values since the run began.
        last: Newest finite value.
        last_step: Step of ``last``.
        mean: Mean over the window.
        noise: Standard deviation of the values around their trend (see `noise_of`).
        slope_per_step: Slope of that line, in the signal's unit per step.
        slope_error: Standard error of the slope.
        lowest: Lowest value in the window.
        highest: Highest value in the window.
        spacing_steps: Median distance between the newest values, in steps; 0 with fewer than two.
        age_steps: Steps since ``last``.
        newest: The newest values of a signal that is measured at evaluations, oldest first, at most `MAX_NEWEST`: a
            straight line does not say that a curve has turned.
    """

    name: str
    kind: Kind
    num_samples: int
    num_non_finite: int
    last: float
    last_step: int
    mean: float
    noise: float
    slope_per_step: float
    slope_error: float
    lowest: float
    highest: float
    spacing_steps: float = 0.0
    age_steps: int = 0
    newest: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All signals after ``step``, sorted by name; a signal without a finite value is left out."""

    step: int
    summaries: tuple[Summary, ...]

    def get(self, name: str) -> Summary | None:
        """Return the summary of that signal, or None if it is absent."""
        return next((summary for summary in self.summaries if summary.name == name), None)


def summarize(name: str, kind: Kind, window: Window, step: int) -> Summary | None:
    """Summarize a window after ``step``; None if it holds no finite value."""
    if not window.points:
        return None
    steps = [float(step) for step, _ in window.points]
    values = [value for _, value in window.points]
    slope, slope_error = trend(steps, values)
    return Summary(
        name=name,
        kind=kind,
        num_samples=len(values),
        num_non_finite=window.num_non_finite,
        last=values[-1],
        last_step=window.points[-1][0],
        mean=math.fsum(values) / len(values),
        noise=noise_of(values),
        slope_per_step=slope,
        slope_error=slope_error,
        lowest=min(values),
        highest=max(values),
        spacing_steps=window.spacing,
        age_steps=window.age(step),
        newest=tuple(values[-MAX_NEWEST:]) if kind == "evaluation" else (),
    )


def trend(steps: list[float], values: list[float]) -> tuple[float, float]:
    """Fit a line by least squares; return its slope per step and the standard error of the slope.

    With fewer than three points both are 0: look at the sample count.
    """
    n = len(values)
    mean_step, mean_value = math.fsum(steps) / n, math.fsum(values) / n
    spread = math.fsum((s - mean_step) ** 2 for s in steps)
    if n < 3 or spread == 0:
        return 0.0, 0.0
    slope = math.fsum((s - mean_step) * (v - mean_value) for s, v in zip(steps, values, strict=True)) / spread
    residual = math.fsum((v - mean_value - slope * (s - mean_step)) ** 2 for s, v in zip(steps, values, strict=True))
    return slope, math.sqrt(residual / (n - 2) / spread)


def noise_of(values: list[float]) -> float:
    """Estimate the noise around a smooth trend from second differences.

    Robust (a median) and blind to slope; 0 with fewer than four values.

    References:
        Gasser, Sroka, Jennen-Steinmetz (1986), "Residual variance and residual pattern in nonlinear
        regression", Biometrika 73.
    """
    if len(values) < 4:
        return 0.0
    second = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    # For normal noise the second difference has 6 times its variance, and |.| its median at 0.6745 sd.
    return median(second) / (0.6745 * math.sqrt(6.0))
