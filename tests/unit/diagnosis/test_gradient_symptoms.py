"""gradient_explosion, gradient_vanishing and dead_units: found at any scale, and not in runs that learn."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given

from tests.unit.diagnosis.traces import Series, constant, evidence_of, learning, noisy, scaled, scales, seeds, watch
from trimtab.controls.envelope import Objective
from trimtab.diagnosis.base import View
from trimtab.diagnosis.dead_units import DeadUnits
from trimtab.diagnosis.gradient_explosion import GradientExplosion, is_shock
from trimtab.diagnosis.gradient_vanishing import GradientVanishing
from trimtab.telemetry.telemetry import Telemetry

ONSET, LASTING = GradientExplosion(), GradientExplosion(only_onset=False)


def spread(level: Series, sigma: float, seed: int) -> Series:
    """Multiply by log-normal noise, as gradient norms have."""
    noise = noisy(constant(0.0), sigma, seed)
    return lambda step: level(step) * math.exp(noise(step))


def bursts(step: int) -> float:
    return 40.0 if step > 200 and step % 3 == 0 else 1.0


class TestGradientExplosion:
    @given(scales, seeds)
    def test_repeated_bursts_are_told_soon_and_once(self, scale: float, seed: int) -> None:
        series = {"grad_norm": spread(lambda step: scale * bursts(step), 0.2, seed)}
        found = watch(ONSET, series, 240, each_step=True)
        assert [symptom.step for symptom in found] == [207]
        assert found[0].severity == "warning"

    @given(scales, seeds)
    def test_growth_by_orders_is_found(self, scale: float, seed: int) -> None:
        series = {"grad_norm": spread(lambda step: scale * 1.03 ** max(0, step - 100), 0.2, seed)}
        found = watch(ONSET, series, 300, each_step=True)
        assert found
        assert found[0].step < 220
        assert len(found) < 10

    def test_after_an_evaluation_it_is_told_as_long_as_it_lasts(self) -> None:
        found = watch(LASTING, {"grad_norm": lambda step: 40.0 if step > 200 else 1.0}, 300)
        assert [symptom.step for symptom in found] == [225, 250, 275, 300]
        assert evidence_of(found[0])["level_before"] == 1.0

    @given(scales, seeds)
    def test_heavy_noise_is_none(self, scale: float, seed: int) -> None:
        assert watch(ONSET, {"grad_norm": spread(constant(scale), 0.6, seed)}, 400, each_step=True) == []

    @pytest.mark.parametrize("num_bursts", [1, 2])
    def test_a_burst_or_two_are_left_to_clipping(self, num_bursts: int) -> None:
        series = {"grad_norm": lambda step: 100.0 if 200 < step <= 200 + num_bursts else 1.0}
        assert watch(ONSET, series, 300, each_step=True) == []

    def test_leaps_above_a_tiny_level_near_the_end_of_learning_are_none(self) -> None:
        series: dict[str, Series] = {
            "grad_norm": lambda step: learning(1.0, 1e-3, 40)(step) * (50 if step > 300 and step % 4 == 0 else 1)
        }
        assert watch(ONSET, series, 400, each_step=True) == []

    def test_growth_to_a_few_times_the_level_is_none(self) -> None:
        assert watch(ONSET, {"grad_norm": lambda step: 1 + step / 60}, 400, each_step=True) == []

    def test_a_short_run_is_not_judged(self) -> None:
        assert watch(ONSET, {"grad_norm": lambda step: 2.0**step}, 3 * ONSET.among - 1, each_step=True) == []

    def test_without_a_gradient_norm_it_is_silent(self) -> None:
        assert watch(ONSET, {"loss": bursts}, 300, each_step=True) == []


GROUPS = ("grad_norm/first", "grad_norm/last")


class TestGradientVanishing:
    @given(scales, scales, seeds)
    def test_a_norm_that_fell_by_orders_while_the_loss_went_back_is_found(self, scale: float, rate: float, seed: int) -> None:
        def loss(step: int) -> float:
            return learning(2.3, 0.5, 50)(step) if step < 200 else 2.3

        series = {
            "loss": noisy(lambda step: scale * loss(step), 0.02 * scale, seed),
            "grad_norm": spread(lambda step: rate * (1.0 if step < 200 else 1e-5), 0.3, seed),
        }
        found = watch(GradientVanishing(), series, 400)
        assert found
        assert found[0].step > 200
        assert found[0].signal == "grad_norm"

    @given(scales, seeds)
    def test_a_group_far_below_another_is_found_while_nothing_is_learned(self, scale: float, seed: int) -> None:
        groups = {GROUPS[0]: spread(constant(1e-7 * scale), 0.5, seed), GROUPS[1]: spread(constant(scale), 0.5, seed)}
        found = watch(GradientVanishing(), {"loss": noisy(constant(2.3), 0.02, seed), **groups})
        assert found[0].signal == GROUPS[0]
        assert watch(GradientVanishing(), {"loss": noisy(learning(2.3, 0.5, 100), 0.02, seed), **groups}) == []

    @given(scales, seeds)
    def test_small_gradients_at_the_floor_of_the_loss_are_none(self, scale: float, seed: int) -> None:
        series = {"loss": learning(0.7, 0.6, 30), "grad_norm": spread(learning(1.0, 1e-7, 10), 0.3, seed)}
        assert watch(GradientVanishing(), scaled(series, scale, ("loss", "grad_norm"))) == []

    def test_a_frozen_group_is_none_but_one_that_died_is(self) -> None:
        alive: dict[str, Series] = {"loss": noisy(constant(2.3), 0.02, 0), GROUPS[1]: constant(1.0)}
        assert watch(GradientVanishing(), alive | {GROUPS[0]: constant(0.0)}) == []
        assert watch(GradientVanishing(), alive | {GROUPS[0]: lambda step: 1.0 if step < 100 else 0.0})

    @given(scales, seeds)
    def test_a_group_that_lost_orders_against_another_is_found_while_the_rest_learns(self, scale: float, seed: int) -> None:
        lost = spread(lambda step: scale * (1.0 if step < 200 else 1e-6), 0.3, seed)
        series = {
            "loss": noisy(learning(2.3, 0.5, 150), 0.02, seed),
            GROUPS[0]: lost,
            GROUPS[1]: spread(constant(scale), 0.3, seed),
        }
        found = watch(GradientVanishing(), series)
        assert found[0].signal == GROUPS[0]
        assert found[0].step == 225

    def test_a_group_that_is_frozen_on_the_way_is_none_in_a_run_that_learns(self) -> None:
        series = {"loss": noisy(learning(2.3, 0.5, 150), 0.02, 0), GROUPS[0]: lambda step: 1.0 if step < 200 else 0.0}
        assert watch(GradientVanishing(), series | {GROUPS[1]: constant(1.0)}) == []

    def test_a_loss_that_fell_by_a_few_percent_has_not_learned(self) -> None:
        groups = {GROUPS[0]: constant(1e-7), GROUPS[1]: constant(1.0)}
        assert watch(GradientVanishing(), {"loss": noisy(learning(2.4, 2.32, 60), 0.005, 0), **groups}, 400)
        assert watch(GradientVanishing(), {"loss": noisy(learning(2.4, 2.0, 60), 0.005, 0), **groups}, 600)[-1:] == []

    def test_one_group_has_none_to_compare_with(self) -> None:
        assert watch(GradientVanishing(), {"loss": constant(2.3), GROUPS[0]: constant(1e-9)}) == []

    def test_absent_signals_and_short_runs_are_none(self) -> None:
        assert watch(GradientVanishing(), {"grad_norm": lambda step: 10.0**-step}, 100) == []
        assert watch(GradientVanishing(), {"loss": constant(2.3)}) == []
        assert watch(GradientVanishing(), {"loss": constant(2.3), "grad_norm": lambda step: 10.0**-step}, 50) == []


class TestDeadUnits:
    @pytest.mark.parametrize("fraction", [0.5, 0.8, 1.0])
    def test_a_large_fraction_is_found_from_the_start(self, fraction: float) -> None:
        assert watch(DeadUnits(), {"dead_units": constant(fraction)})[0].step == 25

    def test_a_jump_is_found_though_the_fraction_is_not_large(self) -> None:
        found = watch(DeadUnits(), {"dead_units": lambda step: 0.05 if step < 200 else 0.35})
        assert found[0].step == 225
        assert evidence_of(found[0])["median_before"] == 0.05

    @given(seeds)
    def test_few_dead_units_are_none(self, seed: int) -> None:
        assert watch(DeadUnits(), {"dead_units": lambda step: random.Random(seed + step).uniform(0.1, 0.3)}) == []

    def test_one_high_value_is_none(self) -> None:
        assert watch(DeadUnits(), {"dead_units": lambda step: 0.9 if step % 25 == 0 else 0.1}) == []

    @pytest.mark.parametrize("value", [70.0, -0.5])
    def test_what_is_no_fraction_is_not_judged(self, value: float) -> None:
        assert watch(DeadUnits(), {"dead_units": constant(value)}) == []


@pytest.mark.parametrize(("norm", "shocked"), [(0.5, False), (50.0, False), (99.0, False), (150.0, True), (1e10, True)])
def test_one_norm_a_hundred_times_the_level_is_a_shock(norm: float, shocked: bool) -> None:
    telemetry = Telemetry()
    for step in range(1, 101):
        telemetry.observe(step, {"grad_norm": 1.0}, "step")
    telemetry.observe(101, {"grad_norm": norm}, "step")
    objective = Objective.parse("minimize val/loss")
    assert is_shock(View(101, telemetry, objective)) is shocked
    assert not is_shock(View(102, telemetry, objective)), "a norm of an earlier step"


def test_the_first_norms_of_a_run_are_no_shock() -> None:
    telemetry = Telemetry()
    for step, norm in enumerate((1e-6, 1.0, 1e4), start=1):
        telemetry.observe(step, {"grad_norm": norm}, "step")
        assert not is_shock(View(step, telemetry, Objective.parse("minimize val/loss")))
