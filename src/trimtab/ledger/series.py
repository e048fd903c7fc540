"""The series: the curves of a run, beside its ledger.

Nothing but reports depends on it. Its size is bounded: when it is full, its newest rows stay, and of
all before them those that lie evenly apart, in ever coarser steps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, Final

from trimtab.errors import LedgerDamaged, UsageError
from trimtab.ledger.codec import canonical, freeze, thaw

BUFFERED_ROWS: Final = 64
_OPENING: Final = b'{"n":'


@dataclass(frozen=True, slots=True)
class Row:
    """Values measured together.

    Args:
        sequence: Rises with every row of a run.
        step: Step after which they were measured; falls where values came late.
        values: Signal names with their values, which may be non-finite.
    """

    sequence: int
    step: int
    values: Mapping[str, float]


class SeriesFile:
    """Appends rows to a series; goes on with one that is there.

    Args:
        path: The file; its folder has to be there.
        max_points: Most rows it holds on disk after a flush, >= 4.
        max_bytes: About how many bytes it holds on disk at most, beside a few rows: thinning rewrites them all in one step.

    Raises:
        UsageError: Allow at least 4 rows.
        OSError: The file cannot be read or written.
    """

    def __init__(self, path: Path, max_points: int = 20_000, max_bytes: int = 8_000_000) -> None:
        if max_points < 4:
            raise UsageError("a series this short cannot be thinned", received=max_points, allowed="max_points >= 4")
        self._path = path
        self._max_points = max_points
        self._max_bytes = max_bytes
        self._buffer: list[bytes] = []
        lines, torn = _lines(path)
        self._num_rows = len(lines)
        self._size = sum(map(len, lines))
        if torn or self._is_full(self._num_rows, self._size):
            self._rewrite(lines)

    def append(self, sequence: int, step: int, values: Mapping[str, float]) -> None:
        """Append a row; it is on disk after the next flush, which comes by itself every 64 rows.

        Raises:
            OSError: The rows since the last flush may be lost; appending may go on.
        """
        # The canonical form, written out: a JSON encoder would take as long as all else that a step costs.
        coded = ",".join([f"{quoted}:{_number(values[name])}" for name, quoted in _layout(tuple(values))])
        self._buffer.append(f'{{"n":{sequence:d},"step":{step:d},"v":{{{coded}}}}}\n'.encode("ascii"))
        if len(self._buffer) >= BUFFERED_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows.

        Raises:
            OSError: The buffered rows may be lost; appending may go on.
        """
        if not self._buffer:
            return
        rows, self._buffer = self._buffer, []  # not kept on failure: a full disk must not fill the memory too
        with self._path.open("ab", buffering=0) as file:
            data = b"".join(rows)
            end = file.seek(0, os.SEEK_END)
            if end > self._size:
                file.truncate(self._size)  # what a failed write left behind
            written = file.write(data)
            if written != len(data):
                raise OSError(f"wrote {written} of {len(data)} bytes to {self._path}")
            self._size = min(end, self._size) + written
        self._num_rows += len(rows)
        if self._is_full(self._num_rows, self._size):
            self._rewrite(_lines(self._path)[0])

    def rewind(self, sequence: int) -> None:
        """Give up every row after ``sequence``: another process goes on from there.

        Raises:
            OSError: The file cannot be written.
        """
        self.flush()
        kept = [line for line in _lines(self._path)[0] if _sequence(line) <= sequence]
        if len(kept) < self._num_rows:
            self._rewrite(kept)

    def _is_full(self, num_rows: int, size: int) -> bool:
        return num_rows > self._max_points or (size > self._max_bytes and num_rows > 4)

    def _rewrite(self, lines: list[bytes]) -> None:
        size = sum(map(len, lines))
        most = min(self._max_points, max(4, len(lines) * self._max_bytes // size)) if size else self._max_points
        if len(lines) > most:
            lines = _thinned(lines, most)
        temporary = self._path.with_name(self._path.name + ".tmp")
        with temporary.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        self._num_rows = len(lines)
        self._size = sum(map(len, lines))


def _thinned(lines: list[bytes], most: int) -> list[bytes]:
    """Return the newest rows, and of all before them those that lie evenly apart.

    Counted by their sequence numbers, not by their places: every second row over and over would leave nothing of the far
    past but its first row.
    """
    older, newer = lines[: -(most // 2)], lines[-(most // 2) :]
    first, last = _sequence(older[0]), _sequence(newer[-1])
    stride = 1
    while len(older) > max(1, most // 4):
        stride *= 2
        is_told_apart = stride <= last - first
        older = [line for line in older if (_sequence(line) - first) % stride == 0] if is_told_apart else older[::2]
    return older + newer


def _sequence(line: bytes) -> int:
    try:
        return int(line[len(_OPENING) : line.index(b",")])
    except ValueError:  # a malformed row: whoever reads the series is told of it
        return 0


@lru_cache(maxsize=64)
def _layout(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return the names in the order of the canonical form, each with its JSON text."""
    return tuple((name, canonical(name)) for name in sorted(names))


def _number(value: float) -> str:
    if type(value) is float and isfinite(value):  # nearly all of them
        return repr(value)
    number = float(value)
    return repr(number) if isfinite(number) else canonical(freeze(number))


def read_series(path: Path) -> list[Row]:
    """Return the rows of a series, oldest first; a torn last line is left out.

    Raises:
        LedgerDamaged: Delete the file: the ledger does not need it.
        OSError: The file cannot be read.
    """
    rows: list[Row] = []
    for number, line in enumerate(_lines(path, must_exist=True)[0], start=1):
        try:
            tree: Any = json.loads(line)
            rows.append(Row(int(tree["n"]), int(tree["step"]), {name: float(thaw(v)) for name, v in tree["v"].items()}))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise LedgerDamaged(
                f"{path}:{number}: a row of the series is malformed",
                received=repr(line[:80]),
                next_step="delete the file: nothing but reports depends on it",
            ) from error
    return rows


def _lines(path: Path, *, must_exist: bool = False) -> tuple[list[bytes], int]:
    """Return the whole lines with their newlines, and the length of what follows them."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        if must_exist:
            raise
        return [], 0
    if lines and not lines[-1].endswith(b"\n"):
        return lines[:-1], len(lines[-1])
    return lines, 0
