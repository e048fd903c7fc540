"""Following a schedule: the entry of a step is judged and applied at that step, and nobody is asked.

A rollback of the reflex takes the run back in its own history, and with it the recipe. The entries behind it come again
when their steps are made again. What the reflex has cut stays cut: the plan's values are multiplied by that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from trimtab.controller.draft import Draft
from trimtab.controller.effect import Append
from trimtab.controller.state import State
from trimtab.controls.envelope import Envelope
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Standing
from trimtab.decision.action import Stop
from trimtab.decision.schedule import Schedule, ScheduleEntry
from trimtab.ledger.record import ProblemNoticed, VerdictGiven
from trimtab.verification.case import Case
from trimtab.verification.verdict import Rejected, Rejection
from trimtab.verification.verifier import verify

_MAX_DETAIL: Final = 500


def due_after(state: State, step: int) -> tuple[ScheduleEntry | None, ...]:
    """Return the entries of the schedule that are due after ``step``, in order; None for its end.

    Empty where a rollback has just led to that point of the history: what is due there is in force already.
    """
    if state.schedule is None or (state.rewinds and state.rewinds[-1].step == step):
        return ()
    at = state.lineage_step(step)
    entries = state.schedule.due(at)
    return (*entries, None) if at == state.schedule.stop_after else entries


def foresee(schedule: Schedule, envelope: Envelope, recipe: Recipe) -> tuple[str, ...]:
    """Return what can be said beforehand: one sentence for each entry that will be rejected where all goes as planned."""
    told: list[str] = []
    initial, seen = recipe, {control.name: (recipe[control.name],) for control in envelope.controls}
    for entry in schedule.entries:
        action, values = entry.action(initial, {}, {}), tuple(seen.items())
        standing = Standing(entry.step, recipe, initial, (), 0, 0, 0, 0, (), can_skip=False, values_seen=values)
        verdict = verify(Case(action, "schedule", envelope, standing, entry.step, 0))
        if isinstance(verdict, Rejected):
            told.append(f"step {entry.step} of the schedule will be rejected: {_said(verdict.reasons)}"[:_MAX_DETAIL])
            continue
        recipe = verdict.verified.recipe
        seen = {name: (*known, recipe[name]) if recipe[name] not in known else known for name, known in seen.items()}
    return tuple(told)


def follow(draft: Draft, at: int, entry: ScheduleEntry | None) -> None:
    """Judge what the schedule says after step ``at``, and apply it if it is accepted; a rejection is told."""
    state = draft.state
    last = state.last_rewind(at)
    cuts = dict(last.cuts) if last is not None else {}
    lows = {control.name: control.bounds.low for control in state.envelope.controls}
    action = Stop() if entry is None else entry.action(state.initial, cuts, lows)
    where = f"step {state.lineage_step(at)} of the schedule"
    verified = draft.judge(at, action, "schedule")
    if verified is None:
        detail = f"{where}: {_against(draft)}"[:_MAX_DETAIL]
        draft.append(ProblemNoticed(at, "an entry of the schedule was rejected", detail))
    elif not state.envelope.authority.shadow:
        cut = [planned.control for planned in entry.changes if planned.control in cuts] if entry is not None else []
        why = f"{entry.reason} ({where})" if entry is not None and entry.reason else where
        draft.intend(at, verified, (), f"{why}; cut by the reflex: {', '.join(cut)}" if cut else why)


def _against(draft: Draft) -> str:
    """Return the reasons of the verdict that was just given."""
    verdict = draft.effects[-1]
    assert isinstance(verdict, Append)
    assert isinstance(verdict.record, VerdictGiven)
    return _said(verdict.record.reasons)


def _said(reasons: Iterable[Rejection]) -> str:
    return "; ".join(reason.detail for reason in reasons)
