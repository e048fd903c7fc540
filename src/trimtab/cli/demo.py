"""`trimtab demo`: the same small training run twice, once with a manager and once without."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimtab.cli.arms import ArmName, ArmSpec, run_arms
from trimtab.cli.demo_outcome import Outcome
from trimtab.cli.demo_view import duration, make_view
from trimtab.cli.terminal import MARK_STYLES, chart, clean, make_console, number, print_json
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.errors import MissingExtraError, RunDirectoryError, UsageError
from trimtab.report.scale import drawable
from trimtab.runtime.manager_spec import ManagerSpec
from trimtab.runtime.run_dir import RUNS, next_free

ARM_COMMAND: Final = (sys.executable, "-m", "trimtab.bench.arm")
_ARMS: Final[tuple[ArmName, ...]] = ("unmanaged", "managed")
_LISTED_MARKS: Final = 12


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """What to run.

    Args:
        seed: Seed of both arms.
        steps: Optimizer steps of each.
        manager: Who manages the managed arm.
        text: A text file to train on; None for the built-in prose.
        run_dir: Folder for both runs; None for ``runs/demo-N``.
        temperature: Of a language model's sampling; None leaves it to the model.
        canary: Whether what the manager proposes is tried first.
    """

    seed: int
    steps: int
    manager: str
    text: Path | None
    run_dir: Path | None
    temperature: float | None = None
    canary: bool = False


def demo(
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of both runs.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of each run.")] = 3000,
    manager: Annotated[str, typer.Option(help="Who manages the managed run.")] = "rules",
    text: Annotated[Path | None, typer.Option(help="A text file to train on instead of the built-in prose.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Folder for both runs, new or empty; by default runs/demo-N.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="Of a language model's sampling.")] = None,
    canary: Annotated[bool, typer.Option(help="Try each change in a fork of the run before it counts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object; progress goes to standard error.")] = False,
) -> None:
    """Train a small model twice, with and without a manager, and compare."""
    for package in ("torch", "safetensors"):
        if find_spec(package) is None:
            raise MissingExtraError(f"the demo trains a model and needs {package}", next_step="pip install 'trimtab[torch]'")
    try:
        run_demo(DemoRequest(seed, steps, manager, text, run_dir, temperature, canary), ARM_COMMAND, as_json=as_json)
    except KeyboardInterrupt:
        make_console(sys.stderr).print(Text("interrupted: both runs were ended", "yellow"))
        raise typer.Exit(130) from None


def run_demo(request: DemoRequest, command: Sequence[str], *, as_json: bool) -> Outcome:
    """Run both arms and print what they came to.

    Args:
        request: What to run.
        command: What starts an arm; its spec follows as one JSON argument.
        as_json: Whether to print only a JSON object on standard output.

    Raises:
        UsageError: Correct the argument that the message names.
        TrimtabError: An arm failed; the message says why.
    """
    if request.text is not None and not request.text.is_file():
        raise UsageError("there is no such text file", received=str(request.text), next_step="name another with --text")
    ManagerSpec.parse(request.manager).check(ManagerSettings())  # before anything is started or created
    folder = _make_folder(request.run_dir)
    specs = [_spec(request, arm, folder / arm) for arm in _ARMS]
    console = make_console(sys.stderr if as_json else None)
    began = time.monotonic()
    with make_view(console, _ARMS, time.monotonic) as view:
        results = run_arms(command, specs, folder, view)
    seconds = time.monotonic() - began
    outcome = Outcome(request.seed, request.steps, request.manager, results["unmanaged"], results["managed"], seconds)
    svg = _write_svg(outcome, folder)
    if as_json:
        print_json(outcome.as_json({spec.arm: spec.run_dir for spec in specs}, str(svg) if svg else None))
    else:
        _print(console, outcome, folder, svg)
    return outcome


def _make_folder(wanted: Path | None) -> Path:
    folder = wanted if wanted is not None else next_free(RUNS, "demo")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RunDirectoryError("the folder is not empty", received=str(folder), next_step="name another with --run-dir")
    except OSError as error:
        raise RunDirectoryError(
            "the folder cannot be used", received=f"{folder}: {error.strerror}", next_step="name another with --run-dir"
        ) from error
    return folder


def _spec(request: DemoRequest, arm: ArmName, run_dir: Path) -> ArmSpec:
    text = str(request.text) if request.text is not None else None
    return ArmSpec(arm, request.seed, request.steps, request.manager, text, str(run_dir), request.temperature, request.canary)


def _write_svg(outcome: Outcome, folder: Path) -> Path | None:
    """Write the picture; a full disk does not take the figures with it."""
    path = folder / "demo.svg"
    try:
        path.write_text(outcome.drawn(), encoding="utf-8")
    except OSError as error:
        make_console(sys.stderr).print(Text(f"the picture could not be written: {clean(str(error))}", "yellow"))
        return None
    return path


def _print(console: Console, outcome: Outcome, folder: Path, svg: Path | None) -> None:
    if any(drawable(loss) for curve in outcome.curves for _, loss in curve.points):
        console.print(Text("\nvalidation loss", "bright_black"))
        console.print(chart(outcome.curves, outcome.marks, console.width, 14))
    _print_marks(console, outcome)
    console.print()
    console.print(_table(outcome))
    console.print()
    console.print(Text(outcome.sentence(), "bold"))
    if outcome.managed.stopped is not None:
        console.print(Text(f"Stopped: {clean(outcome.managed.stopped, 300)}", "yellow"))
    console.print()
    if svg is not None:
        console.print(Text.assemble(("picture  ", "bright_black"), clean(str(svg))), soft_wrap=True)
    command = f"trimtab show {shlex.quote(str(folder / 'managed'))}"
    console.print(Text.assemble(("next     ", "bright_black"), (clean(command), "bold")), soft_wrap=True)


def _print_marks(console: Console, outcome: Outcome) -> None:
    for place, mark in enumerate(outcome.marks[:_LISTED_MARKS], start=1):
        line = f"{place:>3}  step {mark.step:.0f}: {clean(mark.text, 300)}"
        console.print(Text(line, MARK_STYLES[mark.kind], no_wrap=True, overflow="ellipsis"))
    if len(outcome.marks) > _LISTED_MARKS:
        console.print(Text(f"     and {len(outcome.marks) - _LISTED_MARKS} more", "bright_black"))


def _table(outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("run")
    for name in ("final", "best", "at step", "interventions", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    unmanaged, managed, early = outcome.unmanaged, outcome.managed, outcome.early_stopping
    table.add_row(
        "unmanaged", _four(unmanaged.final), _four(unmanaged.best), str(unmanaged.best_step), "-", duration(unmanaged.seconds)
    )
    table.add_row("unmanaged, stopped early", _four(early), _four(early), str(unmanaged.best_step), "-", "-")
    table.add_row(
        "managed",
        _four(managed.final),
        _four(managed.best),
        str(managed.best_step),
        str(managed.interventions),
        duration(managed.seconds),
        style="bold",
    )
    return table


def _four(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e5 else number(value)
