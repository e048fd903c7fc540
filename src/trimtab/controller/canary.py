"""The canary: a trial of a proposal against no_action from one forked state, made of the run's own steps.

The arms, in order, each of `Canary.steps` steps on the same batches with the same random numbers:
1. no_action: the run's own course; its end is kept.
2. candidate: from the fork, with the action carried out; its end is kept.
Then from each of the two ends the rate decays to zero over `Canary.decay_steps` steps, and the objective is evaluated. The
run goes on from what was kept of the better arm; all other steps are the trial's cost. One step of the loop is lost behind
each evaluation, since a state is changed inside `Supervisor.step` alone.

References:
    Wu et al. (2018), Understanding short-horizon bias in stochastic meta-optimization: why the rate decays first.
"""

from __future__ import annotations

import math
from typing import Final

from trimtab.controller.draft import Draft
from trimtab.controller.effect import Decay, Shift
from trimtab.controller.event import Shifted, ShiftFailed, TrialCutOff
from trimtab.controller.state import Question, State, Trial
from trimtab.controls.safeguards import Canary
from trimtab.decision.action import Action, NoAction, Rollback, Stop
from trimtab.decision.proposal import Proposal
from trimtab.ledger.record import Arm, ProblemNoticed, TrialBegan, TrialEnded, TrialMeasured, TrialMoved, TrialOutcome
from trimtab.verification.verdict import Rejection, VerifiedAction

START: Final = "start"
NOT_EVALUATED: Final = "the loop did not evaluate when supervisor.evaluation_due"


def cost(canary: Canary) -> int:
    """Return the most steps that a trial costs."""
    return canary.steps + 2 * (canary.decay_steps + 1)


def length(canary: Canary) -> int:
    """Return the steps that a whole trial takes, those of the arm that is kept included."""
    return canary.steps + cost(canary)


def is_tried(state: State, action: Action) -> bool:
    """Return whether the manager's ``action`` is one that a trial can compare."""
    return state.envelope.canary.mode != "none" and not isinstance(action, (NoAction, Stop))


def objection(state: State, step: int) -> Rejection | None:
    """Return why no trial can begin after ``step``; None if one can."""
    canary = state.envelope.canary
    if state.trial_steps + cost(canary) > canary.budget * step:
        spent = f"{state.trial_steps} of them are spent" if state.trial_steps else "none of them is spent"
        detail = f"a trial may cost {cost(canary)} steps; the budget is {canary.budget:.0%} of {step} steps, {spent}"
        return Rejection("canary", detail)
    if state.total_steps is not None and step + length(canary) > state.total_steps:
        return Rejection("canary", f"a trial takes {length(canary)} steps, and {state.total_steps - step} are left")
    return None


def is_due(state: State, step: int) -> bool:
    """Return whether an arm is to be evaluated after ``step``."""
    trial = state.trial
    return trial is not None and trial.is_decaying and step - trial.since == state.envelope.canary.decay_steps


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
    if not trial.is_decaying and since >= canary.steps:
        _end_of_arm(draft, at, trial)
    elif trial.is_decaying and since > canary.decay_steps:
        _end_of_decay(draft, at, trial)
    elif trial.is_decaying and since < canary.decay_steps:
        draft.effects.append(Decay(_factor(canary, since + 1)))


def evaluated(draft: Draft, at: int, objective: float) -> None:
    """Take in the evaluation of an arm."""
    trial = draft.state.trial
    if trial is not None and is_due(draft.state, at):
        draft.append(TrialMeasured(at, trial.number, trial.arm, objective))


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
    if trial is not None and trial.is_decaying and canary.decay_steps:
        draft.effects.append(Decay(_factor(canary, 1)))


def _on_failure(draft: Draft, event: ShiftFailed) -> None:
    """End the trial; the run's own course goes on, or the newest checkpoint of it."""
    at, trial = event.step, draft.state.trial
    if trial is None:  # not even the fork could be kept
        draft.append(ProblemNoticed(at, "a trial could not begin", event.problem))
    elif event.went_back:
        _end(draft, at, trial, "lost", event.problem)
    else:
        is_on_course = trial.arm == "no_action" and not trial.is_decaying
        spent = 0 if is_on_course else at - trial.began
        draft.append(TrialEnded(at, trial.number, "abandoned", event.problem, spent, event.recipe, went_back=False))
        checkpoint = next((saved for saved in reversed(draft.state.checkpoints) if not saved.is_left), None)
        if not is_on_course and checkpoint is not None:
            verified = draft.judge(at, Rollback(checkpoint.id), "guard")
            if verified is not None:
                draft.intend(at, verified, (), "the state before a trial could not be brought back from memory")


def fault(draft: Draft, at: int, why: str) -> bool:
    """End the trial because of a critical symptom; return whether that answers it."""
    trial = draft.state.trial
    if trial is None:
        return False
    if trial.arm == "no_action" and not trial.is_decaying:
        _end(draft, at, trial, "abandoned", why)
        return False  # it is a fault of the run itself
    _end(draft, at, trial, "lost" if trial.arm == "candidate" else "abandoned", why)
    return True


def ended(draft: Draft, at: int, why: str = "", *, is_applied: bool) -> None:
    """Record the end of a trial whose action was carried out, or failed to be."""
    trial = draft.state.trial
    if trial is None:
        return
    if is_applied:
        spent, why = at - trial.began - draft.state.envelope.canary.steps, _compared(draft.state, trial)
        draft.append(TrialEnded(at, trial.number, "won", why, spent, draft.state.recipe, went_back=False))
    else:
        _end(draft, at, trial, "abandoned", why)


def _end_of_arm(draft: Draft, at: int, trial: Trial) -> None:
    if trial.arm == "candidate":
        moved = TrialMoved(at, trial.number, "candidate", is_decaying=True, recipe=draft.state.recipe, went_back=False)
        draft.effects.append(Shift(moved, keep="candidate"))
        return
    verified = draft.verified(at, trial.action)
    if verified is None:
        _end(draft, at, trial, "abandoned", "the action is not executable any more")
        return
    moved = TrialMoved(at, trial.number, "candidate", is_decaying=False, recipe=verified.recipe, went_back=True)
    draft.effects.append(Shift(moved, keep="no_action", back_to=START, attempt=verified))


def _end_of_decay(draft: Draft, at: int, trial: Trial) -> None:
    values = dict(trial.objectives)
    if trial.arm not in values:
        _end(draft, at, trial, "abandoned", NOT_EVALUATED)
    elif trial.arm == "candidate":
        moved = TrialMoved(at, trial.number, "no_action", is_decaying=True, recipe=trial.base, went_back=True)
        draft.effects.append(Shift(moved, back_to="no_action"))
    elif not _counts(draft.state, values):
        _end(draft, at, trial, "lost", _compared(draft.state, trial))
    elif (verified := draft.verified(at, trial.action)) is None:
        _end(draft, at, trial, "abandoned", "the action is not executable any more")
    else:
        draft.intend(at, verified, trial.symptoms, trial.reason, trial.expectation, fork="candidate")


def _end(draft: Draft, at: int, trial: Trial, outcome: TrialOutcome, why: str) -> None:
    """End the trial on the run's own course."""
    steps = draft.state.envelope.canary.steps
    if trial.arm == "no_action" and not trial.is_decaying:
        draft.append(TrialEnded(at, trial.number, outcome, why, 0, draft.state.recipe, went_back=False))
        return
    spent = at - trial.began - steps
    record = TrialEnded(at, trial.number, outcome, why, spent, trial.base, went_back=True)
    draft.effects.append(Shift(record, back_to="no_action"))


def _counts(state: State, values: dict[Arm, float]) -> bool:
    """Return whether the candidate was measured to be better, or in mode ``veto`` not to be worse."""
    canary, candidate, held = state.envelope.canary, values["candidate"], values["no_action"]
    if not math.isfinite(candidate):
        return False
    if not math.isfinite(held):
        return True
    gain, margin = state.envelope.objective.gain(held, candidate), canary.margin * abs(held)
    return gain > margin if canary.mode == "win" else gain >= -margin


def _compared(state: State, trial: Trial) -> str:
    values = dict(trial.objectives)
    return f"{state.envelope.objective.signal} {values['candidate']:.6g} with it, {values['no_action']:.6g} without"


def _factor(canary: Canary, number: int) -> float:
    """Return what the rate of a decay's step is multiplied by; its steps are counted from 1."""
    return 1.0 - number / (canary.decay_steps + 1)
