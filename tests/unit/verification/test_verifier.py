from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest

from tests.builders import RECIPE, a_case, a_control, a_standing, accepted_recipe, an_envelope, objections
from trimtab.controls.bounds import Bounds
from trimtab.controls.catalogue import learning_rate
from trimtab.controls.control import Control
from trimtab.controls.envelope import Authority, Deliberation
from trimtab.controls.moves import SetTo
from trimtab.controls.recipe import Recipe
from trimtab.controls.safeguards import Reflex
from trimtab.controls.standing import Checkpoint
from trimtab.decision.action import Action, Adjust, Change, NoAction, Rollback, RollbackAndAdjust, SkipBatches, Stop
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.errors import UsageError
from trimtab.verification.case import Case
from trimtab.verification.verdict import Accepted, Rejected, VerifiedAction
from trimtab.verification.verifier import missing_expectation, verify

HALVE = Adjust((Change("learning_rate", 5e-4),))
BACK = Rollback("step-00000200")


def adjust(control: str, value: Any) -> Adjust:
    return Adjust((Change(control, value),))


def wide(**limits: Any) -> Control:
    known: dict[str, Any] = {
        "moves": SetTo((0.0, 0.2, 0.4, 0.6, 0.8)),
        "largest_change": 0.5,
        "cumulative_drift": 0.5,
        "dwell_steps": 10,
    }
    return Control("dropout", Bounds(0.0, 0.7), scale="difference", **(known | limits))


@pytest.mark.parametrize(
    "action",
    [NoAction(), HALVE, BACK, RollbackAndAdjust("step-00000200", HALVE.changes), Stop()],
    ids=lambda action: action.kind,
)
def test_a_fitting_action_is_accepted(action: Action) -> None:
    verdict = verify(a_case(action))
    assert isinstance(verdict, Accepted)
    assert verdict.verified.action == action


def test_the_recipe_afterwards_starts_from_the_checkpoint() -> None:
    earlier = RECIPE.replace([("weight_decay", 0.3)])
    standing = a_standing(checkpoints=(Checkpoint("a", 100, 2.0, earlier),))
    assert accepted_recipe(verify(a_case(Rollback("a"), standing=standing))) == earlier
    both = RollbackAndAdjust("a", HALVE.changes)
    assert accepted_recipe(verify(a_case(both, standing=standing))) == earlier.replace([("learning_rate", 5e-4)])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, 1, 10**400, None, "0.1"], ids=repr)
@pytest.mark.parametrize("source", ["manager", "reflex"])
def test_finite_alone_decides_about_what_is_no_finite_float(value: Any, source: Any) -> None:
    assert objections(verify(a_case(adjust("learning_rate", value), source=source))) == {"finite"}


@pytest.mark.parametrize(
    "action",
    [
        None,
        "stop",
        object(),
        Change("dropout", 0.2),
        Rollback(7),  # type: ignore[arg-type] - a wrong value, on purpose
        Adjust(None),  # type: ignore[arg-type] - a wrong value, on purpose
        Adjust([Change("dropout", 0.2)]),  # type: ignore[arg-type] - a wrong value, on purpose
        Adjust((None,)),  # type: ignore[arg-type] - a wrong value, on purpose
        Adjust((("dropout", 0.2),)),  # type: ignore[arg-type] - a wrong value, on purpose
        adjust(["dropout"], 0.2),  # type: ignore[arg-type] - a wrong value, on purpose
        adjust(None, 0.2),  # type: ignore[arg-type] - a wrong value, on purpose
        RollbackAndAdjust("step-00000200", ()),
        SkipBatches("3"),  # type: ignore[arg-type] - a wrong value, on purpose
        SkipBatches(True),
    ],
    ids=lambda action: repr(action).partition(" at 0x")[0],
)
def test_a_stranger_is_rejected_and_never_raises(action: Any) -> None:
    assert objections(verify(a_case(action, standing=a_standing(can_skip=True))))


@pytest.mark.parametrize("value", [0.8, math.nextafter(0.7, 1), -0.2])
def test_bounds(value: float) -> None:
    assert "bounds" in objections(verify(a_case(adjust("dropout", value), envelope=an_envelope(controls=(wide(),)))))


def test_permitted_moves_bind_the_manager_and_not_the_reflex() -> None:
    action = adjust("learning_rate", math.nextafter(5e-4, 1))
    verdict = verify(a_case(action))
    assert objections(verdict) == {"permitted_moves"}
    assert isinstance(verdict, Rejected)
    (objection,) = verdict.reasons
    told = ", ".join(map(repr, learning_rate(1e-6, 1.0).moves.targets(1e-3)))
    assert objection.detail.endswith("is not a permitted move from 0.001; permitted: " + told)
    assert objections(verify(a_case(action, source="reflex"))) == set()


def test_largest_change_is_measured_from_the_recipe_it_starts_from() -> None:
    envelope = an_envelope(controls=(wide(largest_change=0.3),))
    assert objections(verify(a_case(adjust("dropout", 0.6), envelope=envelope))) == {"largest_change"}
    assert objections(verify(a_case(adjust("dropout", 0.6), envelope=envelope, source="reflex"))) == {"largest_change"}
    earlier = Checkpoint("a", 100, 2.0, RECIPE.replace([("dropout", 0.4)]))
    back = RollbackAndAdjust("a", (Change("dropout", 0.6),))
    assert objections(verify(a_case(back, envelope=envelope, standing=a_standing(checkpoints=(earlier,))))) == set()


def test_cumulative_drift_is_measured_from_the_start_of_the_run() -> None:
    envelope = an_envelope(controls=(wide(cumulative_drift=0.45),))
    standing = a_standing(recipe=RECIPE.replace([("dropout", 0.4)]))
    for source in ("manager", "reflex"):
        case = a_case(adjust("dropout", 0.6), envelope=envelope, standing=standing, source=source)
        assert objections(verify(case)) == {"cumulative_drift"}


def test_dwell_binds_the_manager_and_not_the_reflex() -> None:
    standing = a_standing(changed_at=(("learning_rate", 381),))
    assert objections(verify(a_case(HALVE, standing=standing))) == {"dwell"}
    assert objections(verify(a_case(HALVE, standing=standing, source="reflex"))) == set()
    assert objections(verify(a_case(HALVE, standing=a_standing(changed_at=(("learning_rate", 380),))))) == set()


@pytest.mark.parametrize(
    ("action", "changes"),
    [
        (adjust("momentum", 0.9), {}),
        (adjust("learning_rate", 1e-3), {}),
        (Rollback("step-00000999"), {}),
        (Rollback("never"), {"checkpoints": (Checkpoint("never", 1, None, RECIPE),)}),
        (Rollback("nan"), {"checkpoints": (Checkpoint("nan", 1, math.nan, RECIPE),)}),
        (Rollback("inf"), {"checkpoints": (Checkpoint("inf", 1, -math.inf, RECIPE),)}),
        (Stop(), {"checkpoints": ()}),
        (SkipBatches(1), {"can_skip": False}),
        (SkipBatches(0), {"can_skip": True}),
        (SkipBatches(201), {"can_skip": True}),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_executable(action: Action, changes: dict[str, Any]) -> None:
    assert "executable" in objections(verify(a_case(action, standing=a_standing(**changes))))


def test_the_reflex_may_go_back_to_a_state_that_was_not_evaluated_and_stop_without_a_result() -> None:
    standing = a_standing(checkpoints=(Checkpoint("a", 1, None, RECIPE),))
    for action in (Rollback("a"), Stop()):
        assert objections(verify(a_case(action, source="reflex", standing=standing))) == set()


@pytest.mark.parametrize(
    ("action", "authority", "spent"),
    [
        (HALVE, Authority(interventions=3), {"interventions_used": 3}),
        (Stop(), Authority(interventions=3), {"interventions_used": 3}),
        (BACK, Authority(rollbacks=2), {"rollbacks_used": 2}),
        (Stop(), Authority(may_stop=False), {}),
        (Adjust(()), Authority(), {}),
        (Adjust((*HALVE.changes, Change("dropout", 0.2))), Authority(controls_per_intervention=1), {}),
        (Adjust((*HALVE.changes, Change("learning_rate", 2e-3))), Authority(), {}),
    ],
)
def test_authority(action: Action, authority: Authority, spent: dict[str, int]) -> None:
    case = a_case(action, envelope=an_envelope(authority=authority), standing=a_standing(**spent))
    assert objections(verify(case)) == {"authority"}


def test_the_reflex_has_a_rollback_budget_of_its_own_and_may_always_stop() -> None:
    standing = a_standing(interventions_used=16, rollbacks_used=10, reflex_rollbacks_used=5)
    assert objections(verify(a_case(BACK, source="reflex", standing=standing))) == set()
    spent = a_standing(reflex_rollbacks_used=6)
    assert objections(verify(a_case(BACK, source="reflex", standing=spent))) == {"authority"}
    assert objections(verify(a_case(Stop(), source="reflex", standing=spent))) == set()


@pytest.mark.parametrize("action", [NoAction(), HALVE, BACK, Stop()], ids=lambda action: action.kind)
def test_freshness(action: Action) -> None:
    envelope = an_envelope(deliberation=Deliberation(stale_after_steps=50))
    assert objections(verify(a_case(action, envelope=envelope, asked_step=350))) == set()
    assert objections(verify(a_case(action, envelope=envelope, asked_step=349))) == {"freshness"}
    assert objections(verify(a_case(action, standing=a_standing(version=3), asked_version=2))) == {"freshness"}


def test_every_objection_is_reported() -> None:
    standing = a_standing(changed_at=(("learning_rate", 399),), interventions_used=16)
    verdict = verify(a_case(adjust("learning_rate", 1.0), standing=standing))
    assert objections(verdict) == {"authority", "bounds", "permitted_moves", "largest_change", "dwell"}


def test_an_envelope_without_controls_has_no_adjustment() -> None:
    case = a_case(HALVE, envelope=an_envelope(controls=()), standing=a_standing(recipe=Recipe(()), initial=Recipe(())))
    assert objections(verify(case)) == {"executable"}


class TestVerifiedAction:
    def test_nobody_else_makes_one(self) -> None:
        for key in (None, object(), True, "key"):
            with pytest.raises(UsageError):
                VerifiedAction(HALVE, RECIPE, "manager", 0, key)

    def test_a_verified_one_does_not_open_the_way_to_another(self) -> None:
        verdict = verify(a_case(HALVE))
        assert isinstance(verdict, Accepted)
        verified = verdict.verified
        assert [value for value in dataclasses.astuple(verified) if type(value) is object] == []
        for name in ("key", "_key"):
            with pytest.raises(UsageError):
                VerifiedAction(HALVE, RECIPE, "manager", 0, getattr(verified, name, None))
        with pytest.raises((UsageError, ValueError, TypeError)):
            dataclasses.replace(verified, recipe=RECIPE.replace([("learning_rate", 1.0)]))
        with pytest.raises(AttributeError):
            verified.recipe = RECIPE  # type: ignore[misc] - a wrong value, on purpose
        assert copy.copy(verified) == verified


def test_an_intervention_says_what_it_expects() -> None:
    for action in (HALVE, BACK, SkipBatches(1)):
        assert missing_expectation(Proposal(action, "r")) is not None
        assert missing_expectation(Proposal(action, "r", Expectation(0.0, 1))) is None
    for action in (NoAction(), Stop()):
        assert missing_expectation(Proposal(action, "r")) is None


def test_a_negative_zero_is_a_zero() -> None:
    standing = a_standing(recipe=RECIPE.replace([("weight_decay", 0.3)]))
    recipe = accepted_recipe(verify(a_case(adjust("weight_decay", -0.0), standing=standing)))
    assert math.copysign(1, recipe["weight_decay"]) == 1
    zero = a_standing(recipe=RECIPE.replace([("weight_decay", 0.0)]))
    assert "executable" in objections(verify(a_case(adjust("weight_decay", -0.0), standing=zero)))


def test_the_case_of_a_ratio_never_divides_by_zero() -> None:
    envelope = an_envelope(controls=(learning_rate(1e-6, 1e-2),), reflex=Reflex())
    for value in (0.0, -1e-3, 5e-324):
        verdict = verify(Case(adjust("learning_rate", value), "reflex", envelope, a_standing(), 400, 0))
        assert {"bounds", "largest_change"} <= objections(verdict)


def test_a_schedule_is_exempt_from_moves_steps_dwell_and_authority_and_from_nothing_else() -> None:
    envelope = an_envelope(authority=Authority(interventions=0, controls_per_intervention=1, may_stop=False))
    standing = a_standing(changed_at=(("learning_rate", 399), ("dropout", 399)))
    both = Adjust((Change("learning_rate", 1.234e-6), Change("dropout", 0.4321)))
    for source, expected in (
        ("schedule", set[str]()),
        ("manager", {"authority", "permitted_moves", "largest_change", "dwell"}),
    ):
        assert objections(verify(a_case(both, source=source, envelope=envelope, standing=standing))) == expected
    assert objections(verify(a_case(Stop(), source="schedule", envelope=envelope, standing=standing))) == set()
    for value, against in ((0.51, "bounds"), (math.nan, "finite")):
        assert against in objections(verify(a_case(adjust("dropout", value), source="schedule")))
    narrow = an_envelope(controls=(wide(cumulative_drift=0.2, max_values=1),))
    kept = objections(verify(a_case(adjust("dropout", 0.4), source="schedule", envelope=narrow)))
    assert kept == {"cumulative_drift", "max_values"}
    for action in (Rollback("step-00000200"), SkipBatches(1), RollbackAndAdjust("step-00000200", both.changes)):
        assert "authority" in objections(verify(a_case(action, source="schedule", standing=a_standing(can_skip=True))))
    assert "executable" in objections(verify(a_case(adjust("momentum", 0.5), source="schedule")))
    assert "authority" in objections(verify(a_case(Adjust((*both.changes, *both.changes)), source="schedule")))


def test_a_schedule_counts_its_boundaries_in_the_steps_of_the_weights() -> None:
    control = a_control(when="boundary", largest_change=9.0, cumulative_drift=9.0)
    envelope = an_envelope(controls=(control,), deliberation=Deliberation(boundary_every_steps=50))
    recipe = Recipe.of({"temperature": 5.0})
    standing = a_standing(recipe=recipe, initial=recipe, checkpoints=())  # after step 400
    for lineage_step, expected in ((350, set[str]()), (390, {"boundary"})):
        where = {"envelope": envelope, "standing": standing, "lineage_step": lineage_step}
        case = a_case(adjust("temperature", 6.0), source="schedule", **where)
        assert objections(verify(case)) == expected
