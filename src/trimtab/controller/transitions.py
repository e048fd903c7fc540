"""Which record may follow in which phase, and what it does to the state.

Rules:
1. All transitions stand in one table. A record that is not in the present phase's row is a defect
   or a forged ledger, and raises `IllegalTransition`.
2. `fold` is the only place where a state changes; live and replay both go through it.
3. Records that only add knowledge (evaluations, symptoms, checkpoints, measurements, problems) are
   allowed in every phase before the end, and leave the phase as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from trimtab.controller.guard import helped_by
from trimtab.controller.state import Phase, Question, Rewind, State
from trimtab.controller.trying import candidate_end, tried
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Checkpoint
from trimtab.decision.action import NoAction, Stop, changes_of, checkpoint_of
from trimtab.decision.briefing import Intervention
from trimtab.errors import IllegalTransition
from trimtab.ledger.record import (
    SUPERSEDED,
    ActionApplied,
    ActionFailed,
    ActionIntended,
    CheckpointDeleted,
    CheckpointSaved,
    EvaluationRecorded,
    HarmFound,
    InterventionMeasured,
    ManagerAsked,
    ManagerFailed,
    ProposalReceived,
    ReadBackRecorded,
    Record,
    RunEnded,
    RunStarted,
    SymptomObserved,
    TrialBegan,
    TrialEnded,
    TrialMeasured,
    TrialMoved,
    VerdictGiven,
)

_KNOWLEDGE: Final = (
    "run_resumed",
    "checkpoint_saved",
    "checkpoint_deleted",
    "evaluation_recorded",
    "symptom_observed",
    "answer_dropped",
    "read_back_recorded",
    "intervention_measured",
    "harm_found",
    "problem_noticed",
)

_MAX_STOP_REASON: Final = 300
# Steps that a fault which is back at once is given to pass by itself, before each further rollback.
_REPEAT_AFTER_STEPS: Final = (2, 8)
_KEPT_OBJECTIVES: Final = 32

TRANSITIONS: Final[Mapping[Phase, Mapping[str, Phase]]] = {
    Phase.WATCHING: {
        "manager_asked": Phase.ASKED,
        "verdict_given": Phase.WATCHING,
        "trial_began": Phase.TRYING,
        "trial_ended": Phase.WATCHING,
        "action_intended": Phase.ENACTING,
        "run_ended": Phase.ENDED,
    },
    Phase.ASKED: {
        "proposal_received": Phase.ANSWERED,
        "manager_failed": Phase.WATCHING,
        "run_ended": Phase.ENDED,
    },
    Phase.ANSWERED: {
        "manager_failed": Phase.WATCHING,
        "verdict_given": Phase.WATCHING,
        "run_ended": Phase.ENDED,
    },
    Phase.TRYING: {
        "trial_moved": Phase.TRYING,
        "trial_measured": Phase.TRYING,
        "trial_ended": Phase.WATCHING,
        "action_intended": Phase.ENACTING,
        "run_ended": Phase.ENDED,
    },
    Phase.ENACTING: {
        "action_applied": Phase.WATCHING,
        "action_failed": Phase.WATCHING,
        "run_ended": Phase.ENDED,
    },
    Phase.ENDED: {},
}


def next_phase(phase: Phase, kind: str) -> Phase:
    """Return the phase after a record of that kind.

    Raises:
        IllegalTransition: The record cannot follow; report the ledger.
    """
    if kind in _KNOWLEDGE and phase is not Phase.ENDED:
        return phase
    try:
        return TRANSITIONS[phase][kind]
    except KeyError:
        allowed = ", ".join([*TRANSITIONS[phase], *(_KNOWLEDGE if phase is not Phase.ENDED else ())]) or "nothing"
        raise IllegalTransition(
            f"a record cannot follow in phase {phase.value}", received=kind, allowed=allowed, next_step="report this ledger"
        ) from None


def begin(record: RunStarted) -> State:
    """Return the state after the first record."""
    return State(
        phase=Phase.WATCHING,
        envelope=record.envelope,
        manager=record.manager,
        total_steps=record.total_steps,
        evaluate_every_steps=record.evaluate_every_steps,
        can_skip=record.can_skip,
        initial=record.recipe,
        recipe=record.recipe,
        has_manager=record.isolation != "nowhere",
        schedule=record.schedule,
    )


def fold(state: State | None, record: Record) -> State:
    """Return the state after ``record``.

    Raises:
        IllegalTransition: The record cannot follow; report the ledger.
    """
    if isinstance(record, RunStarted):
        if state is not None:
            raise IllegalTransition("a run starts once", received=record.kind)
        return begin(record)
    if state is None:
        raise IllegalTransition("a ledger begins with run_started", received=record.kind)
    phase = next_phase(state.phase, record.kind)
    return replace(_learn(state, record), phase=phase, step=max(state.step, record.step))


def _learn(state: State, record: Record) -> State:
    match record:
        case CheckpointSaved() | CheckpointDeleted():
            # A name written again holds the newer state.
            others = tuple(checkpoint for checkpoint in state.checkpoints if checkpoint.id != record.checkpoint)
            is_saved = record.kind == "checkpoint_saved"
            saved = (Checkpoint(record.checkpoint, record.step, None, state.recipe),) if is_saved else ()
            return replace(state, checkpoints=(*others, *saved))
        case EvaluationRecorded():
            return _evaluated(state, record)
        case SymptomObserved():
            found = record.symptom
            steps = dict(state.symptom_steps) | {found.name: record.step}
            unasked = (*(earlier for earlier in state.unasked if earlier.name != found.name), found)
            return replace(state, symptom_steps=tuple(steps.items()), unasked=unasked)
        case ManagerAsked():
            briefing = record.briefing
            symptoms = tuple(symptom.name for symptom in briefing.symptoms)
            question = Question(record.question, record.step, briefing.version, symptoms, briefing, record.sent)
            asked = replace(state, question=question, proposal=None, num_questions=record.question, unasked=())
            return asked if record.sent else replace(asked, breaker_left=state.breaker_left - 1)
        case ProposalReceived():
            answered = replace(state, proposal=record.proposal, answered_by=record.by, objection=record.objection)
            if record.by == "manager":
                return replace(answered, failures_in_a_row=0)
            return _failed_again(answered, record.failure)
        case ManagerFailed():
            counted = state if record.problem == SUPERSEDED else _failed_again(state, f"{record.problem}: {record.detail}")
            return replace(counted, question=None, proposal=None)
        case ActionIntended():
            return replace(state, pending=record, num_interventions=record.intervention)
        case ActionApplied() | ActionFailed():
            return _applied(state, record) if record.kind == "action_applied" else _failed(state, record)
        case InterventionMeasured():
            return _measured(state, record)
        case ReadBackRecorded():
            return _read_back(state, record)
        case HarmFound():
            return replace(state, harm=record)
        case TrialBegan() | TrialMoved() | TrialMeasured() | TrialEnded():
            return tried(state, record)
        case VerdictGiven() | RunEnded():
            # A verdict closes the question, whatever was answered.
            closed = replace(state, question=None, proposal=None)
            gives_up = record.kind == "verdict_given" and record.source == "guard" and isinstance(record.action, NoAction)
            left = state.harm_left if state.harm is None else state.harm.intervention
            return replace(closed, harm=None, ways_back_failed=(), harm_left=left) if gives_up else closed
        case _:
            return state


def _failed_again(state: State, failure: str) -> State:
    """Count a question that the manager did not answer; after too many in a row the next ones are not sent to it."""
    if state.question is not None and not state.question.was_sent:
        return state
    failures, most = state.failures_in_a_row + 1, state.envelope.manager.breaker_failures
    breaks = bool(most) and failures >= most
    left = state.envelope.manager.breaker_questions if breaks else 0
    return replace(state, failures_in_a_row=failures, last_failure=failure[:_MAX_STOP_REASON], breaker_left=left)


def _evaluated(state: State, record: EvaluationRecorded) -> State:
    checkpoints = tuple(
        replace(checkpoint, objective=record.objective) if checkpoint.id == record.checkpoint else checkpoint
        for checkpoint in state.checkpoints
    )
    known = state.objectives
    if math.isfinite(record.objective):
        known = (*known, (record.step, record.objective))[-_KEPT_OBJECTIVES:]
    evaluated = replace(
        state,
        checkpoints=checkpoints,
        objective=record.objective,
        objectives=known,
        num_evaluations=state.num_evaluations + 1,
    )
    number = helped_by(evaluated)
    return replace(evaluated, taken_back_in_a_row=0, helped_by=number) if number else evaluated


def _applied(state: State, record: ActionApplied) -> State:
    intended = _pending(state, record.intervention)
    target = state.standing(record.step).checkpoint(checkpoint_of(intended.action) or "")
    done = _carried_out(state, intended, record.step, record.recipe, target)
    return replace(done, interventions=(*done.interventions, _intervention(state, intended, record.step, target)))


def _failed(state: State, record: ActionFailed) -> State:
    intended = _pending(state, record.intervention)
    target = state.standing(record.step).checkpoint(record.restored or "")
    done = _carried_out(state, intended, record.step, record.recipe, target, is_whole=False)
    failed = replace(_intervention(state, intended, record.step, target), is_complete=True, met=False)
    return replace(done, interventions=(*done.interventions, failed))


def _pending(state: State, intervention: int) -> ActionIntended:
    if state.pending is None or state.pending.intervention != intervention:
        raise IllegalTransition("an action was carried out that was not intended", received=intervention)
    return state.pending


def _carried_out(
    state: State, intended: ActionIntended, step: int, recipe: Recipe, target: Checkpoint | None, *, is_whole: bool = True
) -> State:
    """Return the state after an action, whole or failed: budgets are spent either way, or failures would be free."""
    changed = dict(state.changed_at) | {name: step for name, _ in recipe.difference(state.recipe)}
    by_reflex, by_manager = intended.source == "reflex", intended.source == "manager"
    rolls_back = checkpoint_of(intended.action) is not None
    is_repair = by_reflex and rolls_back
    checkpoints = tuple(replace(c, is_left=c.is_left or c.step > target.step) if target else c for c in state.checkpoints)
    blamed = [one for one in state.interventions if one.is_by_manager and 0 < intended.takes_back <= one.number]
    is_left = bool(blamed) and not is_whole  # the harm is still there: another way back has to be found
    blamed = [] if is_left else blamed
    return replace(
        _taken_back(state, blamed, step) if blamed else state,
        pending=None,
        harm=state.harm if is_left else None,
        ways_back_failed=(*state.ways_back_failed, intended.action) if is_left else (),
        recipe=recipe,
        changed_at=tuple(changed.items()),
        values_seen=_seen(state, recipe),
        version=state.version + 1,
        interventions_used=state.interventions_used + by_manager,
        rollbacks_used=state.rollbacks_used + (rolls_back and by_manager),
        reflex_rollbacks_used=state.reflex_rollbacks_used + is_repair,
        # Measuring an older intervention ends here: what follows is due to both. If the reflex had to
        # step in while it was measured, it did not do what was expected of it.
        interventions=tuple(
            replace(_closed(earlier, failed=is_repair or earlier in blamed), taken_back=earlier.taken_back or earlier in blamed)
            for earlier in state.interventions
        ),
        checkpoints=checkpoints,
        rewinds=_rewinds(state, intended, step, recipe, target),
        objective=target.objective if target else state.objective,
        objectives=tuple(known for known in state.objectives if known[0] <= target.step) if target else state.objectives,
        fault_attempts=fault_attempt(state, step) if is_repair else state.fault_attempts,
        fault_repeats=_fault_repeats(state, step) if is_repair else state.fault_repeats,
        last_reflex_step=step if is_repair else state.last_reflex_step,
        last_reflex_span=(step - target.step if target else 0) if is_repair else state.last_reflex_span,
        # To ask for the end touches nothing, so it counts even when its enactment is reported as failed.
        stop_reason=_stop_reason(intended) or state.stop_reason,
        is_exhausted=state.is_exhausted or (isinstance(intended.action, Stop) and intended.source == "reflex"),
    )


def _taken_back(state: State, blamed: list[Intervention], step: int) -> State:
    """Count a failure, and hold the controls that were changed: twice as long for each failure in a row."""
    guard, failures = state.envelope.guard, state.taken_back_in_a_row + 1
    until = step + guard.hold_evaluations * state.evaluate_every_steps * 2 ** min(failures - 1, 10)
    changed = {change.control: until for one in blamed for change in changes_of(one.action)}
    held = dict(state.held_until) | changed
    return replace(state, taken_back_in_a_row=failures, held_until=tuple(held.items()))


def _rewinds(
    state: State, intended: ActionIntended, step: int, recipe: Recipe, target: Checkpoint | None
) -> tuple[Rewind, ...]:
    if intended.trial:  # it is carried out by going on from the candidate's arm, whatever that began from
        return candidate_end(state, step)
    return (*state.rewinds, _rewind(state, intended, step, recipe, target)) if target else state.rewinds


def _rewind(state: State, intended: ActionIntended, step: int, recipe: Recipe, target: Checkpoint) -> Rewind:
    """Return the rollback to ``target``, with the reflex's cuts that held there and the one that it makes now."""
    before = state.last_rewind(target.step)
    cuts = dict(before.cuts if before else ())
    for change in changes_of(intended.action) if intended.source == "reflex" else ():
        if 0 < recipe[change.control] < target.recipe[change.control]:
            factor = recipe[change.control] / target.recipe[change.control]
            cuts[change.control] = cuts.get(change.control, 1.0) * factor
    return Rewind(step, state.lineage_step(target.step), tuple(sorted(cuts.items())))


def _seen(state: State, recipe: Recipe) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Return the distinct values that controls with a budget of them have had, ``recipe`` included."""
    known = dict(state.values_seen)
    budgeted = [control.name for control in state.envelope.controls if control.max_values is not None]
    held = {name: known.get(name, (state.initial[name],)) for name in budgeted}
    return tuple((name, seen if recipe[name] in seen else (*seen, recipe[name])) for name, seen in held.items())


def _closed(intervention: Intervention, *, failed: bool) -> Intervention:
    if intervention.is_complete:
        return intervention
    met = False if failed and intervention.expectation is not None else intervention.met
    return replace(intervention, is_complete=True, met=met)


def fault_attempt(state: State, step: int) -> int:
    """Return which attempt at one fault a rollback at ``step`` would be, from 1.

    It is the same fault if it comes back while the steps that were undone are made again, or soon after.
    """
    last = state.last_reflex_step
    if last is None or step - last > state.last_reflex_span + state.envelope.reflex.same_fault_within_steps:
        return 1
    return state.fault_attempts + (not is_back_at_once(state, step))


def is_back_at_once(state: State, step: int) -> bool:
    """Return whether a fault is back before the place where it was found has been reached again, and not for too long yet.

    Then neither the course nor that place in the data leads to it: it may be a burst, which ends by itself. To wait for that
    and go back once more undoes next to nothing, so it is no attempt of its own.
    """
    last = state.last_reflex_step
    if last is None or state.fault_repeats >= len(_REPEAT_AFTER_STEPS):
        return False
    return step - last <= _REPEAT_AFTER_STEPS[state.fault_repeats] and step - last < state.last_reflex_span


def is_to_wait(state: State, step: int) -> bool:
    """Return whether a fault that is back at once is still given time to pass."""
    assert state.last_reflex_step is not None, "there was no rollback"
    return step - state.last_reflex_step < _REPEAT_AFTER_STEPS[state.fault_repeats]


def _fault_repeats(state: State, step: int) -> int:
    if is_back_at_once(state, step):
        return state.fault_repeats + 1
    return 0 if fault_attempt(state, step) == 1 else state.fault_repeats


def _intervention(state: State, intended: ActionIntended, step: int, checkpoint: Checkpoint | None) -> Intervention:
    return Intervention(
        number=intended.intervention,
        source=_proposer(state, intended),
        step=step,
        action=intended.action,
        symptoms=intended.symptoms,
        reason=intended.reason,
        recipe_before=checkpoint.recipe if checkpoint else state.recipe,
        expectation=intended.expectation,
        objective_before=checkpoint.objective if checkpoint else state.objective,
        objective_left=state.objective if checkpoint else None,
        is_complete=isinstance(intended.action, Stop),
        trial=intended.trial,
    )


def _proposer(state: State, intended: ActionIntended) -> str:
    if intended.source != "manager":
        return intended.source
    return state.manager if state.answered_by == "manager" else state.answered_by


def _stop_reason(intended: ActionIntended) -> str | None:
    if not isinstance(intended.action, Stop):
        return None
    why = ", ".join(intended.symptoms) if intended.source == "reflex" else intended.reason
    return f"{intended.source}: {why or 'finished'}"[:_MAX_STOP_REASON]


def _measured(state: State, record: InterventionMeasured) -> State:
    if not state.interventions or state.interventions[-1].number != record.intervention:
        raise IllegalTransition("only the newest intervention is measured", received=f"{record.kind} of {record.intervention}")
    measured = replace(
        state.interventions[-1],
        objective_after=record.objective_after,
        gain=record.gain,
        evaluations_measured=record.evaluations_measured,
        is_complete=record.is_complete,
        met=record.met,
    )
    return replace(state, interventions=(*state.interventions[:-1], measured))


def _read_back(state: State, record: ReadBackRecorded) -> State:
    """A change that did not stick did not do what was expected of it."""
    if all(result.holds for result in record.results):
        return state
    return replace(state, interventions=tuple(_closed(one, failed=True) for one in state.interventions))
