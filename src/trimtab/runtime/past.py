"""What is known of a run that is to go on: its record up to the newest whole checkpoint, and what came after it.

Rules:
1. Of the checkpoints that the ledger knows, the newest whole one counts; without one the run begins anew.
2. The ledger has to hold every line that a checkpoint names as the newest of its time: a tail that was cut off is found.
3. Nothing is changed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trimtab.actuation.checkpoint_files import list_checkpoints, open_checkpoint, read_extra
from trimtab.controller.state import State
from trimtab.controller.transitions import fold
from trimtab.decision.briefing import Briefing
from trimtab.errors import CheckpointError, LedgerDamaged, LedgerError, RunDirectoryError
from trimtab.ledger.codec import decode
from trimtab.ledger.course import iter_course
from trimtab.ledger.reading import iter_ledger
from trimtab.ledger.record import (
    PROCESS_ENDED,
    RAISED,
    CheckpointDeleted,
    CheckpointSaved,
    EvaluationRecorded,
    ManagerAsked,
    ManagerFailed,
    ProblemNoticed,
    ProposalReceived,
    Record,
    RunEnded,
    RunResumed,
    RunStarted,
)
from trimtab.ledger.verify import verify_file
from trimtab.runtime.budget import Spent
from trimtab.runtime.recorded import RecordedAnswer, recorded_answers
from trimtab.runtime.repetition import Repetition, read_repetition
from trimtab.runtime.run_dir import RunDirectory

_CONSULTED: Final = b'"consultation":{'


@dataclass(frozen=True, slots=True)
class Past:
    """A run as it stood when its newest whole checkpoint was saved.

    Args:
        started: Its first record.
        state: The controller's state then.
        resumed: The record that it goes on with.
        lost: Checkpoints of that state whose files are gone or damaged.
        asked: Questions that a manager had answered by then, oldest first.
        answers: What came of later questions, by the step after which they were asked.
        evaluation: What was measured on that very state afterwards; None if nothing was.
        problems: What had been told by then: pairs of a problem and its detail.
        repetition: What the run repeats of another; None for nothing.
        without_position: Whether the data begins anew, as the loader has no position that could be restored.
        damaged: Newer checkpoints that were passed over, as their files are gone or damaged.
        head: Number of the ledger's newest line.
        spent: What language models have taken by the ledger's account, courses that were left included.
    """

    started: RunStarted
    state: State
    resumed: RunResumed
    lost: tuple[str, ...]
    asked: tuple[Briefing, ...]
    answers: dict[int, RecordedAnswer]
    evaluation: EvaluationRecorded | None
    problems: tuple[tuple[str, str], ...]
    repetition: Repetition | None
    damaged: tuple[str, ...]
    head: int
    spent: Spent
    without_position: bool = False


@dataclass(frozen=True, slots=True)
class _Point:
    """A place in the ledger that the run can go on from."""

    after: int
    state: State
    checkpoint: str | None = None


def read_past(directory: RunDirectory) -> Past:
    """Read what a run directory holds.

    Raises:
        RunDirectoryError: The run has ended, or there is none.
        LedgerDamaged: Do not go on: the ledger is damaged, or shorter than a checkpoint says.
        LedgerVersionUnknown: Install the version of trimtab that wrote it, or a newer one.
        LedgerError: The ledger cannot be read.
    """
    _check_anchor(directory)
    started, points, final, head = _points(directory.ledger)
    point, lost, damaged = _choose(directory.checkpoints, points, final)
    before: list[Record] = []
    counting: dict[int, Record] = {}
    for entry in iter_course(directory.ledger):
        counting[entry.sequence] = entry.record
        if entry.sequence <= point.after:
            before.append(entry.record)
    repetition = read_repetition(directory.repetition)
    if repetition is None:
        courses = (*_left(directory.ledger, counting), list(counting.values()))
    else:
        courses = ([entry.record for entry in iter_course(repetition.ledger)],)
    question = point.state.question
    asked = {} if question is None else {question.number: question.asked_step}
    resumed = RunResumed(
        step=point.state.step if point.checkpoint is not None else 0,
        checkpoint=point.checkpoint,
        after=point.after,
        versions=(),
        origin=None if repetition is None else repetition.origin,
        run="" if repetition is None else directory.path.name,
    )
    return Past(
        started=started,
        state=point.state,
        resumed=resumed,
        lost=lost,
        asked=_asked(before, question.number if question is not None else None),
        answers=_answers(courses, resumed.step, asked, repetition),
        evaluation=_evaluation(courses, resumed),
        problems=tuple((record.problem, record.detail) for record in before if isinstance(record, ProblemNoticed)),
        repetition=repetition,
        damaged=damaged,
        head=head,
        spent=_spent(directory.ledger),
    )


def _spent(ledger: Path) -> Spent:
    """Add up what language models have taken; of the lines, which were verified before, only those that say so are read."""
    calls = read = written = unsettled = 0
    usd: float | None = 0.0
    with ledger.open("rb") as lines:
        for line in lines:
            if _CONSULTED not in line or not line.endswith(b"\n"):
                continue
            record = decode(json.loads(line)["record"])
            taken = record.consultation if isinstance(record, (ProposalReceived, ManagerFailed)) else None
            if taken is not None:
                calls, unsettled = calls + taken.calls, unsettled + taken.unsettled_calls
                read, written = read + taken.input_tokens, written + taken.output_tokens
                usd = None if usd is None or taken.usd is None else usd + taken.usd
    return Spent(calls, read, written, usd, unsettled, 0)


def _check_anchor(directory: RunDirectory) -> None:
    """Refuse a ledger that lacks the newest line that any checkpoint names."""
    anchors = [anchor for id in list_checkpoints(directory.checkpoints) if (anchor := _anchor(directory.checkpoints, id))]
    if not anchors:
        return
    found = verify_file(directory.ledger, max(anchors))
    if not found.ok:
        raise LedgerDamaged(
            "the ledger is not the one that the run's checkpoints were saved with",
            received=f"{directory.ledger}: {found.problem}",
            next_step="restore the ledger from a copy; never edit it",
        )


def _anchor(root: Path, id: str) -> tuple[int, str] | None:
    try:
        head: Any = read_extra(root, id)["ledger_head"]
        sequence, hash_ = head
        return int(sequence), str(hash_)
    except (CheckpointError, KeyError, TypeError, ValueError):  # damaged: it is not gone on from either
        return None


def _points(ledger: Path) -> tuple[RunStarted, dict[str, _Point], State, int]:
    """Return the first record, where the run can go on from by checkpoint, the state at the end, and the last line's number."""
    state: State | None = None
    started: RunStarted | None = None
    points: dict[str, _Point] = {}
    last: Record | None = None
    head = -1
    for entry in iter_course(ledger):
        last = record = entry.record
        head = entry.sequence
        state = fold(state, record)
        if isinstance(record, RunStarted):
            started = record
            points[""] = _Point(0, state)
        elif isinstance(record, CheckpointSaved):
            points[record.checkpoint] = _Point(entry.sequence, state, record.checkpoint)
        elif isinstance(record, CheckpointDeleted):
            points.pop(record.checkpoint, None)
    if started is None or state is None:
        raise LedgerError("the ledger holds no record", received=str(ledger), next_step="start the run anew")
    if isinstance(last, RunEnded) and not last.reason.startswith((RAISED, PROCESS_ENDED)):
        raise RunDirectoryError(
            "the run has ended in order",
            received=f"{ledger.parent.name}, after step {last.step}",
            next_step="there is nothing to go on with; start another run, or repeat this one with: trimtab replay",
        )
    return started, points, state, head


def _choose(root: Path, points: dict[str, _Point], final: State) -> tuple[_Point, tuple[str, ...], tuple[str, ...]]:
    """Return the newest point whose checkpoint is whole, those of its state's checkpoints that are not, and the newer ones."""
    usable = [checkpoint.id for checkpoint in final.checkpoints if not checkpoint.is_left and checkpoint.id in points]
    damaged: list[str] = []
    while usable and not _is_whole(root, usable[-1]):
        damaged.append(usable.pop())
    chosen = points[usable[-1]] if usable else points[""]
    others = [checkpoint.id for checkpoint in chosen.state.checkpoints if checkpoint.id != chosen.checkpoint]
    return chosen, tuple(id for id in others if not _is_whole(root, id)), tuple(damaged)


def _is_whole(root: Path, id: str) -> bool:
    try:
        open_checkpoint(root, id)
    except CheckpointError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, (FileNotFoundError, NotADirectoryError)):
            # It may well be whole: what is passed over is given up, so nothing is passed over for a disk that fails for once.
            raise RunDirectoryError(
                "a checkpoint cannot be read", received=f"{root / id}: {cause}", next_step="look at the disk, and resume again"
            ) from error
        return False
    return True


def _asked(before: Iterable[Record], still_open: int | None) -> tuple[Briefing, ...]:
    """Return what the manager was asked; a question that is open still will be asked again."""
    questions = [record for record in before if isinstance(record, ManagerAsked) and record.sent]
    return tuple(record.briefing for record in questions if record.question != still_open)


def _left(ledger: Path, counting: Mapping[int, Record]) -> tuple[list[Record], ...]:
    """Return the courses that were left, oldest first: what was answered there comes again, if the run dies once more."""
    if not any(isinstance(record, RunResumed) for record in counting.values()):
        return ()
    courses: list[list[Record]] = [[]]
    for entry in iter_ledger(ledger):
        if isinstance(entry.record, RunResumed):
            courses.append([])
        # A question stands in what counts, and its answer perhaps not.
        if entry.sequence not in counting or isinstance(entry.record, ManagerAsked):
            courses[-1].append(entry.record)
    return tuple(courses)


def _answers(
    courses: Iterable[Sequence[Record]], since_step: int, asked: Mapping[int, int], repetition: Repetition | None
) -> dict[int, RecordedAnswer]:
    """Return what came of each question that is open or will be asked, on the newest course on which it came to something."""
    answers: dict[int, RecordedAnswer] = {}
    steps: dict[int, int] = {}
    for records in courses:
        answers |= recorded_answers(records, steps, is_whole=repetition is not None)
        steps |= {record.question: record.step for record in records if isinstance(record, ManagerAsked)}
    answers = {step: answer for step, answer in answers.items() if step >= since_step or step in asked.values()}
    if repetition is not None and repetition.instead is not None and repetition.asked_step is not None:
        recorded = answers.get(repetition.asked_step)
        if recorded is not None:
            answers[repetition.asked_step] = recorded.instead(repetition.instead)
    return answers


def _evaluation(courses: Sequence[Sequence[Record]], resumed: RunResumed) -> EvaluationRecorded | None:
    """Return the evaluation of the very state that the run goes on from."""
    for records in reversed(courses):
        for record in records:
            if isinstance(record, EvaluationRecorded) and record.step == resumed.step and record.checkpoint is not None:
                return record if record.checkpoint == resumed.checkpoint else None
    return None
