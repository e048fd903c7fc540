"""The layout of a run directory."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trimtab.errors import RunDirectoryError

LEDGER: Final = "ledger.jsonl"
SERIES: Final = "series.jsonl"
ENVELOPE: Final = "envelope.yaml"
CHECKPOINTS: Final = "checkpoints"
MANAGER_LOG: Final = "manager.log"
EXCHANGE: Final = "exchange"
ACCOUNT: Final = "spending.sqlite"
COMMAND: Final = "command.json"
REPETITION: Final = "repetition.json"
HASHES: Final = "hashes.jsonl"
START: Final = "start.json"
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

    @property
    def exchange(self) -> Path:
        """Folder through which an external manager and a person answer."""
        return self.path / EXCHANGE

    @property
    def account(self) -> Path:
        """What a language model has spent."""
        return self.path / ACCOUNT

    @property
    def command(self) -> Path:
        """How the run was started."""
        return self.path / COMMAND

    @property
    def start(self) -> Path:
        """The random numbers that the run began with."""
        return self.path / START

    @property
    def repetition(self) -> Path:
        """What the run repeats of another; only replays and branches have it."""
        return self.path / REPETITION

    @property
    def hashes(self) -> Path:
        """Hashes of the state step by step; only where they were asked for."""
        return self.path / HASHES


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What the start of a run creates, to be removed again if it fails before the first record.

    Args:
        directory: The run's directory.
        created: What was not there before, outermost first.
    """

    directory: RunDirectory
    created: tuple[Path, ...]

    @classmethod
    def before(cls, directory: RunDirectory) -> Leftovers:
        """Look at what is there before the directory is created."""
        inside = (
            directory.checkpoints,
            directory.ledger,
            directory.series,
            directory.envelope,
            directory.manager_log,
            directory.command,
            directory.start,
        )
        own = (*reversed(directory.path.parents), directory.path, *inside)
        return cls(directory, tuple(path for path in own if not path.exists()))

    def close(self) -> None:
        """Remove what was created, unless the ledger holds a record; folders only if nothing else is in them."""
        with suppress(OSError):  # a ledger that is not there, or what cannot be removed and is left
            if b"\n" in self.directory.ledger.read_bytes():
                return
        for path in reversed(self.created):
            with suppress(OSError):
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()


def choose_run_directory(path: Path | None) -> RunDirectory:
    """Return where a new run goes; without a path, ``runs/run-N`` with the next free N. Nothing is created."""
    return RunDirectory(path if path is not None else next_free(RUNS, "run"))


def create_run_directory(path: Path | None) -> RunDirectory:
    """Create the directory of a new run; without a path, ``runs/run-N`` with the next free N.

    Raises:
        RunDirectoryError: Choose another path: this one holds a run or cannot be written.
    """
    directory = choose_run_directory(path)
    chosen = directory.path
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
