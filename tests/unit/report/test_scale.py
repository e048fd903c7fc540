from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.report.scale import LARGEST, Axis, Mark, drawable, placed_marks, step_axis, tick_label, value_axis

ANY = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(ANY, max_size=8), st.integers(2, 10))
def test_any_values_get_an_axis_with_ticks_on_it(values: list[float], most: int) -> None:
    axis = value_axis(values)
    assert math.isfinite(axis.low)
    assert axis.low < axis.high
    for value in values:
        if drawable(value):
            assert -1e-9 <= axis.fraction(value) <= 1 + 1e-9
    ticks = axis.ticks(most)
    assert len(ticks) <= most
    assert ticks == sorted(ticks)
    assert all(-1e-6 <= axis.fraction(tick) <= 1 + 1e-6 for tick in ticks)
    assert all(tick_label(tick, ticks) for tick in ticks)


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (1.5, 3.3, 8, ["1.50", "1.75", "2.00", "2.25", "2.50", "2.75", "3.00", "3.25"]),
        (0.0, 2000.0, 9, ["0", "250", "500", "750", "1 000", "1 250", "1 500", "1 750", "2 000"]),
        (-1.0, 1.0, 5, ["-1.0", "-0.5", "0", "0.5", "1.0"]),
        (0.0, 0.0004, 5, ["0", "0.0001", "0.0002", "0.0003", "0.0004"]),
    ],
)
def test_ticks_are_round_and_tell_each_other_apart(low: float, high: float, most: int, expected: list[str]) -> None:
    ticks = Axis(low, high).ticks(most)
    labels = [tick_label(tick, ticks) for tick in ticks]
    assert labels == expected


def test_values_far_apart_get_decades() -> None:
    axis = value_axis([0.001, 1e6])
    ticks = axis.ticks(6)
    assert axis.is_log
    assert [tick_label(tick, ticks) for tick in ticks] == ["0.001", "0.1", "10", "1000", "1e+05"]
    assert not value_axis([-0.001, 1e6]).is_log


def test_values_too_large_to_subtract_are_not_drawn() -> None:
    assert value_axis([1.0, 2.0, 1e308, -1e308]).high < 3
    assert not drawable(math.nextafter(LARGEST, math.inf))


def test_one_step_still_has_an_axis() -> None:
    axis = step_axis([7, 7])
    assert axis.fraction(7) == 0
    assert axis.high > axis.low


def test_marks_keep_their_number_or_get_their_place() -> None:
    marks = placed_marks([Mark(9, "b", "adjust", 4), Mark(2, "a", "reflex"), Mark(math.nan, "nowhere", "adjust")])
    assert [(mark.text, mark.number) for mark in marks] == [("a", 1), ("b", 4)]
