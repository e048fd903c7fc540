"""Find a run by its path or name, and read the account of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trimtab.errors import RunDirectoryError, nearest
from trimtab.ledger.course import iter_course
from trimtab.ledger.reading import is_being_written
from trimtab.report.account import Timeline
from trimtab.report.timeline import build_timeline
from trimtab.runtime.run_dir import LEDGER, RUNS, RunDirectory, open_run_directory

CUT_OFF: Final = "cut off"

_DEEPEST = 2  # runs/demo-1/managed


@dataclass(frozen=True, slots=True)
class Account:
    """The account of a run, and what its file tells beside.

    Args:
        timeline: The account.
        torn_bytes: How long an unfinished last line of its ledger is.
        is_live: Whether the run goes on: it has not ended, and its ledger is being written.
    """

    timeline: Timeline
    torn_bytes: int
    is_live: bool

    @property
    def status(self) -> str:
        """How the run stands; one that neither ended nor goes on was cut off, and so was one whose training loop raised."""
        status = self.timeline.summary.status
        return ("running" if self.is_live else CUT_OFF) if status == "not ended" else status


def find_run(run: Path) -> RunDirectory:
    """Return the run directory of that path, or of that name under ``runs``.

    Raises:
        RunDirectoryError: Name a run; the message names the nearest.
    """
    try:
        return open_run_directory(run.parent if run.name == LEDGER else run)
    except RunDirectoryError:
        for folder in (run, RUNS / run):
            inside = runs_under(folder)
            if inside:
                found = ", ".join(str(path) for path in inside[:5])
                raise RunDirectoryError(
                    "this folder is not a run but holds some", received=str(run), next_step=f"name one: {found}"
                ) from None
        names = [str(path.relative_to(RUNS)) for path in runs_under(RUNS)]
        hint = nearest(str(run), names) if names else "start one with: trimtab demo"
        raise RunDirectoryError(
            "there is no run here",
            received=str(run),
            allowed=f"a folder with {LEDGER}, or its name under {RUNS}",
            next_step=hint,
        ) from None


def runs_under(folder: Path) -> list[Path]:
    """Return the run directories in ``folder`` and in its folders, sorted by path; links are not followed."""
    return sorted(_runs_under(folder, _DEEPEST), key=_natural)


def _runs_under(folder: Path, depth: int) -> list[Path]:
    try:
        inside = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:  # not a folder, or not ours to read: there are no runs to list in it
        return []
    found: list[Path] = []
    for path in inside:
        if (path / LEDGER).is_file():
            found.append(path)
        elif depth > 1:
            found.extend(_runs_under(path, depth - 1))
    return found


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort demo-2 before demo-10."""
    parts = str(path).replace("/", "-").replace("\\", "-").split("-")
    return [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts]


def read_account(directory: RunDirectory) -> Account:
    """Read a run's ledger; the run may still be going on.

    Raises:
        LedgerError: The ledger cannot be read or trusted; `trimtab verify` says where.
    """
    is_written = is_being_written(directory.ledger)  # before it is read: a run may end in between
    course = iter_course(directory.ledger)
    timeline = build_timeline(entry.record for entry in course)
    is_live = is_written and timeline.summary.status == "not ended"
    return Account(timeline, course.reading.torn_bytes, is_live)
