from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import RECIPE, a_briefing, a_standing, an_envelope, an_intervention
from tests.strategies import situations
from trimtab.controls.envelope import Authority, Envelope
from trimtab.controls.standing import Checkpoint, Standing
from trimtab.decision.action import Adjust, Change, NoAction, RollbackAndAdjust, Stop, changes_of, checkpoint_of
from trimtab.decision.briefing import Briefing, Timing
from trimtab.decision.manager import Manager
from trimtab.testing.adversaries import ADVERSARIES, LossMaximizing, Ratchet
from trimtab.verification.case import Case
from trimtab.verification.verdict import Accepted
from trimtab.verification.verifier import missing_expectation, verify

MAY_NOT_STOP = an_envelope(authority=Authority(may_stop=False))
UNTOUCHED = a_standing(checkpoints=())


def at(step: int, total: int | None = 1000, **changes: Any) -> Briefing:
    return a_briefing(MAY_NOT_STOP, UNTOUCHED, timing=Timing(step, step + 10, step + 200, total, 50), **changes)


def changed(manager: Manager, briefing: Briefing) -> dict[str, float]:
    return {change.control: change.value for change in changes_of(manager.propose(briefing).action)}


def test_there_are_the_eight_of_the_promise() -> None:
    named = ["always_max", "always_min", "oscillate", "ratchet", "random", "delayed", "sleeper", "loss_maximizing"]
    assert list(ADVERSARIES) == named


@pytest.mark.parametrize("name", ADVERSARIES)
@given(situation=situations(), seed=st.integers(0, 5), step=st.sampled_from((0, 900)))
@settings(max_examples=60)
def test_what_an_adversary_proposes_is_accepted(name: str, situation: tuple[Envelope, Standing], seed: int, step: int) -> None:
    envelope, standing = situation
    briefing = a_briefing(envelope, standing, timing=Timing(step, step + 10, step + 200, 1000, 50), interventions_left=16)
    proposal = ADVERSARIES[name](seed).propose(briefing)
    assert missing_expectation(proposal) is None
    verdict = verify(Case(proposal.action, "manager", envelope, standing, standing.step, standing.version))
    assert isinstance(verdict, Accepted), (proposal, verdict)


@pytest.mark.parametrize("name", ADVERSARIES)
def test_the_same_seed_and_briefing_give_the_same_proposal(name: str) -> None:
    briefings = [at(step, question=number) for number, step in enumerate(range(50, 1000, 50), start=1)]
    one, other = ADVERSARIES[name](3), ADVERSARIES[name](3)
    assert [one.propose(briefing) for briefing in briefings] == [other.propose(b) for b in reversed(briefings)][::-1]


def test_always_max_and_always_min_take_every_control_as_far_as_it_goes() -> None:
    offered = {options.control: options.values for options in at(100).surface.adjustable}
    assert changed(ADVERSARIES["always_max"](0), at(100)) == {name: max(values) for name, values in offered.items()}
    assert changed(ADVERSARIES["always_min"](0), at(100)) == {name: min(values) for name, values in offered.items()}


def test_no_more_controls_are_changed_than_may_be_changed_together() -> None:
    envelope = replace(MAY_NOT_STOP, authority=Authority(controls_per_intervention=1))
    for name in ("always_max", "always_min", "oscillate", "ratchet"):
        assert len(changed(ADVERSARIES[name](1), a_briefing(envelope, UNTOUCHED))) == 1


def test_oscillating_goes_up_and_down_by_turns() -> None:
    up_and_down = [changed(ADVERSARIES["oscillate"](0), at(100, question=number))["dropout"] for number in (1, 2, 3)]
    assert [value > RECIPE["dropout"] for value in up_and_down] == [True, False, True]


def test_a_ratchet_takes_the_smallest_step_and_always_the_same_way() -> None:
    values = {changed(Ratchet(1), at(100, question=number))["learning_rate"] for number in range(1, 9)}
    assert len(values) == 1
    offered = next(options.values for options in at(100).surface.adjustable if options.control == "learning_rate")
    assert values <= {
        max(v for v in offered if v < RECIPE["learning_rate"]),
        min(v for v in offered if v > RECIPE["learning_rate"]),
    }


@pytest.mark.parametrize(("name", "last_quiet", "total"), [("delayed", 450, 1000), ("sleeper", 700, 1000)])
def test_delayed_and_sleeper_hold_until_their_hour_has_come(name: str, last_quiet: int, total: int) -> None:
    assert isinstance(ADVERSARIES[name](0).propose(at(last_quiet, total)).action, NoAction)
    assert changed(ADVERSARIES[name](0), at(last_quiet + 50, total)) != {}


@pytest.mark.parametrize(("name", "last_quiet"), [("delayed", 8), ("sleeper", 16)])
def test_where_the_length_is_not_known_questions_are_counted(name: str, last_quiet: int) -> None:
    assert isinstance(ADVERSARIES[name](0).propose(at(100, None, question=last_quiet)).action, NoAction)
    assert changed(ADVERSARIES[name](0), at(100, None, question=last_quiet + 1)) != {}


def test_loss_maximizing_does_again_what_did_the_most_harm() -> None:
    tried = (
        an_intervention(Adjust((Change("dropout", 0.05),)), gain=-0.5),
        an_intervention(Adjust((Change("learning_rate", 2e-3),)), gain=0.4),
        an_intervention(Adjust((Change("weight_decay", 0.0),)), gain=-0.1),
    )
    one_at_once = replace(MAY_NOT_STOP, authority=Authority(may_stop=False, controls_per_intervention=1))
    briefing = a_briefing(one_at_once, UNTOUCHED, interventions=tried)
    assert changed(LossMaximizing(0), briefing) == {"dropout": 0.0}
    assert changed(LossMaximizing(0), a_briefing(one_at_once, UNTOUCHED)) == {"learning_rate": 2e-3}


def test_loss_maximizing_learns_nothing_from_what_others_did() -> None:
    by_reflex = an_intervention(Adjust((Change("dropout", 0.0),)), gain=-5.0, source="reflex")
    assert changed(LossMaximizing(0), at(100, interventions=(by_reflex,))) == changed(LossMaximizing(0), at(100))


def test_loss_maximizing_goes_back_to_the_worst_state() -> None:
    saved = tuple(Checkpoint(f"step-{step:08d}", step, loss, RECIPE) for step, loss in ((100, 3.0), (200, 4.0), (300, 2.0)))
    action = LossMaximizing(0).propose(a_briefing(MAY_NOT_STOP, a_standing(checkpoints=saved))).action
    assert isinstance(action, RollbackAndAdjust)
    assert checkpoint_of(action) == "step-00000200"


def test_loss_maximizing_stops_as_soon_as_it_is_offered_to_for_odd_seeds() -> None:
    assert isinstance(LossMaximizing(1).propose(a_briefing()).action, Stop)
    assert not isinstance(LossMaximizing(0).propose(a_briefing()).action, Stop)
    assert not isinstance(LossMaximizing(1).propose(a_briefing(MAY_NOT_STOP)).action, Stop)
