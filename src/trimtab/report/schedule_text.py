"""The text of the schedule file that comes from a run: the plan, and in its comments where each part is from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trimtab.controls.yaml_tree import MAX_CHARACTERS
from trimtab.decision.schedule import Schedule, ScheduleEntry
from trimtab.decision.schedule_file import dump_schedule
from trimtab.errors import LedgerError, UsageError
from trimtab.ledger.line import Entry
from trimtab.ledger.record import Record, RunStarted
from trimtab.report.lineage import Lineage, build_lineage, described, left_out, schedule_from

_LONGEST_COMMENT = 300


def schedule_text(
    entries: Iterable[Entry],
    version: str,
    *,
    scale: float | None = None,
    shift: int = 0,
    total_steps: int | None = None,
) -> tuple[Schedule, str]:
    """Return the schedule of what was applied in a run, and the text of its file.

    Args:
        entries: The entries of the run's ledger that count.
        version: The version of trimtab, for the record.
        scale: Factor on all steps, > 0; 1 if None.
        shift: Steps that are then added to them.
        total_steps: Length of the run it is meant for, >= 1, which sets the scale; None for the same length.

    Raises:
        UsageError: Give the scale or the length, not both.
        LedgerError: The ledger cannot be read or trusted; `trimtab verify` says where.
    """
    if scale is not None and total_steps is not None:
        raise UsageError("both scale and total steps were given", next_step="leave one of them out: each sets the other")
    if total_steps is not None and total_steps < 1:
        raise UsageError("total_steps is out of range", received=total_steps, allowed=">= 1")
    ends: list[Entry] = []  # the first entry and the newest one
    lineage = build_lineage(_records(entries, ends))
    started, newest = ends[0].record, ends[-1]
    if not isinstance(started, RunStarted):
        raise LedgerError("the ledger does not begin with run_started", next_step="look at another run")
    if total_steps is not None:
        if lineage.planned_steps < 1:
            raise UsageError("the run made no step that could be scaled", next_step="give --scale instead of --total-steps")
        scale = total_steps / lineage.planned_steps
    found, deeds = schedule_from(lineage)
    plan = found.moved(1.0 if scale is None else scale, shift)
    head = _head(started, lineage, f"{newest.sequence}:{newest.hash}", version, _moves(scale, shift))
    about = [described(deed)[:_LONGEST_COMMENT] for deed in deeds]
    foot = [line[:_LONGEST_COMMENT] for line in left_out(lineage)]
    return plan, _fitting(plan, head, about, ["", "Not carried over:", *(f"- {line}" for line in foot)] if foot else [])


def _records(entries: Iterable[Entry], ends: list[Entry]) -> Iterator[Record]:
    for entry in entries:
        ends[1:] = [entry]
        yield entry.record


def _moves(scale: float | None, shift: int) -> str:
    said = [f"multiplied by {scale:.6g}"] if scale is not None and scale != 1 else []
    said += [f"{abs(shift)} {'later' if shift > 0 else 'earlier'}"] if shift else []
    return f"; its steps are {', then '.join(said)}" if said else ""


def _head(started: RunStarted, lineage: Lineage, head: str, version: str, moves: str) -> list[str]:
    undone = lineage.steps - lineage.lineage_steps
    behind = f", of which rollbacks undid {undone}" if undone else ""
    return [
        f"What was applied in {started.run}, as a fixed plan{moves}. Edit it as you like; a run follows it with",
        'manager="schedule:FILE". Steps are those that the weights have been through; a factor is one on the starting value.',
        f"Run: {started.run}, manager {started.manager}, {lineage.steps} steps{behind}.",
        f"Ledger head: {head}",
        f"Written by trimtab {version}, the run by trimtab {dict(started.versions).get('trimtab', 'of unknown version')}.",
    ]


def _fitting(plan: Schedule, head: list[str], about: list[str], foot: list[str]) -> str:
    """Return the text, without reasons and comments on entries where it would be longer than a file may be."""
    room = MAX_CHARACTERS - sum(map(len, head + foot)) - 1000
    if sum(len(entry.reason) + 120 * len(entry.changes) + 60 for entry in plan.entries) + sum(map(len, about)) < room:
        return dump_schedule(plan, head=head, about=about, foot=foot)
    bare = Schedule(tuple(ScheduleEntry(entry.step, entry.changes) for entry in plan.entries), plan.stop_after)
    return dump_schedule(bare, head=head, foot=foot)
