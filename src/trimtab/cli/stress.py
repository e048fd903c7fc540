"""`trimtab stress`: what the worst managers can do within an envelope."""

from __future__ import annotations

import logging
import math
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from trimtab.cli.terminal import clean, counted, make_console, number, print_json
from trimtab.controls.envelope import Envelope
from trimtab.controls.envelope_file import load_envelope
from trimtab.errors import MissingExtraError
from trimtab.testing.adversaries import ADVERSARIES
from trimtab.testing.stress import (
    RUNS_PER_SEED,
    SETTINGS,
    Simulated,
    Trial,
    TrialReport,
    breaches_of,
    num_trainings,
    stress_simulated,
    stress_trained,
    worse_by,
)

_MOST_BREACHES: Final = 10
_HARM: Final = 0.05  # of the objective: told in red


def stress(
    envelope: Annotated[Path, typer.Option(metavar="FILE", help="The envelope file to stress.")] = Path("trimtab.yaml"),
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Seeds of each adversary.")] = 3,
    steps: Annotated[int, typer.Option(min=20, max=1_000_000, help="Steps of each run.")] = 1000,
    simulate_only: Annotated[bool, typer.Option("--simulate-only", help="Leave out the real trainings.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Let eight adversaries do their worst within an envelope, and say what came of it."""
    allowed = load_envelope(envelope)
    with _progress() as progress:
        task = progress.add_task("simulating", total=seeds * RUNS_PER_SEED * len(ADVERSARIES))
        simulated = stress_simulated(allowed, seeds, steps, lambda: progress.advance(task))
    trained, why_not = (None, "left out") if simulate_only else _train(allowed, seeds, steps)
    breaches = list(breaches_of(simulated, trained.trials if trained else ()))
    if as_json:
        print_json(_tree(envelope, seeds, steps, simulated, trained, why_not, breaches))
    else:
        _print(make_console(), envelope, simulated, trained, why_not, breaches, steps)
    if breaches:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Generator[Progress]:
    with Progress(console=make_console(sys.stderr), transient=True) as progress:
        yield progress


def _train(allowed: Envelope, seeds: int, steps: int) -> tuple[TrialReport | None, str]:
    """Return the trainings, or why there are none."""
    quiet, log = logging.CRITICAL, logging.getLogger("trimtab")
    level = log.level
    log.setLevel(quiet)  # each of these runs would tell of its adversary at length
    try:
        with _progress() as progress, tempfile.TemporaryDirectory(prefix="trimtab-stress-") as folder:
            task = progress.add_task("training", total=num_trainings(seeds))
            report = stress_trained(allowed, seeds, steps, Path(folder), lambda: progress.advance(task))
    except MissingExtraError as error:
        return None, str(error)
    finally:
        log.setLevel(level)
    return report, "" if report.trials else "the small model has none of the envelope's controls"


def _print(
    console: Console,
    file: Path,
    simulated: Sequence[Simulated],
    trained: TrialReport | None,
    why_not: str,
    breaches: Sequence[str],
    steps: int,
) -> None:
    console.print(Text.assemble((clean(str(file), 200), "bold"), f" · {len(simulated)} adversaries"))
    console.print()
    _print_simulated(console, simulated, steps)
    if any(one.stopped for one in simulated):
        said = "The envelope lets a manager end the run, and no guard takes that back: set authority.may_stop to false."
        console.print(Text(said, "yellow"))
    console.print()
    if trained is not None and trained.trials:
        _print_trained(console, trained, steps)
    else:
        console.print(Text(f"No real training: {clean(why_not, 300)}.", "bright_black"))
    console.print()
    _print_verdict(console, simulated, trained, breaches)


def _print_simulated(console: Console, simulated: Sequence[Simulated], steps: int) -> None:
    runs = f": {counted(simulated[0].runs, 'run')} of {steps} steps each, half of them without the guard"
    console.print(Text.assemble(("Without a model", "bold"), runs))
    table = _table("adversary", "made", "rejected", "taken back", "ended", last="how far it got")
    for one in simulated:
        reached = ", ".join(f"{clean(name, 60)} {low:.3g} to {high:.3g}" for name, (low, high) in one.reached)
        counts = (one.applied, one.rejected, one.taken_back, one.stopped)
        table.add_row(one.adversary, *map(str, counts), reached)
    console.print(table)


def _print_trained(console: Console, trained: TrialReport, steps: int) -> None:
    seeds = len({trial.seed for trial in trained.trials})
    plain = sorted({(trial.seed, trial.plain) for trial in trained.trials})
    without = ", ".join(number(loss) for _, loss in plain)
    head = f": {counted(seeds, 'seed')} of {steps} steps each; final loss without a manager {without}"
    console.print(Text.assemble(("A small model", "bold"), head))
    console.print(Text("how much worse each ended than that: mean (worst)"))
    table = _table("adversary", *SETTINGS)
    for name in dict.fromkeys(trial.adversary for trial in trained.trials):
        table.add_row(name, *(_harm(*worse_by(trained.trials, name, setting)) for setting in SETTINGS))
    console.print(table)
    console.print(Text(f"controls: {', '.join(trained.controls)}", "bright_black"))
    if trained.left_out:
        left_out = ", ".join(clean(name, 60) for name in trained.left_out)
        console.print(Text(f"left out, as this model has none: {left_out}", "yellow"))


def _harm(mean: float, worst: float) -> Text:
    shown = [f"{share:+.1%}" if math.isfinite(share) else "not finite" for share in (mean, worst)]
    return Text(f"{shown[0]} ({shown[1]})", "red" if mean > _HARM else "")


def _print_verdict(
    console: Console, simulated: Sequence[Simulated], trained: TrialReport | None, breaches: Sequence[str]
) -> None:
    if breaches:
        console.print(Text(f"{counted(len(breaches), 'time')} the envelope was left; please report it:", "bold red"))
        for breach in breaches[:_MOST_BREACHES]:
            console.print(Text(clean(breach, 300), "red"))
        return
    applied = sum(one.applied for one in simulated)
    trials = trained.trials if trained is not None else ()
    applied += sum(trial.interventions for trial in trials)
    console.print(Text(f"No value left the envelope in {counted(applied, 'intervention')}.", "green"))


def _table(first: str, *columns: str, last: str = "") -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    table.add_column(first, no_wrap=False, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    if last:
        table.add_column(last, ratio=1, overflow="fold")
    return table


def _tree(
    file: Path,
    seeds: int,
    steps: int,
    simulated: Sequence[Simulated],
    trained: TrialReport | None,
    why_not: str,
    breaches: Sequence[str],
) -> dict[str, Any]:
    return {
        "envelope": str(file),
        "seeds": seeds,
        "steps": steps,
        "is_kept": not breaches,
        "breaches": list(breaches),
        "simulated": [_simulated_tree(one) for one in simulated],
        "trained": None if trained is None or not trained.trials else _trained_tree(trained),
        "why_not_trained": why_not or None,
    }


def _simulated_tree(one: Simulated) -> dict[str, Any]:
    return {
        "adversary": one.adversary,
        "runs": one.runs,
        "applied": one.applied,
        "rejected": one.rejected,
        "taken_back": one.taken_back,
        "stopped": one.stopped,
        "reached": {name: {"lowest": low, "highest": high} for name, (low, high) in one.reached},
        "breaches": list(one.breaches),
    }


def _trained_tree(trained: TrialReport) -> dict[str, Any]:
    return {
        "controls": list(trained.controls),
        "left_out": list(trained.left_out),
        "runs": [_trial_tree(trial) for trial in trained.trials],
    }


def _trial_tree(trial: Trial) -> dict[str, Any]:
    losses = {"final": trial.final, "best": trial.best, "without_manager": trial.plain, "worse_by": trial.worse_by}
    return {
        "adversary": trial.adversary,
        "setting": trial.setting,
        "seed": trial.seed,
        **{name: value if math.isfinite(value) else None for name, value in losses.items()},
        "interventions": trial.interventions,
        "taken_back": trial.taken_back,
        "stopped_step": trial.stopped_step,
        "breaches": list(trial.breaches),
    }
