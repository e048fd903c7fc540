from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import UsageError
from trimtab.telemetry.signal import MAX_SIGNALS, check_signal_name
from trimtab.telemetry.snapshot import noise_of, trend
from trimtab.telemetry.telemetry import Telemetry
from trimtab.telemetry.window import Window


def a_window(values: list[float]) -> Window:
    window = Window()
    for step, value in enumerate(values, start=1):
        window.add(step, value)
    return window


class TestSignalNames:
    @pytest.mark.parametrize("name", ["loss", "val/loss", "eval/acc@5", "a.b-c/d_1", "A" * 80])
    def test_good_ones(self, name: str) -> None:
        assert check_signal_name(name) == name

    @pytest.mark.parametrize(
        "name",
        ["", "1loss", "val//loss", "/loss", "loss/", "a b", "loss\n", "lоss", "A" * 81, "../x", "<b>", "loss;drop"],  # noqa: RUF001 - a Cyrillic letter
    )
    def test_bad_ones(self, name: str) -> None:
        with pytest.raises(UsageError):
            check_signal_name(name)


class TestWindow:
    def test_non_finite_values_are_counted_and_kept_out(self) -> None:
        window = a_window([1.0, math.nan, 2.0, math.inf, -math.inf])
        assert [value for _, value in window.points] == [1.0, 2.0]
        assert (window.count, window.num_non_finite, window.last_non_finite_step) == (2, 3, 5)

    @pytest.mark.parametrize("huge", [1e101, -1e200, 1.7e308, 10**400])
    def test_a_value_whose_square_may_overflow_counts_as_non_finite(self, huge: float) -> None:
        window = a_window([1.0, huge])
        assert (window.count, window.num_non_finite) == (1, 1)

    def test_it_is_of_constant_size(self) -> None:
        window = a_window([float(value) for value in range(5000)])
        assert len(window.points) == 256
        assert window.points[-1] == (5000, 4999.0)

    def test_the_averages_follow_a_constant_exactly_and_a_step_in_time(self) -> None:
        window = a_window([3.0] * 50)
        assert (window.fast, window.slow, window.deviation, window.jump) == (3.0, 3.0, 0.0, 0.0)
        for step in range(51, 81):
            window.add(step, 5.0)
        assert 4.9 < window.fast < 5.0

    def test_the_jump_is_measured_before_the_value_is_added(self) -> None:
        draw = random.Random(0)
        window = a_window([draw.gauss(2.0, 0.1) for _ in range(100)])
        window.add(101, 4.0)
        assert window.jump > 15
        window.add(102, 2.0)
        assert abs(window.jump) < 5

    def test_one_spike_does_not_blind_it_to_the_next(self) -> None:
        draw = random.Random(0)
        window = a_window([draw.gauss(2.0, 0.1) for _ in range(100)])
        for step in (101, 103, 105):
            window.add(step, 1e6)
            assert window.jump > 1000
            window.add(step + 1, 2.0)

    def test_the_calm_deviation_is_not_inflated_by_what_follows_the_best_level(self) -> None:
        draw = random.Random(0)
        window = a_window([draw.gauss(2.0, 0.1) for _ in range(100)])
        calm = window.calm_deviation
        for step in range(101, 140):
            window.add(step, 2.0 * 1.1 ** (step - 100))
        assert window.calm_deviation == calm
        assert window.deviation > 10 * calm

    @given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=300))
    def test_no_values_break_it_and_its_state_is_json_that_brings_it_back(self, values: list[float]) -> None:
        window = a_window(values)
        again = Window.from_state(json.loads(json.dumps(window.state(), allow_nan=False)))
        assert again == window
        for one in (window, again):
            one.add(1000, 1.0)
        assert again == window


class TestTrend:
    def test_a_line_is_found_exactly_under_no_noise(self) -> None:
        steps = [10.0, 20.0, 40.0, 80.0]
        slope, error = trend(steps, [3.0 - 0.5 * step for step in steps])
        assert slope == pytest.approx(-0.5)
        assert error == pytest.approx(0.0, abs=1e-9)

    def test_fewer_than_three_points_have_no_trend(self) -> None:
        assert trend([1.0, 2.0], [1.0, 5.0]) == (0.0, 0.0)
        assert trend([7.0] * 4, [1.0, 2.0, 3.0, 4.0]) == (0.0, 0.0)

    def test_the_error_covers_the_true_slope_as_often_as_it_should(self) -> None:
        draw, covered = random.Random(1), 0
        steps = [float(step) for step in range(50)]
        for _ in range(200):
            slope, error = trend(steps, [0.3 * step + draw.gauss(0, 2.0) for step in steps])
            covered += abs(slope - 0.3) < 1.96 * error
        assert 180 <= covered <= 199

    @pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
    def test_noise_is_estimated_beside_a_trend_at_any_scale(self, scale: float) -> None:
        draw = random.Random(2)
        values = [scale * (0.05 * step + draw.gauss(0, 0.5)) for step in range(256)]
        assert noise_of(values) == pytest.approx(0.5 * scale, rel=0.25)
        assert noise_of([1.0, 2.0, 3.0]) == 0.0


class TestTelemetry:
    def test_a_refused_name_does_not_cost_the_other_values(self) -> None:
        telemetry = Telemetry()
        with pytest.raises(UsageError, match="malformed"):
            telemetry.observe(1, {"loss": 1.0, "bad name": 2.0, "acc": 3.0})
        assert telemetry.names() == ("acc", "loss")

    def test_a_signal_has_one_kind(self) -> None:
        telemetry = Telemetry()
        telemetry.observe(1, {"loss": 1.0})
        with pytest.raises(UsageError, match="both every step and at evaluations"):
            telemetry.observe(1, {"loss": 99.0, "val/loss": 2.0}, "evaluation")
        loss, held_out = telemetry.window("loss"), telemetry.window("val/loss")
        assert loss is not None
        assert held_out is not None
        assert [value for _, value in loss.points] == [1.0]
        assert held_out.count == 1

    def test_the_number_of_signals_is_limited(self) -> None:
        telemetry = Telemetry()
        telemetry.observe(1, {f"s{at}": 1.0 for at in range(MAX_SIGNALS)})
        with pytest.raises(UsageError, match="too many"):
            telemetry.observe(2, {"one_more": 1.0, "s0": 2.0})
        window = telemetry.window("s0")
        assert window is not None
        assert window.count == 2

    def test_the_snapshot_is_sorted_and_leaves_out_what_was_never_finite(self) -> None:
        telemetry = Telemetry()
        telemetry.observe(1, {"b": 1.0, "a": 2.0, "n": math.nan})
        telemetry.observe(5, {"val/loss": 3.0}, "evaluation")
        snapshot = telemetry.snapshot(5)
        assert [(s.name, s.kind, s.num_samples) for s in snapshot.summaries] == [
            ("a", "step", 1), ("b", "step", 1), ("val/loss", "evaluation", 1),
        ]  # fmt: skip
        assert snapshot.get("n") is None
        assert telemetry.names("evaluation") == ("val/loss",)

    @given(st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=40))
    def test_a_snapshot_of_any_finite_values_is_finite(self, values: list[float]) -> None:
        telemetry = Telemetry()
        for step, value in enumerate(values, start=1):
            telemetry.observe(step, {"loss": value})
        summary = telemetry.snapshot(len(values)).get("loss")
        assert summary is not None
        assert summary.lowest - 1e-9 * abs(summary.lowest) <= summary.mean <= summary.highest + 1e-9 * abs(summary.highest)
        for number in (summary.noise, summary.slope_per_step, summary.slope_error):
            assert math.isfinite(number)

    def test_going_back_forgets_what_was_seen_since(self) -> None:
        telemetry = Telemetry()
        for step in range(1, 60):
            telemetry.observe(step, {"loss": 1.0 / step})
        state, before = json.loads(json.dumps(telemetry.state(), allow_nan=False)), telemetry.snapshot(59)
        telemetry.observe(60, {"loss": 9.0, "new": 1.0})
        telemetry.load_state(state, 60)
        assert telemetry.snapshot(59) == before
        assert telemetry.window("new") is None

    def test_the_steps_at_which_it_went_back_are_kept_with_the_state_and_few(self) -> None:
        telemetry = Telemetry()
        first = telemetry.state()
        telemetry.load_state(first, 60)
        second = json.loads(json.dumps(telemetry.state()))
        telemetry.load_state(second, 90)
        assert telemetry.rewinds == (60, 90)
        telemetry.load_state(second, 95)
        assert telemetry.rewinds == (60, 95), "the rewind at 90 is not behind this state"
        telemetry.load_state(first, 99)
        assert (telemetry.rewinds, telemetry.num_rewinds) == ((99,), 4)
        for step in range(100, 200):
            telemetry.load_state(telemetry.state(), step)
        assert telemetry.rewinds == tuple(range(168, 200))

    def test_a_process_that_goes_on_has_undone_nothing(self) -> None:
        telemetry = Telemetry()
        telemetry.observe(1, {"loss": 1.0})
        telemetry.load_state(telemetry.state(), 60)
        telemetry.observe(61, {"loss": 2.0})
        state = json.loads(json.dumps(telemetry.state()))
        other = Telemetry()
        other.load_state(state, None)
        assert other.state() == telemetry.state()
        assert (other.rewinds, other.num_rewinds) == ((60,), 0)
        other.load_state(state, 70)
        assert (other.rewinds, other.num_rewinds) == ((60, 70), 1)
