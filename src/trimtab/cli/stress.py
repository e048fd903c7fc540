"""`trimtab stress`: what the worst managers can do within an envelope."""

from __future__ import annotations

import logging
import math
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from trimtab.cli.demo_view import duration
from trimtab.cli.terminal import clean, counted, make_console, number, print_json
from trimtab.controller.canary import cost, length
from trimtab.controls.envelope import Envelope
from trimtab.controls.envelope_file import load_envelope
from trimtab.errors import MissingExtraError
from trimtab.testing.stress import (
    SETTINGS,
    Simulated,
    Training,
    Trainings,
    breaches_of,
    num_simulations,
    num_trainings,
    stress_simulated,
    stress_trained,
    worse_by,
)

_MOST_BREACHES: Final = 10
_HARM: Final = 0.05  # of the objective: told in red
_TRIED: Final = SETTINGS[-1]  # the setting with trials, in which nobody watches the values


@dataclass(frozen=True, slots=True)
class _Outcome:
    """All that came of it; ``why_not`` says why there are no trainings, if there are none."""

    file: Path
    envelope: Envelope
    seeds: int
    steps: int
    simulated: tuple[Simulated, ...]
    trained: Trainings
    why_not: str
    seconds: float

    @property
    def breaches(self) -> list[str]:
        return list(breaches_of(self.simulated, self.trained.runs))

    @property
    def interventions(self) -> int:
        """Those whose values were watched."""
        trained = sum(run.trained.interventions for run in self.trained.runs if run.setting != _TRIED)
        return sum(one.applied for one in self.simulated) + trained


def stress(
    envelope: Annotated[Path, typer.Option(metavar="FILE", help="The envelope file to stress.")] = Path("trimtab.yaml"),
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Seeds of each adversary.")] = 3,
    steps: Annotated[int, typer.Option(min=20, max=1_000_000, help="Steps of each run.")] = 1000,
    simulate_only: Annotated[bool, typer.Option("--simulate-only", help="Leave out the real trainings.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Let eight adversaries do their worst within an envelope, and say what came of it.

    Takes some minutes, without the real trainings seconds. Ends with code 1 if a value left the envelope.
    """
    began = time.monotonic()
    allowed = load_envelope(envelope)
    with _progress() as progress:
        task = progress.add_task("simulating", total=num_simulations(seeds))
        simulated = stress_simulated(allowed, seeds, steps, lambda: progress.advance(task))
    trained, why_not = (Trainings((), (), ()), "left out") if simulate_only else _train(allowed, seeds, steps)
    outcome = _Outcome(envelope, allowed, seeds, steps, simulated, trained, why_not, time.monotonic() - began)
    if as_json:
        print_json(_tree(outcome))
    else:
        _print(make_console(), outcome)
    if outcome.breaches:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Generator[Progress]:
    with Progress(console=make_console(sys.stderr), transient=True) as progress:
        yield progress


def _train(allowed: Envelope, seeds: int, steps: int) -> tuple[Trainings, str]:
    """Return the trainings, and why there are none."""
    quiet, log = logging.CRITICAL, logging.getLogger("trimtab")
    level = log.level
    log.setLevel(quiet)  # each of these runs would tell of its adversary at length
    try:
        with _progress() as progress, tempfile.TemporaryDirectory(prefix="trimtab-stress-") as folder:
            task = progress.add_task("training", total=num_trainings(seeds))
            trained = stress_trained(allowed, seeds, steps, Path(folder), lambda: progress.advance(task))
    except MissingExtraError as error:
        return Trainings((), (), ()), str(error)
    finally:
        log.setLevel(level)
    return trained, "" if trained.runs else "the small model has none of the envelope's controls"


def _print(console: Console, outcome: _Outcome) -> None:
    sizes = f" · {counted(outcome.seeds, 'seed')} · {outcome.steps:,} steps"
    console.print(Text.assemble((clean(str(outcome.file), 200), "bold"), f" · {len(outcome.simulated)} adversaries{sizes}"))
    console.print()
    _print_simulated(console, outcome)
    console.print()
    if outcome.trained.runs:
        _print_trained(console, outcome)
    else:
        console.print(Text(f"No real training: {clean(outcome.why_not, 300)}.", "bright_black"))
    console.print()
    _print_verdict(console, outcome)
    console.print(Text(f"took {duration(outcome.seconds)}", "bright_black"))


def _print_simulated(console: Console, outcome: _Outcome) -> None:
    runs = f": each adversary {counted(outcome.simulated[0].runs, 'run')}, half of them without the guard"
    console.print(Text.assemble(("Without a model", "bold"), runs))
    table = _table("adversary", "made", "rejected", "taken back", "ended")
    for one in outcome.simulated:
        table.add_row(one.adversary, *map(str, (one.applied, one.rejected, one.taken_back, one.stopped)))
    console.print(table)
    if any(one.stopped for one in outcome.simulated):
        said = "The envelope lets a manager end the run, and no guard takes that back: set authority.may_stop to false."
        console.print(Text(said, "yellow"))
    console.print()
    table = _table("control", "lowest", "highest", "allowed")
    for control in outcome.envelope.controls:
        reached = [dict(one.reached)[control.name] for one in outcome.simulated]
        lowest, highest = min(low for low, _ in reached), max(high for _, high in reached)
        allowed = f"{control.bounds.low:.3g} to {control.bounds.high:.3g}"
        table.add_row(clean(control.name, 60), f"{lowest:.3g}", f"{highest:.3g}", allowed)
    console.print(table)


def _print_trained(console: Console, outcome: _Outcome) -> None:
    trained = outcome.trained
    plain = [run.plain for run in trained.runs]
    without = " to ".join(dict.fromkeys((number(min(plain)), number(max(plain)))))
    console.print(Text.assemble(("A small model", "bold"), f": final loss without a manager {without}"))
    measure = "" if outcome.seeds == 1 else ": mean (worst)"
    console.print(Text(f"how much worse each ended than that{measure}"))
    table = _table("adversary", *SETTINGS)
    for name in dict.fromkeys(run.adversary for run in trained.runs):
        table.add_row(name, *(_harm(*worse_by(trained.runs, name, setting), outcome.seeds) for setting in SETTINGS))
    console.print(table)
    console.print(_trials(outcome))
    console.print(Text(f"controls: {', '.join(trained.controls)}", "bright_black"))
    if trained.left_out:
        left_out = ", ".join(clean(name, 60) for name in trained.left_out)
        console.print(Text(f"left out, as this model has none: {left_out}", "yellow"))


def _harm(mean: float, worst: float, seeds: int) -> Text:
    told, most = (f"{share:+.1%}" if math.isfinite(share) else "not finite" for share in (mean, worst))
    return Text(told if seeds == 1 else f"{told} ({most})", "red" if mean > _HARM else "")


def _trials(outcome: _Outcome) -> Text:
    """Say in how many trials the canary had a say; without any, its column shows nothing of it."""
    runs = [run.trained for run in outcome.trained.runs if run.setting == _TRIED]
    num_trials, canary = sum(run.trials for run in runs), outcome.envelope.canary
    if num_trials:
        return Text(f"{_TRIED}: {counted(num_trials, 'trial')} in {counted(len(runs), 'run')}", "bright_black")
    first = math.ceil(cost(canary) / canary.budget)
    return Text(
        f"{_TRIED}: no trial fitted into any of {counted(len(runs), 'run')}, so that column means nothing. The canary's "
        f"budget of {canary.budget:.0%} covers none before step {first:,}, and one takes {counted(length(canary), 'step')}: "
        "give more --steps, or the canary fewer steps or a larger budget.",
        "yellow",
    )


def _print_verdict(console: Console, outcome: _Outcome) -> None:
    breaches = outcome.breaches
    if not breaches:
        console.print(Text(f"No value left the envelope in {counted(outcome.interventions, 'intervention')}.", "green"))
        return
    console.print(Text(f"{counted(len(breaches), 'time')} the envelope was left; please report it:", "bold red"))
    for breach in breaches[:_MOST_BREACHES]:
        console.print(Text(clean(breach, 300), "red"))


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


def _tree(outcome: _Outcome) -> dict[str, Any]:
    return {
        "envelope": str(outcome.file),
        "seeds": outcome.seeds,
        "steps": outcome.steps,
        "is_kept": not outcome.breaches,
        "breaches": outcome.breaches,
        "simulated": [_simulated_tree(one) for one in outcome.simulated],
        "trained": _trained_tree(outcome.trained) if outcome.trained.runs else None,
        "why_not_trained": outcome.why_not or None,
        "seconds": round(outcome.seconds, 3),
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


def _trained_tree(trained: Trainings) -> dict[str, Any]:
    return {
        "controls": list(trained.controls),
        "left_out": list(trained.left_out),
        "runs": [_training_tree(run) for run in trained.runs],
    }


def _training_tree(run: Training) -> dict[str, Any]:
    done = run.trained
    losses = {"final": done.final, "best": done.best, "without_manager": run.plain, "worse_by": run.worse_by}
    return {
        "adversary": run.adversary,
        "setting": run.setting,
        "seed": run.seed,
        **{name: value if math.isfinite(value) else None for name, value in losses.items()},
        "trials": done.trials,
        "interventions": done.interventions,
        "taken_back": done.taken_back,
        "stopped_step": done.stopped_step,
        "breaches": list(done.breaches),
    }
