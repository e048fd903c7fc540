"""What the records of a trial do to the state."""

from __future__ import annotations

from dataclasses import replace

from trimtab.controller.state import Rewind, State, Trial
from trimtab.decision.action import checkpoint_of
from trimtab.errors import IllegalTransition
from trimtab.ledger.record import TrialBegan, TrialEnded, TrialMeasured, TrialMoved


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
        return replace(state, trial=replace(trial, objectives=(*trial.objectives, (record.arm, record.objective))))
    is_over = isinstance(record, TrialEnded)
    rewinds = state.rewinds
    if record.went_back:
        at_fork = isinstance(record, TrialMoved) and not record.is_decaying
        lineage_step = _candidate_start(state, trial) if at_fork else trial.lineage_step + state.envelope.canary.steps
        rewinds = _with(state, record.step, lineage_step)
    moved = replace(state, recipe=record.recipe, rewinds=rewinds)
    if is_over:
        return replace(moved, trial=None, trial_steps=state.trial_steps + record.spent)
    return replace(moved, trial=replace(trial, since=record.step, arm=record.arm, is_decaying=record.is_decaying))


def candidate_end(state: State, step: int) -> tuple[Rewind, ...]:
    """Return the rewinds with the one to the end of the candidate's arm."""
    assert state.trial is not None
    return _with(state, step, _candidate_start(state, state.trial) + state.envelope.canary.steps)


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


def _candidate_start(state: State, trial: Trial) -> int:
    """Return the steps that the weights of the candidate's arm had been through when it began."""
    target = next((saved for saved in state.checkpoints if saved.id == checkpoint_of(trial.action)), None)
    return trial.lineage_step if target is None else state.lineage_step(target.step)


def _with(state: State, step: int, lineage_step: int) -> tuple[Rewind, ...]:
    last = state.last_rewind(step)
    return (*state.rewinds, Rewind(step, lineage_step, () if last is None else last.cuts))
