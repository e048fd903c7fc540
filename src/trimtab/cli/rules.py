"""`trimtab rules`: the table by which the rules manager decides."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from trimtab.cli.terminal import make_console, print_json
from trimtab.controls.catalogue import base_name
from trimtab.controls.envelope import Envelope
from trimtab.controls.envelope_file import load_envelope
from trimtab.decision.rules.rule import END_OF_RUN, LAST_CHANCE, Nudge, Rule
from trimtab.decision.rules.table import RULES
from trimtab.errors import UsageError, nearest

_WHEN = {
    END_OF_RUN: "the last part of a run of known length",
    LAST_CHANCE: "the last question of a run that is worse than its best state",
}


def rules(
    symptom: Annotated[str | None, typer.Argument(help="Only the rules against this symptom.")] = None,
    envelope: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Say of each rule what of it this envelope lets it do.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the rules manager's table: symptom, remedy, reason, source."""
    chosen = [rule for rule in RULES if symptom is None or rule.answers == symptom]
    if not chosen:
        raise UsageError(
            "no rule answers that", received=symptom, next_step=nearest(symptom or "", {rule.answers for rule in RULES})
        )
    allowed = None if envelope is None else load_envelope(envelope)
    if as_json:
        print_json({"rules": [{**asdict(rule), "controls": _within(rule, allowed)} for rule in chosen]})
    else:
        _print(chosen, allowed)


def remedy(rule: Rule) -> str:
    """Say in a few words what a rule does, such as ``back to the best state; learning_rate x 0.5``."""
    if rule.holds:
        return "leave the run alone"
    moves = ", ".join(map(_nudge, rule.nudges))
    return f"back to the best state; {moves}" if rule.rolls_back else moves


def _nudge(nudge: Nudge) -> str:
    name = nudge.control.replace("{part}", "PART")
    return f"{name} x {nudge.amount:g}" if nudge.how == "multiply" else f"{name} {nudge.amount:+g}"


def _within(rule: Rule, allowed: Envelope | None) -> list[str] | None:
    """Return the envelope's controls that a rule can move; None if there is no envelope."""
    if allowed is None:
        return None
    names = [control.name for control in allowed.controls]
    return [name for name in names if any(_is_meant(nudge, name, names) for nudge in rule.nudges)]


def _is_meant(nudge: Nudge, name: str, names: list[str]) -> bool:
    if nudge.control.endswith("/{part}"):
        return "/" in name and base_name(name) == base_name(nudge.control)
    return name == nudge.control or (nudge.control not in names and base_name(name) == nudge.control)


def _print(chosen: list[Rule], allowed: Envelope | None) -> None:
    console = make_console()
    for answers, group in groupby(sorted(chosen, key=_place), key=lambda rule: rule.answers):
        console.print(Text.assemble((answers, "bold"), (f"  {_WHEN[answers]}" if answers in _WHEN else "", "bright_black")))
        for rule in group:
            lines = Text.assemble((f"{rule.name}: ", "cyan"), remedy(rule))
            controls = _within(rule, allowed)
            if controls is not None and not rule.holds:
                can = f"here: {', '.join(controls)}" if controls else "not here: the envelope has none of these controls"
                lines.append(f"\n{can}", "green" if controls else "yellow")
            lines.append(f"\n{rule.reason}")
            lines.append(f"\n[{rule.source}]", "bright_black")
            console.print(Padding(lines, (0, 0, 0, 2)))
        console.print()
    if allowed is None:
        text = "Tried in this order; strengths, bounds and moves are the envelope's: --envelope FILE says what is left."
        console.print(Text(text, "bright_black"))


def _place(rule: Rule) -> int:
    """Return where the first rule of the same symptom stands, so that a symptom's rules are together."""
    return next(place for place, other in enumerate(RULES) if other.answers == rule.answers)
