"""Lay out the directory of a run that repeats another, wholly or from one of its checkpoints on.

It is a copy of the other run as it stood at that place, so that it goes on like a run that died there: one way for all.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from trimtab.actuation.checkpoint_files import open_checkpoint
from trimtab.controller.transitions import fold
from trimtab.errors import CheckpointError, RunDirectoryError, UsageError
from trimtab.ledger.course import iter_course
from trimtab.ledger.record import CheckpointDeleted, CheckpointSaved, ManagerAsked, Record
from trimtab.runtime.recorded import NEVER, RecordedAnswer, recorded_answers
from trimtab.runtime.repetition import Repetition, write_repetition
from trimtab.runtime.run_dir import CHECKPOINTS, RunDirectory


@dataclass(frozen=True, slots=True)
class Base:
    """A place of a run that it can be repeated from.

    Args:
        after: Sequence number of the newest record that is taken over.
        step: Step of the state.
        checkpoints: Those to be taken over, that state's among them; empty for the beginning.
    """

    after: int = 0
    step: int = 0
    checkpoints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """A question of a run, and what came of it."""

    asked: ManagerAsked
    answer: RecordedAnswer


def head_of(ledger: Path) -> str:
    """Return the hash of the newest line that counts; empty if there is none."""
    head = ""
    for entry in iter_course(ledger):
        head = entry.hash
    return head


def find_answered(source: RunDirectory, question: int) -> Answered:
    """Return a question that can be answered differently.

    Raises:
        UsageError: There is no such question, or nothing came of it.
    """
    records = [entry.record for entry in iter_course(source.ledger)]
    asked = {record.question: record for record in records if isinstance(record, ManagerAsked)}
    if question not in asked:
        known = f"1 to {max(asked)}" if asked else "none: nobody was asked in this run"
        raise UsageError(
            "the run has no such decision",
            received=question,
            allowed=known,
            next_step=f"list them with: trimtab show {source.path} --all",
        )
    answer = recorded_answers(records).get(asked[question].step)
    was_sent = asked[question].sent
    if answer is None or answer.step == NEVER or not was_sent:
        why = "the reflex acted before an answer came, or none did" if was_sent else "the fallback answered at once"
        raise UsageError("nothing came of this question, so nothing can be changed", received=f"question {question}: {why}")
    return Answered(asked[question], answer)


def find_base(source: RunDirectory, before_step: int) -> Base:
    """Return the newest place, not behind ``before_step``, all of whose checkpoints are still whole; else the beginning.

    All of them: a decision may go back to an older one. A question is asked after the checkpoint of its step was saved, so
    one of that very step is before it.
    """
    places: dict[str, Base] = {}
    newest = ""
    state = None
    for entry in iter_course(source.ledger):
        record: Record = entry.record
        if record.step > before_step:
            break
        state = fold(state, record)
        if isinstance(record, CheckpointSaved):
            kept = tuple(checkpoint.id for checkpoint in state.checkpoints)
            newest = record.checkpoint
            places[newest] = Base(entry.sequence, record.step, kept)
        elif isinstance(record, CheckpointDeleted):
            places.pop(record.checkpoint, None)
            base = places.get(newest)
            if base is not None and base.step == record.step:  # before anybody was offered it
                places[newest] = replace(base, checkpoints=tuple(one for one in base.checkpoints if one != record.checkpoint))
    whole: dict[str, bool] = {}
    for base in reversed(places.values()):
        for id in base.checkpoints:
            whole.setdefault(id, _is_whole(source, id))
        if all(whole[id] for id in base.checkpoints):
            return base
    return Base()


def keep_copy(source: RunDirectory, target: Path) -> None:
    """Copy a run as it is now, for branches to begin from; checkpoints by links where that is possible.

    Raises:
        OSError: It cannot be written.
    """
    copy = RunDirectory(target)
    copy.checkpoints.mkdir(parents=True)
    for folder in source.checkpoints.iterdir():
        if not folder.name.startswith("."):  # one that is still being written
            _copy_tree(folder, copy.checkpoints / folder.name)
    for file in (source.envelope, source.command, source.start, source.series, source.hashes, source.ledger):
        if file.is_file():
            shutil.copyfile(file, target / file.name)


def lay_out(source: RunDirectory, target: RunDirectory, base: Base, repetition: Repetition) -> None:
    """Create the directory of a run that repeats ``source`` from ``base`` on.

    Raises:
        RunDirectoryError: It exists already, or cannot be written.
    """
    try:
        target.path.mkdir(parents=True)
        target.checkpoints.mkdir()
        for id in base.checkpoints:
            _copy_tree(source.checkpoints / id, target.checkpoints / id)
        for file in (
            source.envelope,
            source.command,
            source.start,
            *((source.series, source.hashes) if base.checkpoints else ()),
        ):
            if file.is_file():
                shutil.copyfile(file, target.path / file.name)
        write_repetition(target.repetition, repetition)
        with source.ledger.open("rb") as lines, target.ledger.open("xb") as copy:  # last: with it, there is a run
            copy.writelines(islice(lines, base.after + 1))
    except OSError as error:
        raise RunDirectoryError(
            "the directory of the repetition cannot be made", received=f"{target.path}: {error}", next_step="choose another"
        ) from error


def _is_whole(source: RunDirectory, id: str) -> bool:
    try:
        open_checkpoint(source.path / CHECKPOINTS, id)
    except CheckpointError:
        return False
    return True


def _copy_tree(source: Path, target: Path) -> None:
    """Copy a checkpoint; by links where that is possible: its files are never changed in place."""
    target.mkdir()
    for file in source.iterdir():
        try:
            os.link(file, target / file.name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, target / file.name)
