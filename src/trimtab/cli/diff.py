"""`trimtab diff`: where two runs part, and what came of it.

Exit codes: 0 the runs are identical as far as both go; 1 they differ; 2 an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimtab.cli.run_reading import find_run
from trimtab.cli.show import reasons_against
from trimtab.cli.terminal import STATUS_STYLES, chart, clean, counted, make_console, number, print_json
from trimtab.ledger.course import iter_course
from trimtab.ledger.reading import is_being_written
from trimtab.ledger.record import Record
from trimtab.report.account import Decision, Point
from trimtab.report.parting import DecisionPair, Parting, RecipeStretch, Seen, Unlike, part
from trimtab.report.repeat import Comparison
from trimtab.report.safeguard_words import by_whom
from trimtab.report.scale import Curve, Mark
from trimtab.report.words import ENDINGS, follows, used

_MOST_LISTED: Final = 12
_SIDES: Final = ("A", "B")
_SIDE_STYLES: Final = ("dark_orange", "dodger_blue1")  # as the curves


@dataclass(frozen=True, slots=True)
class _Named:
    """What only the command line knows of a run: its folder, and whether it goes on."""

    path: Path
    is_live: bool

    def status(self, seen: Seen) -> str:
        status = seen.timeline.summary.status
        return ("running" if self.is_live else "cut off") if status == "not ended" else status


def diff(
    one: Annotated[Path, typer.Argument(metavar="A", help="Run directory, or the name of one under ./runs.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="The run to compare it with.")],
    every: Annotated[bool, typer.Option("--all", help="Show each decision and recipe that differs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show where two runs part: start, evaluations, decisions with their evidence, recipes, curves; exit with 1 if they do."""
    read = [_read(run) for run in (one, other)]
    named = (read[0][0], read[1][0])
    parting = part(read[0][1], read[1][1])
    if as_json:
        tree = parting.as_json()
        for run, of in zip(tree["runs"], named, strict=True):
            run.update(run_dir=str(of.path), is_live=of.is_live)
        print_json(tree)
    else:
        print_parting(make_console(), parting, named, every=every)
    raise typer.Exit(0 if parting.is_none else 1)


def _read(run: Path) -> tuple[_Named, list[Record]]:
    directory = find_run(run)
    is_written = is_being_written(directory.ledger)  # before it is read: a run may end in between
    records = [entry.record for entry in iter_course(directory.ledger)]
    has_ended = bool(records) and records[-1].kind == "run_ended"
    return _Named(directory.path, is_written and not has_ended), records


def print_parting(console: Console, parting: Parting, named: tuple[_Named, _Named], *, every: bool) -> None:
    """Print how two runs differ; without ``every`` only the first decision, and the first recipes."""
    for side, seen, of in zip(_SIDES, parting.runs, named, strict=True):
        console.print(_head(side, seen, of))
    console.print()
    console.print(_verdict(parting))
    _print_states(console, parting.alike)
    if parting.start or parting.versions:
        _print_start(console, parting, every=every)
    _print_first(console, parting)
    if parting.decisions:
        _print_decision(console, parting.decisions[0])
        _print_later(console, parting.decisions[1:], every=every)
    if parting.recipes:
        _print_recipes(console, parting, every=every)
    _print_chart(console, parting)
    console.print()
    console.print(_outcomes(parting, named))


def _head(side: str, seen: Seen, of: _Named) -> Text:
    summary, status = seen.timeline.summary, of.status(seen)
    text = Text.assemble((f"{side}  ", _SIDE_STYLES[_SIDES.index(side)]), (clean(str(of.path), 200), "bold"))
    text.append(f" · {clean(summary.manager, 100)} · ")
    text.append(status, STATUS_STYLES[status])
    if seen.origin is not None:
        text.append(f"\n   {follows(seen.origin)}", "bright_black")
    return text


def _verdict(parting: Parting) -> Text:
    alike = parting.alike
    same = f"{counted(alike.num_records, 'record')} up to step {alike.step}"
    by = "its hash" if alike.num_states == 1 else "their hashes"
    same += f", {counted(alike.num_states, 'state')} by {by}" if alike.num_states else ""
    if parting.is_none:
        unfinished = [side for side, seen in zip(_SIDES, parting.runs, strict=True) if not seen.has_ended]
        steps = [seen.timeline.summary.steps for seen in parting.runs]
        in_what = " in all that was measured and decided," if alike.num_unlike_states else ""
        text = Text.assemble(("identical", "bold green"), f"{in_what} as far as both go: {same}.")
        if unfinished and steps[0] != steps[1]:
            longer = _SIDES[steps.index(max(steps))]
            text.append(f" {longer} goes on to step {max(steps)}.")
        return text
    if parting.start:
        text = Text.assemble(("different", "bold red"), " from the start on.")
        if alike.difference is None:
            text.append(f" Apart from that, all is the same as far as both go: {same}.")
            return text
    else:
        text = Text.assemble(("different", "bold red"), f" after step {alike.step}.")
    if alike.difference is not None:
        first = "Apart from the start the" if parting.start else "The"
        told, verb = (same.removeprefix("1 "), "is") if alike.num_records == 1 else (same, "are")
        text.append(f" {first} first {told} {verb} the same.\nThen {clean(str(alike.difference), 600)}.")
    return text


def _print_states(console: Console, alike: Comparison) -> None:
    if alike.unlike_state_step is not None:
        among = f"{alike.num_unlike_states} of {alike.num_unlike_states + alike.num_states}"
        told = f"Saved states differ from step {alike.unlike_state_step} on, {among}: in weights, optimizer or random numbers."
        console.print(Text(told, "yellow"))


def _print_start(console: Console, parting: Parting, *, every: bool) -> None:
    unlike = [*parting.start, *(Unlike(f"version of {one.name}", one.one, one.other) for one in parting.versions)]
    shown = unlike if every else unlike[:_MOST_LISTED]
    table = _table("started from")
    for one in shown:
        table.add_row(clean(one.name, 120), clean(one.one, 300), clean(one.other, 300))
    console.print()
    console.print(table)
    _more(console, len(unlike) - len(shown))


def _print_first(console: Console, parting: Parting) -> None:
    found = parting.evaluation
    if found is not None:
        console.print(Text(f"\nFirst evaluation that differs: step {found.step}", "bold"))
        table = _table("value")
        for one in found.values[:_MOST_LISTED]:
            table.add_row(clean(one.name, 120), clean(one.one, 60), clean(one.other, 60))
        console.print(table)
        _more(console, len(found.values) - _MOST_LISTED)
    evidence = parting.evidence
    if evidence is not None and (not parting.decisions or evidence.step < parting.decisions[0].step):
        console.print(Text(f"\nFirst question with other evidence, and the same decision: step {evidence.step}", "bold"))
        console.print(_both(evidence, only=("found",)))


def _print_decision(console: Console, pair: DecisionPair) -> None:
    what = ", ".join(pair.differs_in)
    console.print(
        Text.assemble((f"\nFirst decision that differs: step {pair.step}", "bold"), (f" · in {what}", "bright_black"))
    )
    console.print(_both(pair))


def _both(pair: DecisionPair, only: Sequence[str] = ()) -> Table:
    table = _table("", expand=True)
    told = [_told(decision, pair.objectives[place]) for place, decision in enumerate((pair.one, pair.other))]
    for label in dict.fromkeys((*told[0], *told[1])):
        if not only or label in only:
            table.add_row(label, told[0].get(label, "-"), told[1].get(label, "-"))
    return table


def _told(decision: Decision | None, objective: float | None) -> dict[str, str]:
    """Return what was seen, proposed, allowed and done, by label."""
    if decision is None:
        return {"decided": "nothing"}
    asked = f"question {decision.question}" if decision.question is not None else f"the {decision.source}"
    told = {"decided": f"#{decision.number}, {asked}", "objective": number(objective)}
    found = [f"{s.name} in {clean(s.signal, 80)}: {_evidence(decision, place)}" for place, s in enumerate(decision.symptoms)]
    told["found"] = "\n".join(found) or "nothing"
    if decision.proposal is not None:
        by = "" if decision.proposal.by == "manager" else f" (by {decision.proposal.by})"
        told["proposed"] = clean(decision.proposal.action, 300) + by
        told["reason"] = clean(decision.proposal.reason, 300) or "-"
    if decision.verdicts:
        last = decision.verdicts[-1]
        told["verdict"] = "accepted" if last.accepted else f"rejected: {reasons_against(last.reasons)}"
    told["ending"] = ENDINGS[decision.ending]
    if decision.applied_step is not None:
        told["ending"] = f"applied at step {decision.applied_step} as intervention {decision.intervention}"
    if decision.changes:
        changed = (f"{clean(one.control, 80)} {number(one.before)} → {number(one.after)}" for one in decision.changes)
        told["changed"] = "\n".join(changed)
    return told


def _evidence(decision: Decision, place: int) -> str:
    return ", ".join(f"{clean(item.name, 60)} {number(item.value)}" for item in decision.symptoms[place].evidence)


def _print_later(console: Console, pairs: Sequence[DecisionPair], *, every: bool) -> None:
    if not pairs:
        return
    if not every:
        told = (
            "1 later decision differs too; see it"
            if len(pairs) == 1
            else f"{len(pairs)} later decisions differ too; all of them"
        )
        console.print(Text(f"{told} with --all", "bright_black"))
        return
    console.print(Text("\nLater decisions that differ", "bold"))
    table = _table("step")
    for pair in pairs:
        table.add_row(str(pair.step), _in_short(pair.one), _in_short(pair.other))
    console.print(table)


def _in_short(decision: Decision | None) -> str:
    if decision is None:
        return "-"
    parts = [clean(decision.proposal.action, 200)] if decision.proposal is not None else []
    ending = ENDINGS[decision.ending]
    return f"{decision.source}: {' · '.join([*parts, ending] if parts != [ending] else parts)}"


def _print_recipes(console: Console, parting: Parting, *, every: bool) -> None:
    shown = parting.recipes if every else parting.recipes[:_MOST_LISTED]
    table = _table("recipe after steps")
    for one in shown:
        table.add_row(_stretch(one, parting), number(one.one), number(one.other))
    console.print()
    console.print(table)
    _more(console, len(parting.recipes) - len(shown))


def _stretch(one: RecipeStretch, parting: Parting) -> str:
    last = parting.last_step if one.last_step is None else one.last_step
    return f"{clean(one.control, 80)} {one.first_step} to {last}"


def _print_chart(console: Console, parting: Parting) -> None:
    objectives = [seen.timeline.summary.objective for seen in parting.runs]
    curves = [
        Curve(
            f"{side} {clean(seen.timeline.summary.run, 40)}", [(point.step, point.value) for point in seen.timeline.evaluations]
        )
        for side, seen in zip(_SIDES, parting.runs, strict=True)
    ]
    if objectives[0] != objectives[1]:
        console.print(Text("\nThe runs have different objectives: their curves are not comparable.", "yellow"))
    elif max(len(curve.points) for curve in curves) >= 3:
        signal = objectives[0].partition(" ")[2]
        mark = [Mark(parting.decisions[0].step, "they part", "adjust", 1)] if parting.decisions else []
        where = ", and the first decision that differs" if mark else ""
        console.print(Text(f"\n{clean(signal, 80)}{where}", "bold"))
        console.print(chart(curves, mark, console.width, 10))


def _outcomes(parting: Parting, named: tuple[_Named, _Named]) -> Table:
    table = _table("")
    sides = [dict(_outcome(seen, of)) for seen, of in zip(parting.runs, named, strict=True)]
    for label in sides[0]:
        table.add_row(label, sides[0][label], sides[1][label])
    return table


def _outcome(seen: Seen, of: _Named) -> Iterator[tuple[str, str]]:
    summary, totals = seen.timeline.summary, seen.totals
    yield "steps", f"{summary.steps} · {of.status(seen)}"
    yield "objective", clean(summary.objective, 100)
    for label, point in (("first", summary.first), ("best", summary.best), ("last", summary.last)):
        yield label, _at(point)
    yield "evaluations", str(summary.num_evaluations)
    yield "questions", str(summary.num_questions)
    yield "interventions", ", ".join(filter(None, (str(summary.interventions), by_whom(summary))))
    yield "rejections", str(summary.rejections)
    yield "problems", str(len(summary.problems))
    yield "spent", f"{counted(totals.calls, 'call')} · {used(totals)}" if totals.calls else "nothing"


def _at(point: Point | None) -> str:
    return "-" if point is None else f"{number(point.value)} at step {point.step}"


def _more(console: Console, count: int) -> None:
    if count > 0:
        console.print(Text(f"and {count} more; all of them with --all", "bright_black"))


def _table(first: str, *, expand: bool = False) -> Table:
    table = Table(box=None, pad_edge=True, padding=(0, 2, 0, 0), header_style="bold", expand=expand)
    table.add_column(first, style="bright_black", overflow="fold", min_width=9)
    for side, style in zip(_SIDES, _SIDE_STYLES, strict=True):
        table.add_column(side, header_style=f"bold {style}", overflow="fold", ratio=1)
    return table
