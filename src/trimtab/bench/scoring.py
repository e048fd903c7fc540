"""Scoring of paired results: effects with intervals, over seeds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
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
    if not treated or len(treated) != len(control):
        raise UsageError("results cannot be paired", received=f"{len(treated)} and {len(control)}", allowed="as many, not 0")
    differences = [one - other for one, other in zip(treated, control, strict=True)]
    draw = random.Random(seed)
    means = sorted(fmean(draw.choices(differences, k=len(differences))) for _ in range(_RESAMPLES))
    tail = round(0.025 * _RESAMPLES)
    return Effect(fmean(differences), means[tail], means[-1 - tail], len(differences))
