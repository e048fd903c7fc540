"""Planted symptoms are found in time, at any scale; healthy runs raise none."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from trimtab.controls.envelope import Objective
from trimtab.diagnosis.base import Symptom, View
from trimtab.diagnosis.examine import EVALUATION_DETECTORS, STEP_DETECTORS, examine
from trimtab.diagnosis.loss_spike import RecurringSpikes
from trimtab.diagnosis.plateau import Plateau
from trimtab.telemetry.signal import LOSS_AT_EVALUATION
from trimtab.telemetry.telemetry import Telemetry

SCALES = (1e-8, 1.0, 1e8)
MINIMIZE = Objective("val/loss", "minimize")
MAXIMIZE = Objective("val/score", "maximize")

Series = Callable[[int], float]


def healthy_loss(draw: random.Random, scale: float = 1.0) -> Series:
    return lambda step: scale * (1.0 + 3.0 * math.exp(-step / 60) + draw.gauss(0, 0.08))


def watch(loss: Series, steps: int, *, first: int = 1) -> list[Symptom]:
    telemetry, found = Telemetry(), list[Symptom]()
    for step in range(first, first + steps):
        telemetry.observe(step, {"loss": loss(step)})
        found.extend(examine(View(step, telemetry, MINIMIZE), STEP_DETECTORS))
    return found


def evaluate(values: list[float], objective: Objective = MINIMIZE, train: Series | None = None) -> list[Symptom]:
    """Evaluate every 10 steps while the training loss falls, unless ``train`` says otherwise."""
    telemetry, found = Telemetry(), list[Symptom]()
    for at, value in enumerate(values, start=1):
        for step in range(10 * at - 9, 10 * at + 1):
            telemetry.observe(step, {"loss": train(step) if train else 3.0 * math.exp(-step / 100)})
        window = telemetry.window("loss")
        assert window is not None
        telemetry.observe(10 * at, {objective.signal: value, LOSS_AT_EVALUATION: window.slow}, "evaluation")
        found.extend(examine(View(10 * at, telemetry, objective), EVALUATION_DETECTORS))
    return found


def flat(step: int) -> float:
    return 1.0


def names(symptoms: list[Symptom]) -> set[str]:
    return {symptom.name for symptom in symptoms}


def first_step(symptoms: list[Symptom], name: str) -> int | None:
    return next((symptom.step for symptom in symptoms if symptom.name == name), None)


class TestHealthyRuns:
    def test_a_hundred_decaying_noisy_runs_diverge_never(self) -> None:
        for seed in range(100):
            draw = random.Random(seed)
            scale, decay, noise = 10 ** draw.uniform(-8, 8), draw.uniform(20, 300), draw.uniform(0.0, 0.3)
            floor = draw.uniform(0.05, 1.0)
            found = watch(lambda step: scale * (floor + 3 * math.exp(-step / decay)) * math.exp(draw.gauss(0, noise)), 600)  # noqa: B023 - called at once
            assert not names(found) & {"divergence", "non_finite"}, seed

    def test_spikes_are_notices_and_rare(self) -> None:
        found = [symptom for seed in range(30) for symptom in watch(healthy_loss(random.Random(seed)), 400)]
        assert names(found) <= {"loss_spike"}
        assert len(found) <= 2

    @pytest.mark.parametrize("objective", [MINIMIZE, MAXIMIZE])
    @pytest.mark.parametrize("scale", SCALES)
    def test_a_clearly_improving_objective_raises_nothing(self, objective: Objective, scale: float) -> None:
        sign = 1 if objective.direction == "minimize" else -1
        for seed in range(100):
            draw = random.Random(seed)
            values = [sign * scale * (4.0 - 0.1 * at + draw.gauss(0, 0.02)) for at in range(25)]
            assert evaluate(values, objective) == []


class TestNonFinite:
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e200])
    @pytest.mark.parametrize("signal", ["loss", "grad_norm"])
    def test_it_is_found_at_its_step_and_only_there(self, bad: float, signal: str) -> None:
        telemetry, steps = Telemetry(), list[int]()
        for step in range(1, 40):
            telemetry.observe(step, {"loss": 1.0, "grad_norm": 1.0} | ({signal: bad} if step == 30 else {}))
            found = examine(View(step, telemetry, MINIMIZE), STEP_DETECTORS)
            steps.extend(symptom.step for symptom in found if symptom.name == "non_finite")
            assert all(symptom.severity == "critical" and symptom.signal == signal for symptom in found)
        assert steps == [30]

    def test_it_is_found_at_the_very_first_step(self) -> None:
        assert names(watch(lambda step: math.nan, 1)) == {"non_finite"}

    def test_a_non_finite_objective_is_found_at_its_evaluation(self) -> None:
        found = evaluate([2.0, 1.5, math.nan, 1.0])
        assert [(symptom.name, symptom.step, symptom.signal) for symptom in found] == [("non_finite", 30, "val/loss")]

    def test_other_signals_may_be_anything(self) -> None:
        telemetry = Telemetry()
        telemetry.observe(1, {"loss": 1.0, "memory": math.nan})
        assert examine(View(1, telemetry, MINIMIZE), STEP_DETECTORS) == ()


def after_a_change_at(change: int, loss: Series, steps: int) -> list[Symptom]:
    """Watch a loss whose recipe is changed at step ``change``."""
    telemetry, found = Telemetry(), list[Symptom]()
    for step in range(1, steps + 1):
        if step == change:
            telemetry.rebase()
        telemetry.observe(step, {"loss": loss(step)})
        found.extend(examine(View(step, telemetry, MINIMIZE), STEP_DETECTORS))
    return found


class TestDivergence:
    @pytest.mark.parametrize(("level", "is_divergence"), [(1.4, False), (2.5, True)])
    def test_after_a_change_of_the_recipe_a_memorizing_run_may_unlearn_but_not_more(
        self, level: float, is_divergence: bool
    ) -> None:
        draw = random.Random(0)

        def loss(step: int) -> float:
            memorized = 0.4 + 1.6 * math.exp(-max(0, step - 30) / 60)
            unlearned = min(1.0, max(0, step - 440) / 60) * (level - 0.4)
            return memorized + unlearned + draw.gauss(0, 0.02)

        assert ("divergence" in names(after_a_change_at(400, loss, 600))) == is_divergence
        assert "divergence" in names(watch(loss, 600)), "without a change of the recipe it is one"

    @pytest.mark.parametrize("signal", ["eval/return", "rollout/ep_rew_mean", "episode_reward"])
    @pytest.mark.parametrize(("growth", "is_divergence"), [(0.0, False), (80.0, False), (20_000.0, True)])
    def test_a_bootstrapped_loss_grows_by_orders_while_all_is_well(
        self, signal: str, growth: float, is_divergence: bool
    ) -> None:
        def found(objective: Objective) -> set[str]:
            draw, telemetry, seen = random.Random(0), Telemetry(), set[str]()
            for step in range(1, 1001):
                telemetry.observe(step, {"loss": 0.02 * (1 + growth * (step / 1000) ** 2) * math.exp(draw.gauss(0, 0.3))})
                seen |= {symptom.name for symptom in examine(View(step, telemetry, objective), STEP_DETECTORS)}
            return seen

        assert ("divergence" in found(Objective(signal, "maximize"))) == is_divergence
        assert ("divergence" in found(MINIMIZE)) == (growth > 0), "elsewhere it is one"

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("growth", [1.01, 1.02, 1.05, 1.1, 1.2, 2.0, 10.0])
    def test_exponential_growth_is_found_before_the_loss_is_six_times_as_high(self, scale: float, growth: float) -> None:
        for seed in range(5):
            healthy = healthy_loss(random.Random(seed), scale)
            found = watch(lambda step: healthy(step) * growth ** max(0, step - 300), 420)  # noqa: B023 - called at once
            at = first_step(found, "divergence")
            assert at is not None, seed
            assert at > 300
            # Five losses in a row have to be above, whatever the growth.
            assert growth ** (at - 300) < 6 * growth**5

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("rise_steps", [1, 10, 50])
    def test_a_loss_that_rises_and_stays_is_found_soon(self, scale: float, rise_steps: int) -> None:
        for seed in range(5):
            healthy = healthy_loss(random.Random(seed), scale)
            found = watch(lambda step: healthy(step) + 4 * scale * min(1.0, max(0, step - 300) / rise_steps), 400)  # noqa: B023 - called at once
            at = first_step(found, "divergence")
            assert at is not None, seed
            assert 305 <= at <= 305 + rise_steps + 5

    def test_a_negative_loss_diverges_too(self) -> None:
        for seed in range(5):
            draw = random.Random(seed)
            at = first_step(watch(lambda step: (-5.0 if step < 300 else 5.0) + draw.gauss(0, 0.1), 330), "divergence")  # noqa: B023 - called at once
            assert at is not None
            assert at <= 310

    @pytest.mark.parametrize("lasting", [1, 2, 4])
    def test_a_short_excursion_is_no_divergence(self, lasting: int) -> None:
        for seed in range(10):
            healthy = healthy_loss(random.Random(seed))
            found = watch(lambda step: healthy(step) + (50.0 if 300 <= step < 300 + lasting else 0.0), 400)  # noqa: B023 - called at once
            assert first_step(found, "divergence") is None

    @pytest.mark.parametrize("constant", [0.0, 1.0, -3.0, 1e-8, 1e8])
    def test_a_constant_loss_is_nothing(self, constant: float) -> None:
        assert watch(lambda step: constant, 200) == []

    def test_it_is_silent_before_it_has_seen_twenty_losses(self) -> None:
        assert watch(lambda step: 10.0**step, 19) == []


class TestLossSpike:
    @pytest.mark.parametrize("scale", SCALES)
    def test_a_spike_is_found_at_its_step(self, scale: float) -> None:
        for seed in range(10):
            healthy = healthy_loss(random.Random(seed), scale)
            found = watch(lambda step: healthy(step) + (3.0 * scale if step == 300 else 0.0), 320)  # noqa: B023 - called at once
            assert 300 in [symptom.step for symptom in found if symptom.name == "loss_spike"]
            assert {symptom.severity for symptom in found} == {"notice"}

    def test_an_old_spike_is_not_found_again_at_a_step_without_a_loss(self) -> None:
        telemetry, draw = Telemetry(), random.Random(0)
        for step in range(1, 100):
            telemetry.observe(step, {"loss": draw.gauss(2.0, 0.1)})
        telemetry.observe(100, {"loss": 9.0})
        telemetry.observe(101, {"grad_norm": 1.0})
        assert names(list(examine(View(100, telemetry, MINIMIZE), STEP_DETECTORS))) == {"loss_spike"}
        assert examine(View(101, telemetry, MINIMIZE), STEP_DETECTORS) == ()


class TestRecurringSpikes:
    def find(self, loss: Series, steps: int = 300) -> Symptom | None:
        telemetry = Telemetry()
        for step in range(1, steps + 1):
            telemetry.observe(step, {"loss": loss(step)})
        return RecurringSpikes().detect(View(steps, telemetry, MINIMIZE))

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize(("spikes", "found"), [((), False), ((150, 200), False), ((150, 200, 250), True)])
    def test_three_spikes_are_a_warning_and_two_are_not(self, spikes: tuple[int, ...], found: bool, scale: float) -> None:
        for seed in range(10):
            healthy = healthy_loss(random.Random(seed), scale)
            symptom = self.find(lambda step: healthy(step) + (3.0 * scale if step in spikes else 0.0))  # noqa: B023 - called at once
            assert (symptom is not None) == found
            assert symptom is None or (symptom.severity, symptom.evidence[0].value) == ("warning", 3.0)

    def test_losses_next_to_each_other_are_one_spike(self) -> None:
        healthy = healthy_loss(random.Random(0))
        assert self.find(lambda step: healthy(step) + (3.0 if 150 <= step < 154 else 0.0)) is None

    def test_what_left_the_window_does_not_count(self) -> None:
        healthy = healthy_loss(random.Random(0))
        spiky: Series = lambda step: healthy(step) + (3.0 if step in (50, 100, 150) else 0.0)  # noqa: E731 - named for its annotation
        assert self.find(spiky, 250) is not None
        assert self.find(spiky, 380) is None

    def test_a_falling_loss_a_step_of_it_and_a_heavy_tail_are_no_spikes(self) -> None:
        for seed in range(10):
            draw = random.Random(seed)
            assert self.find(lambda step: 10.0 * math.exp(-step / 20) + draw.gauss(0, 1e-3)) is None  # noqa: B023 - called at once
            assert self.find(lambda step: (3.0 if step < 200 else 1.0) + draw.gauss(0, 0.05)) is None  # noqa: B023 - called at once
            assert self.find(lambda step: draw.lognormvariate(0, 0.7)) is None  # noqa: B023 - called at once


class TestOverfitting:
    @pytest.mark.parametrize("objective", [MINIMIZE, MAXIMIZE])
    @pytest.mark.parametrize("scale", SCALES)
    def test_a_turn_for_the_worse_is_found_within_six_evaluations(self, objective: Objective, scale: float) -> None:
        sign = 1 if objective.direction == "minimize" else -1
        for seed in range(30):
            draw = random.Random(seed)
            values = [sign * scale * (1.5 + 0.05 * abs(at - 10) + draw.gauss(0, 0.01)) for at in range(20)]
            at = first_step(evaluate(values, objective), "overfitting")
            assert at is not None, seed
            assert 120 <= at <= 170

    def test_negative_objectives_overfit_too(self) -> None:
        assert "overfitting" in names(evaluate([-2.0 + 0.1 * abs(at - 8) for at in range(16)]))

    def test_an_objective_that_stands_still_under_a_falling_training_loss_is_overfitting(self) -> None:
        assert first_step(evaluate([2.0] * 10), "overfitting") == 80

    def test_it_is_none_while_the_training_loss_rises_too(self) -> None:
        values = [1.5 + 0.05 * abs(at - 10) for at in range(20)]
        found = evaluate(values, train=lambda step: 1.0 + 0.01 * step)
        assert "overfitting" not in names(found)

    def test_its_evidence_is_finite_and_names_the_best(self) -> None:
        found = [s for s in evaluate([2.0, 1.0, 1.2, 1.4, 1.6]) if s.name == "overfitting"]
        assert {item.name: item.value for item in found[0].evidence}["best_level"] == 1.1
        assert all(math.isfinite(item.value) for symptom in found for item in symptom.evidence)


class TestPlateau:
    @pytest.mark.parametrize("objective", [MINIMIZE, MAXIMIZE])
    @pytest.mark.parametrize("scale", SCALES)
    def test_a_standstill_is_found_soon_most_times_and_always(self, objective: Objective, scale: float) -> None:
        sign, delays = 1 if objective.direction == "minimize" else -1, list[int]()
        patience = Plateau().patience_evaluations
        for seed in range(30):
            draw = random.Random(seed)
            values = [sign * scale * (max(2.0, 4.0 - 0.2 * at) + draw.gauss(0, 0.003)) for at in range(40)]
            at = first_step(evaluate(values, objective, train=flat), "plateau")
            assert at is not None, seed
            delays.append((at - 110) // 10)
        assert min(delays) >= patience - 1
        assert sorted(delays)[20] <= patience + 3
        assert max(delays) <= patience + 16

    @pytest.mark.parametrize("constant", [0.0, 1.0, -3.0, 1e-8, 1e8])
    def test_a_constant_objective_is_a_plateau_and_nothing_else(self, constant: float) -> None:
        assert names(evaluate([constant] * 15, train=flat)) == {"plateau"}

    def test_it_needs_two_evaluations_before_those_it_waits_for(self) -> None:
        least = Plateau().patience_evaluations + 2
        assert evaluate([1.0] * (least - 1), train=flat) == []
        assert [symptom.step for symptom in evaluate([1.0] * least, train=flat)] == [10 * least]


def test_no_values_whatever_raise_an_error() -> None:
    draw = random.Random(5)
    strange = (math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 1e100, -1e100, 1e308, 1.0, -1.0)
    for _ in range(20):
        telemetry = Telemetry()
        for step in range(1, 120):
            telemetry.observe(step, {"loss": draw.choice(strange), "grad_norm": draw.choice(strange)})
            examine(View(step, telemetry, MINIMIZE), STEP_DETECTORS)
            if step % 5 == 0:
                telemetry.observe(step, {"val/loss": draw.choice(strange)}, "evaluation")
                examine(View(step, telemetry, MINIMIZE), EVALUATION_DETECTORS)
                telemetry.snapshot(step)


def test_nothing_seen_is_nothing_found() -> None:
    assert examine(View(1, Telemetry(), MINIMIZE), (*STEP_DETECTORS, *EVALUATION_DETECTORS)) == ()


class TestLostProgress:
    """A loss back at the level the run began with, where half of the best level, or 8 deviations, are more than the way."""

    @staticmethod
    def _falls_and(returns: float, seed: int) -> Callable[[int], float]:
        draw = random.Random(seed)
        # From 4.4 to about 3.2, as a language model early on; half of that would be 4.8.
        return lambda step: (3.2 + 1.2 * math.exp(-step / 60) if step < 300 else returns) + draw.gauss(0, 0.05)

    def test_it_is_a_divergence_and_says_since_when(self) -> None:
        for seed in range(10):
            found = [symptom for symptom in watch(self._falls_and(4.4, seed), 330) if symptom.name == "divergence"]
            assert found, seed
            since = {evidence.name: evidence.value for evidence in found[0].evidence}["since_step"]
            assert since == 300, seed

    def test_a_loss_that_is_half_way_back_is_none(self) -> None:
        for seed in range(10):
            assert "divergence" not in names(watch(self._falls_and(3.8, seed), 600)), seed

    def test_a_run_that_has_learned_little_has_nothing_to_lose(self) -> None:
        for seed in range(10):
            draw = random.Random(seed)
            loss = lambda step: (4.0 if step < 40 or step > 300 else 3.6) + draw.gauss(0, 0.05)  # noqa: E731, B023 - called at once
            assert "divergence" not in names(watch(loss, 600)), seed
