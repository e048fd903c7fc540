"""The lineage of a run: what was applied on the way to its final weights, counted in the steps that they have been through.

A rollback leaves a course: what was applied on it is not part of the lineage, unless a later rollback goes back there.
From a lineage comes the schedule that leads another run the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from trimtab.controller.state import State
from trimtab.controller.transitions import fold
from trimtab.controller.trying import candidate_start
from trimtab.controls.envelope import Envelope
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Checkpoint
from trimtab.decision.action import Action, SkipBatches, Stop, checkpoint_of, describe
from trimtab.decision.schedule import Planned, Schedule, ScheduleEntry, relative
from trimtab.decision.schedule_file import MOST_REASON
from trimtab.errors import LedgerError
from trimtab.ledger.record import ActionApplied, ActionFailed, CheckpointSaved, Record

_SCHEDULED: Final = re.compile(r"( \(|^)step \d+ of the schedule\)?(; cut by the reflex: .*)?$")  # as the controller writes it


@dataclass(frozen=True, slots=True)
class Deed:
    """An intervention that did something.

    Args:
        intervention: Its number.
        step: Step after which it was carried out.
        lineage_step: Steps that the weights had been through then; after a rollback, those restored.
        who: Name of the manager, ``rules`` as its fallback, ``reflex``, ``guard`` or ``schedule``.
        action: What was done.
        changes: Pairs of control and new value, as read from the live objects, against the recipe it started from.
        before: That recipe.
        reason: Why.
    """

    intervention: int
    step: int
    lineage_step: int
    who: str
    action: Action
    changes: tuple[tuple[str, float], ...]
    before: Recipe
    reason: str


@dataclass(frozen=True, slots=True)
class GoneBack:
    """A rollback.

    Args:
        step: Step after which it happened.
        from_lineage_step: Steps that the weights had been through.
        to_lineage_step: Those of the weights that were restored.
        who: As for a deed.
        reason: Why.
    """

    step: int
    from_lineage_step: int
    to_lineage_step: int
    who: str
    reason: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """The way to the final weights.

    Args:
        envelope: What the run's user allowed.
        initial: The recipe it started with.
        deeds: What was done on the way, in order.
        rollbacks: All rollbacks of the run, also those of courses that were left.
        steps: Optimizer steps made.
        lineage_steps: Steps that the final weights have been through.
        total_steps: Planned length of the run; None if not known.
    """

    envelope: Envelope
    initial: Recipe
    deeds: tuple[Deed, ...]
    rollbacks: tuple[GoneBack, ...]
    steps: int
    lineage_steps: int
    total_steps: int | None

    @property
    def planned_steps(self) -> int:
        """The run's planned length in steps, whatever rollbacks undid of it; where none was planned, the length it had."""
        return self.steps if self.total_steps is None else self.total_steps

    @property
    def stop(self) -> Deed | None:
        """The stop that ended the run; None if there was none, training went on to be changed, or it gave up on a fault."""
        last = self.deeds[-1] if self.deeds else None
        return last if last is not None and isinstance(last.action, Stop) and last.who != "reflex" else None


def build_lineage(records: Iterable[Record]) -> Lineage:
    """Read the records of a run that count, in order, and return its lineage.

    Raises:
        LedgerError: There is no record; the run was cut off before it began.
        IllegalTransition: The records are out of order; the ledger was not written by a run.
    """
    state: State | None = None
    deeds: tuple[Deed, ...] = ()
    saved: dict[str, tuple[Deed, ...]] = {}  # by checkpoint: a rollback takes up the way that led there
    rollbacks: list[GoneBack] = []
    for record in records:
        before, state = state, fold(state, record)
        if isinstance(record, CheckpointSaved):
            saved[record.checkpoint] = deeds
        elif isinstance(record, (ActionApplied, ActionFailed)) and before is not None:
            target = _target(before, record)
            deeds = deeds if target is None else saved[target.id]
            deed = _deed(before, state, record, target)
            if target is not None:
                left = before.lineage_step(record.step)
                rollbacks.append(GoneBack(record.step, left, deed.lineage_step, deed.who, deed.reason))
            if deed.changes or (isinstance(deed.action, (Stop, SkipBatches)) and isinstance(record, ActionApplied)):
                deeds = (*deeds, deed)
    if state is None:
        raise LedgerError("the ledger is empty", allowed="records from run_started on", next_step="look at another run")
    lineage_steps = state.lineage_step(state.step)
    return Lineage(state.envelope, state.initial, deeds, tuple(rollbacks), state.step, lineage_steps, state.total_steps)


def _target(before: State, record: ActionApplied | ActionFailed) -> Checkpoint | None:
    """Return the checkpoint whose state was restored, also by an action that then failed."""
    if isinstance(record, ActionFailed):
        id = record.restored
    else:
        id = checkpoint_of(before.pending.action) if before.pending is not None else None
    return before.standing(record.step).checkpoint(id or "")


def _deed(before: State, after: State, record: ActionApplied | ActionFailed, target: Checkpoint | None) -> Deed:
    intervention = after.interventions[-1]
    start = before.recipe if target is None else target.recipe
    return Deed(
        intervention=record.intervention,
        step=record.step,
        lineage_step=_in_force_from(before, after, record),
        who=intervention.source,
        action=intervention.action,
        changes=record.recipe.difference(start),
        before=start,
        reason=intervention.reason,
    )


def schedule_from(lineage: Lineage) -> tuple[Schedule, tuple[Deed, ...]]:
    """Return the schedule that leads another run the same way, and the deed behind each of its entries.

    A control that is measured as a ratio is given relative to the starting recipe, all others as they are: half the rate
    means the same to another model, half of its dropout does not.
    """
    changing = tuple(deed for deed in lineage.deeds if deed.changes)
    entries = tuple(ScheduleEntry(deed.lineage_step, _planned(lineage, deed), _reason(deed)) for deed in changing)
    return Schedule(entries, None if lineage.stop is None else max(1, lineage.stop.lineage_step)), changing


def _planned(lineage: Lineage, deed: Deed) -> tuple[Planned, ...]:
    is_ratio = {control.name: control.scale == "ratio" for control in lineage.envelope.controls}
    return tuple(
        relative(name, value, lineage.initial[name]) if is_ratio[name] else Planned(name, value) for name, value in deed.changes
    )


def _reason(deed: Deed) -> str:
    """Return why, on one line; of an entry that came from a schedule, what that schedule said."""
    reason = _SCHEDULED.sub("", deed.reason) if deed.who == "schedule" else deed.reason
    shown = "".join(c if c.isprintable() else " " for c in reason)
    return " ".join(shown.split())[:MOST_REASON]


def left_out(lineage: Lineage) -> list[str]:
    """Return what no schedule can carry, one sentence each, oldest first."""
    told = [(back.step, _went_back(back)) for back in lineage.rollbacks]
    for deed in lineage.deeds:
        if isinstance(deed.action, SkipBatches):
            told.append((deed.step, f"step {deed.step}: {deed.who} passed over {deed.action.count} batches"))
        elif isinstance(deed.action, Stop) and deed is not lineage.stop:
            told.append((deed.step, f"step {deed.step}: {deed.who} asked to stop: {_reason(deed)}"))
    return [text for _, text in sorted(told, key=lambda one: one[0])]


def _in_force_from(before: State, after: State, record: ActionApplied | ActionFailed) -> int:
    """Return the steps that the weights had been through when a deed took effect: in a trial, that was where its arm began."""
    if before.trial is not None and before.pending is not None and before.pending.trial:
        return candidate_start(before, before.trial)
    return after.lineage_step(record.step)


def _went_back(back: GoneBack) -> str:
    way = f"from step {back.from_lineage_step} of the weights' own history to step {back.to_lineage_step}"
    return f"step {back.step}: {back.who} went back {way}; what was undone is left out"


def described(deed: Deed) -> str:
    """Say in one line who did it, when, and what it changed."""
    known = dict(deed.before.values)
    changed = ", ".join(f"{name} {known[name]:.6g} -> {value:.6g}" for name, value in deed.changes)
    return (
        f"intervention {deed.intervention} of {deed.who}, after step {deed.step} of the run: {changed or describe(deed.action)}"
    )
