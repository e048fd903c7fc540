"""What of a ledger counts, told in the simplest way: as a run that was resumed would remember it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimtab.ledger.course import iter_course
from trimtab.ledger.record import AnswerDropped, CheckpointDeleted, Record, RunResumed


def counting(records: Sequence[Record]) -> list[int]:
    """Return the places of the records that count: at a resume, forget what came after the record it goes on from."""
    course: list[int] = []
    for sequence, record in enumerate(records):
        if isinstance(record, RunResumed):
            course = [earlier for earlier in course if earlier <= record.after]
        course.append(sequence)
    return course


def story(ledger: Path) -> list[str]:
    """Return what counts in a ledger as text, without what may differ between two runs of the same course.

    That is how long an answer took, that a run was resumed, and which checkpoints were given up when.
    """
    beside = (RunResumed, AnswerDropped, CheckpointDeleted)
    told = [entry.record for entry in iter_course(ledger) if not isinstance(entry.record, beside)]
    return [repr(record).split("latency_seconds")[0] for record in told]
