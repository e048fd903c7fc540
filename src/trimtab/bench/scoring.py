"""Scoring of paired results: effects with intervals, over seeds."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final

from trimtab.errors import UsageError

_RESAMPLES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Effect:
    """A mean paired difference with a 95% percentile bootstrap interval.

    Args:
        mean: Mean of the differences.
        low: Lower end of the interval.
        high: Upper end.
        num_pairs: Number of pairs; one pair is an anecdote and has no interval of any width.
    """

    mean: float
    low: float
    high: float
    num_pairs: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero, from at least two pairs."""
        return self.num_pairs > 1 and (self.low > 0 or self.high < 0)


def paired_effect(treated: Sequence[float], control: Sequence[float], seed: int = 0) -> Effect:
    """Return the effect of ``treated`` minus ``control``, paired by position.

    Args:
        treated: One result per seed.
        control: The results of the same seeds, in the same order.
        seed: Seed of the resampling.

    Raises:
        UsageError: Give two sequences of the same length, not empty.

    References:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.
    """
    differences = _differences(treated, control)
    draw = random.Random(seed)
    means = sorted(fmean(draw.choices(differences, k=len(differences))) for _ in range(_RESAMPLES))
    tail = round(0.025 * _RESAMPLES)
    return Effect(fmean(differences), means[tail], means[-1 - tail], len(differences))


# Quantiles of Student's t distribution at 0.975, for 1 to 30 degrees of freedom.
_T: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def few_paired_effect(treated: Sequence[float], control: Sequence[float]) -> Effect:
    """Return the effect of ``treated`` minus ``control`` with a 95% interval after Student, paired by position.

    For a handful of pairs, of which a bootstrap would give too narrow an interval. One pair has an infinite one.

    Args:
        treated: One result per seed.
        control: The results of the same seeds, in the same order.

    Raises:
        UsageError: Give two sequences of the same length, not empty, of finite numbers.

    References:
        Student (1908), The probable error of a mean.
    """
    differences = _differences(treated, control)
    if not all(map(math.isfinite, differences)):
        raise UsageError("a result is not finite", received=differences, next_step="leave its pair out and say so")
    mean, degrees = fmean(differences), len(differences) - 1
    if not degrees:
        return Effect(mean, -math.inf, math.inf, 1)
    # Beyond the table the quantile falls slowly to 1.960: the last one is on the safe side.
    half = _T[min(degrees, len(_T)) - 1] * stdev(differences) / math.sqrt(len(differences))
    return Effect(mean, mean - half, mean + half, len(differences))


def _differences(treated: Sequence[float], control: Sequence[float]) -> list[float]:
    if not treated or len(treated) != len(control):
        raise UsageError("results cannot be paired", received=f"{len(treated)} and {len(control)}", allowed="as many, not 0")
    return [one - other for one, other in zip(treated, control, strict=True)]
