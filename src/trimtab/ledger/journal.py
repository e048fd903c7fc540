"""The journal: the one writer of a ledger.

Rules:
1. One writer: the file is locked, and a second one is refused.
2. One `os.write` per record, at the end of the file; a write that failed is taken back before the next.
3. Records of the `DURABLE` types are on disk when `append` returns; the others follow with them.
4. A journal belongs to one thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from weakref import WeakSet

from trimtab.errors import LedgerDamaged, LedgerError
from trimtab.ledger.line import GENESIS, write_line
from trimtab.ledger.reading import iter_ledger, may_share
from trimtab.ledger.record import DURABLE, Record

_LOCK_ATTEMPTS: Final = 50
_LOCK_PAUSE_SECONDS: Final = 0.01
_open_journals: WeakSet[Journal] = WeakSet()


@dataclass(frozen=True, slots=True)
class Head:
    """The newest line of a ledger: its sequence number, -1 before the first, and its hash."""

    sequence: int
    hash: str


class Journal:
    """Appends records to a ledger; made by `create` or `open`.

    Attributes:
        recovered_bytes: Length of the torn last line that `open` cut off; 0 if there was none.
    """

    def __init__(self, path: Path, descriptor: int, head: Head, size: int, recovered_bytes: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        self._head = head
        self._size = size
        self.recovered_bytes = recovered_bytes
        _open_journals.add(self)

    @classmethod
    def create(cls, path: Path) -> Self:
        """Begin a new ledger.

        Raises:
            LedgerError: Choose a path where nothing is yet and files can be written.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError as error:
            raise LedgerError(
                "a ledger is already there",
                received=str(path),
                next_step="open it to go on with its run, or choose another path",
            ) from error
        except OSError as error:
            raise _failed("the ledger cannot be created", path, error) from error
        try:
            _lock(path, descriptor)
            os.fsync(descriptor)
            _sync_directory(path.parent)
        except OSError as error:
            os.close(descriptor)
            raise _failed("the ledger cannot be created", path, error) from error
        except LedgerError:
            os.close(descriptor)
            raise
        return cls(path, descriptor, Head(-1, GENESIS), 0, 0)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Go on with a ledger; a torn last line, from a writer that died, is cut off.

        Raises:
            LedgerDamaged: Do not go on with this ledger; the message names the line.
            LedgerVersionUnknown: Install the version of trimtab that wrote it, or a newer one.
            LedgerError: Close the other writer, or correct the path.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise _failed("the ledger cannot be opened", path, error) from error
        try:
            _lock(path, descriptor)
            head, reading = Head(-1, GENESIS), iter_ledger(path)
            for entry in reading:
                head = Head(entry.sequence, entry.hash)
            if reading.torn_bytes:
                os.ftruncate(descriptor, reading.valid_bytes)
                os.fsync(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise _failed("the ledger cannot be recovered", path, error) from error
        except LedgerError:
            os.close(descriptor)
            raise
        return cls(path, descriptor, head, reading.valid_bytes, reading.torn_bytes)

    @property
    def head(self) -> Head:
        """The newest line."""
        return self._head

    def append(self, record: Record, time_seconds: float) -> Head:
        """Append a record and return the new head.

        Args:
            record: What happened.
            time_seconds: When, by the runtime's clock.

        Raises:
            LedgerError: The record is not in the ledger; the next one may be appended all the same.
        """
        if self._descriptor is None:
            raise LedgerError("the journal is closed", received=record.kind, next_step="open it again")
        line, hash_ = write_line(self._head.sequence + 1, time_seconds, self._head.hash, record)
        try:
            self._settle(self._descriptor)
            written = os.write(self._descriptor, line)
            if written != len(line):
                raise OSError(f"wrote {written} of {len(line)} bytes")  # noqa: TRY301 - handled as any failed write
            if isinstance(record, DURABLE):
                os.fsync(self._descriptor)
        except OSError as error:
            # What cannot be taken back now is taken back before the next write.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise _failed(f"{record.kind} was not written to the ledger", self._path, error) from error
        self._size += len(line)
        self._head = Head(self._head.sequence + 1, hash_)
        return self._head

    def sync(self) -> None:
        """Bring every record so far to disk.

        Raises:
            LedgerError: The newest records may not be on disk; check the disk.
        """
        if self._descriptor is None:
            raise LedgerError("the journal is closed", next_step="open it again")
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise _failed("the ledger was not brought to disk", self._path, error) from error

    def close(self) -> None:
        """Write everything to disk and release the ledger; closing twice does nothing.

        Raises:
            LedgerError: The newest records may not be on disk; check the disk.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise _failed("the ledger was not closed in order", self._path, error) from error
        finally:
            # Unlocked by name: a forked worker may hold a copy of the descriptor for longer.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def leave_to_parent(self) -> None:
        """Close the copy that a forked process has of the file; the lock stays with the process that forked."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)  # without unlocking: the lock is shared with the parent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _settle(self, descriptor: int) -> None:
        """Cut off what a failed or interrupted write left behind."""
        status = os.fstat(descriptor)
        if status.st_nlink == 0 or status.st_size < self._size:
            found = "it was deleted" if status.st_nlink == 0 else f"{status.st_size} bytes"
            raise LedgerDamaged(
                "the ledger was changed from outside", received=f"{self._path}: {found}", allowed=f"{self._size} bytes"
            )
        if status.st_size > self._size:
            os.ftruncate(descriptor, self._size)


def _lock(path: Path, descriptor: int) -> None:
    try:
        is_ours = _take_lock(descriptor)
    except OSError as error:
        raise LedgerError(
            "the ledger cannot be locked", received=f"{path}: {error.strerror}", next_step="use a file system with file locks"
        ) from error
    if not is_ours:
        raise LedgerError(
            "another process writes to the ledger",
            received=str(path),
            next_step="end that run, or choose another run directory",
        )


def _take_lock(descriptor: int) -> bool:
    """Lock the file; False if another writer has it.

    Who asks whether the ledger is being written (`reading.is_being_written`) shares the lock for a moment. That is no
    writer: a shared lock is given beside theirs, and refused beside a writer's.
    """
    pause = threading.Event()
    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not may_share(descriptor):
                return False
            pause.wait(_LOCK_PAUSE_SECONDS)
        else:
            return True
    return False


def _leave_to_parent() -> None:
    """Close what a fork has copied: a data loader's worker that outlives the run would hold the lock for it."""
    for journal in list(_open_journals):
        journal.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(what: str, path: Path, error: OSError) -> LedgerError:
    return LedgerError(
        what, received=f"{path}: {error.strerror or error}", next_step="check the path, the permissions and the disk"
    )
