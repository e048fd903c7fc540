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
        known: The objectives evaluated so far, from which the noise is estimated; unknown with fewer than four.
        start: The objective from which on it is a loss.
    """
    tolerance = guard.tolerance * abs(start)
    known = [value for value in known if math.isfinite(value)]
    if len(known) < _NOISE_KNOWN_FROM:
        return tolerance * _WIDER_WHILE_UNKNOWN
    # Second differences, since those of a steady trend are zero; the median, since one jump is no noise.
    bends = [abs(one - 2 * two + three) for one, two, three in zip(known, known[1:], known[2:], strict=False)]
    noise = _MAD_TO_DEVIATION * statistics.median(bends) / _SECOND_DIFFERENCES
    return max(tolerance, guard.noise_factor * noise)
