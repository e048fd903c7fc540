from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.builders import RECIPE, a_briefing, a_run_started, a_symptom
from trimtab.controller.effect import Append
from trimtab.controller.event import StepTaken
from trimtab.controller.state import Phase, State
from trimtab.controller.step import step
from trimtab.controller.transitions import TRANSITIONS, begin, fold, next_phase
from trimtab.decision.action import Adjust, Change, NoAction
from trimtab.decision.briefing import MAX_LOST_TRIALS, LostTrial
from trimtab.decision.proposal import Expectation, hold
from trimtab.errors import IllegalTransition
from trimtab.ledger.record import (
    ActionApplied,
    ActionFailed,
    ActionIntended,
    AnswerDropped,
    Arm,
    CheckpointDeleted,
    CheckpointSaved,
    EvaluationRecorded,
    HarmFound,
    InterventionMeasured,
    ManagerAsked,
    ManagerFailed,
    ProblemNoticed,
    ProposalReceived,
    ReadBackRecorded,
    Record,
    RunEnded,
    RunStarted,
    SymptomObserved,
    TrialBegan,
    TrialEnded,
    TrialLeg,
    TrialMeasured,
    TrialMoved,
    TrialOutcome,
    VerdictGiven,
)

HALVE = Adjust((Change("learning_rate", 5e-4),))
ASKED = ManagerAsked(100, 1, a_briefing())
RECEIVED = ProposalReceived(101, 1, hold("wait"), 0.1)
INTENDED = ActionIntended(110, 1, "manager", HALVE, RECIPE, (), "because", Expectation(0.0, 1))
APPLIED = ActionApplied(110, 1, RECIPE)
BEGAN = TrialBegan(210, 1, 2, HALVE, RECIPE, (), "because", None)

WAY_TO: dict[Phase, tuple[Record, ...]] = {
    Phase.WATCHING: (INTENDED, APPLIED),
    Phase.ASKED: (INTENDED, APPLIED, ASKED),
    Phase.ANSWERED: (INTENDED, APPLIED, ASKED, RECEIVED),
    Phase.ENACTING: (INTENDED, APPLIED, ActionIntended(210, 2, "manager", HALVE, RECIPE, (), "because", None)),
    Phase.TRYING: (INTENDED, APPLIED, BEGAN),
    Phase.ENDED: (RunEnded(300, "finished"),),
}

KNOWLEDGE: tuple[Record, ...] = (
    CheckpointSaved(1, "a"),
    CheckpointDeleted(1, "a"),
    EvaluationRecorded(1, 2.0, (), None),
    SymptomObserved(1, a_symptom()),
    AnswerDropped(1, 7, "late"),
    ReadBackRecorded(1, 1, ()),
    InterventionMeasured(1, 1, 1.9, 0.1, 1, is_complete=False, met=None),
    HarmFound(1, 1, 2.5, -0.5, 0.0, 0.1, is_worse=True),
    ProblemNoticed(1, "a", "b"),
)
TURNING: tuple[Record, ...] = (
    ASKED,
    RECEIVED,
    ManagerFailed(1, 1, "late", ""),
    VerdictGiven(1, 0, "manager", NoAction(), True, ()),
    BEGAN,
    TrialMoved(1, 1, "candidate", "arm", RECIPE, went_back=True),
    TrialMeasured(1, 1, "candidate", "look", 2.0),
    ActionIntended(210, 2, "manager", HALVE, RECIPE, (), "because", None),
    ActionApplied(1, 2, RECIPE),
    ActionFailed(1, 2, RECIPE, "x"),
    RunEnded(1, "finished"),
)


def state_in(phase: Phase) -> State:
    state = begin(a_run_started())
    for record in WAY_TO[phase]:
        state = fold(state, record)
    assert state.phase is phase
    return state


@pytest.mark.parametrize("record", TURNING, ids=lambda record: record.kind)
@pytest.mark.parametrize("phase", Phase)
def test_a_record_follows_exactly_where_the_table_says(phase: Phase, record: Record) -> None:
    state = state_in(phase)
    if record.kind in TRANSITIONS[phase]:
        assert fold(state, record).phase is TRANSITIONS[phase][record.kind]
    else:
        with pytest.raises(IllegalTransition) as caught:
            fold(state, record)
        assert phase.value in str(caught.value)
        assert record.kind in str(caught.value)


@pytest.mark.parametrize("record", KNOWLEDGE, ids=lambda record: record.kind)
@pytest.mark.parametrize("phase", Phase)
def test_knowledge_leaves_the_phase_until_the_end(phase: Phase, record: Record) -> None:
    state = state_in(phase)
    if phase is Phase.ENDED:
        with pytest.raises(IllegalTransition, match=record.kind):
            fold(state, record)
    else:
        assert fold(state, record).phase is phase


def test_nothing_follows_the_end() -> None:
    assert TRANSITIONS[Phase.ENDED] == {}
    assert set(TRANSITIONS) == set(Phase)


def test_a_ledger_begins_with_run_started_and_has_it_once() -> None:
    with pytest.raises(IllegalTransition, match="run_started"):
        fold(None, RunEnded(1, "x"))
    with pytest.raises(IllegalTransition, match="once"):
        fold(begin(a_run_started()), a_run_started())
    assert isinstance(a_run_started(), RunStarted)


@pytest.mark.parametrize("make", [lambda: ActionApplied(210, 7, RECIPE), lambda: ActionFailed(210, 7, RECIPE, "x")])
def test_an_outcome_belongs_to_the_intended_action(make: Callable[[], Record]) -> None:
    with pytest.raises(IllegalTransition, match="intended"):
        fold(state_in(Phase.ENACTING), make())


def test_a_measurement_belongs_to_an_intervention() -> None:
    measured = InterventionMeasured(1, 1, 1.9, 0.1, 1, is_complete=False, met=None)
    with pytest.raises(IllegalTransition, match="measured"):
        fold(begin(a_run_started()), measured)


@pytest.mark.parametrize("outcome", ["won", "lost", "abandoned"])
def test_a_trial_ends_in_watching_and_its_cost_is_booked(outcome: TrialOutcome) -> None:
    ended = TrialEnded(330, 1, outcome, "compared", 102, RECIPE, went_back=False)
    state = fold(state_in(Phase.TRYING), ended)
    assert (state.phase, state.trial, state.trial_steps) == (Phase.WATCHING, None, 102)
    with pytest.raises(IllegalTransition, match="trial"):
        fold(state, ended)
    with pytest.raises(IllegalTransition, match="trial"):
        fold(state_in(Phase.TRYING), TrialEnded(330, 2, outcome, "compared", 102, RECIPE, went_back=False))


@pytest.mark.parametrize(
    ("leg", "measured", "told"),
    [
        ("decay", (("candidate", 2.1), ("no_action", 2.0)), (2.1, 2.0)),
        ("look", (("no_action", 2.0), ("candidate", 2.3)), (2.3, 2.0)),
        ("decay", (("candidate", 2.1),), (None, None)),
    ],
)
def test_a_lost_trial_is_kept_with_what_was_measured(
    leg: TrialLeg, measured: tuple[tuple[Arm, float], ...], told: tuple[float | None, float | None]
) -> None:
    state = state_in(Phase.TRYING)
    for arm, objective in measured:
        state = fold(state, TrialMoved(220, 1, arm, leg, RECIPE, went_back=False))
        state = fold(state, TrialMeasured(230, 1, arm, leg, objective))
    lost = fold(state, TrialEnded(330, 1, "lost", "compared", 102, RECIPE, went_back=False))
    assert lost.lost_trials == (LostTrial(1, 210, HALVE, (), "because", *told),)
    assert fold(state, TrialEnded(330, 1, "won", "compared", 102, RECIPE, went_back=False)).lost_trials == ()


def test_only_the_newest_lost_trials_are_kept() -> None:
    state = state_in(Phase.WATCHING)
    for number in range(1, MAX_LOST_TRIALS + 3):
        state = fold(state, replace(BEGAN, trial=number, step=200 + number))
        state = fold(state, TrialEnded(200 + number, number, "lost", "compared", 10, RECIPE, went_back=False))
    assert [lost.number for lost in state.lost_trials] == list(range(3, MAX_LOST_TRIALS + 3))


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(IllegalTransition, match="teleported"):
        next_phase(Phase.WATCHING, "teleported")


def test_an_answer_is_judged_by_the_version_it_was_asked_at() -> None:
    state = state_in(Phase.ANSWERED)
    assert (state.version, ASKED.briefing.version) == (1, 0)
    _, effects = step(state, StepTaken(110))
    (verdict,) = [effect.record for effect in effects if isinstance(effect, Append)]
    assert isinstance(verdict, VerdictGiven)
    assert [reason.constraint for reason in verdict.reasons] == ["freshness"]


def test_the_step_of_the_state_never_falls() -> None:
    state = fold(state_in(Phase.WATCHING), ProblemNoticed(5, "a", "b"))
    assert state.step == 110
