"""`trimtab export`: a run as a plan that another run can follow, or as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import trimtab
from trimtab.cli.new_file import write_new
from trimtab.cli.run_reading import find_run
from trimtab.cli.terminal import clean, counted, make_console
from trimtab.decision.schedule import Schedule
from trimtab.errors import UsageError
from trimtab.ledger.course import iter_course
from trimtab.ledger.series import Row, read_series
from trimtab.report.schedule_text import schedule_text
from trimtab.report.table_files import write_csv, write_parquet
from trimtab.report.tables import Table, run_tables
from trimtab.runtime.run_dir import RunDirectory


def export(
    run: Annotated[Path, typer.Argument(help="Run directory, or the name of one under ./runs.")],
    schedule: Annotated[Path | None, typer.Option(help="Write what was applied as a plan to this YAML file.")] = None,
    scale: Annotated[float | None, typer.Option(help="For the plan: a factor on all its steps.")] = None,
    shift: Annotated[int, typer.Option(help="For the plan: steps that are then added to them; may be negative.")] = 0,
    total_steps: Annotated[
        int | None, typer.Option("--total-steps", help="For the plan: the length of the run it is for, which sets --scale.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the run's tables as CSV into this folder.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="DIR", help="Write them as Parquet; needs the extra parquet.")] = None,
    wide: Annotated[bool, typer.Option("--wide", help="For the tables: one column for each signal of the curves.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the plan's file if there is one.")] = False,
) -> None:
    """Export a run: as a plan that another run can follow without a manager, or as tables."""
    if schedule is None and csv is None and parquet is None:
        raise UsageError("nothing to export was named", allowed="--schedule FILE, --csv DIR or --parquet DIR")
    if schedule is None and (scale is not None or shift or total_steps is not None):
        raise UsageError("steps are moved in a plan only", next_step="add --schedule FILE")
    directory, console = find_run(run), make_console()
    if schedule is not None:
        course = iter_course(directory.ledger)
        plan, text = schedule_text(course, trimtab.__version__, scale=scale, shift=shift, total_steps=total_steps)
        write_new(schedule, text, force=force, option="--schedule")
        console.print(Text.assemble(("wrote ", "bold green"), f"{clean(str(schedule))}: {_said(plan)}"))
        console.print(Text(f'Follow it with manager="schedule:{clean(str(schedule))}"; read and edit it first.'))
    if csv is None and parquet is None:
        return
    tables = run_tables([entry.record for entry in iter_course(directory.ledger)], _series(directory), wide=wide)
    for folder, write in ((csv, write_csv), (parquet, write_parquet)):
        for path, table in zip(write(tables, folder), tables, strict=True) if folder is not None else ():
            console.print(Text.assemble(("wrote ", "bold green"), f"{clean(str(path))}: {_size(table)}"))


def _said(plan: Schedule) -> str:
    last = f", the last after step {plan.entries[-1].step}" if plan.entries else ""
    entries = f"1 entry{last}" if len(plan.entries) == 1 else f"{len(plan.entries)} entries{last}"
    return f"{entries}; it stops after step {plan.stop_after}" if plan.stop_after is not None else entries


def _size(table: Table) -> str:
    return f"{counted(len(table.rows), 'row')}, {counted(len(table.columns), 'column')}"


def _series(directory: RunDirectory) -> list[Row]:
    return read_series(directory.series) if directory.series.exists() else []
