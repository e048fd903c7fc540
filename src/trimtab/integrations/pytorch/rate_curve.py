"""What a sweep of the learning rate shows: where the loss begins to fall, falls fastest, and breaks.

Rules:
- A sweep raises the rate from step to step, so each loss shows what the rates before it did.
- Losses are smoothed around each point, not behind it: a trailing average would shift every finding to a higher rate.
- A fall counts only if it is far larger than the scatter of the losses.

References:
    Smith (2017), "Cyclical Learning Rates for Training Neural Networks", section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Final, Literal

Ending = Literal["finished", "rose", "not_finite"]

_FALLS_FROM: Final = 0.1  # share of the whole fall after which the loss counts as falling
_BREAKS_AT: Final = 0.5  # share of the whole fall that is lost again where the curve counts as broken
_SCATTERS: Final = 5.0  # how many standard deviations of a smoothed loss a fall has to be: the lowest of many is looked at


@dataclass(frozen=True, slots=True)
class Sweep:
    """One sweep from low to high rates.

    Args:
        rates: Rate of each step, rising.
        losses: Loss of each step, measured before the step was taken; the last may be non-finite.
        ending: Why it ended: all rates were tried, the loss rose, or it was not finite.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    ending: Ending


@dataclass(frozen=True, slots=True)
class Reading:
    """What one sweep shows, as rates.

    Args:
        falls_from: Where the loss has begun to fall.
        steepest: Where it falls fastest.
        lowest: Where it is lowest.
        breaks_at: Where it has risen by half of what it fell, or stopped being finite; None if it did not.
    """

    falls_from: float
    steepest: float
    lowest: float
    breaks_at: float | None


def read_sweep(sweep: Sweep, half_window: int) -> Reading | None:
    """Return what a sweep shows; None if no rate lowered the loss by more than its scatter.

    Args:
        sweep: The sweep.
        half_window: Points to either side that a loss is averaged with, >= 0.
    """
    finite = [(rate, loss) for rate, loss in zip(sweep.rates, sweep.losses, strict=True) if math.isfinite(loss)]
    rates, losses = [rate for rate, _ in finite], [loss for _, loss in finite]
    width = 2 * half_window + 1
    if len(finite) < 2 * width:
        return None
    course = smoothed(losses, half_window)
    start = fmean(losses[:width])
    lowest = min(range(len(course)), key=course.__getitem__)
    fall = start - course[lowest]
    if lowest < width or fall <= _SCATTERS * _scatter(losses) / math.sqrt(width):
        return None
    # The last crossing before the lowest point: an early dip of noise is no beginning.
    falls_from = 1 + max(at for at in range(-1, lowest) if at < 0 or course[at] > start - _FALLS_FROM * fall)
    slopes = {at: course[min(at + half_window, lowest)] - course[at - half_window] for at in range(half_window, lowest + 1)}
    steepest = min((at for at in slopes if at >= falls_from), key=slopes.__getitem__)
    return Reading(rates[falls_from], rates[steepest], rates[lowest], _break(sweep, rates, course, lowest, fall))


def smoothed(losses: Sequence[float], half_window: int) -> list[float]:
    """Return each loss averaged with its neighbours on both sides, as many as there are."""
    return [fmean(losses[max(0, at - half_window) : at + half_window + 1]) for at in range(len(losses))]


def _scatter(losses: Sequence[float]) -> float:
    """Return the standard deviation of the noise, from successive differences; a few large ones do not matter."""
    return 1.4826 / math.sqrt(2) * median(abs(after - before) for before, after in pairwise(losses))


def _break(sweep: Sweep, rates: Sequence[float], course: Sequence[float], lowest: int, fall: float) -> float | None:
    limit = course[lowest] + _BREAKS_AT * fall
    risen = next((rates[at] for at in range(lowest, len(course)) if course[at] >= limit), None)
    if risen is not None:
        return risen
    return None if sweep.ending == "finished" else sweep.rates[-1]
