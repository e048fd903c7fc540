"""`trimtab report`: one or several runs as a page that is complete in itself, and as a picture."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

import trimtab
from trimtab.cli.run_reading import find_run
from trimtab.cli.terminal import clean, make_console, print_json
from trimtab.errors import UsageError, nearest
from trimtab.report.page.document import GENERATOR, render
from trimtab.report.page.picture import as_png, draw_picture, require_png
from trimtab.report.page.reading import read_subject
from trimtab.report.page.subject import Subject
from trimtab.runtime.clock import SystemClock
from trimtab.runtime.run_dir import RunDirectory

_REPORT: Final = "report.html"
_PNG_MARK: Final = b"\x89PNG\r\n\x1a\n"
_HTML_MARK: Final = f'content="{GENERATOR}"'.encode()


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, or names of some under ./runs.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help=f"Where it goes; by default {_REPORT} in the run, or here for several."
        ),
    ] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Also a picture of curves and recipe (extra png).")] = None,
    signal: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A signal to show at once; repeat for more. By default loss and grad_norm."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a report: curves, recipe, every decision, cost and provenance, in one HTML file that opens offline.

    Several runs are compared. The file loads nothing and needs no network; a run may still be going on. Exits with 1 if
    a ledger is damaged: then only what stands before the damage is shown.
    """
    directories = [find_run(run) for run in runs]
    target = output if output is not None else _default(directories)
    _check_target(target, _HTML_MARK, "--output")
    if png is not None:
        require_png()
        _check_target(png, _PNG_MARK, "--png")
    subjects = _read(directories)
    chosen = _chosen(subjects, signal or [])
    page = render(subjects, made_seconds=SystemClock().wall_seconds(), version=trimtab.__version__, chosen=chosen).encode()
    written = [_write(target, page)]
    if png is not None:
        written.append(_write(png, as_png(draw_picture(subjects, chosen))))
    damaged = [subject.path for subject in subjects if subject.damage or not subject.verification.ok]
    if as_json:
        sizes = [{"path": str(path), "bytes": size} for path, size in written]
        print_json({"report": sizes[0], "png": sizes[1] if png is not None else None, "damaged": damaged})
    else:
        _print(written, damaged)
    raise typer.Exit(1 if damaged else 0)


def _default(directories: list[RunDirectory]) -> Path:
    return directories[0].path / _REPORT if len(directories) == 1 else Path(_REPORT)


def _check_target(path: Path, mark: bytes, option: str) -> None:
    """Refuse to overwrite what is not an earlier report or picture."""
    try:
        if path.is_dir():
            raise UsageError("this is a folder", received=str(path), next_step=f"name a file: {option} FILE")
        if path.exists():
            with path.open("rb") as file:
                if mark not in file.read(4096):
                    raise UsageError(
                        "there is another file, which is left alone",
                        received=str(path),
                        next_step=f"name another: {option} FILE",
                    )
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> UsageError:
    received = f"{path}: {error.strerror or error}"
    return UsageError("the file cannot be written", received=received, next_step="name another: --output FILE or --png FILE")


def _read(directories: list[RunDirectory]) -> list[Subject]:
    console = make_console(sys.stderr)
    subjects: list[Subject] = []
    for directory in directories:
        with console.status(f"reading {clean(str(directory.path), 60)}"):
            subjects.append(read_subject(directory))
    return subjects


def _chosen(subjects: list[Subject], names: list[str]) -> list[str]:
    known = {name for subject in subjects for name in subject.signals}
    for name in names:
        if name not in known:
            raise UsageError("no run has this signal", received=name, next_step=nearest(name, known))
    return names


def _write(path: Path, content: bytes) -> tuple[Path, int]:
    """Write a file whole: whoever looks at the earlier one never sees half of the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    return path, len(content)


def _print(written: list[tuple[Path, int]], damaged: list[str]) -> None:
    console = make_console()
    for path, size in written:
        console.print(Text(f"{clean(str(path), 500)}  {size / 1000:,.0f} kB"), soft_wrap=True)
    for path in damaged:
        told = (
            f"The ledger of {clean(path, 300)} is damaged: the report ends before it. Where: trimtab verify {clean(path, 300)}"
        )
        console.print(Text(told, "red"), soft_wrap=True)
