"""`trimtab envelope check`: what an envelope file allows, in words, and what in it is odd."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimtab.cli.manager_words import changed_settings, manager_words
from trimtab.cli.terminal import clean, counted, make_console, print_json
from trimtab.controller.canary import cost, has_look
from trimtab.controls.control import Control
from trimtab.controls.envelope import Envelope
from trimtab.controls.envelope_file import load_envelope
from trimtab.controls.moves import Multiply, SetTo
from trimtab.controls.oddities import oddities
from trimtab.controls.reach import Journey, reach_of
from trimtab.controls.yaml_tree import YamlTree
from trimtab.errors import nearest
from trimtab.report.safeguard_facts import first_trial_step
from trimtab.telemetry.roles import USUAL_NAMES

envelope_app = typer.Typer(help="Look at envelope files.", no_args_is_help=True)


@envelope_app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="The envelope file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Explain an envelope file: what may be changed, how far, how often, and what looks wrong."""
    envelope = load_envelope(file)
    _check_roles(file, envelope)
    if as_json:
        print_json(_tree(envelope))
        return
    console = make_console()
    console.print(Text.assemble((clean(str(file), 200), "bold"), f" · {clean(str(envelope.objective))}"))
    for control in envelope.controls:
        _print_control(console, control)
    console.print()
    for label, said in (*_budget(envelope), *_timing(envelope), *_signals(envelope), *manager_words(envelope)):
        console.print(_labelled(label, said))
    console.print()
    found = oddities(envelope)
    for said in found:
        console.print(Text.assemble(("warning: ", "bold yellow"), (clean(said), "yellow")))
    if not found:
        console.print(Text("nothing odd", "green"))


def _check_roles(file: Path, envelope: Envelope) -> None:
    """Refuse roles that do not exist, at their place in the file; which there are is known above the file's reader."""
    tree = YamlTree(file.read_bytes().decode("utf-8"), str(file))
    for role, _ in envelope.signals:
        if role not in USUAL_NAMES:
            hint = nearest(role, USUAL_NAMES)
            tree.report(("signals", role), "there is no such role for a signal", received=role, next_step=hint, at_key=True)
    tree.raise_problems()


def _print_control(console: Console, control: Control) -> None:
    unit = f" · {clean(control.unit)}" if control.unit else ""
    console.print()
    console.print(Text.assemble((clean(control.name), "bold"), f" {_range(control)}{unit}"))
    for label, said in _facts(control):
        console.print(_labelled(label, said))


def _facts(control: Control) -> Iterator[tuple[str, str]]:
    by = "a factor of " if control.scale == "ratio" else "a difference of "
    yield "moves", _moves(control)
    at_once, in_all = _values([control.largest_change, control.cumulative_drift])
    yield "at most", f"{by}{at_once} at once, {in_all} from the start"
    rhythm = "at boundaries only" if control.when == "boundary" else "after any step"
    yield "when", f"{rhythm}, stands for {counted(control.dwell_steps, 'step')}, shows after {control.effect_lag_steps}"
    reach = reach_of(control)
    start, up, down, *reached = _values([reach.start, reach.up.value, reach.down.value, *reach.one_move])
    ways = f"{_way(reach.up, 'up', up)}, {_way(reach.down, 'down', down)}"
    yield "reach", f"one move from {start} reaches {', '.join(reached) or 'nothing'}; {ways}"
    notes = [
        "whole numbers only" if control.is_whole else "",
        f"at most {counted(control.max_values, 'distinct value')} in a run" if control.max_values is not None else "",
        f"takes the learning rate along ({control.rate_scaling})" if control.rate_scaling != "none" else "",
        f"acts on modules {control.modules}" if control.modules is not None else "",
        "a new value recompiles what torch.compile has compiled" if control.cost == "recompiles" else "",
    ]
    if any(notes):
        yield "also", "; ".join(filter(None, notes))


def _range(control: Control) -> str:
    return " to ".join(_values([control.bounds.low, control.bounds.high], 5))


def _moves(control: Control) -> str:
    moves = control.moves
    if isinstance(moves, Multiply):
        return f"multiply by {', '.join(_values(moves.factors))}"
    if isinstance(moves, SetTo):
        return f"set to {', '.join(_values(moves.values))}"
    return f"add {', '.join(_values(moves.amounts))}"


def _way(journey: Journey, direction: str, end: str) -> str:
    return f"{direction} to {end} in {counted(journey.num_moves, 'move')}"


def _values(values: Sequence[float], least: int = 3) -> list[str]:
    """Return numbers short, but 0.99999 not as 1, and different ones differently."""
    for digits in range(least, 17):
        shown = [_short(value, digits) for value in values]
        if len(set(shown)) == len(set(values)):
            return shown
    return [repr(value) for value in values]


def _short(value: float, digits: int) -> str:
    """Return a number in full if six digits do, else in so many."""
    full = f"{value:.6g}"
    shown = full if math.isclose(float(full), value, rel_tol=1e-12) else f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+0" in shown and abs(value) < 1e6 else shown


def _budget(envelope: Envelope) -> Iterator[tuple[str, str]]:
    authority = envelope.authority
    spent = f"{counted(authority.interventions, 'intervention')}, of them {counted(authority.rollbacks, 'rollback')}"
    stop = "may" if authority.may_stop else "may not"
    together = counted(authority.controls_per_intervention, "control")
    yield "manager", f"{spent}; at most {together} at a time; {stop} ask the run to stop"
    reflex = envelope.reflex
    if not reflex.armed:
        yield "reflex", "disarmed: faults are recorded, and nothing is done about them"
    else:
        yield "reflex", _reflex(envelope)
    guard = envelope.guard
    if not guard.armed:
        yield "guard", "disarmed: what does harm stays"
    else:
        held = counted(guard.failures, "intervention")
        lost = f"more than {guard.tolerance:.2%} of the objective or {guard.noise_factor:g} times its noise, whichever is more"
        yield "guard", f"takes back what loses {lost}; after {held} taken back in a row, no more are made"
    canary = envelope.canary
    if canary.mode == "none":
        yield "canary", "off: proposals are applied without a trial"
    else:
        wanted = "is better" if canary.mode == "win" else "is not worse"
        arm = f"{counted(canary.steps, 'step')} and {canary.decay_steps} of decay"
        look = f", with a look after {canary.look_steps}" if has_look(canary) else ""
        yield "canary", f"tries a proposal for {arm}{look}, and applies what {wanted}; at most {canary.budget:.0%} of the steps"
        yield "trial", f"costs up to {counted(cost(canary), 'step')}, so none begins before step {first_trial_step(canary):,}"


def _reflex(envelope: Envelope) -> str:
    reflex, authority = envelope.reflex, envelope.authority
    skipped = f" and passes over {reflex.skip_batches} of the batches" if reflex.skip_batches else ""
    again = f"on the same fault within {counted(reflex.same_fault_within_steps, 'step')}"
    ending = f"{counted(reflex.attempts, 'attempt')} at one fault, or {counted(authority.reflex_rollbacks, 'rollback')} in all"
    cut = f"also takes {reflex.learning_rate_cut:.0%} of the rate{skipped}"
    return f"on a fault goes back to the last good state; {again} {cut}; after {ending}, stops the run"


def _timing(envelope: Envelope) -> Iterator[tuple[str, str]]:
    timing = envelope.deliberation
    every = "every evaluation" if timing.every_evaluations == 1 else f"every {timing.every_evaluations} evaluations"
    deadline = f"{timing.deadline_seconds:g} s"
    if timing.mode == "boundary":
        yield "asked", f"after {every}; training waits for the answer, up to {deadline}, and applies it after the next step"
    else:
        applied = f"is applied {counted(timing.apply_after_steps, 'step')} after the question"
        dropped = f"dropped after {timing.stale_after_steps}"
        yield "asked", f"after {every}; training does not wait; the answer has {deadline}, {applied}, and is {dropped}"
    if any(control.when == "boundary" for control in envelope.controls):
        yield "boundary", f"every {counted(timing.boundary_every_steps, 'step')}; answers wait for it"
    yield "measured", f"over {counted(timing.measure_over_evaluations, 'evaluation')} after a change"


def _signals(envelope: Envelope) -> Iterator[tuple[str, str]]:
    if envelope.signals:
        yield "signals", ", ".join(f"{role} is {name}" for role, name in envelope.signals)


def _labelled(label: str, said: str) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_column(width=9, style="bright_black")
    row.add_column(overflow="fold")
    row.add_row(label, Text(clean(said)))
    return row


def _tree(envelope: Envelope) -> dict[str, Any]:
    controls: dict[str, Any] = {}
    for control in envelope.controls:
        reach = reach_of(control)
        controls[control.name] = {
            "low": control.bounds.low,
            "high": control.bounds.high,
            "middle": reach.start,
            "one_move": list(reach.one_move),
            "up": {"num_moves": reach.up.num_moves, "value": reach.up.value},
            "down": {"num_moves": reach.down.num_moves, "value": reach.down.value},
        }
    return {
        "objective": str(envelope.objective),
        "controls": controls,
        "manager": changed_settings(envelope.manager),
        "warnings": list(oddities(envelope)),
    }
