"""Signals at irregular steps: late, repeated, missing; and in constant memory over long runs."""

from __future__ import annotations

import json
import math
import random
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.telemetry.telemetry import Telemetry
from trimtab.telemetry.window import Window

LENGTH = 256


def a_window(*points: tuple[int, float]) -> Window:
    window = Window()
    for step, value in points:
        window.add(step, value)
    return window


def averages(window: Window) -> tuple[float, ...]:
    return (
        window.fast, window.slow, window.deviation, window.jump, window.lowest_fast, window.calm_deviation, window.initial,
        window.count, window.settled,
    )  # fmt: skip


class TestLateValues:
    def test_one_takes_its_place_by_step(self) -> None:
        window = a_window((10, 1.0), (20, 2.0), (30, 3.0), (15, 1.5), (5, 0.5))
        assert list(window.points) == [(5, 0.5), (10, 1.0), (15, 1.5), (20, 2.0), (30, 3.0)]
        assert (window.num_late, window.num_repeated) == (2, 0)

    def test_they_leave_the_running_averages_alone(self) -> None:
        in_order = [(step, 2.0 + math.sin(step)) for step in range(10, 200)]
        window, plain = a_window(*in_order), a_window(*in_order)
        for step in (3, 50, 198):
            window.add(step, 1e9)
        assert averages(window) == averages(plain)

    def test_a_trend_is_the_same_in_whatever_order_its_points_came(self) -> None:
        points = [(step, 3.0 - 0.01 * step) for step in range(1, 101)]
        shuffled = random.Random(0).sample(points, len(points))
        summaries: list[Any] = []
        for order in (points, shuffled):
            telemetry = Telemetry()
            for step, value in order:
                telemetry.observe(step, {"loss": value})
            summaries.append(telemetry.snapshot(100).get("loss"))
        assert summaries[0] == summaries[1]

    def test_one_older_than_a_full_window_is_counted_and_dropped(self) -> None:
        window = a_window(*((step, 1.0) for step in range(100, 100 + LENGTH)))
        window.add(5, 7.0)
        assert (len(window.points), window.points[0], window.num_late) == (LENGTH, (100, 1.0), 1)

    def test_one_within_a_full_window_pushes_out_the_oldest(self) -> None:
        window = a_window(*((2 * step, 1.0) for step in range(LENGTH)))
        window.add(101, 7.0)
        assert (len(window.points), window.points[0], window.points[50]) == (LENGTH, (2, 1.0), (101, 7.0))

    def test_a_late_non_finite_value_is_no_news(self) -> None:
        window = a_window((1, 1.0), (9, math.nan), (4, math.inf))
        assert (window.num_non_finite, window.last_non_finite_step) == (2, 9)


class TestRepeatedSteps:
    def test_the_newest_value_of_a_step_stays(self) -> None:
        window = a_window((1, 1.0), (2, 2.0), (2, 5.0))
        assert list(window.points) == [(1, 1.0), (2, 5.0)]
        assert (window.count, window.num_repeated, window.num_late) == (2, 1, 0)

    def test_a_late_one_is_both(self) -> None:
        window = a_window((1, 1.0), (2, 2.0), (1, 8.0))
        assert list(window.points) == [(1, 8.0), (2, 2.0)]
        assert (window.count, window.num_repeated, window.num_late) == (2, 1, 1)

    def test_a_non_finite_value_does_not_take_a_finite_one_away(self) -> None:
        window = a_window((1, 1.0), (1, math.nan))
        assert list(window.points) == [(1, 1.0)]
        assert window.num_non_finite == 1


@given(st.lists(st.tuples(st.integers(0, 400), st.floats(allow_nan=True, allow_infinity=True)), max_size=600))
def test_points_are_ordered_distinct_and_few_whatever_comes(points: list[tuple[int, float]]) -> None:
    window = a_window(*points)
    steps = [step for step, _ in window.points]
    assert steps == sorted(set(steps))
    assert len(steps) <= LENGTH
    finite = {step: value for step, value in points if abs(value) <= 1e100}
    assert all(finite[step] == value for step, value in window.points), "the newest value of each step"
    assert window.count + window.num_late + window.num_repeated + window.num_non_finite >= len(points)
    assert window.num_non_finite == sum(not abs(value) <= 1e100 for _, value in points)
    again = Window.from_state(json.loads(json.dumps(window.state(), allow_nan=False)))
    assert again == window


class TestSpacing:
    @pytest.mark.parametrize("every", [1, 7, 1000])
    def test_a_regular_signal_has_its_rate(self, every: int) -> None:
        assert a_window(*((every * n, 1.0) for n in range(1, 50))).spacing == every

    def test_a_pause_does_not_change_it(self) -> None:
        window = a_window(*((step, 1.0) for step in range(1, 30)), (5000, 1.0), (5001, 1.0))
        assert window.spacing == 1

    def test_it_follows_a_new_rate(self) -> None:
        window = a_window(*((step, 1.0) for step in range(1, 300)), *((300 + 50 * n, 1.0) for n in range(10)))
        assert window.spacing == 50

    def test_it_is_not_known_before_the_second_value(self) -> None:
        assert Window().spacing == 0
        assert a_window((3, 1.0)).spacing == 0
        assert a_window((3, 1.0), (9, 1.0)).spacing == 6

    def test_a_snapshot_tells_spacing_and_age(self) -> None:
        telemetry = Telemetry()
        for step in range(10, 101, 10):
            telemetry.observe(step, {"success_rate": 0.5})
        summary = telemetry.snapshot(140).get("success_rate")
        assert summary is not None
        assert (summary.spacing_steps, summary.age_steps) == (10, 40)
        assert Window().age(7) == 7


def test_a_state_from_before_these_counts_can_be_loaded() -> None:
    state = a_window((1, 1.0), (2, 2.0)).state()
    del state["num_late"], state["num_repeated"]
    assert Window.from_state(state) == a_window((1, 1.0), (2, 2.0))


def test_going_back_is_counted_and_keeps_kinds_apart() -> None:
    telemetry = Telemetry()
    telemetry.observe(1, {"loss": 1.0})
    telemetry.observe(1, {"val/loss": 1.0}, "evaluation")
    telemetry.load_state(telemetry.state(), 1)
    telemetry.observe(2, {"loss": 2.0})
    telemetry.observe(2, {"val/loss": 3.0}, "evaluation")
    telemetry.rebase()
    loss, held_out = telemetry.window("loss"), telemetry.window("val/loss")
    assert loss is not None
    assert held_out is not None
    assert (loss.count, loss.settled, held_out.count, held_out.settled) == (2, 0, 2, 2)
    assert (telemetry.kind("loss"), telemetry.kind("val/loss"), telemetry.kind("new")) == ("step", "evaluation", None)
    assert telemetry.num_rewinds == 1


def size_of(value: Any) -> int:
    """Return the bytes of a nested value."""
    if isinstance(value, dict):
        return sys.getsizeof(value) + sum(size_of(key) + size_of(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return sys.getsizeof(value) + sum(map(size_of, value))
    return sys.getsizeof(value)


def feed(telemetry: Telemetry, steps: range) -> None:
    """A signal of every step, a rare one, and one that is late, repeated and non-finite."""
    draw = random.Random(steps.start)
    for step in steps:
        telemetry.observe(step, {"loss": 1.0 + 1.0 / step})
        if step % 50 == 0:
            telemetry.observe(step, {"success_rate": draw.random(), "entropy": math.nan})
            telemetry.observe(step - draw.randrange(1, 40), {"reward": 0.5 + 0.1 * draw.random()})
            telemetry.observe(step - draw.randrange(1, 40), {"reward": 0.5 + 0.1 * draw.random()})


def test_memory_is_constant_from_ten_thousand_steps_to_a_hundred_thousand() -> None:
    telemetry = Telemetry()
    feed(telemetry, range(1, 10_001))
    feed(telemetry, range(10_001, 20_001))  # the rare signals fill their windows as well
    before = size_of(telemetry.state())
    feed(telemetry, range(20_001, 100_001))
    assert size_of(telemetry.state()) == before
    reward = telemetry.window("reward")
    assert reward is not None
    assert reward.num_late > 100


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_memory_is_constant_over_ten_million_steps() -> None:
    telemetry = Telemetry()
    feed(telemetry, range(1, 100_001))
    before = size_of(telemetry.state())
    feed(telemetry, range(100_001, 10_000_001))
    assert size_of(telemetry.state()) == before
    loss = telemetry.window("loss")
    assert loss is not None
    assert loss.count == 10_000_000
