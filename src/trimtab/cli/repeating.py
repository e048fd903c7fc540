"""What `trimtab replay` and `trimtab fork` share: repeat a run in a directory of its own, and compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from trimtab.cli.starting import start
from trimtab.errors import RunDirectoryError, TrimtabError
from trimtab.ledger.course import iter_course
from trimtab.ledger.hashes import read_hashes
from trimtab.ledger.record import Record, RunResumed, RunStarted
from trimtab.ledger.series import read_series
from trimtab.report.repeat import timed_signals
from trimtab.report.sameness import Kept, Sameness, compare
from trimtab.runtime.branching import Base, lay_out
from trimtab.runtime.command import Command
from trimtab.runtime.launch import Launch
from trimtab.runtime.repetition import Repetition
from trimtab.runtime.run_dir import RunDirectory

LOG = "output.log"


def repeat(
    source: RunDirectory,
    target: RunDirectory,
    command: Command,
    base: Base,
    repetition: Repetition,
    *,
    hash_every_steps: int,
    is_offline: bool,
    trace: tuple[int, Path] | None = None,
) -> None:
    """Run the command of ``source`` again in ``target``; what it prints goes to a file there.

    Raises:
        RunDirectoryError: The directory cannot be made, or the command failed; its output is in the file named.
    """
    lay_out(source, target, base, repetition)
    launch = Launch(resume=target.path, hash_every_steps=hash_every_steps or None, is_offline=is_offline, trace=trace)
    log = target.path / LOG
    with log.open("wb") as output:
        code = start(command, launch, output)
    if code:
        raise RunDirectoryError(
            "the repeated command failed",
            received=f"exit code {code}: {_last_words(log)}",
            next_step=f"read its output: {log}",
        )


def compare_runs(original: RunDirectory, repeated: RunDirectory) -> Sameness:
    """Compare a run with its repetition.

    Raises:
        LedgerError: One of the ledgers cannot be read.
    """
    first, second = _kept(original), _kept(repeated)
    started = first.records[0] if first.records else None
    timed = timed_signals(started) if isinstance(started, RunStarted) else frozenset[str]()
    return compare(first, second, timed)


def hash_interval(directory: RunDirectory) -> int:
    """Return the steps between the hashes of a run; 0 if it has none."""
    hashes = {}
    with suppress(OSError, TrimtabError):
        hashes = read_hashes(directory.hashes)
    steps = sorted(hashes)
    return min((later - earlier for earlier, later in pairwise(steps)), default=max(steps, default=0))


def what_changed(original: RunDirectory, repeated: RunDirectory, command: Command) -> Iterator[str]:
    """Say what bears on the computation and was not the same in both."""
    yield from command.changes()
    then, now = _versions(original), _versions(repeated)
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            yield f"{name} was {then.get(name, 'unknown')} and is {now.get(name, 'unknown')}"
    records = [entry.record for entry in iter_course(original.ledger)]
    if any(isinstance(record, RunResumed) and record.origin is None for record in records):
        yield "the run was resumed on its way: what a resume cannot restore (see its notes) is not as it was"
    started = records[0] if records else None
    if isinstance(started, RunStarted):
        yield from started.notes


def _versions(directory: RunDirectory) -> dict[str, str]:
    """Return the versions that the newest process of a run had."""
    found: dict[str, str] = {}
    for entry in iter_course(directory.ledger):
        if isinstance(entry.record, (RunStarted, RunResumed)):
            found = dict(entry.record.versions)
    return found


def _kept(directory: RunDirectory) -> Kept:
    records: list[Record] = [entry.record for entry in iter_course(directory.ledger)]
    hashes = read_hashes(directory.hashes) if directory.hashes.exists() else {}
    rows = read_series(directory.series) if directory.series.exists() else []
    return Kept(records, hashes, rows)


def _last_words(log: Path) -> str:
    lines = log.read_bytes()[-2000:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "it printed nothing"
