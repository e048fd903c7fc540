"""What the records of a trial do to the state."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from trimtab.controller.state import Rewind, State, Trial
from trimtab.decision.action import checkpoint_of
from trimtab.decision.briefing import MAX_LOST_TRIALS, LostTrial
from trimtab.errors import IllegalTransition
from trimtab.ledger.record import TrialBegan, TrialEnded, TrialMeasured, TrialMoved

NOT_EVALUATED: Final = "the loop did not evaluate when supervisor.evaluation_due"
NEXT_STEP: Final = "call supervisor.evaluated whenever it is due, also between the usual steps"


def tried(state: State, record: TrialBegan | TrialMoved | TrialMeasured | TrialEnded) -> State:
    """Return the state after a record of a trial.

    Raises:
        IllegalTransition: It is of another trial than the one under way; report the ledger.
    """
    if isinstance(record, TrialBegan):
        return replace(state, trial=_begun(state, record), num_trials=record.trial)
    trial = state.trial
    if trial is None or trial.number != record.trial:
        raise IllegalTransition("no such trial is under way", received=f"{record.kind} of {record.trial}")
    if isinstance(record, TrialMeasured):
        return replace(state, trial=_measured(trial, record))
    rewinds = _with(state, record.step, _lineage_step(state, trial, record)) if record.went_back else state.rewinds
    moved = replace(state, recipe=record.recipe, rewinds=rewinds)
    if isinstance(record, TrialEnded):
        is_untriable = state.is_untriable or record.reason == NOT_EVALUATED
        lost = (*state.lost_trials, _lost(trial))[-MAX_LOST_TRIALS:] if record.outcome == "lost" else state.lost_trials
        spent = state.trial_steps + record.spent
        return replace(moved, trial=None, trial_steps=spent, is_untriable=is_untriable, lost_trials=lost)
    goes_on = trial.leg == "look" and record.arm == trial.arm
    since = record.step - state.envelope.canary.look_steps if goes_on else record.step
    return replace(moved, trial=replace(trial, since=since, arm=record.arm, leg=record.leg, is_looked_at=goes_on))


def _lost(trial: Trial) -> LostTrial:
    """Return what a manager is told of a lost trial; an arm that a fault ended was compared with nothing."""
    with_it, without_it = trial.compared or (None, None)
    return LostTrial(
        number=trial.number,
        step=trial.began,
        action=trial.action,
        symptoms=trial.symptoms,
        reason=trial.reason,
        with_it=with_it,
        without_it=without_it,
    )


def _measured(trial: Trial, record: TrialMeasured) -> Trial:
    measured = (record.arm, record.objective)
    if record.leg == "look":
        return replace(trial, looks=(*trial.looks, measured))
    return replace(trial, objectives=(*trial.objectives, measured))


def _lineage_step(state: State, trial: Trial, record: TrialMoved | TrialEnded) -> int:
    """Return the steps that the weights had been through to which a trial went back."""
    canary = state.envelope.canary
    if isinstance(record, TrialMoved) and record.leg == "arm":
        if record.arm == "no_action":
            return trial.lineage_step + canary.look_steps
        return candidate_start(state, trial) + (canary.look_steps if trial.leg == "look" else 0)
    is_look = isinstance(record, TrialEnded) and trial.arm == "no_action" and trial.leg == "look"
    return trial.lineage_step + (canary.look_steps if is_look else canary.steps)


def candidate_end(state: State, step: int) -> tuple[Rewind, ...]:
    """Return the rewinds with the one to the end of the candidate's arm."""
    assert state.trial is not None
    return _with(state, step, candidate_start(state, state.trial) + state.envelope.canary.steps)


def _begun(state: State, record: TrialBegan) -> Trial:
    return Trial(
        number=record.trial,
        action=record.action,
        symptoms=record.symptoms,
        reason=record.reason,
        expectation=record.expectation,
        began=record.step,
        lineage_step=state.lineage_step(record.step),
        base=state.recipe,
        since=record.step,
    )


def candidate_start(state: State, trial: Trial) -> int:
    """Return the steps that the weights of the candidate's arm had been through when it began."""
    target = next((saved for saved in state.checkpoints if saved.id == checkpoint_of(trial.action)), None)
    return trial.lineage_step if target is None else state.lineage_step(target.step)


def _with(state: State, step: int, lineage_step: int) -> tuple[Rewind, ...]:
    last = state.last_rewind(step)
    return (*state.rewinds, Rewind(step, lineage_step, () if last is None else last.cuts))
