from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from trimtab.report.decimate import ordered, pieces
from trimtab.report.scale import drawable, step_axis

POINTS = st.lists(st.tuples(st.integers(0, 50), st.floats()), max_size=300)


@given(POINTS, st.integers(1, 20))
def test_thinning_keeps_the_extremes_and_bounds_the_points(points: list[tuple[int, float]], columns: int) -> None:
    rising = ordered(points)
    drawn = [point for piece in pieces(rising, step_axis([step for step, _ in rising]), columns) for point in piece]
    finite = [value for _, value in rising if drawable(value)]
    assert len(drawn) <= 4 * (columns + 1)
    assert set(drawn) <= set(rising)
    if finite:
        assert min(value for _, value in drawn) == min(finite)
        assert max(value for _, value in drawn) == max(finite)


def test_a_short_curve_is_split_exactly_at_its_gaps() -> None:
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 3.0), (4, math.inf), (5, -math.inf), (6, 4.0), (7, 5.0)]
    split = pieces(points, step_axis([0, 7]), 100)
    assert split == [[(0, 1.0), (1, 2.0)], [(3, 3.0)], [(6, 4.0), (7, 5.0)]]


def test_a_column_without_a_finite_value_is_a_gap_in_a_thinned_curve() -> None:
    points = [(step, math.nan if 400 <= step < 600 else 1.0) for step in range(1000)]
    first, second = pieces(points, step_axis([0, 999]), 10)
    assert first[-1][0] < 400
    assert second[0][0] >= 600


def test_steps_without_a_place_are_left_out_and_the_others_sorted() -> None:
    assert ordered([(3, 1.0), (math.nan, 2.0), (1, 3.0)]) == [(1, 3.0), (3, 1.0)]
