"""`trimtab calibrate`: narrow the learning rate's bounds by measurement on the user's own model and data."""

from __future__ import annotations

import importlib
import importlib.util
import math
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from trimtab.cli.terminal import chart, clean, counted, make_console
from trimtab.cli.user_code import users_code
from trimtab.controls.entries import LEARNING_RATE
from trimtab.controls.envelope import Envelope
from trimtab.controls.envelope_edit import with_bounds
from trimtab.controls.envelope_file import load_envelope
from trimtab.errors import MissingExtraError, UsageError
from trimtab.report.scale import Curve

if TYPE_CHECKING:
    from trimtab.integrations.pytorch.calibration import Calibration, CalibrationSetup


def calibrate(
    setup: Annotated[str, typer.Argument(metavar="MODULE:FUNCTION", help="Function that returns a CalibrationSetup.")],
    envelope: Annotated[Path, typer.Option(metavar="FILE", help="The envelope file to narrow.")] = Path("trimtab.yaml"),
    write: Annotated[bool, typer.Option("--write", help="Write the narrowed bounds into the file.")] = False,
    low: Annotated[float | None, typer.Option(help="Lowest rate tried; by default a thousandth of the run's.")] = None,
    high: Annotated[float | None, typer.Option(help="Highest rate tried; by default a thousand times the run's.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of a sweep.")] = 100,
    sweeps: Annotated[int, typer.Option(help="Sweeps from the same state on different batches.")] = 3,
) -> None:
    """Measure between which learning rates a run learns, and narrow its envelope to them."""
    allowed = load_envelope(envelope)
    allowed.control(LEARNING_RATE)  # before anything is trained
    found = _measure(_setup(setup), low, high, steps, sweeps)
    narrowed = found.narrow(allowed)
    console = make_console()
    _print(console, found, allowed)
    if not write:
        hint = f"Nothing was written; with --write the bounds go into {clean(str(envelope))}."
        console.print(Text(hint if narrowed != allowed else "Nothing to write.", "bright_black"))
    elif narrowed == allowed:
        console.print(Text(f"{clean(str(envelope))} stays as it is."))
    else:
        _write(envelope, narrowed)
        console.print(Text.assemble(("wrote ", "bold green"), clean(str(envelope))))


def _setup(name: str) -> CalibrationSetup:
    try:
        from trimtab.integrations.pytorch.calibration import CalibrationSetup
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        raise MissingExtraError(
            "calibrate needs torch, which is not installed", next_step="pip install 'trimtab[torch]'"
        ) from error
    module_name, _, function_name = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        is_there = importlib.util.find_spec(module_name) is not None
    except (ImportError, ValueError):
        is_there = False
    function: Any = None
    if is_there:
        with users_code(module_name):
            function = getattr(importlib.import_module(module_name), function_name, None)
    if function is None:
        missing = f"no {function_name!r} in {module_name}" if is_there else f"no module {module_name!r}"
        raise UsageError(
            "there is no such function", received=f"{name}: {missing}", allowed="MODULE:FUNCTION, from the present folder"
        )
    with users_code(name):
        made = function() if callable(function) else function
    if not isinstance(made, CalibrationSetup):
        raise UsageError("the function returns no setup", received=type(made).__name__, allowed="a trimtab.CalibrationSetup")
    return made


def _measure(setup: CalibrationSetup, low: float | None, high: float | None, steps: int, sweeps: int) -> Calibration:
    from trimtab.integrations.pytorch.calibration import calibrate as measure

    with Progress(console=make_console(sys.stderr), transient=True) as progress:
        task = progress.add_task("sweeping the learning rate", total=max(1, steps * sweeps))
        with users_code("train_step"):
            return measure(
                setup.model,
                setup.optimizer,
                setup.train_step,
                loader=setup.loader,
                scheduler=setup.scheduler,
                extra_state=setup.extra_state,
                low=low,
                high=high,
                num_steps=steps,
                num_sweeps=sweeps,
                on_step=lambda: progress.advance(task),
            )


def _print(console: Console, found: Calibration, allowed: Envelope) -> None:
    # By the rate's power of ten; losses far above the first would flatten everything else.
    curves = [
        Curve(f"sweep {index}", [(math.log10(rate), loss) for rate, loss in zip(sweep.rates, sweep.losses, strict=True)
                                 if loss <= 2 * abs(sweep.losses[0]) + 1])
        for index, sweep in enumerate(found.sweeps, start=1)
    ]  # fmt: skip
    console.print(Text.assemble(("loss", "bold"), " by the power of ten of the learning rate"))
    console.print(chart(curves, [], console.width, 10))
    for index, (sweep, reading) in enumerate(zip(found.sweeps, found.readings, strict=True), start=1):
        if reading is None:
            shown = "no rate lowered the loss"
        else:
            breaks = "does not break" if reading.breaks_at is None else f"breaks at {reading.breaks_at:.2g}"
            shown = f"falls from {reading.falls_from:.2g}, fastest at {reading.steepest:.2g}, {breaks}"
        console.print(Text(f"sweep {index}: {counted(len(sweep.rates), 'step')}, {shown}"))
    console.print(Text.assemble(("found: ", "bold"), found.describe()))
    start = found.start_within(allowed)
    if start is not None and found.suggested is not None:
        side = "highest" if start < found.suggested else "lowest"
        limit = "" if start == found.suggested else f", the {side} that the envelope allows; {found.suggested:g} was found"
        console.print(Text(f"a rate to start with: {start:g}{limit}"))
    for note in found.notes(allowed):
        console.print(Text(note))


def _write(path: Path, narrowed: Envelope) -> None:
    text = path.read_bytes().decode("utf-8")
    changed = with_bounds(text, str(path), LEARNING_RATE, narrowed.control(LEARNING_RATE).bounds)
    real = path.resolve()  # a link stays a link
    partial = real.with_name(f".{real.name}.partial")
    try:
        partial.write_bytes(changed.encode("utf-8"))
        shutil.copymode(real, partial)
        partial.replace(real)
    except OSError as error:
        raise UsageError("the file cannot be written", received=f"{path}: {error.strerror}") from error
