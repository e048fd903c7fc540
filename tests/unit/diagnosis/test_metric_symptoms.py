"""loss_imbalance, noisy_metrics, metric_stale, and a NaN that is reported as 0."""

from __future__ import annotations

import json
import math
import random

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
from trimtab.controls.envelope import Objective
from trimtab.controls.recipe import Recipe
from trimtab.diagnosis.base import Detector, View
from trimtab.diagnosis.examine import EVALUATION_DETECTORS, STEP_DETECTORS
from trimtab.diagnosis.loss_imbalance import LossImbalance
from trimtab.diagnosis.metric_stale import MetricStale, ObjectiveOverdue
from trimtab.diagnosis.noisy_metrics import NoisyMetrics
from trimtab.diagnosis.non_finite import NonFinite
from trimtab.telemetry.signal import LOSS_AT_EVALUATION
from trimtab.telemetry.telemetry import Telemetry

MAIN, AUX = "loss_term/main", "loss_term/aux"


class TestLossImbalance:
    @given(scales, seeds)
    def test_a_term_that_is_drowned_is_found_at_any_scale(self, scale: float, seed: int) -> None:
        terms = {MAIN: noisy(learning(1e4, 3e3, 60), 50, seed), AUX: noisy(constant(2.3), 0.05, seed)}
        found = watch(LossImbalance(), scaled(terms, scale, (MAIN, AUX)))
        assert {symptom.signal for symptom in found} == {AUX}
        assert evidence_of(found[-1])["ratio"] > LossImbalance().factor

    @pytest.mark.parametrize(("recipe", "severity"), [({}, "notice"), ({"loss_weight/aux": 1.0}, "warning")])
    def test_it_is_a_warning_where_the_weight_is_a_control(self, recipe: dict[str, float], severity: str) -> None:
        found = watch(LossImbalance(), {MAIN: learning(1e4, 3e3, 60), AUX: constant(2.3)}, recipe=Recipe.of(recipe))
        assert {symptom.severity for symptom in found} == {severity}

    def test_weights_of_the_recipe_are_counted(self) -> None:
        terms = {MAIN: learning(1.0, 0.3, 60), AUX: constant(2.3)}
        assert watch(LossImbalance(), terms) == []
        assert watch(LossImbalance(), terms, recipe=Recipe.of({"loss_weight/main": 1e4, "loss_weight/aux": 1.0}))

    @pytest.mark.parametrize(
        ("aux", "why"),
        [
            (learning(2.3, 0.5, 60), "it improves too"),
            (lambda step: 0.1 + step / 100, "it rises, as a penalty does"),
            (lambda step: 0.01 * math.sin(step), "it has no level"),
            (constant(-0.01), "it is a bonus"),
            (constant(0.0), "it is nothing"),
            (constant(200.0), "it is not that small"),
        ],
    )
    def test_other_small_terms_are_none(self, aux: Series, why: str) -> None:
        assert watch(LossImbalance(), {MAIN: learning(1e4, 3e3, 60), AUX: aux}) == [], why

    def test_a_term_that_is_drowned_by_a_jump_of_another_is_found(self) -> None:
        jump: dict[str, Series] = {MAIN: lambda step: 1.0 if step < 200 else 1e4, AUX: noisy(constant(2.3), 0.05, 0)}
        assert watch(LossImbalance(), jump)[0].step > 200
        assert watch(LossImbalance(), jump | {AUX: learning(2.3, 0.01, 100)}) == []

    def test_a_dominating_term_that_does_not_fall_takes_nothing_from_others(self) -> None:
        assert watch(LossImbalance(), {MAIN: constant(1e4), AUX: constant(2.3)}) == []

    def test_one_term_and_short_runs_are_none(self) -> None:
        assert watch(LossImbalance(), {MAIN: learning(1e4, 3e3, 60)}) == []
        assert watch(LossImbalance(), {MAIN: learning(1e4, 3e3, 60), AUX: constant(2.3)}, 99) == []


class TestNoisyMetrics:
    @pytest.mark.parametrize("objective", [MINIMIZE, MAXIMIZE])
    @given(scale=scales, seed=seeds)
    def test_noise_that_drowns_the_movement_is_a_notice(self, objective: Objective, scale: float, seed: int) -> None:
        sign = -1 if objective is MAXIMIZE else 1
        found = watch(
            NoisyMetrics(), {objective.signal: noisy(constant(sign * scale), 0.5 * scale, seed)}, 1000, objective=objective
        )
        assert {symptom.severity for symptom in found} == {"notice"}
        assert evidence_of(found[-1])["evaluations_needed"] >= 2

    @pytest.mark.parametrize("sigma", [0.0, 0.01])
    @given(scale=scales, seed=seeds)
    def test_a_clean_objective_is_none_learning_or_on_a_plateau(self, sigma: float, scale: float, seed: int) -> None:
        for course in (learning(2.3, 0.3, 150), constant(1.0)):
            assert watch(NoisyMetrics(), {"val/loss": noisy(lambda step: scale * course(step), sigma * scale, seed)}, 600) == []  # noqa: B023 - called at once

    def test_a_movement_larger_than_the_noise_can_be_seen_however_large_that_is(self) -> None:
        found = watch(NoisyMetrics(), {"val/loss": lambda step: 6 - step / 100 + (0.6 if step // EVERY % 2 else -0.6)}, 550)
        assert [symptom for symptom in found if symptom.step >= 16 * EVERY] == []

    def test_a_movement_larger_than_the_noise_can_be_seen(self) -> None:
        assert watch(NoisyMetrics(), {"val/loss": noisy(lambda step: 3 - step / 200, 0.1, 0)}, 500) == []

    def test_few_evaluations_are_not_judged(self) -> None:
        assert watch(NoisyMetrics(), {"val/loss": noisy(constant(1.0), 0.5, 0)}, 7 * EVERY) == []


def until(step: int, series: Series) -> Series:
    """Report nothing from ``step`` on, as far as a mapping can: NaN is left out by `reported`."""
    return lambda at: series(at) if at < step else math.nan


def reported(
    detector: Detector, series: dict[str, Series], steps: int, *, objective: Objective = MINIMIZE
) -> list[tuple[int, str]]:
    """Like `watch`, but a NaN is not reported at all; the detector looks after every step."""
    telemetry, found = Telemetry(), list[tuple[int, str]]()
    for step in range(1, steps + 1):
        values = {name: at(step) for name, at in series.items() if not math.isnan(at(step))}
        telemetry.observe(step, {name: value for name, value in values.items() if name != objective.signal})
        if objective.signal in values and step % EVERY == 0:
            telemetry.observe(step, {objective.signal: values[objective.signal]}, "evaluation")
        symptom = detector.detect(View(step, telemetry, objective, evaluate_every_steps=EVERY))
        if symptom is not None:
            assert symptom.severity == "notice"
            found.append((step, symptom.signal))
    return found


class TestMetricStale:
    def test_a_signal_that_stops_coming_is_found_and_named(self) -> None:
        found = reported(MetricStale(), {"loss": noisy(constant(1.0), 0.1, 0), "memory": until(100, constant(5.0))}, 150)
        assert found[0] == (119, "memory")
        assert {name for _, name in found} == {"memory"}

    @given(seeds)
    def test_a_signal_that_comes_irregularly_is_expected_by_its_longest_wait(self, seed: int) -> None:
        draw = random.Random(seed)
        steps = {step for step in range(1000) if draw.random() < 0.1}
        assert reported(MetricStale(), {"rare": lambda step: 1.0 if step in steps else math.nan}, 600) == []

    def test_a_signal_that_came_only_a_few_times_is_not_expected(self) -> None:
        assert reported(MetricStale(), {"loss": noisy(constant(1.0), 0.1, 0), "setup": until(8, constant(5.0))}, 300) == []

    def test_values_that_are_not_finite_still_come(self) -> None:
        series: dict[str, Series] = {"grad_norm": lambda step: 1.0 + step % 7 if step < 100 else math.inf}
        assert reported(MetricStale(), series, 300) == []

    @pytest.mark.parametrize("name", ["loss", "grad_norm", "val/loss"])
    @given(scale=scales, seed=seeds)
    def test_a_frozen_signal_is_found_at_any_scale(self, name: str, scale: float, seed: int) -> None:
        live = noisy(constant(scale), 0.1 * scale, seed)
        frozen = EVERY * 20

        def at(step: int) -> float:
            return live(step) if step < frozen else 2 * scale

        assert (frozen + (11 if name != "val/loss" else 4 * EVERY), name) in reported(MetricStale(), {name: at}, frozen + 300)

    @pytest.mark.parametrize(
        ("signal", "course"),
        [
            ("learning_rate", lambda step: step / 100 if step < 100 else 1.0),
            ("loss", constant(2.0)),
            ("loss", lambda step: math.exp(-step) + 1.0),
            ("loss", lambda step: 1.0 / (step * step) if step < 200 else 1e-7),
        ],
    )
    def test_what_is_constant_by_right_is_none(self, signal: str, course: Series) -> None:
        assert reported(MetricStale(), {signal: course}, 400) == []

    def test_an_accuracy_that_stays_at_its_best_is_none_but_elsewhere_it_is(self) -> None:
        def course(top: float) -> Series:
            return lambda step: top if step >= 15 * EVERY else 0.5 + random.Random(step).uniform(0, 0.4)

        assert reported(MetricStale(), {"val/score": course(1.0)}, 40 * EVERY, objective=MAXIMIZE) == []
        assert reported(MetricStale(), {"val/score": course(0.6)}, 40 * EVERY, objective=MAXIMIZE)

    def test_an_objective_that_is_no_longer_reported_is_found_after_a_step(self) -> None:
        found = reported(ObjectiveOverdue(), {"loss": constant(1.0), "val/loss": until(101, constant(1.0))}, 300)
        assert found[0] == (100 + 3 * EVERY + 1, "val/loss")
        assert reported(ObjectiveOverdue(), {"loss": constant(1.0), "val/loss": constant(1.0)}, 300) == []


class TestSilenceAfterARollback:
    """From step 783 back to a checkpoint at 500, with an evaluation every 20 steps; steps are counted on."""

    @staticmethod
    def rolled_back() -> Telemetry:
        telemetry = Telemetry()
        saved = None
        for step in range(1, 784):
            telemetry.observe(step, {"loss": 1.0 / step})
            if step % 20 == 0:
                telemetry.observe(step, {"val/loss": 2.0 / step}, "evaluation")
            if step == 500:
                saved = json.loads(json.dumps(telemetry.state()))
        assert saved is not None
        telemetry.load_state(saved, 783)
        return telemetry

    @staticmethod
    def found(telemetry: Telemetry, step: int) -> list[dict[str, float]]:
        view = View(step, telemetry, MINIMIZE, evaluate_every_steps=20)
        symptoms = [detector.detect(view) for detector in (MetricStale(), ObjectiveOverdue())]
        return [evidence_of(symptom) for symptom in symptoms if symptom is not None]

    def test_undone_steps_are_no_silence(self) -> None:
        telemetry = self.rolled_back()
        assert self.found(telemetry, 784) == []
        for step in range(784, 900):
            telemetry.observe(step, {"loss": 1.0 / step})
            if step % 20 == 0:
                telemetry.observe(step, {"val/loss": 2.0 / step}, "evaluation")
            assert self.found(telemetry, step) == [], step

    def test_with_a_rewind_between_any_two_evaluations_there_is_no_wait_yet(self) -> None:
        telemetry = Telemetry()
        for step in (20, 40, 60):
            telemetry.observe(step, {"val/loss": 1.0 / step}, "evaluation")
            telemetry.load_state(telemetry.state(), step + 10)
        assert self.found(telemetry, 130) == []
        assert self.found(telemetry, 131) == [{"steps_without_a_value": 61, "longest_wait_before": 20}]

    def test_a_real_silence_is_found_and_counted_from_the_rewind(self) -> None:
        telemetry = self.rolled_back()
        for step in range(784, 885):
            telemetry.observe(step, {"loss": 1.0 / step})
        assert self.found(telemetry, 843) == []
        assert self.found(telemetry, 844) == [{"steps_without_a_value": 61, "longest_wait_before": 20}]
        assert self.found(telemetry, 884)[0] == {
            "steps_without_a_value": 101,
            "longest_wait_before": 20,
            "signals_overdue": 1,
        }

    def test_the_leap_over_undone_steps_is_no_wait_that_hides_a_later_silence(self) -> None:
        telemetry = self.rolled_back()
        telemetry.observe(800, {"val/loss": 0.002}, "evaluation")
        telemetry.observe(820, {"val/loss": 0.002}, "evaluation")
        for step in range(784, 940):
            telemetry.observe(step, {"loss": 1.0 / step})
        stale, overdue = self.found(telemetry, 940)
        assert (stale["longest_wait_before"], stale["steps_without_a_value"]) == (20, 120)
        assert (overdue["longest_wait_before"], overdue["steps_without_a_value"]) == (20, 120)


class TestHiddenNonFinite:
    def test_a_loss_that_is_suddenly_zero_is_found_after_three_steps(self) -> None:
        series = {"loss": noisy(lambda step: 0.0 if step >= 100 else 2.0, 0.0, 0)}
        found = watch(NonFinite(), series, 110, each_step=True)
        assert found[0].step == 102
        assert found[0].severity == "critical"
        assert evidence_of(found[0])["loss_before"] == 2.0

    @pytest.mark.parametrize(
        ("loss", "why"),
        [
            (lambda step: max(0.0, 2.0 - step / 50), "it came near 0 before"),
            (lambda step: 0.0 if step % 3 == 0 else 1.0, "it is 0 now and then"),
            (lambda step: 0.0, "it was never anything else"),
            (lambda step: 0.0 if step in (100, 101) else 2.0, "it was two batches"),
            (lambda step: -2.0 if step < 100 else 0.0, "a loss below 0 has no floor at 0"),
        ],
    )
    def test_other_zeros_are_none(self, loss: Series, why: str) -> None:
        assert watch(NonFinite(), {"loss": loss}, 130, each_step=True) == [], why

    def test_a_gradient_that_is_finite_and_not_zero_shows_the_loss_to_be_real(self) -> None:
        series = {"loss": lambda step: 0.0 if step >= 100 else 2.0, "grad_norm": constant(0.3)}
        assert watch(NonFinite(), series, 130, each_step=True) == []


NAMES = ("loss", "grad_norm", "grad_norm/a", "grad_norm/b", "loss_term/a", "loss_term/b", "dead_units", "learning_rate")


@pytest.mark.parametrize("detector", [*STEP_DETECTORS, *EVALUATION_DETECTORS], ids=lambda detector: type(detector).__name__)
@given(seed=seeds)
def test_no_values_whatever_raise_an_error_or_give_evidence_that_is_no_number(detector: Detector, seed: int) -> None:
    draw = random.Random(seed)
    strange = (math.nan, math.inf, 0.0, -0.0, 5e-324, 1e100, -1e100, 1e308, 1.0, 1.0, -1.0, 0.5)
    telemetry, recipe = Telemetry(), Recipe.of({"dropout": 0.9, "weight_decay": 5.0, "loss_weight/a": 10.0})
    for step in range(1, 260):
        telemetry.observe(step, {name: draw.choice(strange) for name in NAMES if draw.random() < 0.9})
        if step % 10 == 0:
            telemetry.observe(step, {"val/loss": draw.choice(strange), LOSS_AT_EVALUATION: draw.choice(strange)}, "evaluation")
            symptom = detector.detect(View(step, telemetry, MINIMIZE, recipe=recipe, evaluate_every_steps=10))
            assert symptom is None or all(math.isfinite(item.value) for item in symptom.evidence)
