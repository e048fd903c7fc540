"""Whether a ledger is being written: a run that goes on and one that was cut off look the same in their records."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.ledger.ledger_samples import STARTED, write_run
from trimtab.errors import LedgerError
from trimtab.ledger import journal, reading
from trimtab.ledger.journal import Journal
from trimtab.ledger.reading import is_being_written

_WRITER = """
import signal, sys
from pathlib import Path
from trimtab.ledger.journal import Journal
held = Journal.open(Path(sys.argv[1]))
print("open", flush=True)
signal.pause()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def test_a_ledger_is_being_written_from_its_creation_to_its_close(path: Path) -> None:
    with Journal.create(path) as writer:
        assert is_being_written(path)
        writer.append(STARTED, 1.0)
        assert is_being_written(path)
    assert not is_being_written(path)
    with Journal.open(path):
        assert is_being_written(path)


def test_a_writer_that_was_killed_writes_no_longer(path: Path) -> None:
    write_run(path, 3)
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, path], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    assert is_being_written(path)
    writer.send_signal(signal.SIGKILL)
    writer.wait(timeout=10)
    writer.stdout.close()
    assert not is_being_written(path)


@contextmanager
def looking(path: Path, num_threads: int = 3) -> Generator[list[bool]]:
    """Ask without a pause while the block runs; yield what was answered."""
    found: list[bool] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            if path.exists():
                found.append(is_being_written(path))

    threads = [threading.Thread(target=look) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def test_who_looks_never_stops_a_writer_that_begins(path: Path) -> None:
    write_run(path, 1)
    with looking(path) as found:
        for _ in range(200):
            Journal.open(path).close()
    assert len(found) > 200


def test_who_looks_never_stops_a_ledger_that_is_created(tmp_path: Path) -> None:
    for number in range(50):
        path = tmp_path / f"{number}.jsonl"
        with looking(path, 2), Journal.create(path) as writer:
            writer.append(STARTED, 1.0)


def test_a_lock_that_a_reader_holds_for_a_while_is_waited_for(path: Path) -> None:
    write_run(path, 1)
    with path.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        release = threading.Timer(0.1, fcntl.flock, (reader, fcntl.LOCK_UN))
        release.start()
        with Journal.open(path):
            assert is_being_written(path)
        release.join()


def test_a_lock_that_a_reader_never_releases_is_not_waited_for_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_LOCK_PAUSE_SECONDS", 0.001)
    write_run(path, 1)
    with path.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        with pytest.raises(LedgerError, match="another process writes to the ledger"):
            Journal.open(path)


def test_of_two_that_begin_at_once_one_writes(path: Path) -> None:
    write_run(path, 1)
    barrier = threading.Barrier(2)

    def begin(_: int) -> bool:
        barrier.wait()
        try:
            writer = Journal.open(path)
        except LedgerError:
            barrier.wait()
            return False
        barrier.wait()
        writer.close()
        return True

    with ThreadPoolExecutor(2) as pool:
        for _ in range(100):
            assert sorted(pool.map(begin, range(2))) == [False, True]


def test_where_files_cannot_be_locked_nobody_writes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(path, 1)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(reading.fcntl, "flock", refuse)
    assert not is_being_written(path)
    with pytest.raises(LedgerError, match="cannot be locked"):
        Journal.open(path)


def test_a_ledger_that_is_not_there_is_an_error(path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be read"):
        is_being_written(path)


def test_a_forked_worker_that_outlives_its_run_does_not_hold_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    journal = Journal.create(path)
    told, tell = os.pipe()
    heard, ready = os.pipe()
    child = os.fork()
    if child == 0:  # a data loader's worker: it lives on until it is told to end
        os.close(tell)
        os.write(ready, b".")
        os.read(told, 1)
        os._exit(0)
    try:
        os.close(told)
        os.read(heard, 1)
        assert is_being_written(path), "the parent still writes"
        journal.leave_to_parent()  # as when it is killed: nothing is unlocked
        assert not is_being_written(path), "only the worker is left"
        Journal.open(path).close()
    finally:
        os.close(tell)
        os.waitpid(child, 0)
