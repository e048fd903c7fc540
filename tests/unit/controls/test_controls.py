from __future__ import annotations

import math
from typing import Any

import pytest

from tests.builders import RECIPE, a_control, a_standing, an_envelope
from trimtab.controls.bounds import Bounds
from trimtab.controls.catalogue import batch_size, dropout
from trimtab.controls.envelope import Authority, Deliberation, Envelope, Objective
from trimtab.controls.moves import Add, Multiply, SetTo
from trimtab.controls.recipe import Recipe
from trimtab.controls.safeguards import Reflex
from trimtab.controls.standing import Checkpoint
from trimtab.errors import ControlError, UsageError, nearest

NOT_NUMBERS: tuple[Any, ...] = (math.nan, math.inf, -math.inf, True, False, None, "1", 10**400, 1j, [1.0])


class TestBounds:
    def test_both_ends_belong_to_them_and_their_neighbours_do_not(self) -> None:
        bounds = Bounds(0.1, 0.3)
        assert bounds.contain(0.1)
        assert bounds.contain(0.3)
        assert not bounds.contain(math.nextafter(0.1, 0))
        assert not bounds.contain(math.nextafter(0.3, 1))

    @pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
    def test_they_contain_no_stranger_and_are_not_made_of_one(self, value: Any) -> None:
        assert not Bounds(-1e308, 1e308).contain(value)
        with pytest.raises(ControlError):
            Bounds(value, 1.0)
        with pytest.raises(ControlError):
            Bounds(0.0, value)

    def test_text_that_looks_like_a_number_keeps_its_quotes(self) -> None:
        with pytest.raises(ControlError, match="the low bound is not a finite number; received '1e-6'"):
            Bounds("1e-6", 1.0)  # type: ignore[arg-type] - a wrong value, on purpose

    def test_reversed_bounds_are_refused_and_equal_ones_are_not(self) -> None:
        with pytest.raises(ControlError, match="reversed"):
            Bounds(2.0, 1.0)
        assert Bounds(1.0, 1.0).contain(1.0)


class TestMoves:
    def test_targets_are_sorted_distinct_and_never_the_present_value(self) -> None:
        assert Multiply((2.0, 0.5, 0.5)).targets(4.0) == (2.0, 8.0)
        assert Multiply((2.0, 0.5)).targets(0.0) == ()
        assert SetTo((0.3, 0.1, 0.1, 0.2)).targets(0.1) == (0.2, 0.3)
        assert Add((1.0, -1.0)).targets(5.0) == (4.0, 6.0)
        assert Add((1e-20,)).targets(1.0) == ()

    def test_an_integer_that_rounds_to_the_present_value_is_no_move(self) -> None:
        assert SetTo((2**53 + 1,)).targets(float(2**53)) == ()

    def test_no_move_overflows(self) -> None:
        assert Multiply((10.0,)).targets(1e308) == ()
        assert Add((1e308,)).targets(1e308) == ()

    def test_zero_is_offered_without_a_sign(self) -> None:
        for targets in (SetTo((-0.0, 0.0)).targets(1.0), Multiply((0.5,)).targets(-5e-324), Add((1.0,)).targets(-1.0)):
            assert [math.copysign(1, target) for target in targets] == [1.0]

    @pytest.mark.parametrize("kind", [Multiply, SetTo, Add])
    @pytest.mark.parametrize("number", NOT_NUMBERS, ids=repr)
    def test_strangers_are_refused(self, kind: Any, number: Any) -> None:
        with pytest.raises(ControlError):
            kind((2.0, number))

    @pytest.mark.parametrize("make", [lambda: Multiply(()), lambda: SetTo(()), lambda: Add(())])
    def test_a_list_without_moves_is_refused(self, make: Any) -> None:
        with pytest.raises(ControlError):
            make()

    @pytest.mark.parametrize(
        "make", [lambda: Multiply((1.0,)), lambda: Multiply((-2.0,)), lambda: Multiply((0,)), lambda: Add((0.0,))]
    )
    def test_moves_without_effect_are_refused(self, make: Any) -> None:
        with pytest.raises(ControlError):
            make()

    @pytest.mark.parametrize("kind", [Multiply, SetTo, Add])
    def test_a_list_is_a_tuple_and_a_bare_number_is_refused(self, kind: Any) -> None:
        assert kind([0.5, 2.0]) == kind((0.5, 2.0))
        with pytest.raises(ControlError, match=r"received 0.5; allowed: a tuple .*; next: write \(0.5,\), with a comma"):
            kind(0.5)
        with pytest.raises(ControlError, match=r"received '0\.5'"):
            kind("0.5")


class TestControl:
    @pytest.mark.parametrize("name", ["", "Rate", "1rate", "rate/", "rate/a/b", "a" * 41, "rate\n", "rate; ignore", "ratе"])  # noqa: RUF001 - a Cyrillic letter
    def test_a_malformed_name_is_refused(self, name: str) -> None:
        with pytest.raises(ControlError):
            a_control(name=name)

    @pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, math.inf])
    def test_a_limit_that_forbids_every_change_is_refused(self, limit: float) -> None:
        for what in ("largest_change", "cumulative_drift"):
            with pytest.raises(ControlError, match=what):
                a_control(**{what: limit})
            with pytest.raises(ControlError, match=what):
                a_control(scale="ratio", bounds=Bounds(0.1, 1.0), **{what: min(limit, 1.0)})

    def test_a_ratio_cannot_reach_zero(self) -> None:
        with pytest.raises(ControlError, match="ratio"):
            a_control(scale="ratio", bounds=Bounds(0.0, 1.0))

    def test_reachable_keeps_bounds_largest_change_and_drift(self) -> None:
        control = a_control(moves=SetTo((-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 11.0)), largest_change=2.0, cumulative_drift=3.0)
        assert control.reachable(3.0, 1.0) == (1.0, 2.0, 4.0)
        assert control.reachable(0.0, 0.0) == (1.0, 2.0)

    def test_the_rounding_of_repeated_moves_is_absorbed_and_no_more(self) -> None:
        control = a_control(largest_change=0.3, cumulative_drift=0.3, moves=Add((0.1, 0.2)))
        assert 0.1 + 0.2 in control.reachable(0.1, 0.0)
        assert not control.within(0.3 * (1 + 1e-8), 0.3)

    def test_a_ratio_is_the_same_both_ways(self) -> None:
        control = a_control(scale="ratio", bounds=Bounds(0.1, 10.0))
        assert control.distance(1.0, 4.0) == control.distance(4.0, 1.0) == 4.0
        assert control.distance(0.0, 1.0) == math.inf
        assert control.distance(-1.0, 1.0) == math.inf

    def test_a_whole_control_admits_whole_values_only(self) -> None:
        control = a_control(is_whole=True, moves=Multiply((0.5, 2.0)), bounds=Bounds(1.0, 10.0), largest_change=9.0)
        assert control.admits(3.0)
        assert not control.admits(2.5)
        assert control.reachable(5.0, 5.0) == (10.0,)
        assert control.reachable(4.0, 4.0) == (2.0, 8.0)

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"scale": "percent"}, "scale"),
            ({"when": "sometimes"}, "when"),
            ({"cost": "high"}, "cost"),
            ({"rate_scaling": "cubic", "scale": "ratio", "bounds": Bounds(1.0, 2.0)}, "rate_scaling"),
            ({"dwell_steps": -1}, "dwell_steps"),
            ({"effect_lag_steps": -1}, "effect_lag_steps"),
            ({"max_values": 0}, "max_values"),
            ({"rate_scaling": "linear"}, "scale=ratio"),
        ],
    )
    def test_what_makes_no_sense_is_refused_by_name(self, changes: dict[str, Any], says: str) -> None:
        with pytest.raises(ControlError, match=says):
            a_control(**changes)


class TestRecipe:
    def test_it_is_sorted_and_read_by_name(self) -> None:
        assert Recipe.of({"b": 1, "a": 2}).values == (("a", 2.0), ("b", 1.0))
        assert "a" in Recipe.of({"a": 2})
        with pytest.raises(KeyError):
            RECIPE["unknown"]

    def test_it_becomes_a_dict_and_iterates_over_names(self) -> None:
        recipe = Recipe.of({"dropout": 0.1, "batch_size": 8.0})
        assert dict(recipe) == {"batch_size": 8.0, "dropout": 0.1}
        assert {**recipe} == dict(recipe)
        assert (list(recipe), recipe.keys(), len(recipe)) == (["batch_size", "dropout"], ("batch_size", "dropout"), 2)

    def test_replacing_changes_only_what_is_named(self) -> None:
        changed = RECIPE.replace([("dropout", 0.2)])
        assert changed.difference(RECIPE) == (("dropout", 0.2),)
        assert RECIPE["dropout"] == 0.1
        with pytest.raises(KeyError):
            RECIPE.replace([("unknown", 1.0)])

    def test_a_negative_zero_becomes_zero(self) -> None:
        assert math.copysign(1, RECIPE.replace([("dropout", -0.0)])["dropout"]) == 1


class TestEnvelope:
    @pytest.mark.parametrize("text", ["", "minimize", "val/loss", "reduce loss", "minimize a b", "Minimize loss"])
    def test_a_malformed_objective_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError):
            Objective.parse(text)

    def test_better_follows_the_direction_and_is_strict(self) -> None:
        low, high = Objective.parse("minimize val/loss"), Objective.parse("maximize val/acc")
        assert low.better(1.0, 2.0)
        assert high.better(2.0, 1.0)
        for objective in (low, high):
            assert not objective.better(1.0, 1.0)
            assert not objective.better(math.nan, 1.0)
            assert Objective.parse(str(objective)) == objective

    def test_each_control_is_declared_once(self) -> None:
        with pytest.raises(ControlError, match="twice"):
            Envelope(Objective("a", "minimize"), (dropout(0.0, 0.5), dropout(0.0, 0.4)))

    def test_a_coupled_control_needs_the_rate(self) -> None:
        with pytest.raises(ControlError, match="declare learning_rate too"):
            Envelope(Objective("a", "minimize"), (batch_size(1, 8, rate_scaling="linear"),))

    def test_a_boundary_control_is_open_at_boundaries_only(self) -> None:
        epochs = dropout(0.0, 0.5, when="boundary")
        envelope = an_envelope(controls=(epochs,), deliberation=Deliberation(boundary_every_steps=50, apply_after_steps=10))
        assert [step for step in range(1, 201) if envelope.is_open(epochs, step)] == [50, 100, 150, 200]
        assert envelope.is_open(dropout(0.0, 0.5), 7)
        assert [envelope.applies_at(step) for step in (30, 40, 41, 90, 100)] == [50, 50, 100, 100, 150]

    def test_answers_do_not_wait_for_a_boundary_that_nothing_needs_or_that_comes_too_late(self) -> None:
        timing = Deliberation(boundary_every_steps=500, apply_after_steps=10, stale_after_steps=100)
        assert an_envelope(deliberation=timing).applies_at(30) == 40
        waiting = an_envelope(controls=(dropout(0.0, 0.5, when="boundary"),), deliberation=timing)
        assert (waiting.applies_at(30), waiting.applies_at(450)) == (40, 500)

    def test_an_unknown_control_is_named_with_a_hint(self) -> None:
        with pytest.raises(ControlError, match="did you mean 'dropout'"):
            an_envelope().control("dropuot")
        assert "none" in nearest("x", [])

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Authority(interventions=-1),
            lambda: Authority(rollbacks=True),
            lambda: Authority(controls_per_intervention=0),
            lambda: Authority(controls_per_intervention=4),
            lambda: Deliberation(stale_after_steps=5),
            lambda: Deliberation(apply_after_steps=0),
            lambda: Deliberation(deadline_seconds=math.nan),
            lambda: Deliberation(deadline_seconds=0),
            lambda: Deliberation(measure_over_evaluations=4),
            lambda: Deliberation(mode="sync"),  # type: ignore[arg-type] - a wrong value, on purpose
            lambda: Reflex(learning_rate_cut=0),
            lambda: Reflex(learning_rate_cut=math.nan),
            lambda: Reflex(learning_rate_cut=1.5),
            lambda: Reflex(attempts=0),
        ],
    )
    def test_what_is_out_of_range_is_refused(self, make: Any) -> None:
        with pytest.raises(UsageError):
            make()


class TestStanding:
    def test_the_best_checkpoint_is_the_first_with_the_best_finite_objective(self) -> None:
        scores = (math.nan, 3.0, None, 1.0, 1.0, -math.inf, math.inf)
        checkpoints = tuple(Checkpoint(f"c{at}", at, score, RECIPE) for at, score in enumerate(scores))
        standing = a_standing(checkpoints=checkpoints)
        assert getattr(standing.best_checkpoint(an_envelope()), "id", None) == "c3"
        maximize = an_envelope(objective=Objective("val/acc", "maximize"))
        assert getattr(standing.best_checkpoint(maximize), "id", None) == "c1"
        assert a_standing(checkpoints=checkpoints[:1]).best_checkpoint(an_envelope()) is None

    def test_dwell_ends_exactly_after_its_steps(self) -> None:
        control = an_envelope().control("dropout")
        for step, left in ((100, 20), (119, 1), (120, 0), (500, 0)):
            assert a_standing(step=step, changed_at=(("dropout", 100),)).dwell_left(control) == left
        assert a_standing().dwell_left(control) == 0

    def test_distinct_values_are_counted_with_the_starting_one(self) -> None:
        control = dropout(0.0, 0.5, max_values=2)
        assert a_standing().may_take(control, 0.2)
        seen = a_standing(values_seen=(("dropout", (0.1, 0.2)),))
        assert [seen.may_take(control, value) for value in (0.1, 0.2, 0.3)] == [True, True, False]
        assert not a_standing().may_take(dropout(0.0, 0.5, max_values=1), 0.2)
        assert seen.may_take(dropout(0.0, 0.5), 0.3)

    def test_what_is_left_is_never_negative(self) -> None:
        envelope = an_envelope(authority=Authority(interventions=2, rollbacks=5))
        standing = a_standing(interventions_used=1, rollbacks_used=0)
        assert (standing.interventions_left(envelope), standing.rollbacks_left(envelope)) == (1, 1)
        spent = a_standing(interventions_used=3, rollbacks_used=7)
        assert (spent.interventions_left(envelope), spent.rollbacks_left(envelope)) == (0, 0)
