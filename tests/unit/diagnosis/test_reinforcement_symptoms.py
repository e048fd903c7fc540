"""The symptoms of reinforcement learning: planted ones are found, at any scale of the return; healthy courses raise none."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.controls.envelope import Objective
from trimtab.controls.recipe import Recipe
from trimtab.diagnosis.base import Detector, Symptom, View
from trimtab.diagnosis.cautious_exploration import CautiousExploration
from trimtab.diagnosis.climb import climb, starting_values
from trimtab.diagnosis.entropy_collapse import EntropyCollapse
from trimtab.diagnosis.entropy_runaway import EntropyRunaway
from trimtab.diagnosis.examine import EVALUATION_DETECTORS, examine
from trimtab.diagnosis.kl_blowup import KlBlowup
from trimtab.diagnosis.unsafe_exploration import UnsafeExploration
from trimtab.diagnosis.value_fit_poor import ValueFitPoor
from trimtab.telemetry.roles import ENTROPY, EXPLAINED_VARIANCE, KL, SUCCESS_RATE, UNSAFE_RATE, VALUE_LOSS, Roles
from trimtab.telemetry.telemetry import Telemetry
from trimtab.telemetry.window import Window

RETURN = "eval/return"
MAXIMIZE, EVERY = Objective(RETURN, "maximize"), 5
NO_RECIPE, USUAL = Recipe(()), Roles()
SCALES = (1e-6, 1.0, 1e6)
ALL: tuple[Detector, ...] = (
    EntropyCollapse(),
    EntropyRunaway(),
    KlBlowup(),
    ValueFitPoor(),
    CautiousExploration(),
    UnsafeExploration(),
)
RATES = (SUCCESS_RATE, UNSAFE_RATE, RETURN)

Series = Callable[[int], float]


def watch(
    updates: int,
    series: Mapping[str, Series],
    detectors: tuple[Detector, ...] = ALL,
    *,
    objective: Objective = MAXIMIZE,
    recipe: Recipe = NO_RECIPE,
    roles: Roles = USUAL,
) -> list[Symptom]:
    """Report every series after each update; rates and returns at evaluations, after which the detectors look."""
    telemetry, found = Telemetry(), list[Symptom]()
    for update in range(1, updates + 1):
        telemetry.observe(update, {name: at(update) for name, at in series.items() if name not in RATES})
        if update % EVERY == 0:
            values = {name: at(update) for name, at in series.items() if name in RATES}
            telemetry.observe(update, values, "evaluation")
            view = View(update, telemetry, objective, roles, recipe, EVERY)
            found.extend(examine(view, detectors))
    return found


def first(symptoms: list[Symptom], name: str) -> int | None:
    return next((symptom.step for symptom in symptoms if symptom.name == name), None)


def noisy(series: Series, deviation: float, seed: int) -> Series:
    draw = random.Random(seed)
    return lambda update: series(update) + draw.gauss(0, deviation)


def constant(value: float) -> Series:
    return lambda update: value


def ramp(begin: float, end: float, start: int, length: int) -> Series:
    return lambda update: begin + (end - begin) * min(1.0, max(0.0, (update - start) / length))


def clipped(series: Series) -> Series:
    return lambda update: min(1.0, max(0.0, series(update)))


def healthy(seed: int, scale: float = 1.0) -> dict[str, Series]:
    """A run that learns: what a small task shows, with the pace, the noise and the levels drawn."""
    draw = random.Random(seed)
    pace, start, end = draw.uniform(20, 80), draw.uniform(0.5, 3.0), draw.uniform(-1.0, 0.4)
    begin, best = draw.uniform(-2, 1), draw.uniform(5, 10)
    return {
        ENTROPY: noisy(lambda update: end + (start - end) * math.exp(-update / (1.5 * pace)), 0.01, seed),
        KL: lambda update: abs(draw.gauss(0.01, 0.008)),
        EXPLAINED_VARIANCE: noisy(lambda update: 0.9 - 1.2 * math.exp(-update / 12), 0.08, seed + 1),
        VALUE_LOSS: lambda update: scale * math.exp(draw.gauss(0, 0.3)),
        SUCCESS_RATE: clipped(noisy(lambda update: 0.95 - 0.95 * math.exp(-update / pace), 0.04, seed + 2)),
        UNSAFE_RATE: clipped(noisy(lambda update: 0.05 + 0.2 * math.exp(-update / pace), 0.04, seed + 3)),
        RETURN: noisy(lambda update: scale * (best + (begin - best) * math.exp(-update / pace)), 0.3 * scale, seed + 4),
    }


class TestHealthyRuns:
    @pytest.mark.parametrize("scale", SCALES)
    def test_fifty_learning_runs_raise_nothing(self, scale: float) -> None:
        for seed in range(50):
            assert watch(200, healthy(seed, scale)) == [], seed

    def test_a_learning_run_that_minimizes_a_cost_raises_nothing(self) -> None:
        for seed in range(20):
            series = healthy(seed)
            gain = series[RETURN]
            cost = {**series, RETURN: lambda update: -gain(update)}  # noqa: B023 - called at once
            assert watch(200, cost, objective=Objective(RETURN, "minimize")) == [], seed

    @pytest.mark.parametrize("updates", [5, 10, 15])
    def test_a_short_run_raises_nothing_however_bad(self, updates: int) -> None:
        bad = {
            ENTROPY: ramp(1.0, 9.0, 0, 10),
            EXPLAINED_VARIANCE: constant(-1.0),
            SUCCESS_RATE: constant(0.0),
            UNSAFE_RATE: constant(1.0),
            RETURN: constant(-5.0),
        }
        assert watch(updates, bad) == []

    def test_nothing_reported_is_nothing_found(self) -> None:
        assert watch(100, {}) == []
        assert watch(100, {RETURN: constant(1.0)}) == []

    def test_they_are_registered(self) -> None:
        assert {type(detector) for detector in ALL} <= {type(detector) for detector in EVALUATION_DETECTORS}

    @pytest.mark.parametrize("value", [0.0, 1.0, -1.0, math.nan, 1e90])
    def test_constant_signals_raise_no_error(self, value: float) -> None:
        names = (ENTROPY, KL, EXPLAINED_VARIANCE, VALUE_LOSS, *RATES)
        for symptom in watch(80, dict.fromkeys(names, constant(value))):
            assert all(math.isfinite(item.value) for item in symptom.evidence)


class TestEntropyCollapse:
    DETECTOR = (EntropyCollapse(),)

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize(("begin", "end"), [(0.69, 0.02), (1.4, -4.0), (-0.5, -4.0), (40.0, 1.0)])
    def test_a_fast_fall_under_a_flat_return_is_found(self, begin: float, end: float, scale: float) -> None:
        found_at = list[int]()
        for seed in range(10):
            series = {ENTROPY: noisy(ramp(begin, end, 3, 12), 0.005, seed), RETURN: noisy(constant(9 * scale), scale, seed)}
            found = watch(60, series, self.DETECTOR)
            assert {symptom.severity for symptom in found} == {"warning"}, seed
            found_at.append(found[0].step)
        assert sorted(found_at)[5] == 20, "as soon as four evaluations tell of a standstill"
        assert max(found_at) <= 45

    def test_the_same_fall_is_learning_while_the_return_rises(self) -> None:
        for seed in range(10):
            series = {ENTROPY: noisy(ramp(0.69, 0.02, 3, 40), 0.005, seed), RETURN: noisy(ramp(9, 500, 3, 40), 10, seed)}
            assert watch(100, series, self.DETECTOR) == []

    def test_it_is_found_when_half_of_the_return_is_lost_with_it(self) -> None:
        series = {ENTROPY: ramp(0.69, 0.02, 60, 10), RETURN: noisy(lambda u: min(4.0 * u, 200) if u < 70 else 90.0, 4, 0)}
        assert 70 <= (first(watch(120, series, self.DETECTOR), "entropy_collapse") or 999) <= 90

    @pytest.mark.parametrize(("success", "is_found"), [(0.1, True), (0.9, False)])
    def test_a_success_rate_tells_convergence_from_collapse(self, success: float, is_found: bool) -> None:
        series = {
            ENTROPY: ramp(0.69, 0.02, 3, 20),
            RETURN: noisy(ramp(9, 150, 3, 10), 3, 0),
            SUCCESS_RATE: constant(success),
        }
        assert (first(watch(100, series, self.DETECTOR), "entropy_collapse") is not None) == is_found

    def test_a_policy_that_was_good_from_the_start_may_be_certain(self) -> None:
        series = {ENTROPY: ramp(0.69, 0.02, 3, 20), RETURN: noisy(constant(100.0), 3, 0)}
        assert watch(100, series, self.DETECTOR) != []
        assert watch(100, {**series, SUCCESS_RATE: constant(0.9)}, self.DETECTOR) == []

    def test_a_collapse_within_the_second_update_is_found(self) -> None:
        series = {ENTROPY: lambda update: 0.69 if update == 1 else 1e-6, RETURN: constant(9.0)}
        assert first(watch(40, series, self.DETECTOR), "entropy_collapse") == 20

    def test_real_actions_may_narrow_below_zero_by_some(self) -> None:
        series = {ENTROPY: ramp(1.4, -0.4, 3, 20), RETURN: constant(1.0)}
        fraction = EntropyCollapse().fraction
        assert fraction * 1.4 < 1.8 < EntropyCollapse().fraction_below_zero * 1.4
        found = watch(100, series, self.DETECTOR)
        assert all(symptom.step <= 20 for symptom in found), "once it is negative the wider limit counts"

    def test_without_evaluations_it_says_nothing(self) -> None:
        assert watch(100, {ENTROPY: ramp(0.69, 0.0, 3, 10)}, self.DETECTOR) == []


class TestEntropyRunaway:
    DETECTOR = (EntropyRunaway(),)

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("course", [constant(-3.0), ramp(5.0, -3.0, 10, 50)])
    def test_an_entropy_that_grows_without_a_gain_is_found(self, course: Series, scale: float) -> None:
        for seed in range(10):
            series = {
                ENTROPY: noisy(lambda update: 1.4 + 0.08 * update, 0.02, seed),
                RETURN: noisy(lambda update: scale * course(update), 0.3 * scale, seed),
            }
            assert (first(watch(80, series, self.DETECTOR), "entropy_runaway") or 99) <= 45

    def test_it_is_still_found_after_it_has_settled_high(self) -> None:
        series = {ENTROPY: noisy(ramp(1.4, 6.0, 0, 30), 0.01, 0), RETURN: constant(-3.0)}
        assert [symptom.step for symptom in watch(150, series, self.DETECTOR)][-1] == 150

    @pytest.mark.parametrize(
        ("entropy", "course"),
        [
            (lambda update: 1.4 + 0.01 * update, ramp(0, 100, 0, 200)),
            (ramp(1.4, 1.5, 0, 30), constant(1.0)),
            (lambda update: 3.0 - 0.01 * update, constant(1.0)),
            (lambda update: 1.4 + 2.0 * math.exp(-(((update - 20) / 20) ** 2)), ramp(0, 100, 0, 40)),
            (lambda update: ramp(1.4, 5.4, 0, 40)(update) + ramp(0, -4, 40, 60)(update), ramp(0, 100, 0, 45)),
        ],
        ids=["the return rises too", "by a little", "it falls", "it has come back", "it is coming back"],
    )
    def test_it_is_none_while(self, entropy: Series, course: Series) -> None:
        for seed in range(5):
            series = {ENTROPY: noisy(entropy, 0.01, seed), RETURN: noisy(course, 0.2, seed)}
            assert watch(200, series, self.DETECTOR) == []

    @pytest.mark.parametrize(("end", "is_found"), [(20.0, True), (500.0, False)])
    def test_choices_that_become_chance_again_are_found_if_the_return_goes_with_them(self, end: float, is_found: bool) -> None:
        def entropy(update: int) -> float:
            return ramp(0.69, 0.3, 0, 50)(update) + ramp(0.0, 0.39, 60, 20)(update)

        def course(update: int) -> float:
            return ramp(20, 500, 0, 50)(update) + ramp(0, end - 500, 60, 20)(update)

        for seed in range(5):
            series = {ENTROPY: noisy(entropy, 0.01, seed), RETURN: noisy(course, 5, seed)}
            at = first(watch(120, series, self.DETECTOR), "entropy_runaway")
            assert (at is not None and 70 <= at <= 100) if is_found else at is None


class TestKlBlowup:
    DETECTOR = (KlBlowup(),)

    def test_long_updates_from_the_start_are_found_after_four(self) -> None:
        assert first(watch(20, {KL: constant(0.4)}, self.DETECTOR), "kl_blowup") == 5

    def test_updates_far_above_the_usual_are_found(self) -> None:
        for seed in range(10):
            series = noisy(lambda update: 0.004 if update < 40 else 0.08, 0.001, seed)
            assert first(watch(80, {KL: series}, self.DETECTOR), "kl_blowup") == 45

    @pytest.mark.parametrize(("target", "is_found"), [(0.01, True), (0.03, True), (0.05, False), (math.inf, False)])
    def test_a_target_sets_the_limit(self, target: float, is_found: bool) -> None:
        recipe = Recipe.of({"target_kl": target})
        found = watch(60, {KL: constant(0.1)}, self.DETECTOR, recipe=recipe)
        assert bool(found) == is_found

    def test_no_update_within_the_target_is_ruinous(self) -> None:
        assert watch(60, {KL: constant(1.2)}, self.DETECTOR, recipe=Recipe.of({"target_kl": 0.5})) == []

    def test_no_update_below_the_least_limit_is_long(self) -> None:
        recipe = Recipe.of({"target_kl": 0.003})
        assert watch(60, {KL: constant(0.04)}, self.DETECTOR, recipe=recipe) == []
        assert watch(60, {KL: lambda update: 1e-5 if update < 30 else 0.04}, self.DETECTOR) == []

    def test_one_long_update_in_four_is_none(self) -> None:
        assert watch(100, {KL: lambda update: 0.5 if update % 4 == 0 else 0.01}, self.DETECTOR) == []

    def test_one_ruinous_update_is_enough_and_is_told_while_it_is_new(self) -> None:
        found = watch(100, {KL: lambda update: 3.0 if update == 43 else 0.0}, self.DETECTOR)
        assert [symptom.step for symptom in found] == [45, 50]

    def test_the_evidence_names_the_limit(self) -> None:
        evidence = {item.name: item.value for item in watch(20, {KL: constant(0.4)}, self.DETECTOR)[0].evidence}
        assert evidence == {"kl": 0.4, "median_above_limit": 0.4, "limit": 0.15, "updates_above": 5.0, "updates": 5.0}


class TestValueFitPoor:
    DETECTOR = (ValueFitPoor(),)

    @pytest.mark.parametrize("level", [-3.0, 0.0, 0.1])
    @pytest.mark.parametrize("scale", SCALES)
    def test_a_fit_that_stays_poor_is_found_after_the_warm_up(self, level: float, scale: float) -> None:
        for seed in range(5):
            series = {
                EXPLAINED_VARIANCE: noisy(constant(level), 0.05, seed),
                VALUE_LOSS: noisy(constant(scale), 0.1 * scale, seed),
            }
            assert first(watch(80, series, self.DETECTOR), "value_fit_poor") == 50

    def test_a_fit_that_becomes_poor_late_is_found_within_thirty_updates(self) -> None:
        series = {EXPLAINED_VARIANCE: noisy(lambda update: 0.9 if update < 100 else -0.2, 0.05, 0)}
        assert 105 <= (first(watch(160, series, self.DETECTOR), "value_fit_poor") or 999) <= 130

    def test_a_poor_beginning_that_improves_is_none(self) -> None:
        for seed in range(10):
            assert watch(200, {EXPLAINED_VARIANCE: noisy(ramp(-0.2, 0.9, 10, 90), 0.05, seed)}, self.DETECTOR) == []

    def test_returns_that_are_all_the_same_are_none(self) -> None:
        series = {EXPLAINED_VARIANCE: lambda u: 0.9 if u < 30 else -2.0, VALUE_LOSS: lambda u: 20.0 if u < 30 else 1e-4}
        assert watch(100, series, self.DETECTOR) == []


class TestCautiousExploration:
    DETECTOR = (CautiousExploration(),)

    def series(self, seed: int, **others: Series) -> dict[str, Series]:
        chosen = {
            SUCCESS_RATE: clipped(noisy(constant(0.02), 0.02, seed)),
            UNSAFE_RATE: clipped(noisy(constant(0.01), 0.01, seed + 1)),
            RETURN: noisy(constant(1.0), 0.1, seed + 2),
        }
        return chosen | others

    def test_a_policy_that_does_nothing_is_found(self) -> None:
        for seed in range(20):
            assert (first(watch(80, self.series(seed), self.DETECTOR), "cautious_exploration") or 99) <= 50

    @pytest.mark.parametrize(
        "others",
        [
            {SUCCESS_RATE: ramp(0.0, 0.5, 0, 60)},
            {UNSAFE_RATE: constant(0.3)},
            {SUCCESS_RATE: constant(0.3)},
            {RETURN: ramp(-5, 5, 0, 80)},
            {KL: constant(0.2)},
        ],
        ids=["success rises", "unsafe at times", "success at times", "the return rises", "the policy moves"],
    )
    def test_it_is_none_where(self, others: dict[str, Series]) -> None:
        for seed in range(10):
            assert watch(80, self.series(seed, **others), self.DETECTOR) == []

    def test_a_success_rate_that_is_low_but_rises_is_none(self) -> None:
        assert watch(80, self.series(0, **{SUCCESS_RATE: ramp(0.0, 0.25, 0, 60)}), self.DETECTOR) == []

    @pytest.mark.parametrize("absent", [SUCCESS_RATE, UNSAFE_RATE])
    def test_it_needs_both_rates(self, absent: str) -> None:
        series = {name: at for name, at in self.series(0).items() if name != absent}
        assert watch(80, series, self.DETECTOR) == []

    def test_entropy_and_divergence_are_evidence_where_reported(self) -> None:
        found = watch(80, self.series(0, kl=constant(0.002), entropy=constant(0.7)), self.DETECTOR)
        assert {item.name for item in found[0].evidence} == {"success_rate", "unsafe_rate", "kl", "entropy"}


class TestUnsafeExploration:
    DETECTOR = (UnsafeExploration(),)

    @pytest.mark.parametrize(
        "rate", [constant(0.9), ramp(0.05, 0.8, 40, 20), ramp(0.0, 0.3, 40, 20)], ids=["high", "rises to high", "rises"]
    )
    def test_a_rate_that_is_high_or_rises_is_found(self, rate: Series) -> None:
        for seed in range(20):
            series = {UNSAFE_RATE: clipped(noisy(rate, 0.04, seed))}
            assert (first(watch(120, series, self.DETECTOR), "unsafe_exploration") or 999) <= 80

    @pytest.mark.parametrize(
        "rate",
        [constant(0.05), constant(0.2), ramp(0.9, 0.05, 0, 90), ramp(0.0, 0.12, 20, 20)],
        ids=["low", "steady", "falls", "rises below the floor"],
    )
    def test_it_is_none_where_the_rate(self, rate: Series) -> None:
        for seed in range(20):
            assert watch(100, {UNSAFE_RATE: clipped(noisy(rate, 0.04, seed))}, self.DETECTOR) == [], seed

    def test_a_rate_under_another_name_is_found_through_its_role(self) -> None:
        roles = Roles(((UNSAFE_RATE, "crashes"),))
        found = watch(60, {"crashes": constant(0.9)}, self.DETECTOR, roles=roles)
        assert {symptom.signal for symptom in found} == {"crashes"}
        assert found[0].step == 30, "it is reported every update, but counts over the time of six evaluations"
        assert watch(60, {"crashes": constant(0.9)}, self.DETECTOR) == []


class TestClimb:
    @given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=40), st.floats(-1e6, 1e6))
    def test_a_climb_turns_with_its_values_and_ignores_their_level(self, values: list[float], level: float) -> None:
        one, turned, moved = climb(values), climb([-value for value in values]), climb([value + level for value in values])
        assert turned.height == pytest.approx(-one.height)
        assert moved.height == pytest.approx(one.height, abs=1e-6)
        assert not (one.is_up and one.is_down)

    def test_noise_alone_seldom_climbs(self) -> None:
        draw = random.Random(0)
        climbs = [climb([draw.gauss(0, 1) for _ in range(20)]) for _ in range(500)]
        assert sum(one.is_up or one.is_down for one in climbs) <= 75

    def test_the_start_is_known_after_it_has_left_the_window(self) -> None:
        window = Window()
        for step in range(2):
            window.add(step, 1.0)
        assert starting_values(window, 3) is None
        for step in range(2, 100):
            window.add(step, 1.0)
        for step in range(100, 600):
            window.add(step, 7.0)
        assert starting_values(window, 3) == [1.0]
