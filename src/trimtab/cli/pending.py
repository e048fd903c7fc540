"""`trimtab pending`: the questions that wait for a person or an agent.

Exit codes: 0 a question is open; 1 none is; 2 an error; 3 the run has ended, so there will be none.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimtab.cli.action_words import factor, shown
from trimtab.cli.run_reading import find_run, runs_under
from trimtab.cli.terminal import clean, make_console, number, print_error, print_json
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.action import Action, Adjust, Change, NoAction, Rollback, SkipBatches, Stop, describe
from trimtab.decision.briefing import Briefing
from trimtab.decision.llm.detail import FULL
from trimtab.decision.llm.render import brief
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.decision.surface import Options
from trimtab.decision.wire import encode_proposal
from trimtab.errors import UsageError
from trimtab.runtime.exchange_form import OpenQuestion, answer_name, encode_question, waiting_question
from trimtab.runtime.run_dir import RUNS, RunDirectory

_LOOK_EVERY_SECONDS: Final = 0.25
_TAIL_BYTES: Final = 65_536
_MAX_WAIT_SECONDS: Final = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run and its open question."""

    directory: RunDirectory
    question: OpenQuestion

    def as_json(self) -> dict[str, Any]:
        """Return what an agent needs in order to answer."""
        return {
            "run_dir": str(self.directory.path),
            "answer_file": str(self.directory.exchange.absolute() / answer_name(self.question.number)),
            "answers": answers(self.question),
            "exchange": encode_question(self.question),
        }


def pending(
    run: Annotated[
        Path | None, typer.Argument(help="Run directory, or the name of one under ./runs; by default all of these.")
    ] = None,
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="Wait so long for a question.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the open question of a run, and how to answer it; exit with 1 if there is none, with 3 if the run has ended."""
    if not 0 <= wait <= _MAX_WAIT_SECONDS:
        raise UsageError("the time to wait is out of range", received=wait, allowed=f"0 to {_MAX_WAIT_SECONDS} seconds")
    directory = None if run is None else find_run(run)
    end = time.monotonic() + wait
    while True:
        found, problems = _look(directory)
        is_over = directory is not None and not found and has_ended(directory)
        left = end - time.monotonic()
        if found or is_over or left <= 0:
            break
        time.sleep(min(left, _LOOK_EVERY_SECONDS))
    for problem in problems:
        print_error(problem)
    _print(found, as_json=as_json, is_over=is_over)
    raise typer.Exit(0 if found else 2 if problems else 3 if is_over else 1)


def is_waiting(question: OpenQuestion) -> bool:
    """Return whether the question's time is not over yet, as far as this machine's clock says."""
    return time.time() <= question.answer_by_seconds


def has_ended(directory: RunDirectory) -> bool:
    """Return whether the last whole line of a run's ledger says that it was closed."""
    try:
        with directory.ledger.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().split(b"\n")
        return json.loads(lines[-2])["record"]["kind"] == "run_ended"
    except (OSError, ValueError, LookupError, TypeError):  # the last line is longer, or damaged: not one that ends a run
        return False


def answers(question: OpenQuestion) -> list[dict[str, Any]]:
    """Return an answer of each kind that is possible, as it may be handed in."""
    if question.proposal is not None:
        return [{"approve": True, "reason": "why", "by": "who"}, {"approve": False, "reason": "why", "by": "who"}]
    proposals = [_example(action) for action in _actions(question.asked.briefing)]
    return [{**encode_proposal(proposal), "by": "who"} for proposal in proposals]


def _look(directory: RunDirectory | None) -> tuple[list[Waiting], list[UsageError]]:
    directories = [directory] if directory is not None else [RunDirectory(path) for path in runs_under(RUNS)]
    found: list[Waiting] = []
    problems: list[UsageError] = []
    for one in directories:
        try:
            question = waiting_question(one.exchange)
        except UsageError as error:
            problems.append(error)
            continue
        if question is not None and is_waiting(question):
            found.append(Waiting(one, question))
    return found, problems


def _print(found: list[Waiting], *, as_json: bool, is_over: bool) -> None:
    if as_json:
        print_json({"questions": [waiting.as_json() for waiting in found]})
        return
    console = make_console()
    if not found:
        console.print(Text("The run has ended." if is_over else "No question is open."))
    for place, waiting in enumerate(found):
        if place:
            console.rule(style="bright_black")
        print_question(console, waiting)


def print_question(console: Console, waiting: Waiting) -> None:
    """Print a question: how the run stands, what can be done, and how to answer."""
    question = waiting.question
    briefing = question.asked.briefing
    wanted = "wants a proposal" if question.proposal is None else "wants an approval"
    run = clean(question.run, 200)
    console.print(Text.assemble((run, "bold"), f" · question {question.number} {wanted} · {_until(question)}"))
    sections = brief(briefing, ManagerSettings(show_reasons=True), FULL).sections[:-1]  # the last offers labels, not values
    for section in sections:
        console.print(Text(f"\n{section.title}", "bold"))
        for line in section.body:
            console.print(Text(f"  {line}"), soft_wrap=True)
    if question.proposal is None:
        console.print(Text("\nExecutable", "bold"))
        console.print(_executable(briefing))
    else:
        console.print(Text("\nProposed", "bold"))
        console.print(_proposed(question.proposal))
    console.print(Text("\nAnswer with", "bold"))
    for line in commands(waiting):
        console.print(Text(f"  {line}"), soft_wrap=True)
    if question.default is not None:
        verb = "approved" if question.default == "approve" else "rejected"
        console.print(Text(f"If nobody answers, it is {verb}.", "yellow"))


def commands(waiting: Waiting) -> list[str]:
    """Return the command lines that answer a question."""
    begin = f"trimtab decide {clean(shlex.quote(str(waiting.directory.path)))} --question {waiting.question.number}"
    if waiting.question.proposal is not None:
        return [f"{begin} approve", f'{begin} reject --reason "..."']
    return [f'{begin} {_words(action)} --reason "..."' for action in _actions(waiting.question.asked.briefing)]


def _until(question: OpenQuestion) -> str:
    at = datetime.fromtimestamp(question.answer_by_seconds).astimezone()
    left = question.answer_by_seconds - time.time()
    step = question.asked.briefing.timing.stale_after_step
    return f"open until {at:%H:%M:%S} ({number(round(left, 1))} s left), at most until step {step}"


def _executable(briefing: Briefing) -> Table:
    table = Table(box=None, pad_edge=True, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    table.add_row("no_action", "leave the run as it is")
    surface, present = briefing.surface, dict(briefing.recipe.values)
    for option in surface.adjustable:
        now = present.get(option.control, 0.0)
        values = "  ".join(f"{shown(value)} {_in_brackets(factor(value, now))}".rstrip() for value in option.values)
        table.add_row("adjust", Text(f"{clean(option.control, 80)}, now {shown(now)}: {values}"))
    for rollback in surface.rollbacks:
        best = ", the best" if rollback.is_best else ""
        said = f"{clean(rollback.checkpoint, 80)}: {number(rollback.objective)} at step {rollback.step}{best}"
        then = "; ".join(_after(option) for option in rollback.adjustable)
        table.add_row("rollback", Text(said))
        if then:
            table.add_row("  and adjust", Text(then, "bright_black"))
    if surface.max_skip:
        table.add_row("skip_batches", f"1 to {surface.max_skip}")
    if surface.may_stop:
        table.add_row("stop", "ask the training loop to end")
    if surface.adjustable:
        table.add_row("", Text(f"at most {surface.max_controls} controls at once", "bright_black"))
    return table


def _in_brackets(text: str) -> str:
    return f"({text})" if text else ""


def _after(option: Options) -> str:
    return f"{clean(option.control, 80)}: {'  '.join(map(shown, option.values))}"


def _proposed(proposal: Proposal) -> Table:
    rows = Table.grid(padding=(0, 2), pad_edge=True)
    rows.add_column(style="bright_black", no_wrap=True)
    rows.add_column(overflow="fold")
    rows.add_row("action", Text(clean(describe(proposal.action), 300), "bold"))
    rows.add_row("reason", Text(clean(proposal.reason)))
    if proposal.expectation is not None:
        gain, within = proposal.expectation.gain, proposal.expectation.within_evaluations
        rows.add_row("expected", f"a gain of {number(gain)} within {within} evaluations")
    return rows


def _actions(briefing: Briefing) -> Iterator[Action]:
    """Yield one executable action of each kind."""
    surface = briefing.surface
    yield NoAction()
    if surface.adjustable and surface.max_controls:
        yield Adjust((Change(surface.adjustable[0].control, surface.adjustable[0].values[0]),))
    best = next((option for option in surface.rollbacks if option.is_best), None)
    if best is not None:
        yield Rollback(best.checkpoint)
    if surface.max_skip:
        yield SkipBatches(1)
    if surface.may_stop:
        yield Stop()


def _example(action: Action) -> Proposal:
    acts = not isinstance(action, (NoAction, Stop))
    return Proposal(action, "why", Expectation(0.0, 2) if acts else None)


def _words(action: Action) -> str:
    match action:
        case Adjust():
            return " ".join(["adjust", *(f"{clean(c.control, 80)}={shown(c.value)}" for c in action.changes)])
        case Rollback():
            return f"rollback {clean(action.checkpoint, 80)}"
        case SkipBatches():
            return f"skip_batches {action.count}"
        case _:
            return action.kind
