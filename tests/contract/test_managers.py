"""What every manager keeps, whoever it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import RECIPE, a_briefing, a_standing, a_symptom, an_envelope, an_intervention
from tests.strategies import situations
from trimtab.controls.envelope import Authority, Envelope
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Checkpoint, Standing
from trimtab.decision.action import Adjust, Change, Rollback, changes_of, checkpoint_of
from trimtab.decision.briefing import Briefing, Intervention
from trimtab.decision.llm.manager import LlmManager
from trimtab.decision.manager import Manager
from trimtab.decision.no_action import NoActionManager
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.decision.random import RandomManager
from trimtab.decision.rules.manager import RulesManager
from trimtab.decision.scripted import Line, ScriptedManager
from trimtab.decision.surface import Surface
from trimtab.decision.wire import encode_proposal, proposal_from
from trimtab.diagnosis.base import Evidence, Symptom
from trimtab.testing.random_model import random_language_manager
from trimtab.verification.case import Case
from trimtab.verification.verdict import Accepted
from trimtab.verification.verifier import missing_expectation, verify


def a_script() -> ScriptedManager:
    proposal = Proposal(Adjust((Change("learning_rate", 5e-4),)), "planned", Expectation(0.0, 1))
    return ScriptedManager([Line(300, proposal), Line(10_000, proposal)])


def a_language_model(seed: int = 3, stages: int = 1) -> LlmManager:
    return random_language_manager(seed, ManagerSettings(stages=stages))


MANAGERS: dict[str, Callable[[], Manager]] = {
    "rules": RulesManager,
    "random": lambda: RandomManager(seed=3),
    "scripted": a_script,
    "no_action": NoActionManager,
    "language model": a_language_model,
    "language model in two stages": lambda: a_language_model(stages=2),
}

BARE = a_standing(recipe=Recipe(()), initial=Recipe(()), checkpoints=())
NOTHING = Surface((), (), 0, 0, may_stop=False)
WARNINGS = tuple(a_symptom(name) for name in ("overfitting", "plateau", "divergence", "non_finite", "loss_spike"))
FAILED = tuple(an_intervention(Adjust((Change("dropout", 0.2),)), met=False, number=at) for at in range(1, 6))

BRIEFINGS: dict[str, Briefing] = {
    "an ordinary one": a_briefing(),
    "every symptom": a_briefing(symptoms=WARNINGS),
    "an empty surface": a_briefing(surface=NOTHING, symptoms=WARNINGS),
    "no best": a_briefing(standing=a_standing(checkpoints=()), symptoms=WARNINGS),
    "no controls": a_briefing(an_envelope(controls=()), BARE, symptoms=WARNINGS),
    "rollbacks only": a_briefing(an_envelope(controls=()), symptoms=WARNINGS),
    "no rollbacks left": a_briefing(an_envelope(authority=Authority(rollbacks=0)), symptoms=WARNINGS),
    "an open trial": a_briefing(interventions=(an_intervention(Rollback("a"), is_complete=False),), symptoms=WARNINGS),
    "many failures": a_briefing(interventions=FAILED, symptoms=WARNINGS),
    "many failures and nothing to do": a_briefing(interventions=FAILED, symptoms=WARNINGS, surface=NOTHING),
    "a strange symptom": a_briefing(symptoms=(Symptom("plateau", "warning", 1, "x", (Evidence("nan", float("nan")),)),)),
}  # fmt: skip


@pytest.fixture(params=MANAGERS)
def make(request: pytest.FixtureRequest) -> Callable[[], Manager]:
    return MANAGERS[request.param]


@pytest.mark.parametrize("name", BRIEFINGS)
def test_it_proposes_something_well_formed(make: Callable[[], Manager], name: str) -> None:
    proposal = make().propose(BRIEFINGS[name])
    assert isinstance(proposal, Proposal)
    assert proposal.reason.strip()
    assert missing_expectation(proposal) is None
    assert proposal_from(json.loads(json.dumps(encode_proposal(proposal)))) == proposal


def test_it_answers_the_same_briefings_in_the_same_way(make: Callable[[], Manager]) -> None:
    one, other = make(), make()
    assert [one.propose(briefing) for briefing in BRIEFINGS.values()] == [
        other.propose(briefing) for briefing in BRIEFINGS.values()
    ]


def test_it_is_a_manager(make: Callable[[], Manager]) -> None:
    assert isinstance(make(), Manager)


def trials(standing: Standing) -> st.SearchStrategy[tuple[Intervention, ...]]:
    rules = ("regularize", "anneal_from_best", "anneal", "loosen", "calm", "give_up", "something")
    actions: st.SearchStrategy[Any] = st.sampled_from(
        (Rollback("step-00000100"), Adjust((Change("dropout", 0.1),)), Adjust((Change("learning_rate", 1.0),)))
    )
    trial = st.builds(
        lambda action, rule, met: an_intervention(action, met=met, reason=f"{rule}: why", is_complete=True),
        actions, st.sampled_from(rules), st.sampled_from((True, False, False, None)),
    )  # fmt: skip
    return st.lists(trial, max_size=6).map(tuple)


@settings(max_examples=150)
@given(st.data())
def test_what_rules_random_and_a_language_model_propose_is_accepted_by_the_verifier(data: st.DataObject) -> None:
    situation: tuple[Envelope, Standing] = data.draw(situations())
    envelope, standing = situation
    symptoms = data.draw(st.lists(st.sampled_from(WARNINGS), unique_by=lambda symptom: symptom.name).map(tuple))
    question = data.draw(st.integers(1, 1000))
    briefing = a_briefing(envelope, standing, symptoms=symptoms, interventions=data.draw(trials(standing)), question=question)
    for manager in (RulesManager(), RandomManager(question), a_language_model(question)):
        proposal = manager.propose(briefing)
        case = Case(proposal.action, "manager", envelope, standing, standing.step, standing.version)
        verdict = verify(case)
        assert isinstance(verdict, Accepted), (proposal, verdict)
        assert missing_expectation(proposal) is None


def test_random_reaches_every_kind_but_stop_and_skip() -> None:
    envelope = an_envelope()
    standing = a_standing(can_skip=True, checkpoints=(Checkpoint("a", 1, 2.0, RECIPE), Checkpoint("b", 2, 3.0, RECIPE)))
    proposals = [RandomManager(0).propose(a_briefing(envelope, standing, question=number)) for number in range(300)]
    assert {proposal.action.kind for proposal in proposals} == {"no_action", "adjust", "rollback", "rollback_and_adjust"}
    assert {checkpoint_of(proposal.action) for proposal in proposals} == {None, "a", "b"}
    touched = {change.control for proposal in proposals for change in changes_of(proposal.action)}
    assert touched == {control.name for control in envelope.controls}
    other = [RandomManager(1).propose(a_briefing(envelope, standing, question=number)) for number in range(300)]
    assert proposals != other
