"""Reading a ledger, also while its writer is still running.

What follows the last newline is a line that is still being written, or was when the writer died: it
is left alone and counted. Damage anywhere else is refused, never skipped.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from trimtab.errors import LedgerError
from trimtab.ledger.line import GENESIS, Entry, read_line

__all__ = ["Entry", "LedgerReading", "is_being_written", "iter_ledger", "may_share", "read_ledger"]


class LedgerReading:
    """The entries of a ledger, one by one; each iteration reads the file anew.

    Args:
        path: The ledger.

    Attributes:
        valid_bytes: Length of the whole lines read by the last iteration.
        torn_bytes: Length of the incomplete line after them; known once the iteration is over.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.valid_bytes = 0
        self.torn_bytes = 0

    def __iter__(self) -> Iterator[Entry]:
        self.valid_bytes = self.torn_bytes = 0
        previous = GENESIS
        try:
            with self._path.open("rb") as file:
                for sequence, line in enumerate(file):
                    if not line.endswith(b"\n"):
                        self.torn_bytes = len(line)
                        return
                    entry = read_line(line[:-1], sequence, previous, f"{self._path}:{sequence + 1}")
                    self.valid_bytes += len(line)
                    previous = entry.hash
                    yield entry
        except OSError as error:
            raise _unreadable(self._path, error) from error


def iter_ledger(path: Path) -> LedgerReading:
    """Return the entries of a ledger, to be read one by one.

    Iterating raises `LedgerDamaged`, `LedgerVersionUnknown` or, where the file cannot be read,
    `LedgerError`.
    """
    return LedgerReading(path)


def read_ledger(path: Path) -> tuple[Entry, ...]:
    """Return all whole entries of a ledger; use `iter_ledger` to learn of an incomplete last line.

    Raises:
        LedgerDamaged: Do not trust the ledger; the message names the line.
        LedgerVersionUnknown: Install the version of trimtab that wrote it, or a newer one.
        LedgerError: The file cannot be read; check the path.
    """
    return tuple(iter_ledger(path))


def is_being_written(path: Path) -> bool:
    """Return whether a writer has the ledger open now, on this machine or on one that shares its file locks.

    The system takes the lock from a writer that is killed, so this tells a run that goes on from one that was cut off. Ask
    before reading: a run that ends in between is then found ended. A writer is not disturbed, nor is one that begins.

    Raises:
        LedgerError: The file cannot be read; check the path.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        return not may_share(descriptor)
    except OSError:  # no file can be locked there, and without a lock no writer begins
        return False
    finally:
        os.close(descriptor)


def may_share(descriptor: int) -> bool:
    """Return whether no writer holds the lock of an open ledger; it is shared for that moment and released at once.

    Raises:
        OSError: The file cannot be locked.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def _unreadable(path: Path, error: OSError) -> LedgerError:
    return LedgerError("the ledger cannot be read", received=f"{path}: {error.strerror}", next_step="check the path")
