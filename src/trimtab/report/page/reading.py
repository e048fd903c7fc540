"""Read a run's directory for a report, once from front to back; the run may still be going on.

Of a briefing only an excerpt is kept: a long run asks thousands of questions, each with all its signals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from trimtab.controls.recipe import Recipe
from trimtab.decision.action import checkpoint_of
from trimtab.decision.briefing import Briefing
from trimtab.errors import LedgerDamaged
from trimtab.ledger.course import iter_course
from trimtab.ledger.line import Entry
from trimtab.ledger.reading import is_being_written
from trimtab.ledger.record import (
    ActionApplied,
    ActionFailed,
    ActionIntended,
    CheckpointSaved,
    EvaluationRecorded,
    ManagerAsked,
    ProposalReceived,
    Record,
    RunResumed,
    RunStarted,
    TrialBegan,
)
from trimtab.ledger.series import read_series
from trimtab.ledger.verify import verify_file
from trimtab.report.decimate import Points
from trimtab.report.page.subject import Excerpt, Standing, Subject, Undone
from trimtab.report.timeline import build_timeline
from trimtab.runtime.run_dir import RunDirectory
from trimtab.telemetry.signal import GRAD_NORM, LOSS
from trimtab.telemetry.snapshot import Summary

_EXCERPTED: Final = 8


def read_subject(directory: RunDirectory) -> Subject:
    """Read a run.

    A damaged ledger is read up to the damage, which is told.

    Raises:
        LedgerError: There is no record that can be trusted.
    """
    is_written = is_being_written(directory.ledger)  # before it is read: a run may end in between
    course = iter_course(directory.ledger)
    notes = _Notes(course)
    timeline = build_timeline(notes.records())
    status = timeline.summary.status
    standing: Standing = ("running" if is_written else "cut off") if status == "not ended" else status
    signals, series_problem = _signals(directory, notes)
    started = notes.started
    assert started is not None  # without it there is no timeline
    return Subject(
        path=str(directory.path),
        started=started,
        timeline=timeline,
        standing=standing,
        excerpts=notes.excerpts,
        watched=notes.watched,
        recipes=tuple(notes.recipes),
        undone=tuple(notes.undone),
        resumes=tuple(notes.resumes),
        signals=signals,
        series_problem=series_problem,
        num_entries=notes.num_entries,
        began_seconds=notes.began_seconds,
        newest_seconds=notes.newest_seconds,
        verification=verify_file(directory.ledger),
        torn_bytes=course.reading.torn_bytes,
        damage=notes.damage,
    )


class _Notes:
    """What is noted beside the timeline while the records pass."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = entries
        self._checkpoints: dict[str, int] = {}
        self._intended: ActionIntended | None = None
        self._forked = 0  # step at which the newest trial began
        self.started: RunStarted | None = None
        self.excerpts: dict[int, Excerpt] = {}
        self.watched: dict[int, tuple[str, ...]] = {}
        self.recipes: list[tuple[int, Recipe]] = []
        self.undone: list[Undone] = []
        self.resumes: list[RunResumed] = []
        self.evaluated: dict[str, dict[int, float]] = {}
        self.num_entries = 0
        self.began_seconds = self.newest_seconds = 0.0
        self.damage = ""

    def records(self) -> Iterator[Record]:
        """Yield the records, noting each."""
        try:
            for entry in self._entries:
                self._note(entry)
                yield entry.record
        except LedgerDamaged as error:
            if not self.num_entries:
                raise
            self.damage = str(error)

    def _note(self, entry: Entry) -> None:
        self.num_entries += 1
        self.newest_seconds = entry.time_seconds
        match entry.record:
            case RunStarted() as record:
                self.started, self.began_seconds = record, entry.time_seconds
                self.recipes.append((0, record.recipe))
            case RunResumed() as record:
                self.resumes.append(record)
            case CheckpointSaved() as record:
                self._checkpoints[record.checkpoint] = record.step
            case EvaluationRecorded() as record:
                for name, value in record.metrics:
                    self.evaluated.setdefault(name, {})[record.step] = value
            case ManagerAsked() as record:
                self.excerpts[record.question] = _excerpt(record)
            case ProposalReceived() as record:
                self.watched[record.question] = record.proposal.watch
            case ActionIntended() as record:
                self._intended = record
            case TrialBegan() as record:
                self._forked = record.step
            case ActionApplied() | ActionFailed() as record:
                self._carried_out(record)
            case _:
                pass

    def _carried_out(self, record: ActionApplied | ActionFailed) -> None:
        if record.recipe != self.recipes[-1][1]:
            self.recipes.append((record.step, record.recipe))
        if isinstance(record, ActionFailed):
            target = record.restored
        else:
            target = checkpoint_of(self._intended.action) if self._intended else None
        if target in self._checkpoints:
            # In a trial the state went back where its arm began: what that arm made since is not undone.
            left = self._forked if self._intended is not None and self._intended.trial else record.step
            self.undone.append(Undone(self._checkpoints[target], left, record.intervention))


def _excerpt(asked: ManagerAsked) -> Excerpt:
    briefing = asked.briefing
    surface = briefing.surface
    return Excerpt(
        summaries=_foremost(briefing),
        num_signals=len(briefing.snapshot.summaries),
        recipe=briefing.recipe,
        best=briefing.best,
        num_values=sum(len(options.values) for options in surface.adjustable),
        num_rollbacks=len(surface.rollbacks),
        interventions_left=briefing.interventions_left,
        rollbacks_left=briefing.rollbacks_left,
        sent=asked.sent,
    )


def _foremost(briefing: Briefing) -> tuple[Summary, ...]:
    """Return the objective, signals with a symptom, loss and gradient, then what else was evaluated."""
    names = [briefing.objective.signal, *(symptom.signal for symptom in briefing.symptoms), LOSS, GRAD_NORM]
    names += [summary.name for summary in briefing.snapshot.summaries if summary.kind == "evaluation"]
    found = (briefing.snapshot.get(name) for name in dict.fromkeys(names))
    kept = [replace(summary, newest=()) for summary in found if summary is not None]
    return tuple(kept[:_EXCERPTED])


def _signals(directory: RunDirectory, notes: _Notes) -> tuple[dict[str, Points], str]:
    """Return the curves: those beside the ledger, and what was evaluated, which the ledger holds in full."""
    known: dict[str, dict[int, float]] = {}
    problem = ""
    try:
        for row in read_series(directory.series):
            for name, value in row.values.items():
                # A step that was made again after a resume, or measured again, counts as it was last.
                known.setdefault(name, {})[row.step] = value
    except FileNotFoundError:
        problem = "There is no file of curves beside the ledger, so only what was evaluated is drawn."
    except (OSError, LedgerDamaged) as error:
        known, problem = {}, f"The file of curves cannot be read, so only what was evaluated is drawn: {error}"
    for name, values in notes.evaluated.items():
        known.setdefault(name, {}).update(values)
    return {name: sorted(known[name].items()) for name in sorted(known)}, problem
