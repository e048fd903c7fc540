"""The canary: a trial of a proposal against no_action from one forked state, made of the run's own steps.

The arms, in order, each of `Canary.steps` steps on the same batches with the same random numbers:
1. no_action: the run's own course; its end is kept.
2. candidate: from the fork, with the action carried out; its end is kept.
After `Canary.look_steps` each arm is evaluated for a first time and goes on; the candidate does not if it is worse by more than
the guard bears. Then from each of the two ends the rate decays to zero over `Canary.decay_steps` steps, and the objective is
evaluated. The run goes on from what was kept of the better arm; all other steps are the trial's cost. One step of the loop is
lost behind each evaluation: it may have drawn random numbers, and a state is changed inside `Supervisor.step` alone.

References:
    Wu et al. (2018), Understanding short-horizon bias in stochastic meta-optimization: why the rate decays first.
"""

from __future__ import annotations

import math
from dataclasses import replace

from trimtab.controller.draft import Draft
from trimtab.controller.effect import CANDIDATE, LOOK, NO_ACTION, START, Decay, Shift
from trimtab.controller.event import Shifted, ShiftFailed, TrialCutOff
from trimtab.controller.measuring import next_evaluation
from trimtab.controller.noise import borne
from trimtab.controller.state import Question, State, Trial
from trimtab.controller.trying import NEXT_STEP, NOT_EVALUATED
from trimtab.controls.safeguards import Canary
from trimtab.decision.action import Action, NoAction, Rollback, Stop
from trimtab.decision.proposal import Proposal
from trimtab.decision.surface import Surface
from trimtab.ledger.record import Arm, ProblemNoticed, TrialBegan, TrialEnded, TrialMeasured, TrialMoved, TrialOutcome
from trimtab.verification.verdict import Rejection, VerifiedAction


def cost(canary: Canary) -> int:
    """Return the most steps that a trial costs."""
    return canary.steps + 2 * (canary.decay_steps + 1) + (2 if has_look(canary) else 0)


def has_look(canary: Canary) -> bool:
    """Return whether arms are looked at early."""
    return 0 < canary.look_steps < canary.steps


def length(canary: Canary) -> int:
    """Return the steps that a whole trial takes, those of the arm that is kept included."""
    return canary.steps + cost(canary)


def is_tried(state: State, action: Action) -> bool:
    """Return whether the manager's ``action`` needs a trial; no way back to a state that was measured to be better does."""
    if state.envelope.canary.mode == "none" or isinstance(action, (NoAction, Stop)):
        return False
    return not (isinstance(action, Rollback) and action.checkpoint in measured_better(state))


def measured_better(state: State) -> tuple[str, ...]:
    """Return the checkpoints that are better than the newest evaluation by more than is noise."""
    now, goal = state.objective, state.envelope.objective
    if now is None:
        return ()
    known = [value for _, value in state.objectives]
    least = borne(state.envelope.guard, known, now)
    scores = [(saved.id, saved.score) for saved in state.checkpoints if not saved.is_left and saved.score is not None]
    return tuple(id for id, score in scores if not math.isfinite(now) or goal.gain(now, score) > least)


def gains_nothing(state: State, action: Action) -> Rejection | None:
    """Return why a rollback alone is not worth a trial: its checkpoint is no better than the state is now; None if it is."""
    saved = next((one for one in state.checkpoints if isinstance(action, Rollback) and one.id == action.checkpoint), None)
    now, goal = state.objective, state.envelope.objective
    if saved is None or saved.score is None or now is None or not math.isfinite(now) or goal.better(saved.score, now):
        return None
    return Rejection("canary", f"checkpoint {saved.id} has objective {saved.score!r}, no better than {now!r} now")


def open_surface(state: State, surface: Surface, step: int) -> Surface:
    """Return what of an action surface can be carried out after ``step`` though nothing can be tried."""
    if objection(state, step) is None:
        return surface
    better = measured_better(state)
    rollbacks = tuple(replace(option, adjustable=()) for option in surface.rollbacks if option.checkpoint in better)
    return Surface((), rollbacks, 0, 0, may_stop=surface.may_stop)


def objection(state: State, step: int) -> Rejection | None:
    """Return why no trial can begin after ``step``; None if one can."""
    canary = state.envelope.canary
    if state.is_untriable:
        return Rejection("canary", f"no trial can be judged: {NOT_EVALUATED}")
    if state.trial_steps + cost(canary) > canary.budget * step:
        spent = f"{state.trial_steps} of them are spent" if state.trial_steps else "none of them is spent"
        detail = f"a trial may cost {cost(canary)} steps; the budget is {canary.budget:.0%} of {step} steps, {spent}"
        return Rejection("canary", detail)
    if state.total_steps is not None and next_evaluation(state, step + length(canary)) >= state.total_steps:
        # Its decay makes up for a high rate, and behind it the run would have no steps left to do so.
        left = f"a trial takes {length(canary)} steps, and {state.total_steps - step} are left"
        return Rejection("canary", f"{left}: an evaluation has to come between its end and the run's")
    return None


def is_due(state: State, step: int) -> bool:
    """Return whether an arm is to be evaluated after ``step``."""
    trial = state.trial
    if trial is None or trial.leg == "arm":
        return False
    return step - trial.since == (0 if trial.leg == "look" else state.envelope.canary.decay_steps)


def begin(draft: Draft, at: int, verified: VerifiedAction, question: Question, proposal: Proposal) -> None:
    """Fork the state after ``at``; the no_action arm comes first."""
    began = TrialBegan(
        step=at,
        trial=draft.state.num_trials + 1,
        question=question.number,
        action=verified.action,
        recipe=verified.recipe,
        symptoms=question.symptoms,
        reason=proposal.reason,
        expectation=proposal.expectation,
    )
    draft.effects.append(Shift(began, keep=START))


def advance(draft: Draft, at: int) -> None:
    """Do what is due in the trial after ``at``."""
    trial, canary = draft.state.trial, draft.state.envelope.canary
    if trial is None:
        return
    since = at - trial.since
    if trial.leg == "look":
        if since:
            _end_of_look(draft, at, trial)
    elif trial.leg == "decay":
        if since > canary.decay_steps:
            _end_of_decay(draft, at, trial)
        elif since < canary.decay_steps:
            draft.effects.append(Decay(_factor(canary, since + 1)))
    elif since >= canary.steps:
        _end_of_arm(draft, at, trial)
    elif has_look(canary) and since == canary.look_steps and not trial.is_looked_at:
        moved = TrialMoved(at, trial.number, trial.arm, "look", draft.state.recipe, went_back=False)
        draft.effects.append(Shift(moved, keep=LOOK))


def evaluated(draft: Draft, at: int, objective: float) -> None:
    """Take in the evaluation of an arm."""
    trial = draft.state.trial
    if trial is not None and is_due(draft.state, at):
        draft.append(TrialMeasured(at, trial.number, trial.arm, trial.leg, objective))


def on_shift(draft: Draft, event: Shifted | ShiftFailed | TrialCutOff) -> None:
    """Record where the trial stands now, or end it."""
    if isinstance(event, ShiftFailed):
        _on_failure(draft, event)
        return
    if isinstance(event, TrialCutOff):
        if draft.state.trial is not None:
            _end(draft, event.step, draft.state.trial, "abandoned", "the training loop ended")
        return
    draft.append(event.record)
    trial, canary = draft.state.trial, draft.state.envelope.canary
    if trial is not None and trial.leg == "decay" and canary.decay_steps:
        draft.effects.append(Decay(_factor(canary, 1)))


def _on_failure(draft: Draft, event: ShiftFailed) -> None:
    """End the trial; the run's own course goes on, or the newest checkpoint of it."""
    at, trial = event.step, draft.state.trial
    if trial is None:  # not even the fork could be kept
        draft.append(ProblemNoticed(at, "a trial could not begin", event.problem))
    elif event.attempted or (not event.effect.back_to and not _is_on_course(trial, at)):  # the own course is in memory
        _go_back(draft, at, trial, "lost" if event.attempted else "abandoned", event.problem)
    else:
        is_off = event.went_back or isinstance(event.effect.record, TrialEnded) or not _is_on_course(trial, at)
        spent = at - trial.began if is_off else _spent(draft.state, trial, at)
        draft.append(TrialEnded(at, trial.number, "abandoned", event.problem, spent, event.recipe, went_back=False))
        checkpoint = next((saved for saved in reversed(draft.state.checkpoints) if not saved.is_left), None)
        if is_off and checkpoint is not None:
            verified = draft.judge(at, Rollback(checkpoint.id), "guard")
            if verified is not None:
                draft.intend(at, verified, (), "the state before a trial could not be brought back from memory")


def fault(draft: Draft, at: int, why: str) -> bool:
    """End the trial because of a critical symptom; return whether that answers it."""
    trial = draft.state.trial
    if trial is None:
        return False
    is_own = _is_on_course(trial, at)
    _end(draft, at, trial, "lost" if trial.arm == "candidate" else "abandoned", why)
    return not is_own


def ended(draft: Draft, at: int, why: str = "", *, is_applied: bool) -> None:
    """Record the end of a trial whose action was carried out, or failed to be."""
    trial = draft.state.trial
    if trial is None:
        return
    if is_applied:
        why = _compared(draft.state, dict(trial.objectives))
        spent = _spent(draft.state, trial, at)
        draft.append(TrialEnded(at, trial.number, "won", why, spent, draft.state.recipe, went_back=False))
    else:
        _end(draft, at, trial, "abandoned", why)


def _end_of_look(draft: Draft, at: int, trial: Trial) -> None:
    looks = dict(trial.looks)
    if trial.arm == "candidate" and len(looks) == 2 and _is_clearly_worse(draft.state, looks):
        _end(draft, at, trial, "lost", f"{_compared(draft.state, looks)}, at the early look")
        return
    moved = TrialMoved(at, trial.number, trial.arm, "arm", draft.state.recipe, went_back=True)
    draft.effects.append(Shift(moved, back_to=LOOK, for_the_last_time=True))


def _end_of_arm(draft: Draft, at: int, trial: Trial) -> None:
    if trial.arm == "candidate":
        moved = TrialMoved(at, trial.number, "candidate", "decay", draft.state.recipe, went_back=False)
        draft.effects.append(Shift(moved, keep=CANDIDATE))
        return
    verified = draft.verified(trial.began, trial.action)
    if verified is None:
        _end(draft, at, trial, "abandoned", "the action is not executable any more")
        return
    moved = TrialMoved(at, trial.number, "candidate", "arm", verified.recipe, went_back=True)
    draft.effects.append(Shift(moved, keep=NO_ACTION, back_to=START, for_the_last_time=True, attempt=verified))


def _end_of_decay(draft: Draft, at: int, trial: Trial) -> None:
    values = dict(trial.objectives)
    if trial.arm not in values:
        draft.append(ProblemNoticed(at, "a trial could not be judged", f"{NOT_EVALUATED}: nothing more is tried; {NEXT_STEP}"))
        _end(draft, at, trial, "abandoned", NOT_EVALUATED)
    elif trial.arm == "candidate":
        moved = TrialMoved(at, trial.number, "no_action", "decay", trial.base, went_back=True)
        draft.effects.append(Shift(moved, back_to=NO_ACTION))
    elif not _counts(draft.state, values):
        outcome = "lost" if math.isfinite(values["no_action"]) else "abandoned"
        _end(draft, at, trial, outcome, _compared(draft.state, values))
    elif (verified := draft.verified(trial.began, trial.action)) is None:
        _end(draft, at, trial, "abandoned", "the action is not executable any more")
    else:
        draft.intend(at, verified, trial.symptoms, trial.reason, trial.expectation, fork=CANDIDATE)


def _end(draft: Draft, at: int, trial: Trial, outcome: TrialOutcome, why: str) -> None:
    """End the trial on the run's own course."""
    if _is_on_course(trial, at):
        spent = _spent(draft.state, trial, at)
        draft.append(TrialEnded(at, trial.number, outcome, why, spent, draft.state.recipe, went_back=False))
    else:
        _go_back(draft, at, trial, outcome, why)


def _go_back(draft: Draft, at: int, trial: Trial, outcome: TrialOutcome, why: str) -> None:
    """End the trial at the newest state that was kept of the arm of no_action: its early look, or its end."""
    spent = _spent(draft.state, trial, at)
    record = TrialEnded(at, trial.number, outcome, why, spent, trial.base, went_back=True)
    draft.effects.append(Shift(record, back_to=LOOK if trial.arm == "no_action" and trial.leg == "look" else NO_ACTION))


def _spent(state: State, trial: Trial, at: int) -> int:
    """Return the steps of a trial up to now that are none of the run's own course."""
    canary = state.envelope.canary
    if trial.arm == "candidate" or trial.leg == "decay":
        own = canary.steps
    else:
        own = canary.look_steps if trial.leg == "look" else at - trial.since
    return at - trial.began - own


def _is_on_course(trial: Trial, at: int) -> bool:
    """Return whether the state is the run's own."""
    return trial.arm == "no_action" and (trial.leg == "arm" or (trial.leg == "look" and at == trial.since))


def _is_clearly_worse(state: State, looks: dict[Arm, float]) -> bool:
    candidate, held = looks["candidate"], looks["no_action"]
    if not math.isfinite(held):
        return False
    least = borne(state.envelope.guard, [value for _, value in state.objectives], held)
    return not math.isfinite(candidate) or state.envelope.objective.gain(held, candidate) < -least


def _counts(state: State, values: dict[Arm, float]) -> bool:
    """Return whether the candidate was measured to be better, or in mode ``veto`` not to be worse."""
    canary, candidate, held = state.envelope.canary, values["candidate"], values["no_action"]
    if not math.isfinite(candidate):
        return False
    if not math.isfinite(held):  # no measured win; a run that is broken is for the reflex
        return canary.mode == "veto"
    gain, margin = state.envelope.objective.gain(held, candidate), canary.margin * abs(held)
    return gain > margin if canary.mode == "win" else gain >= -margin


def _compared(state: State, values: dict[Arm, float]) -> str:
    return f"{state.envelope.objective.signal} {values['candidate']:.6g} with it, {values['no_action']:.6g} without"


def _factor(canary: Canary, number: int) -> float:
    """Return what the rate of a decay's step is multiplied by; its steps are counted from 1."""
    return 1.0 - number / (canary.decay_steps + 1)
