"""What loss of the objective is borne: it may be noise, or is too little to matter."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final

from trimtab.controls.safeguards import Guard

_NOISE_KNOWN_FROM: Final = 4  # evaluations
_WIDER_WHILE_UNKNOWN: Final = 3.0
_MAD_TO_DEVIATION: Final = 1.4826  # of a normal distribution
_SECOND_DIFFERENCES: Final = math.sqrt(6.0)  # their standard deviation, in units of that of independent noise


def borne(guard: Guard, known: Sequence[float], start: float) -> float:
    """Return the shortfall that is borne: the tolerance, or the noise if that is more.

    Args:
        guard: How much of either.
        known: Finite objectives evaluated so far, from which the noise is estimated; unknown with fewer than four.
        start: The objective from which on it is a loss.
    """
    tolerance = guard.tolerance * abs(start)
    if len(known) < _NOISE_KNOWN_FROM:
        return tolerance * _WIDER_WHILE_UNKNOWN
    return max(tolerance, guard.noise_factor * _noise(known))


def _noise(known: Sequence[float]) -> float:
    """Return the standard deviation of the noise on a curve.

    Second differences, since those of a steady trend are zero; medians, since one jump is no noise. Noise bends a curve both
    ways alike, while a curve that flattens, or falls off, bends one way: so the lesser side counts.
    """
    bends = [one - 2 * two + three for one, two, three in zip(known, known[1:], known[2:], strict=False)]
    sides = [[abs(bend) for bend in bends if bend * sign >= 0] for sign in (1, -1)]
    least = min(statistics.median(side) if side else 0.0 for side in sides)
    return _MAD_TO_DEVIATION * least / _SECOND_DIFFERENCES
