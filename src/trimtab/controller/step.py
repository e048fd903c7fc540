"""The controller: a pure function from a state and an event to a state and effects.

Rules:
1. No I/O, clock, randomness or framework: all of it comes in with events.
2. The state changes only by folding the records that are appended on the way.
3. Everything is verified against the state at the time of application.
4. Empty, missing, late or unknown always means no_action.
"""

from __future__ import annotations

from typing import Final

from trimtab.controller import canary, guard
from trimtab.controller.draft import Draft
from trimtab.controller.effect import Append, Ask, DeleteCheckpoint, Effect
from trimtab.controller.event import (
    AnswerFailed,
    AnswerReceived,
    CheckpointWritten,
    EnactmentDone,
    EnactmentFailed,
    EvaluationReported,
    Event,
    ProblemFound,
    ReadBackTaken,
    RunBegan,
    RunClosed,
    RunWentOn,
    ScheduleReached,
    Shifted,
    ShiftFailed,
    StepTaken,
    SymptomRaised,
    TrialCutOff,
)
from trimtab.controller.fallback import answer_for_it, said_late
from trimtab.controller.following import follow
from trimtab.controller.measuring import measure
from trimtab.controller.reflex import plan, said_of_skipping
from trimtab.controller.state import Phase, Question, State
from trimtab.controller.transitions import begin
from trimtab.controls.standing import Checkpoint
from trimtab.decision.action import Action, NoAction, SkipBatches, changes_of
from trimtab.decision.briefing import MAX_INTERVENTIONS, Briefing, ControlLimits, Timing
from trimtab.decision.surface import Surface, build_surface
from trimtab.diagnosis.base import Symptom
from trimtab.errors import IllegalTransition
from trimtab.ledger.record import (
    SUPERSEDED,
    ActionApplied,
    ActionFailed,
    AnswerDropped,
    CheckpointDeleted,
    CheckpointSaved,
    EvaluationRecorded,
    ManagerAsked,
    ManagerFailed,
    ProblemNoticed,
    ProposalReceived,
    ReadBackRecorded,
    RunEnded,
    SymptomObserved,
)
from trimtab.verification.verdict import Rejection
from trimtab.verification.verifier import missing_expectation

KEPT_CHECKPOINTS: Final = 3
_QUIET_STEPS: Final = 50


def step(state: State | None, event: Event) -> tuple[State, tuple[Effect, ...]]:
    """Return the state after ``event`` and the effects to carry out, in order.

    Raises:
        IllegalTransition: A defect in trimtab; the runtime holds the recipe and records it.
    """
    if isinstance(event, (RunBegan, RunWentOn)):
        if state is not None:
            raise IllegalTransition("a run starts once", received=type(event).__name__)
        return (begin(event.record), (Append(event.record),)) if isinstance(event, RunBegan) else _go_on(event)
    if state is None:
        raise IllegalTransition("a run begins with RunBegan", received=type(event).__name__)
    draft = Draft(state)
    _respond(draft, event)
    return draft.state, tuple(draft.effects)


def _go_on(event: RunWentOn) -> tuple[State, tuple[Effect, ...]]:
    draft = Draft(event.state)
    draft.append(event.record)
    _retain(draft, event.record.step)  # as after the checkpoint was saved: that is behind the place gone back to
    kept = {checkpoint.id for checkpoint in draft.state.checkpoints}
    for checkpoint in event.lost:
        if checkpoint in kept:
            draft.append(CheckpointDeleted(event.record.step, checkpoint))
    question = event.state.question
    if event.state.phase is Phase.ASKED and question is not None:
        draft.effects.append(Ask(question.briefing))  # whoever was asked is gone with the process
    return draft.state, tuple(draft.effects)


def _respond(draft: Draft, event: Event) -> None:
    match event:
        case StepTaken():
            _on_step(draft, event.step)
        case ScheduleReached():
            follow(draft, event.step, event.entry)
        case SymptomRaised():
            _observe(draft, event.symptom)
            _reflex(draft, event.step, event.symptom)
        case EvaluationReported():
            _on_evaluation(draft, event)
        case AnswerReceived() | AnswerFailed():
            _on_answer(draft, event)
        case CheckpointWritten():
            draft.append(CheckpointSaved(event.step, event.checkpoint, event.state_hash))
            _retain(draft, event.step)
        case EnactmentDone() | EnactmentFailed():
            _on_enactment(draft, event)
        case Shifted() | ShiftFailed() | TrialCutOff():
            canary.on_shift(draft, event)
        case ReadBackTaken():
            _on_read_back(draft, event)
        case ProblemFound():
            draft.append(ProblemNoticed(event.step, event.problem, event.detail))
        case RunClosed():
            if draft.state.phase is not Phase.ENDED:
                draft.append(RunEnded(event.step, event.reason))
        case RunBegan() | RunWentOn():
            raise IllegalTransition("a run starts once", received="RunBegan")


def _on_read_back(draft: Draft, event: ReadBackTaken) -> None:
    draft.append(ReadBackRecorded(event.step, event.intervention, event.results))
    for result in event.results:
        if not result.holds:
            detail = f"{result.control}: expected {result.expected!r} in effect, found {result.observed!r}"
            detail += f"; {result.detail}" if result.detail else ""
            draft.append(ProblemNoticed(event.step, "a change did not stick", detail))


def _on_step(draft: Draft, at: int) -> None:
    canary.advance(draft, at)
    _take_back(draft, at)
    question, state = draft.state.question, draft.state
    if question is None:
        return
    if state.phase is Phase.ASKED and at - question.asked_step >= state.envelope.deliberation.stale_after_steps:
        # The last step at which an answer counts: the fallback's still does.
        answer_for_it(draft, at, "late", said_late(at - question.asked_step))
    if draft.state.phase is Phase.ANSWERED and _is_time(draft.state, question, at):
        _adjudicate(draft, at)


def _take_back(draft: Draft, at: int) -> None:
    """Take back what the guard found to do harm; it waited for a step, since a checkpoint fits that point of the loop alone."""
    harm = draft.state.harm
    if harm is None or draft.state.phase in (Phase.ENACTING, Phase.TRYING):
        return
    if draft.state.question is not None:
        detail = f"the guard takes back intervention {harm.intervention}"
        draft.append(ManagerFailed(at, draft.state.question.number, SUPERSEDED, detail))
    planned = guard.take_back(draft.state, harm)
    if planned is None or not _guard(draft, at, planned, harm.intervention, ()):
        draft.judge(at, NoAction(), "guard")
        detail = f"intervention {harm.intervention} did harm, and there is no way back that the envelope allows"
        draft.append(ProblemNoticed(at, "harm was not taken back", detail))


def _guard(draft: Draft, at: int, planned: guard.TakeBack, intervention: int, symptoms: tuple[str, ...]) -> bool:
    """Carry out the first action that is accepted; return whether one was."""
    for action in planned.actions:
        verified = draft.judge(at, action, "guard")
        if verified is not None:
            draft.intend(at, verified, symptoms, planned.reason, takes_back=intervention)
            return True
    return False


def _is_time(state: State, question: Question, at: int) -> bool:
    """Return whether the answer is to be judged now; a late one that needs a boundary waits for the next."""
    if at < state.envelope.applies_at(question.asked_step):
        return False
    changes = changes_of(state.proposal.action) if state.proposal is not None else ()
    controls = [state.envelope.control(change.control) for change in changes if change.control in state.envelope]
    is_open = all(state.envelope.is_open(control, at) for control in controls)
    return is_open or at - question.asked_step > state.envelope.deliberation.stale_after_steps


def _adjudicate(draft: Draft, at: int) -> None:
    question, proposal = draft.state.question, draft.state.proposal
    assert question is not None
    assert proposal is not None
    said = draft.state.objection
    objection = Rejection("approval", said) if said else missing_expectation(proposal)
    if objection is None:
        objection = _untimely(draft.state, at, proposal.action)
    verified = draft.judge(at, proposal.action, "manager", objection)
    if verified is None or draft.state.envelope.authority.shadow:
        return
    if canary.is_tried(draft.state, verified.action) and canary.objection(draft.state, at) is None:
        canary.begin(draft, at, verified, question, proposal)
    else:
        draft.intend(at, verified, question.symptoms, proposal.reason, proposal.expectation)


def _untimely(state: State, at: int, action: Action) -> Rejection | None:
    """Return why an action comes too early or too late for canary or guard."""
    is_candidate = canary.is_tried(state, action)
    untried = (canary.gains_nothing(state, action) or canary.objection(state, at)) if is_candidate else None
    if state.envelope.canary.mode == "win":
        return untried  # what cannot be tried is not applied, and what can be is measured
    is_tried = state.envelope.canary.mode == "veto" and untried is None
    return None if is_tried else guard.objection(state, at, action)


def _open_surface(state: State, surface: Surface, at: int) -> Surface:
    """Return what of an action surface canary and guard leave open."""
    if state.envelope.canary.mode == "win":
        return canary.open_surface(state, surface, at)
    is_tried = state.envelope.canary.mode == "veto" and canary.objection(state, at) is None
    return surface if is_tried else guard.open_surface(state, surface, at)


def _on_answer(draft: Draft, event: AnswerReceived | AnswerFailed) -> None:
    question = draft.state.question
    if question is None or question.number != event.question or draft.state.phase is not Phase.ASKED:
        draft.append(AnswerDropped(event.step, event.question, "the question is no longer open"))
    elif isinstance(event, AnswerReceived):
        draft.append(
            ProposalReceived(
                event.step,
                event.question,
                event.proposal,
                event.latency_seconds,
                objection=event.objection,
                approved_by=event.approved_by,
                consultation=event.consultation,
            )
        )
    else:
        answer_for_it(draft, event.step, event.problem, event.detail, event.consultation)


def _on_evaluation(draft: Draft, event: EvaluationReported) -> None:
    if draft.state.trial is not None:
        canary.evaluated(draft, event.step, event.objective)
        return
    before_it = draft.state
    draft.append(EvaluationRecorded(event.step, event.objective, event.metrics, event.checkpoint))
    measured = measure(before_it, event.step, event.objective)
    harm = guard.find_harm(before_it, event.step, event.objective)
    if measured is not None:
        draft.append(measured)
    if harm is not None:
        draft.append(harm)
    for symptom in event.symptoms:
        _observe(draft, symptom)
    _retain(draft, event.step)
    is_turn = draft.state.num_evaluations % draft.state.envelope.deliberation.every_evaluations == 0
    if draft.state.phase is Phase.WATCHING and is_turn and draft.state.has_manager and not _is_pointless(draft.state, event):
        _ask(draft, event)


def _is_pointless(state: State, event: EvaluationReported) -> bool:
    """Return whether an answer could not be applied any more, or the reflex is about to act."""
    applies_at = state.envelope.applies_at(event.step)
    is_late = state.total_steps is not None and applies_at > state.total_steps
    is_over = state.stop_reason is not None or is_late or state.harm is not None
    settings = state.envelope.guard
    is_over = is_over or (settings.armed and state.num_evaluations < settings.baseline_evaluations)
    is_critical = any(symptom.severity == "critical" for symptom in event.symptoms)
    return is_over or (is_critical and state.envelope.reflex.armed)


def _ask(draft: Draft, event: EvaluationReported) -> None:
    state, deliberation = draft.state, draft.state.envelope.deliberation
    # What will be executable when the answer is applied, not now: a dwell may end in between.
    applies_at = state.envelope.applies_at(event.step)
    standing = state.standing(applies_at)
    surface = _open_surface(state, build_surface(state.envelope, standing), applies_at)
    if surface.is_empty:
        return
    briefing = Briefing(
        question=state.num_questions + 1,
        version=state.version,
        objective=state.envelope.objective,
        timing=Timing(
            asked_step=event.step,
            applies_at_step=applies_at,
            stale_after_step=event.step + deliberation.stale_after_steps,
            total_steps=state.total_steps,
            evaluate_every_steps=state.evaluate_every_steps,
        ),
        recipe=state.recipe,
        initial=state.initial,
        snapshot=event.snapshot,
        symptoms=(*event.symptoms, *_seen_since(state, event)),
        best=standing.best_checkpoint(state.envelope),
        interventions=state.interventions[-MAX_INTERVENTIONS:],
        surface=surface,
        limits=_limits(state),
        interventions_left=standing.interventions_left(state.envelope),
        rollbacks_left=standing.rollbacks_left(state.envelope),
        lost_trials=state.lost_trials,
    )
    is_sent = state.breaker_left == 0
    draft.append(ManagerAsked(event.step, briefing.question, briefing, is_sent))
    if is_sent:
        draft.effects.append(Ask(briefing))
    else:
        last = f"; the last time: {state.last_failure}" if state.last_failure else ""
        detail = f"the manager failed {state.failures_in_a_row} times in a row and is not asked for a while{last}"
        answer_for_it(draft, event.step, "paused", detail)


def _limits(state: State) -> tuple[ControlLimits, ...]:
    """Return how each control stands, in the order of the recipe."""
    changed = dict(state.changed_at)
    controls = sorted(state.envelope.controls, key=lambda control: control.name)
    return tuple(
        ControlLimits(
            control=control.name,
            unit=control.unit,
            low=control.bounds.low,
            high=control.bounds.high,
            effect_lag_steps=control.effect_lag_steps,
            changed_step=changed.get(control.name),
            free_from_step=changed[control.name] + control.dwell_steps if control.name in changed else 0,
        )
        for control in controls
    )


def _seen_since(state: State, event: EvaluationReported) -> tuple[Symptom, ...]:
    """Return what was found at steps since the last question, except what the reflex has answered."""
    names = {symptom.name for symptom in event.symptoms}
    is_answered = state.envelope.reflex.armed
    return tuple(s for s in state.unasked if s.name not in names and not (is_answered and s.severity == "critical"))


def _observe(draft: Draft, symptom: Symptom) -> None:
    last = dict(draft.state.symptom_steps).get(symptom.name)
    if last is None or symptom.step - last >= _QUIET_STEPS or symptom.severity == "warning":
        draft.append(SymptomObserved(symptom.step, symptom))


def _reflex(draft: Draft, at: int, symptom: Symptom) -> None:
    if draft.state.phase is Phase.ENACTING or draft.state.is_exhausted:
        return
    planned = plan(draft.state, at, symptom)
    if planned is None or canary.fault(draft, at, f"{symptom.name} in {symptom.signal}"):
        return
    blamed, way_back = guard.watched(draft.state), guard.take_back_for(draft.state, symptom.name, symptom.signal)
    if draft.state.question is not None:
        draft.append(ManagerFailed(at, draft.state.question.number, SUPERSEDED, f"the reflex answers {symptom.name}"))
    if blamed is not None and way_back is not None and _guard(draft, at, way_back, blamed.number, (symptom.name,)):
        return
    for action in planned.actions:
        verified = draft.judge(at, action, "reflex")
        if verified is not None:
            draft.intend(at, verified, (symptom.name,), planned.reason, then_skip_batches=planned.then_skip_batches)
            return


def _on_enactment(draft: Draft, event: EnactmentDone | EnactmentFailed) -> None:
    intended = draft.state.pending
    if intended is None:
        raise IllegalTransition("an enactment was reported that was not ordered", received=type(event).__name__)
    if isinstance(event, EnactmentFailed):
        draft.append(ActionFailed(event.step, intended.intervention, event.recipe, event.problem, event.restored))
        if event.unusable is not None:
            _give_up(draft, event.step, tuple(c for c in draft.state.checkpoints if c.id == event.unusable), keep_best=False)
        _abandon(draft, event.step)
        canary.ended(draft, event.step, event.problem, is_applied=False)
        return
    draft.append(ActionApplied(event.step, intended.intervention, event.recipe))
    _abandon(draft, event.step)
    canary.ended(draft, event.step, is_applied=True)
    if intended.takes_back and draft.state.is_held:
        failures = draft.state.taken_back_in_a_row
        detail = f"{failures} interventions in a row were taken back: the recipe is held, look at the run and at the manager"
        draft.append(ProblemNoticed(event.step, "the guard holds the recipe", detail))
    if intended.then_skip_batches:
        verified = draft.judge(event.step, SkipBatches(intended.then_skip_batches), "reflex")
        if verified is not None:
            draft.intend(event.step, verified, intended.symptoms, said_of_skipping(intended))


def _retain(draft: Draft, at: int) -> None:
    """Give up checkpoints beyond the newest few, but none that an open question offers or that the guard may need."""
    if draft.state.question is None:
        newest = guard.watched(draft.state)
        way_back = None if newest is None else guard.before(draft.state, newest)
        old = draft.state.checkpoints[:-KEPT_CHECKPOINTS]
        _give_up(draft, at, tuple(checkpoint for checkpoint in old if checkpoint is not way_back))


def _abandon(draft: Draft, at: int) -> None:
    """Give up checkpoints of a course that a rollback has left."""
    _give_up(draft, at, tuple(checkpoint for checkpoint in draft.state.checkpoints if checkpoint.is_left))


def _give_up(draft: Draft, at: int, checkpoints: tuple[Checkpoint, ...], *, keep_best: bool = True) -> None:
    best = draft.state.standing(at).best_checkpoint(draft.state.envelope) if keep_best else None
    for checkpoint in checkpoints:
        if checkpoint is not best:
            draft.append(CheckpointDeleted(at, checkpoint.id))
            draft.effects.append(DeleteCheckpoint(checkpoint.id))
