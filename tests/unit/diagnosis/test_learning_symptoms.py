"""underfitting, over_regularization and oscillation: found at any scale, and not in runs that learn."""

from __future__ import annotations

import math

import pytest
from hypothesis import given

from tests.unit.diagnosis.traces import (
    EVERY,
    MAXIMIZE,
    MINIMIZE,
    Series,
    constant,
    evidence_of,
    learning,
    noisy,
    scaled,
    scales,
    seeds,
    watch,
)
from trimtab.controls.recipe import Recipe
from trimtab.diagnosis.oscillation import Oscillation
from trimtab.diagnosis.over_regularization import OverRegularization
from trimtab.diagnosis.underfitting import Underfitting

BOTH = ("loss", "val/loss")


def losses(training: Series, held_out: Series, seed: int, sigma: float = 0.02) -> dict[str, Series]:
    return {"loss": noisy(training, sigma, seed), "val/loss": noisy(held_out, sigma / 20, seed + 1)}


def slowly(step: int) -> float:
    return 2.3 - 1e-4 * step


class TestUnderfitting:
    @given(scales, seeds)
    def test_a_slow_even_fall_is_found_at_any_scale(self, scale: float, seed: int) -> None:
        found = watch(Underfitting(), scaled(losses(slowly, slowly, seed), scale, BOTH))
        assert found
        assert found[0].severity == "warning"
        assert found[0].step >= Underfitting().least_losses

    @given(scales, seeds)
    def test_an_objective_to_maximize_is_watched_too(self, scale: float, seed: int) -> None:
        series = {"loss": noisy(slowly, 0.02, seed), "val/score": lambda step: scale * (0.1 + 2e-5 * step)}
        assert watch(Underfitting(), series, objective=MAXIMIZE)

    @given(scales, seeds)
    def test_a_loss_that_learned_nothing_at_all_is_found_after_twice_the_time(self, scale: float, seed: int) -> None:
        found = watch(Underfitting(), scaled(losses(constant(2.3), constant(2.3), seed), scale, BOTH), 600)
        assert found
        assert found[-1].step >= 2 * Underfitting().least_losses

    @given(scales, seeds)
    def test_a_run_that_learns_is_none(self, scale: float, seed: int) -> None:
        course = learning(2.3, 0.3, 150)
        assert watch(Underfitting(), scaled(losses(course, course, seed), scale, BOTH)) == []

    @given(seeds)
    def test_a_loss_far_from_zero_that_came_to_its_floor_is_a_plateau_instead(self, seed: int) -> None:
        course = learning(100.0, 96.0, 60)
        assert watch(Underfitting(), losses(course, course, seed), 800) == []

    @given(seeds)
    def test_a_loss_that_falls_faster_and_faster_is_given_its_time(self, seed: int) -> None:
        def course(step: int) -> float:
            return 2.3 - 0.1 * (step / 400) ** 4

        assert watch(Underfitting(), losses(course, course, seed, sigma=0.001)) == []

    def test_a_rate_that_is_being_warmed_up_is_given_its_time(self) -> None:
        series = losses(slowly, slowly, 0)
        assert watch(Underfitting(), series | {"learning_rate": lambda step: 1e-6 * step}) == []
        assert watch(Underfitting(), series | {"learning_rate": constant(1e-6)})

    def test_a_run_that_collapsed_has_another_fault(self) -> None:
        def course(step: int) -> float:
            return 0.5 if 60 < step < 200 else 2.3

        assert watch(Underfitting(), losses(course, course, 0), 800) == []

    @given(seeds)
    def test_a_loss_that_learned_nothing_yet_is_given_twice_the_time(self, seed: int) -> None:
        steps = 2 * Underfitting().least_losses - 1
        assert watch(Underfitting(), losses(constant(2.3), constant(2.3), seed), steps) == []

    def test_a_loss_around_zero_has_no_scale(self) -> None:
        series = {"loss": noisy(constant(0.0), 0.1, 3), "val/loss": noisy(constant(0.0), 0.01, 4)}
        assert watch(Underfitting(), series, 800) == []

    def test_a_short_run_is_not_judged(self) -> None:
        assert watch(Underfitting(), losses(slowly, slowly, 0), Underfitting().least_losses - 1) == []

    def test_its_evidence_is_what_was_gained(self) -> None:
        evidence = evidence_of(watch(Underfitting(), losses(slowly, slowly, 0, sigma=0.0))[-1])
        assert evidence["initial_loss"] == pytest.approx(2.299, abs=2e-3)
        assert evidence["gained_fraction"] == pytest.approx(1e-4 * 340 / 2.3, rel=0.1)


STRONG = [("dropout", 0.9), ("dropout/encoder", 0.6), ("label_smoothing", 0.5), ("weight_decay", 3.0)]


class TestOverRegularization:
    @pytest.mark.parametrize(("control", "value"), STRONG[:3])
    @given(scale=scales, seed=seeds)
    def test_a_training_loss_above_the_held_out_one_is_found_at_any_scale(
        self, control: str, value: float, scale: float, seed: int
    ) -> None:
        series = scaled(losses(learning(2.3, 1.5, 60), learning(2.3, 1.2, 60), seed), scale, BOTH)
        (*_, found) = watch(OverRegularization(), series, 600, recipe=Recipe.of({control: value}))
        assert found.severity == "warning"
        assert evidence_of(found)[control] == value
        assert evidence_of(found)["training_loss_above_objective_by"] == pytest.approx(0.3 * scale, rel=0.1)

    @pytest.mark.parametrize(("control", "value"), STRONG)
    @given(scale=scales, seed=seeds)
    def test_two_losses_that_stopped_together_are_found(self, control: str, value: float, scale: float, seed: int) -> None:
        series = scaled(losses(learning(2.3, 1.5, 40), learning(2.3, 1.5, 40), seed, 0.005), scale, BOTH)
        assert watch(OverRegularization(), series, 600, recipe=Recipe.of({control: value}))

    @pytest.mark.parametrize(
        "recipe", [{}, {"dropout": 0.1, "weight_decay": 0.1, "label_smoothing": 0.1}, {"learning_rate": 0.9}]
    )
    def test_without_a_strong_regularizer_there_is_none(self, recipe: dict[str, float]) -> None:
        series = losses(learning(2.3, 1.5, 60), learning(2.3, 1.2, 60), 0)
        assert watch(OverRegularization(), series, 600, recipe=Recipe.of(recipe)) == []

    @pytest.mark.parametrize(("control", "value"), STRONG)
    def test_a_run_that_still_overfits_is_not_held_back(self, control: str, value: float) -> None:
        series = losses(learning(2.3, 0.1, 60), learning(2.3, 0.8, 60), 0)
        assert watch(OverRegularization(), series, 600, recipe=Recipe.of({control: value})) == []

    @given(seeds)
    def test_a_run_that_learns_quickly_under_strong_dropout_is_left_alone(self, seed: int) -> None:
        series = losses(learning(2.6, 0.4, 250), learning(2.3, 0.1, 250), seed)
        assert watch(OverRegularization(), series, 300, recipe=Recipe.of({"dropout": 0.7})) == []

    def test_evaluations_before_a_change_of_the_recipe_tell_nothing_of_it(self) -> None:
        series, strong = losses(learning(2.3, 1.5, 60), learning(2.3, 1.2, 60), 0), Recipe.of({"dropout": 0.9})
        found = watch(OverRegularization(), series, 800, recipe=strong, change_at=601)
        patience = OverRegularization().patience_evaluations
        steps = [symptom.step for symptom in found]
        assert 600 in steps
        assert next(step for step in steps if step > 600) == 600 + patience * EVERY

    def test_a_training_loss_that_only_lags_behind_is_no_gap(self) -> None:
        course = learning(2.3, 0.0, 800)
        assert watch(OverRegularization(), losses(course, course, 0, 0.005), 600, recipe=Recipe.of({"dropout": 0.6})) == []

    def test_an_objective_that_is_no_loss_cannot_be_compared(self) -> None:
        series = {"loss": constant(1.5), "val/score": constant(0.4)}
        assert watch(OverRegularization(), series, 600, objective=MAXIMIZE, recipe=Recipe.of({"dropout": 0.9})) == []


def swinging(period: int, swing: float) -> Series:
    return lambda step: 1.0 + swing * math.cos(2 * math.pi * step / period)


class TestOscillation:
    @pytest.mark.parametrize("period", [2, 4, 6, 8])
    @given(scale=scales, seed=seeds)
    def test_a_periodic_training_loss_is_found_at_any_scale(self, period: int, scale: float, seed: int) -> None:
        found = watch(Oscillation(), {"loss": noisy(lambda step: scale * swinging(period, 0.3)(step), 0.03 * scale, seed)}, 200)
        assert found
        assert evidence_of(found[0])["period_losses"] == pytest.approx(period, abs=0.1 * period)

    @given(scales, seeds)
    def test_a_loss_that_takes_both_signs_may_swing_too(self, scale: float, seed: int) -> None:
        assert watch(Oscillation(), {"loss": noisy(lambda step: scale * (swinging(2, 0.3)(step) - 1), 0.03 * scale, seed)}, 200)

    @given(scales, seeds)
    def test_noise_between_batches_is_none(self, scale: float, seed: int) -> None:
        assert watch(Oscillation(), {"loss": noisy(constant(scale), 0.5 * scale, seed)}, 300) == []

    @given(seeds)
    def test_swings_on_the_way_down_are_none(self, seed: int) -> None:
        series = {"loss": noisy(lambda step: swinging(2, 0.15)(step) * learning(1.0, 0.1, 100)(step), 0.01, seed)}
        assert watch(Oscillation(), series, 200) == []

    def test_small_swings_are_none(self) -> None:
        assert watch(Oscillation(), {"loss": swinging(2, 0.05)}, 300) == []

    @pytest.mark.parametrize("signal", ["entropy", "value_loss", "kl"])
    def test_the_loss_of_a_policy_follows_its_rollouts(self, signal: str) -> None:
        assert watch(Oscillation(), {"loss": swinging(4, 0.3), signal: constant(0.5)}, 300) == []

    @given(scales, seeds)
    def test_a_held_out_loss_that_swings_with_the_training_loss_is_found(self, scale: float, seed: int) -> None:
        def held_out(step: int) -> float:
            return 1.0 + (0.4 if step // 25 % 2 else -0.2)

        series = {"loss": noisy(constant(1.0), 0.5, seed), "val/loss": held_out}
        found = watch(Oscillation(), scaled(series, scale, BOTH))
        assert {symptom.signal for symptom in found} == {"val/loss"}

    @pytest.mark.parametrize(("sigma", "why"), [(0.05, "the training loss is calm"), (0.5, "the objective is no loss")])
    def test_swings_of_the_measurement_alone_are_left_to_noisy_metrics(self, sigma: float, why: str) -> None:
        objective = MINIMIZE if "calm" in why else MAXIMIZE
        series = {
            "loss": noisy(constant(1.0), sigma, 1),
            objective.signal: lambda step: 1.0 + (0.4 if step // 25 % 2 else -0.2),
        }
        assert watch(Oscillation(), series, objective=objective) == [], why

    def test_short_runs_and_a_constant_loss_are_none(self) -> None:
        assert watch(Oscillation(), {"loss": swinging(2, 0.3)}, Oscillation().window_losses - 1) == []
        assert watch(Oscillation(), {"loss": constant(1.0), "val/loss": constant(1.0)}, 300) == []
