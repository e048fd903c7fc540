"""What loss of the objective is borne: it may be noise, or is too little to matter."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from trimtab.controls.safeguards import Guard

_NOISE_KNOWN_FROM: Final = 4  # evaluations
_ONE_SIDED_UNTIL: Final = 6  # evaluations of nothing but noise that often bend the same way by chance
_WIDER_WHILE_UNKNOWN: Final = 3.0
_SIZE_OVER: Final = 5
_CALM_OVER, _CALM_FACTOR = 3, 2.0  # the largest of the newest changes is about 1.9 deviations of nothing but noise
_MAD_TO_DEVIATION: Final = 1.4826  # of a normal distribution
_SECOND_DIFFERENCES: Final = math.sqrt(6.0)  # their standard deviation, in units of that of independent noise
# The lesser of two sides is less than either: by simulation, 0.47 of the deviation from 4 values, 0.8 from 8, 0.85 from 20.
_LEAST_FACTOR, _LEAST_LOSS = 0.9, 1.7


def borne(guard: Guard, known: Sequence[float], start: float) -> float:
    """Return the shortfall that is borne: the tolerance, or the noise if that is more.

    Args:
        guard: How much of either.
        known: Finite objectives evaluated so far, from which the noise is estimated.
        start: The objective from which on it is a loss.
    """
    changes = [abs(other - one) for one, other in pairwise(known[-_SIZE_OVER:])]
    size = max(abs(start), statistics.median(changes) if changes else 0.0)  # one that crosses zero has a size there, too
    tolerance = guard.tolerance * size
    if len(known) < _NOISE_KNOWN_FROM:
        return tolerance * _WIDER_WHILE_UNKNOWN
    is_unknown = len(known) < _ONE_SIDED_UNTIL and not all(_sides(known))
    # A run that has calmed down, or that something has shaken before, is not as noisy as it was.
    noise = min(guard.noise_factor * deviation(known), _CALM_FACTOR * max(changes[-_CALM_OVER:]))
    return max(tolerance * (_WIDER_WHILE_UNKNOWN if is_unknown else 1.0), noise)


def deviation(known: Sequence[float]) -> float:
    """Return the standard deviation of the noise on a curve; 0 while there is nothing to tell it by.

    Second differences, since those of a steady trend are zero; medians, since one jump is no noise. Noise bends a curve both
    ways alike, while a curve that flattens, or falls off, bends one way: so the lesser side counts.
    """
    if len(known) < _NOISE_KNOWN_FROM:
        return 0.0
    least = min(statistics.median(side) if side else 0.0 for side in _sides(known))
    return _MAD_TO_DEVIATION * least / _SECOND_DIFFERENCES / (_LEAST_FACTOR - _LEAST_LOSS / len(known))


def _sides(known: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return how far a curve bends upwards, and how far downwards; where it does not bend counts as both."""
    bends = [one - 2 * two + three for one, two, three in zip(known, known[1:], known[2:], strict=False)]
    return [bend for bend in bends if bend >= 0], [-bend for bend in bends if bend <= 0]
