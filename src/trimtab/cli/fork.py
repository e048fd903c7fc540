"""`trimtab fork`: the same run with one decision left out or changed, and what that decision was worth."""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimtab.bench.scoring import Effect, few_paired_effect
from trimtab.cli.action_words import read_action
from trimtab.cli.repeating import compare_runs, hash_interval, repeat
from trimtab.cli.replay import print_sameness
from trimtab.cli.run import refuse_running, require_command, tell_changes
from trimtab.cli.run_reading import find_run, read_account
from trimtab.cli.terminal import clean, make_console, number, print_json, print_note
from trimtab.controls.envelope import Objective
from trimtab.decision.action import Action, NoAction, Stop, describe
from trimtab.decision.proposal import Expectation, Proposal, hold
from trimtab.errors import UsageError
from trimtab.ledger.course import iter_course
from trimtab.ledger.record import EvaluationRecorded, Origin, Record, RunStarted
from trimtab.report.account import json_ready
from trimtab.report.sameness import Sameness
from trimtab.runtime.answer import Answer
from trimtab.runtime.branching import Answered, Base, find_answered, find_base, head_of
from trimtab.runtime.command import Command
from trimtab.runtime.repetition import Repetition
from trimtab.runtime.run_dir import RunDirectory, next_free

_MOST_SEEDS: Final = 1000
_COPY: Final = "copy"  # of the run, as it was when the decision was asked for


@dataclass(frozen=True, slots=True)
class Result:
    """What one branch came to after the decision.

    Args:
        last: The objective at its last evaluation; None if there was none, or it is not finite.
        best: The best since the decision.
    """

    last: float | None
    best: float | None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two branches that differ in one answer, with the same random numbers from it on; seed 0 has those of the run."""

    seed: int
    control: Result
    treated: Result


@dataclass(frozen=True, slots=True)
class _Fork:
    """What is forked, and into what."""

    source: RunDirectory
    command: Command
    base: Base
    answered: Answered
    treatment: str
    instead: Proposal
    folder: Path
    is_offline: bool

    def branch(self, name: str, seed: int, instead: Proposal | None) -> RunDirectory:
        """Run one branch and return its directory; the first one keeps a copy that the others begin from."""
        change = self.treatment if instead is not None else ""
        asked = self.answered.asked
        origin = Origin("branch", self.source.path.name, head_of(self.source.ledger), asked.question, change, seed)
        target, copy = RunDirectory(self.folder / f"{name}-{seed}"), RunDirectory(self.folder / _COPY)
        is_first = instead is None and not seed
        repetition = Repetition(self.source.ledger, origin, asked.step, instead, copy.path if is_first else None)
        has_copy = not is_first and copy.ledger.exists()
        repeat(
            copy if has_copy else self.source,
            target,
            self.command,
            find_base(copy, asked.step) if has_copy else self.base,
            repetition,
            hash_every_steps=hash_interval(self.source) if is_first else 0,
            is_offline=self.is_offline,
        )
        return target


def fork(
    run: Annotated[Path, typer.Argument(help="Run directory, or the name of one under ./runs.")],
    at: Annotated[int, typer.Option("--at", metavar="DECISION", help="Its number, as trimtab show tells it.")],
    without: Annotated[bool, typer.Option("--without", help="Answer it with no_action.")] = False,
    instead: Annotated[str, typer.Option("--with", metavar="ACTION", help='Such as "dropout=0.3" or "rollback STEP".')] = "",
    seeds: Annotated[int, typer.Option(min=1, max=_MOST_SEEDS, help="Pairs of branches; the first has the run's own.")] = 1,
    output: Annotated[Path | None, typer.Option(help="Folder of the branches; by default beside the run.")] = None,
    allow_network: Annotated[bool, typer.Option("--allow-network", help="Let the script reach the network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Repeat a run with one decision left out or changed, over seeds, and say what that decision was worth.

    All other answers are those of the record, so a pair of branches differs in one answer and what follows from it. Exits
    with 1 if the first branch, in which nothing is changed, does not reproduce the run.
    """
    if without == bool(instead):
        raise UsageError("say what happens in place of the decision", allowed='either --without or --with "ACTION"')
    source = find_run(run)
    refuse_running(source)
    command = require_command(source)
    answered = find_answered(source, _question(source, at))
    proposal = _proposal(instead, answered)
    folder = output or next_free(source.path.parent, f"{source.path.name}-fork")
    if folder.exists():
        raise UsageError("the folder of the branches exists already", received=str(folder), next_step="name a new one")
    base = find_base(source, answered.asked.step)
    treatment = describe(proposal.action)
    tell_changes(command)
    whole = _Fork(source, command, base, answered, treatment, proposal, folder, not allow_network)
    print_note(f"Forking {clean(source.path.name, 100)} after step {base.step} into {2 * seeds} branches ...")
    try:
        pairs, sameness = _run_pairs(whole, seeds)
    finally:
        shutil.rmtree(folder / _COPY, ignore_errors=True)
    effects = {name: _effect(pairs, name) for name in ("last", "best")}
    objective = _started(source.ledger).envelope.objective
    if as_json:
        print_json(_as_json(whole, objective, pairs, effects, sameness))
    else:
        _print(make_console(), whole, objective, pairs, effects, sameness)
    raise typer.Exit(0 if sameness.is_exact else 1)


def _question(source: RunDirectory, at: int) -> int:
    """Return the question of a decision, by the number that `trimtab show` gives it.

    Raises:
        UsageError: There is no such decision, or it is none of the manager's.
    """
    decisions = {decision.number: decision for decision in read_account(source).timeline.decisions}
    see = f"trimtab show {shlex.quote(str(source.path))} --all"
    if at not in decisions:
        known = f"1 to {max(decisions)}" if decisions else "none: nothing was decided in this run"
        raise UsageError("the run has no such decision", received=at, allowed=known, next_step=f"list them with: {see}")
    question = decisions[at].question
    if question is None:
        received = f"#{at}, by the {decisions[at].source} at step {decisions[at].step}"
        raise UsageError("only a manager's decision can be changed", received=received, next_step=f"choose another of: {see}")
    return question


def _proposal(words: str, answered: Answered) -> Proposal:
    asked, outcome = answered.asked, answered.answer.outcome
    parts = shlex.split(words) if words else ["no_action"]
    parts = ["adjust", *parts] if "=" in parts[0] else parts
    try:
        action: Action = read_action(parts, asked.briefing)
    except UsageError as error:
        see = f"what was executable then: trimtab prompt RUN --decision {asked.question}"
        raise UsageError(error.what, received=error.received, allowed=error.allowed, next_step=see) from error
    was = outcome.proposal.action if isinstance(outcome, Answer) else NoAction()
    if action == was:
        raise UsageError("that is what was answered, so nothing would change", received=describe(action))
    if isinstance(action, NoAction):
        return hold("left out by a fork")
    is_idle = isinstance(action, Stop)
    return Proposal(action, "changed by a fork", None if is_idle else Expectation(0.0, 2))


def _run_pairs(whole: _Fork, seeds: int) -> tuple[list[Pair], Sameness]:
    pairs: list[Pair] = []
    sameness: Sameness | None = None
    objective = _started(whole.source.ledger).envelope.objective
    for seed in range(seeds):
        control = whole.branch("control", seed, None)
        sameness = sameness or compare_runs(whole.source, control)
        treated = whole.branch("treated", seed, whole.instead)
        since = whole.answered.asked.step
        pair = Pair(seed, _result(control, objective, since), _result(treated, objective, since))
        pairs.append(pair)
        print_note(f"  seed {seed}: {number(pair.control.last)} as it was, {number(pair.treated.last)} instead")
    assert sameness is not None
    return pairs, sameness


def _result(branch: RunDirectory, objective: Objective, since: int) -> Result:
    records: Iterable[Record] = (entry.record for entry in iter_course(branch.ledger))
    values = [record.objective for record in records if isinstance(record, EvaluationRecorded) and record.step > since]
    finite = [value for value in values if math.isfinite(value)]
    best = (min if objective.direction == "minimize" else max)(finite, default=None)
    return Result(values[-1] if values and math.isfinite(values[-1]) else None, best)


def _effect(pairs: list[Pair], name: str) -> Effect | None:
    """Return treated minus control; None if a branch has no result."""
    control = [getattr(pair.control, name) for pair in pairs]
    treated = [getattr(pair.treated, name) for pair in pairs]
    return None if None in control or None in treated else few_paired_effect(treated, control)


def _started(ledger: Path) -> RunStarted:
    record = next(iter(iter_course(ledger))).record
    assert isinstance(record, RunStarted)  # a ledger that can be read begins with it
    return record


def _print(
    console: Console,
    whole: _Fork,
    objective: Objective,
    pairs: list[Pair],
    effects: dict[str, Effect | None],
    sameness: Sameness,
) -> None:
    asked = whole.answered.asked
    was = whole.answered.answer.outcome
    before = describe(was.proposal.action) if isinstance(was, Answer) else f"no answer ({was.problem})"
    console.print(Text.assemble(("decision ", "bold"), f"{asked.question}, asked after step {asked.step}"))
    console.print(Text(f"  as it was: {clean(before, 200)}"))
    console.print(Text(f"  instead:   {clean(whole.treatment, 200)}"))
    console.print(Text("The branch in which nothing is changed:"))
    print_sameness(sameness, [])
    if not sameness.is_exact:
        console.print(Text("So part of what follows is not the decision's doing.", "yellow"))
    console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("seed", "as it was", "instead", "best as it was", "best instead"):
        table.add_column(heading, justify="right")
    for pair in pairs:
        values = (pair.control.last, pair.treated.last, pair.control.best, pair.treated.best)
        table.add_row(str(pair.seed), *map(number, values))
    console.print(Text(f"{clean(str(objective), 100)}, at the last evaluation and at the best since the decision"))
    console.print(table)
    for name, words in (("last", "at the end"), ("best", "at the best")):
        console.print(_said(effects[name], words, objective, pairs))
    console.print(Text(f"The branches: {clean(str(whole.folder))}", "bright_black"), soft_wrap=True)


def _said(effect: Effect | None, words: str, objective: Objective, pairs: list[Pair]) -> Text:
    if effect is None:
        return Text(f"{words}: a branch has no finite result, so there is no effect to tell", "yellow")
    change = f"the other answer changes {clean(objective.signal, 80)} {words} by {effect.mean:+.4g}"
    if effect.num_pairs == 1:
        return Text(f"{change}: one seed, an anecdote", "yellow")
    if all(pair == Pair(pair.seed, pairs[0].control, pairs[0].treated) for pair in pairs):
        return Text(f"{change}, alike for every seed: nothing in this run is random, so it is one observation", "yellow")
    if not effect.mean and effect.low == effect.high:
        return Text(f"{words}: both answers came to the same {clean(objective.signal, 80)} for every seed", "yellow")
    verdict = "" if effect.excludes_zero else "; it may be nothing"
    return Text(f"{change} [{effect.low:+.4g}, {effect.high:+.4g}] (95%, {effect.num_pairs} seeds){verdict}")


def _as_json(
    whole: _Fork, objective: Objective, pairs: list[Pair], effects: dict[str, Effect | None], sameness: Sameness
) -> dict[str, Any]:
    asked = whole.answered.asked
    return {
        "decision": asked.question,
        "asked_step": asked.step,
        "instead": whole.treatment,
        "from_step": whole.base.step,
        "objective": str(objective),
        "control_is_exact": sameness.is_exact,
        "pairs": json_ready(pairs),
        "effects": json_ready(effects),
        "is_anecdote": len(pairs) == 1,
        "folder": str(whole.folder),
    }
