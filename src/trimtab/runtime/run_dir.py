"""The layout of a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trimtab.errors import RunDirectoryError

LEDGER: Final = "ledger.jsonl"
SERIES: Final = "series.jsonl"
ENVELOPE: Final = "envelope.yaml"
CHECKPOINTS: Final = "checkpoints"
MANAGER_LOG: Final = "manager.log"
RUNS: Final = Path("runs")


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths of one run."""

    path: Path

    @property
    def ledger(self) -> Path:
        """The decision record."""
        return self.path / LEDGER

    @property
    def series(self) -> Path:
        """The curves."""
        return self.path / SERIES

    @property
    def envelope(self) -> Path:
        """The envelope the run was started with."""
        return self.path / ENVELOPE

    @property
    def checkpoints(self) -> Path:
        """Folder of the saved states."""
        return self.path / CHECKPOINTS

    @property
    def manager_log(self) -> Path:
        """What the manager's process printed."""
        return self.path / MANAGER_LOG


def create_run_directory(path: Path | None) -> RunDirectory:
    """Create the directory of a new run; without a path, ``runs/run-N`` with the next free N.

    Raises:
        RunDirectoryError: Choose another path: this one holds a run or cannot be written.
    """
    chosen = path if path is not None else next_free(RUNS, "run")
    directory = RunDirectory(chosen)
    if directory.ledger.exists():
        raise RunDirectoryError(
            "the run directory already holds a run",
            received=str(chosen),
            next_step=f"choose another, for example {next_free(chosen.parent, chosen.name)}",
        )
    try:
        directory.checkpoints.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError("the run directory cannot be created", received=f"{chosen}: {error}") from error
    return directory


def open_run_directory(path: Path) -> RunDirectory:
    """Return the directory of an existing run, given its path or its name under ``runs``.

    Raises:
        RunDirectoryError: Name a directory that holds a ledger.
    """
    for candidate in (path, RUNS / path):
        if (candidate / LEDGER).is_file():
            return RunDirectory(candidate)
    raise RunDirectoryError("there is no run here", received=str(path), next_step="list runs with: trimtab runs")


def next_free(parent: Path, name: str) -> Path:
    """Return ``parent/name-N`` with the lowest N from 1 that does not exist."""
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"
