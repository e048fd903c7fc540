"""Effects of few pairs: intervals as in the tables, and as wide as they have to be."""

from __future__ import annotations

import math
import random
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.bench.scoring import Effect, few_paired_effect, paired_effect
from trimtab.errors import UsageError

# Additional hours of sleep of ten patients under two drugs: Student (1908), table and 95% interval as in R's `sleep`.
FIRST = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
SECOND = (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)


def test_students_own_example_has_its_known_interval() -> None:
    found = few_paired_effect(FIRST, SECOND)
    assert found.mean == pytest.approx(-1.58)
    assert (found.low, found.high) == (pytest.approx(-2.4598858, abs=2e-4), pytest.approx(-0.7001142, abs=2e-4))
    assert found.num_pairs == 10
    assert found.excludes_zero


# Two-sided 95% quantiles with six digits, from the standard tables.
QUANTILES = {1: 12.706205, 2: 4.302653, 3: 3.182446, 4: 2.776445, 9: 2.262157, 15: 2.131450, 24: 2.063899, 30: 2.042272}


@pytest.mark.parametrize(("degrees", "quantile"), QUANTILES.items())
def test_the_interval_is_that_of_students_t(degrees: int, quantile: float) -> None:
    differences = [math.sin(number) for number in range(degrees + 1)]
    found = few_paired_effect(differences, [0.0] * len(differences))
    half = quantile * stdev(differences) / math.sqrt(len(differences))
    assert found.low == pytest.approx(fmean(differences) - half, rel=1e-3)
    assert found.high == pytest.approx(fmean(differences) + half, rel=1e-3)


@pytest.mark.parametrize(("num_pairs", "quantile"), [(32, 2.039513), (61, 2.000298), (1001, 1.962339)])
def test_with_many_pairs_it_is_a_little_too_wide_and_never_too_narrow(num_pairs: int, quantile: float) -> None:
    differences = [math.sin(number) for number in range(num_pairs)]
    found = few_paired_effect(differences, [0.0] * num_pairs)
    half = quantile * stdev(differences) / math.sqrt(num_pairs)
    assert half <= found.high - found.mean <= 1.05 * half


@pytest.mark.parametrize("num_pairs", [2, 3, 5])
def test_it_holds_the_true_effect_as_often_as_it_says_where_a_bootstrap_does_not(num_pairs: int) -> None:
    draw = random.Random(num_pairs)
    held = 0
    for _ in range(2000):
        found = few_paired_effect([draw.gauss(1.0, 1.0) for _ in range(num_pairs)], [0.0] * num_pairs)
        held += found.low <= 1.0 <= found.high
    assert held / 2000 == pytest.approx(0.95, abs=0.02)
    narrow = paired_effect([1.0, 2.0, 3.0][:num_pairs], [0.0] * min(num_pairs, 3))
    wide = few_paired_effect([1.0, 2.0, 3.0][:num_pairs], [0.0] * min(num_pairs, 3))
    assert wide.high - wide.low > narrow.high - narrow.low


def test_one_pair_is_an_anecdote() -> None:
    found = few_paired_effect([3.0], [1.0])
    assert found == Effect(2.0, -math.inf, math.inf, 1)
    assert not found.excludes_zero


def test_pairs_that_all_differ_alike_leave_no_doubt() -> None:
    assert few_paired_effect([2.0, 3.0], [1.0, 2.0]) == Effect(1.0, 1.0, 1.0, 2)
    same = few_paired_effect([1.0, 2.0], [1.0, 2.0])
    assert (same.low, same.high, same.excludes_zero) == (0.0, 0.0, False)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=2, max_size=40))
def test_it_is_centred_and_turns_with_its_sign(pairs: list[tuple[float, float]]) -> None:
    one, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found, turned = few_paired_effect(one, other), few_paired_effect(other, one)
    assert found.low <= found.mean <= found.high
    assert found.high - found.mean == pytest.approx(found.mean - found.low, rel=1e-6, abs=1e-6)
    assert (turned.low, turned.high) == (pytest.approx(-found.high, abs=1e-6), pytest.approx(-found.low, abs=1e-6))


@pytest.mark.parametrize(("one", "other"), [([], []), ([1.0], []), ([1.0, 2.0], [1.0])])
def test_results_that_cannot_be_paired_are_refused(one: list[float], other: list[float]) -> None:
    for effect in (few_paired_effect, paired_effect):
        with pytest.raises(UsageError, match="cannot be paired"):
            effect(one, other)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_result_that_is_not_finite_is_refused_rather_than_averaged(bad: float) -> None:
    for treated, control in (([bad, 1.0], [1.0, 2.0]), ([1.0, 2.0], [0.5, bad]), ([bad], [1.0])):
        with pytest.raises(UsageError, match="not finite"):
            few_paired_effect(treated, control)
