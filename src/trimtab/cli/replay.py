"""`trimtab replay`: repeat a managed run without its manager, and say whether it is the same, bit for bit."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from trimtab.cli.repeating import compare_runs, hash_interval, repeat, what_changed
from trimtab.cli.run import HASH_HELP, refuse_running, require_command, tell_changes
from trimtab.cli.run_reading import find_run
from trimtab.cli.terminal import clean, counted, make_console, print_json, print_note
from trimtab.errors import UsageError
from trimtab.ledger.record import Origin
from trimtab.report.account import json_ready
from trimtab.report.parted_trace import parted_operation
from trimtab.report.sameness import Sameness
from trimtab.runtime.branching import Base, head_of
from trimtab.runtime.command import Command
from trimtab.runtime.repetition import Repetition, read_repetition
from trimtab.runtime.run_dir import RunDirectory, next_free


def replay(
    run: Annotated[Path, typer.Argument(help="Run directory, or the name of one under ./runs.")],
    output: Annotated[Path | None, typer.Option(help="Directory of the repetition; by default beside the run.")] = None,
    hash_every: Annotated[int, typer.Option(metavar="N", min=0, help=HASH_HELP)] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the repetition also if it is the same.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="If it differs, repeat it up to four times more and name the operation.")
    ] = False,
    allow_network: Annotated[bool, typer.Option("--allow-network", help="Let the script reach the network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Repeat a run from its record, without any manager and without the network; exit with 1 if it is not the same."""
    source = find_run(run)
    refuse_running(source)
    command = require_command(source)
    follows = read_repetition(source.repetition)
    if follows is not None and follows.origin.seed:
        raise UsageError(
            "a branch with random numbers of its own cannot be replayed",
            received=f"seed {follows.origin.seed}",
            next_step="fork the run that it is a branch of once more",
        )
    target = RunDirectory(output or next_free(source.path.parent, f"{source.path.name}-replay"))
    tell_changes(command)
    print_note(f"Repeating {clean(source.path.name, 100)} in {clean(str(target.path))} ...")
    every = hash_every or hash_interval(source)
    repeating = _Repeating(source, target.path.parent, command, is_offline=not allow_network)
    repeating.repeat(target.path.name, every)
    found = compare_runs(source, target)
    reasons = [] if found.is_exact else [*_from_the_start(found), *what_changed(source, target, command)]
    if explain and not found.is_exact:
        reasons.append(_explanation(replace(repeating, beside=target.path)))
    if as_json:
        print_json(_as_json(found, reasons, target))
    else:
        print_sameness(found, reasons)
    if found.is_exact and not keep and output is None:
        shutil.rmtree(target.path)
    elif not as_json:
        make_console().print(Text(f"The repetition: {clean(str(target.path))}", "bright_black"), soft_wrap=True)
    raise typer.Exit(0 if found.is_exact else 1)


@dataclass(frozen=True, slots=True)
class _Repeating:
    """Repeats one run several times."""

    source: RunDirectory
    beside: Path
    command: Command
    is_offline: bool

    def repeat(self, name: str, hash_every_steps: int, trace: tuple[int, Path] | None = None) -> RunDirectory:
        target = RunDirectory(self.beside / name)
        repetition = Repetition(self.source.ledger, Origin("replay", self.source.path.name, head_of(self.source.ledger)))
        repeat(
            self.source,
            target,
            self.command,
            Base(),
            repetition,
            hash_every_steps=hash_every_steps,
            is_offline=self.is_offline,
            trace=trace,
        )
        return target


def _explanation(repeating: _Repeating) -> str:
    """Repeat a run twice more and say at which operation they part, or that they do not."""
    print_note("Repeating it twice more, with a hash of every step ...")
    found = compare_runs(repeating.repeat("first", 1), repeating.repeat("second", 1))
    step = found.first_step
    if step is None:
        return "two repetitions here are alike, bit for bit: what differs from the run is not chance but what has changed since"
    print_note(f"These part at step {step}. Repeating it twice more, with a trace of that step ...")
    traces = [repeating.beside / f"trace-{number}.jsonl" for number in (1, 2)]
    for trace in traces:
        repeating.repeat(trace.stem, 0, (max(step, 1), trace))
    try:
        parted = parted_operation(*traces)
    except OSError:  # no trace was written
        return f"two repetitions part at step {step}, but one of the next two did not come so far"
    return f"two repetitions part at step {step}: {parted or 'not in an operation of torch on tensors'}"


def _from_the_start(found: Sameness) -> list[str]:
    """Say what it means that not even the state at the beginning is the same."""
    difference = found.courses.difference
    if difference is None or difference.step > 0 or difference.field != "state_hash":
        return []
    advice = "seed torch (torch.manual_seed) at the top of the script, before the model"
    return [f"the state differs before the first step; what is drawn before trimtab.supervise is not in the record: {advice}"]


def print_sameness(found: Sameness, reasons: list[str]) -> None:
    """Print how far a repetition is the original, and what may be the reason where it is not."""
    console = make_console()
    courses = found.courses
    same = (
        f"{counted(courses.num_records, 'record')} up to step {courses.step}, {counted(courses.num_states, 'saved state')}, "
        f"{counted(found.num_hashes, 'hashed step')} and {counted(found.num_losses, 'measured value')}"
    )
    if found.is_exact:
        console.print(Text.assemble(("bit-exact", "bold green"), f": {same} are the same."))
        if not courses.num_states and not found.num_hashes:
            console.print(Text("No state was hashed in both, so this goes by records and curves alone.", "yellow"))
        return
    console.print(Text.assemble(("not the same", "bold red"), f": first known to differ at step {found.first_step}."))
    if found.first_loss is not None:
        step, name, one, other = found.first_loss
        console.print(Text(f"  step {step}: {clean(name, 80)} was {one!r} and is {other!r}"))
    if found.first_hash is not None:
        step, parts = found.first_hash
        console.print(Text(f"  step {step}: the state differs in {clean(', '.join(parts), 200)}"))
    if courses.difference is not None and courses.difference.field == "state_hash":
        part = "" if found.first_hash else " (in which part is known of runs that were started with --hash-every 1)"
        console.print(Text(f"  step {courses.difference.step}: the saved state is another{part}"), soft_wrap=True)
    elif courses.difference is not None:
        console.print(Text(f"  {clean(str(courses.difference), 600)}"), soft_wrap=True)
    console.print(Text(f"Alike as far as they go: {same}."), soft_wrap=True)
    if reasons:
        console.print(Text("What bears on it:"))
        for reason in reasons:
            console.print(Text(f"  - {clean(reason, 300)}"), soft_wrap=True)


def _as_json(found: Sameness, reasons: list[str], target: RunDirectory) -> dict[str, Any]:
    tree = json_ready(found)
    return {"exact": found.is_exact, "first_step": found.first_step, **tree, "reasons": reasons, "run_dir": str(target.path)}
