"""The course of a run: the entries of its ledger that count.

A run that was resumed has made some steps twice. What its ledger holds of the first time is kept, and left out here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from trimtab.errors import LedgerDamaged, LedgerError
from trimtab.ledger.reading import Entry, LedgerReading, iter_ledger
from trimtab.ledger.record import RunResumed

_MARK: Final = b'"kind":"run_resumed"'


class Course:
    """The entries that count, one by one; each iteration reads the file anew, also while its writer is still running.

    Args:
        path: The ledger.

    Attributes:
        reading: The file; says how long an incomplete last line is, once an iteration is over.
    """

    def __init__(self, path: Path) -> None:
        self.reading: LedgerReading = iter_ledger(path)
        self._path = path

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries.

        Raises:
            LedgerDamaged: Do not trust the ledger; the message names the line.
            LedgerVersionUnknown: Install the version of trimtab that wrote it, or a newer one.
            LedgerError: The file cannot be read; check the path.
        """
        num_lines, left = _left(self._path)
        for entry in self.reading:
            if entry.sequence >= num_lines:
                return  # written since: a resume among these lines would have left some that were yielded
            if isinstance(entry.record, RunResumed) and not 0 <= entry.record.after < entry.sequence:
                allowed = f"a record before it: 0 to {entry.sequence - 1}"
                raise LedgerDamaged(
                    f"{self._path}: a run was resumed after a record that is not there",
                    received=entry.record.after,
                    allowed=allowed,
                )
            if not any(low <= entry.sequence < high for low, high in left):
                yield entry


def iter_course(path: Path) -> Course:
    """Return the entries of a ledger that count, to be read one by one; iterating raises as `Course.__iter__` says."""
    return Course(path)


def _left(path: Path) -> tuple[int, list[tuple[int, int]]]:
    """Return the number of lines, and ranges of sequence numbers, the second exclusive, that a later resume has left.

    Nothing is verified here: whatever a damaged line says, reading it in earnest raises.
    """
    ranges: list[tuple[int, int]] = []
    num_lines = 0
    try:
        with path.open("rb") as file:
            for sequence, line in enumerate(file):
                num_lines += line.endswith(b"\n")
                if _MARK in line and line.endswith(b"\n"):
                    record = _record(line)
                    after = record.get("after")
                    if record.get("kind") == "run_resumed" and isinstance(after, int):
                        ranges.append((after + 1, sequence))
    except OSError as error:
        raise LedgerError(
            "the ledger cannot be read", received=f"{path}: {error.strerror}", next_step="check the path"
        ) from error
    return num_lines, ranges


def _record(line: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(line)["record"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}
