"""`trimtab runs`: the runs in a folder at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from trimtab.cli.run_reading import CUT_OFF, Account, read_account, runs_under
from trimtab.cli.terminal import STATUS_STYLES, clean, make_console, number, print_json
from trimtab.errors import RunDirectoryError, TrimtabError
from trimtab.report.account import json_ready
from trimtab.report.words import resume_command
from trimtab.runtime.run_dir import LEDGER, RUNS, RunDirectory


@dataclass(frozen=True, slots=True)
class _Listed:
    """A run in the list: its account, or why there is none."""

    name: str
    path: Path
    account: Account | None
    problem: str | None

    @property
    def is_cut_off(self) -> bool:
        """Whether there is a run that can be gone on with."""
        return self.account is not None and self.account.status == CUT_OFF

    def as_json(self) -> dict[str, Any]:
        listed: dict[str, Any] = {"name": self.name, "run_dir": str(self.path), "problem": self.problem}
        if self.account is None:
            return {**listed, "status": "unreadable", "is_live": None}
        summary = self.account.timeline.summary
        return {
            **listed,
            "status": self.account.status,
            "ended_because": summary.ended_because,
            "go_on": resume_command(str(self.path)) if self.is_cut_off else None,
            "is_live": self.account.is_live,
            "manager": summary.manager,
            "steps": summary.steps,
            "total_steps": summary.total_steps,
            "objective": summary.objective,
            "best": json_ready(summary.best),
            "last": json_ready(summary.last),
            "interventions": summary.interventions,
            "rejections": summary.rejections,
        }


def runs(
    directory: Annotated[Path, typer.Argument(help="Folder of runs.")] = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the runs in a folder."""
    if not directory.is_dir() and directory != RUNS:
        raise RunDirectoryError(
            "there is no such folder", received=str(directory), next_step="name the folder that runs lie in"
        )
    listed = [_read(directory, path) for path in runs_under(directory)]
    if as_json:
        print_json({"runs": [one.as_json() for one in listed]})
    elif listed:
        console = make_console()
        console.print(_table(listed))
        cut_off = [one for one in listed if one.is_cut_off]
        if cut_off:
            console.print(Text(f"\nGo on with what was {CUT_OFF}: {resume_command(str(cut_off[-1].path))}", "yellow"))
    else:
        make_console().print(Text(f"No runs in {clean(str(directory))}. Start one with: trimtab demo"))


def _read(directory: Path, path: Path) -> _Listed:
    name = str(path.relative_to(directory))
    try:
        return _Listed(name, path, read_account(RunDirectory(path)), None)
    except TrimtabError as error:
        problem = "no record yet" if _is_empty(path) else error.what
        return _Listed(name, path, None, problem)


def _is_empty(path: Path) -> bool:
    return (path / LEDGER).stat().st_size == 0


def _table(listed: list[_Listed]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("run", overflow="fold", ratio=3)
    table.add_column("manager", overflow="fold", ratio=2)
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("best", justify="right", no_wrap=True)
    table.add_column("last", justify="right", no_wrap=True)
    table.add_column("changes", justify="right", no_wrap=True)
    table.add_column("status", overflow="fold", ratio=2)
    for one in listed:
        name = Text(clean(one.name, 200))
        if one.account is None:
            table.add_row(name, "-", "-", "-", "-", "-", Text(f"unreadable: {clean(one.problem or '', 200)}", "red"))
            continue
        summary, status = one.account.timeline.summary, one.account.status
        because = f": {clean(summary.ended_because, 100)}" if summary.status == CUT_OFF and summary.ended_because else ""
        table.add_row(
            name,
            Text(clean(summary.manager, 100)),
            f"{summary.steps}" + (f"/{summary.total_steps}" if summary.total_steps else ""),
            number(summary.best.value if summary.best else None),
            number(summary.last.value if summary.last else None),
            str(summary.interventions),
            Text(f"{status}{because}", STATUS_STYLES[status]),
        )
    return table
