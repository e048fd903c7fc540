from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.ledger.ledger_samples import ONE_OF_EACH, STARTED, short_record, write_run
from trimtab.errors import LedgerDamaged, LedgerError
from trimtab.ledger.journal import Head, Journal
from trimtab.ledger.line import GENESIS
from trimtab.ledger.reading import iter_ledger, read_ledger
from trimtab.ledger.record import DURABLE
from trimtab.ledger.verify import verify_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def test_what_was_appended_is_read(path: Path) -> None:
    with Journal.create(path) as journal:
        heads = [journal.append(record, 10.0 + n) for n, record in enumerate(ONE_OF_EACH)]
    entries = read_ledger(path)
    assert [repr(entry.record) for entry in entries] == [repr(record) for record in ONE_OF_EACH]
    assert [Head(entry.sequence, entry.hash) for entry in entries] == heads
    assert [entry.time_seconds for entry in entries] == [10.0 + n for n in range(len(ONE_OF_EACH))]
    assert verify_file(path, (heads[-1].sequence, heads[-1].hash)).ok


def test_opening_goes_on_where_the_last_writer_stopped(path: Path) -> None:
    head = write_run(path, 3)
    with Journal.open(path) as journal:
        assert (journal.head, journal.recovered_bytes) == (head, 0)
        journal.append(short_record(3), 2000.0)
    assert [entry.sequence for entry in read_ledger(path)] == [0, 1, 2, 3]


def test_creating_refuses_an_existing_file_and_leaves_it(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(LedgerError, match="already there"):
        Journal.create(path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("make", [Journal.create, Journal.open])
def test_a_missing_folder_is_a_ledger_error(path: Path, make: Callable[[Path], Journal]) -> None:
    with pytest.raises(LedgerError, match="No such file"):
        make(path / "nowhere" / "ledger.jsonl")


def test_any_bytes_after_the_last_newline_are_cut_off(path: Path) -> None:
    head = write_run(path, 3)
    for tail in (b"\x00" * 4096, b"{", b"\xff\xfe", path.read_bytes().splitlines()[-1]):
        with path.open("ab") as file:
            file.write(tail)
        with Journal.open(path) as journal:
            assert (journal.head, journal.recovered_bytes) == (head, len(tail))


def test_damage_before_the_end_is_refused_and_left_as_it_is(path: Path) -> None:
    write_run(path, 5)
    damaged = path.read_bytes().replace(b'"seq":2', b'"seq":7') + b"torn"
    path.write_bytes(damaged)
    with pytest.raises(LedgerDamaged, match=r"ledger\.jsonl:3"):
        Journal.open(path)
    assert path.read_bytes() == damaged


def test_two_writers_never_share_a_ledger(path: Path) -> None:
    with Journal.create(path), pytest.raises(LedgerError, match="next: end that run"):
        Journal.open(path)
    Journal.open(path).close()


def test_a_writer_in_another_process_is_refused_too(path: Path) -> None:
    script = "import sys; from pathlib import Path; from trimtab.ledger.journal import Journal; Journal.open(Path(sys.argv[1]))"
    with Journal.create(path):
        other = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False, env=_env())
    assert other.returncode != 0
    assert "another process writes to the ledger" in other.stderr


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def test_a_ledger_begins_with_run_started_once(path: Path) -> None:
    with Journal.create(path) as journal:
        assert journal.head == Head(-1, GENESIS)
        with pytest.raises(LedgerError, match="begins with run_started"):
            journal.append(short_record(1), 0.0)
        journal.append(STARTED, 0.0)
        with pytest.raises(LedgerError, match="begins with run_started"):
            journal.append(STARTED, 0.0)
        with pytest.raises(LedgerError, match="finite"):
            journal.append(short_record(1), math.nan)
    assert verify_file(path).records == 1


def test_a_closed_journal_appends_nothing(path: Path) -> None:
    journal = Journal.create(path)
    journal.append(STARTED, 0.0)
    journal.close()
    journal.close()
    with pytest.raises(LedgerError, match="closed"):
        journal.append(short_record(1), 0.0)


def test_durable_records_are_synced_and_others_are_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    with Journal.create(path) as journal:
        monkeypatch.setattr(os, "fsync", synced.append)
        for record in ONE_OF_EACH:
            before = len(synced)
            journal.append(record, 0.0)
            assert len(synced) - before == isinstance(record, DURABLE), record.kind
        monkeypatch.undo()


class FailingDisk:
    """Fails one call of one kind, and `ftruncate` with it if asked to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str, *, cut_off_fails: bool) -> None:
        self.write, self.fsync, self.ftruncate = os.write, os.fsync, os.ftruncate
        self.failing, self.cut_off_fails = call, cut_off_fails
        for name in ("write", "fsync", "ftruncate"):
            monkeypatch.setattr(os, name, getattr(self, f"on_{name}"))

    def on_write(self, descriptor: int, data: bytes) -> int:
        if self.failing == "short write":
            return self.write(descriptor, data[:17])
        if self.failing == "write":
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.failing == "interrupt":
            self.write(descriptor, data)
            raise KeyboardInterrupt
        return self.write(descriptor, data)

    def on_fsync(self, descriptor: int) -> None:
        if self.failing == "fsync":
            raise OSError(errno.EIO, "Input/output error")
        self.fsync(descriptor)

    def on_ftruncate(self, descriptor: int, length: int) -> None:
        if self.cut_off_fails:
            raise OSError(errno.EIO, "Input/output error")
        self.ftruncate(descriptor, length)


@pytest.mark.parametrize("cut_off_fails", [False, True])
@pytest.mark.parametrize("call", ["short write", "write", "fsync", "interrupt"])
def test_a_failed_write_leaves_the_chain_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, *, cut_off_fails: bool
) -> None:
    with Journal.create(path) as journal:
        head = journal.append(STARTED, 0.0)
        disk = FailingDisk(monkeypatch, call, cut_off_fails=cut_off_fails)
        with pytest.raises(KeyboardInterrupt if call == "interrupt" else LedgerError):
            journal.append(short_record(10), 1.0)
        assert journal.head == head
        disk.failing, disk.cut_off_fails = "none", False
        journal.append(short_record(10), 2.0)
    assert [entry.time_seconds for entry in read_ledger(path)] == [0.0, 2.0]
    assert verify_file(path).ok


def test_a_ledger_changed_from_outside_is_noticed(path: Path) -> None:
    with Journal.create(path) as journal:
        journal.append(STARTED, 0.0)
        os.truncate(path, 10)
        with pytest.raises(LedgerDamaged, match="changed from outside"):
            journal.append(short_record(1), 1.0)
        path.unlink()
        with pytest.raises(LedgerDamaged, match="deleted"):
            journal.append(short_record(1), 1.0)


def test_reading_goes_on_while_the_writer_runs(path: Path) -> None:
    with Journal.create(path) as journal:
        assert read_ledger(path) == ()
        journal.append(STARTED, 0.0)
        journal.append(short_record(1), 1.0)
        whole = path.read_bytes()
        with path.open("ab") as file:
            file.write(b'{"hash":"12')
        reading = iter_ledger(path)
        assert [entry.sequence for entry in reading] == [0, 1]
        assert (reading.valid_bytes, reading.torn_bytes) == (len(whole), 11)
        journal.append(short_record(2), 2.0)
        assert [entry.sequence for entry in reading] == [0, 1, 2]
        assert reading.torn_bytes == 0


def test_a_missing_ledger_cannot_be_read(path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be read"):
        read_ledger(path)
