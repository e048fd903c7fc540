"""The hashes of a run's state step by step, beside its ledger: what a replay is compared with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from trimtab.errors import LedgerDamaged
from trimtab.ledger.codec import canonical

BUFFERED: Final = 64


class HashFile:
    """Appends the hashes of steps; goes on with a file that is there.

    Args:
        path: The file; its folder has to be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._buffer: list[str] = []

    def append(self, step: int, parts: Mapping[str, str]) -> None:
        """Keep the hash of each part of the state after ``step``; on disk after the next flush.

        Raises:
            OSError: The file cannot be written.
        """
        self._buffer.append(canonical({"step": step, "parts": dict(parts)}))
        if len(self._buffer) >= BUFFERED:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered.

        Raises:
            OSError: The file cannot be written; what was buffered may be lost.
        """
        lines, self._buffer = self._buffer, []
        if not lines:
            return
        data = "".join(f"{line}\n" for line in lines).encode("ascii")
        with self._path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            written = file.write(data)
            if written != len(data):
                file.truncate(end)  # half a line would spoil the next one too
                raise OSError(f"wrote {written} of {len(data)} bytes to {self._path}")

    def rewind(self, step: int) -> None:
        """Give up the steps after ``step``: another process makes them again.

        Raises:
            LedgerDamaged: Delete the file.
            OSError: The file cannot be written.
        """
        self._buffer.clear()
        if not self._path.exists():
            return
        kept = {at: parts for at, parts in read_hashes(self._path).items() if at <= step}
        temporary = self._path.with_name(self._path.name + ".tmp")
        with temporary.open("w", encoding="ascii") as file:
            file.writelines(canonical({"step": at, "parts": parts}) + "\n" for at, parts in kept.items())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


def read_hashes(path: Path) -> dict[int, dict[str, str]]:
    """Return the hashes of each part of the state by step; a torn last line is left out.

    Raises:
        LedgerDamaged: Delete the file: only the comparison with a replay depends on it.
        OSError: The file cannot be read.
    """
    hashes: dict[int, dict[str, str]] = {}
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            tree: Any = json.loads(line)
            hashes[int(tree["step"])] = {str(name): str(value) for name, value in tree["parts"].items()}
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise LedgerDamaged(
                f"{path}:{number}: a line of hashes is malformed", received=repr(line[:80]), next_step="delete the file"
            ) from error
    return hashes
