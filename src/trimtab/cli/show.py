"""`trimtab show`: what was found, proposed, allowed, done and measured in a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimtab.cli.run_reading import CUT_OFF, Account, find_run, read_account
from trimtab.cli.terminal import STATUS_STYLES, chart, clean, counted, make_console, number, print_json
from trimtab.decision.consultation import Consultation
from trimtab.ledger.record import TrialOutcome
from trimtab.report.account import Decision, Ending, Point, Proposed, RunSummary, Timeline
from trimtab.report.marks import marks_of, trials_of
from trimtab.report.safeguard_words import Tone, by_whom, canary_words, guard_words, harm_rows, trial_ending, tried_words
from trimtab.report.scale import Curve
from trimtab.report.words import ENDINGS, expected, follows, resume_command, used
from trimtab.verification.verdict import Rejection

_STYLES: Final[dict[Ending, str]] = {
    "applied": "green",
    "shadow": "cyan",
    "not_better": "yellow",
    "no_action": "bright_black",
    "rejected": "yellow",
    "manager_failed": "yellow",
    "dropped": "yellow",
    "failed": "red",
    "unanswered": "bright_black",
    "open": "cyan",
}
_TRIED: Final[dict[TrialOutcome | None, str]] = {"won": "green", "lost": "yellow", "abandoned": "bright_black", None: "cyan"}
_TONES: Final[dict[Tone, str]] = {"bad": "red", "warn": "yellow", "": ""}
_SEVERITIES: Final = {"critical": "red", "warning": "yellow", "notice": "bright_black"}
_MOST_LISTED: Final = 10


def show(
    run: Annotated[Path, typer.Argument(help="Run directory, or the name of one under ./runs.")],
    every: Annotated[bool, typer.Option("--all", help="Show each no_action and problem too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show a run's decisions: symptoms, proposals, verdicts, changes and what came of them."""
    directory = find_run(run)
    account = read_account(directory)
    go_on = resume_command(str(directory.path)) if account.status == CUT_OFF else None
    if as_json:
        beside = {"torn_bytes": account.torn_bytes, "is_live": account.is_live, "status": account.status, "go_on": go_on}
        print_json({**account.timeline.as_json(), **beside})
        return
    console = make_console()
    print_account(console, account, every=every)
    if go_on is not None:
        console.print(Text(f"\nThe run was {CUT_OFF}: go on with {go_on}", "yellow"))


def print_account(console: Console, account: Account, *, every: bool) -> None:
    """Print the account of a run; without ``every``, questions in a row that changed nothing are one line."""
    timeline = account.timeline
    signal = timeline.summary.objective.partition(" ")[2]
    _print_summary(console, timeline.summary, account.status)
    _print_chart(console, timeline)
    for group in ([one] for one in timeline.decisions) if every else timeline.grouped():
        console.print()
        if len(group) > 1:
            console.print(_held(group))
        else:
            _print_decision(console, group[0], signal)
    if not timeline.decisions:
        console.print(Text("\nNo decision yet.", "bright_black"))
    _print_problems(console, timeline.summary, every=every)
    if account.torn_bytes:
        why = "it is being written" if account.is_live else "whoever wrote it was cut off"
        unfinished = f"\nThe ledger's last line is unfinished ({counted(account.torn_bytes, 'byte')}): {why}."
        console.print(Text(unfinished, "yellow"))


def _print_summary(console: Console, summary: RunSummary, status: str) -> None:
    because = f": {clean(summary.ended_because, 200)}" if summary.ended_because else ""
    ended, style = f"{status}{because}", STATUS_STYLES[status]
    console.print(Text.assemble((clean(summary.run, 200), "bold"), f" · {clean(summary.manager, 100)} · ", (ended, style)))
    steps = f"{summary.steps} of {summary.total_steps}" if summary.total_steps else str(summary.steps)
    rows = _rows()
    rows.add_row("steps", f"{steps} · {counted(summary.num_evaluations, 'evaluation')} · "
                          f"{counted(summary.num_questions, 'question')}")  # fmt: skip
    rows.add_row("objective", Text(f"{clean(summary.objective, 100)} · {_objectives(summary)}"))
    shadow = f" · {summary.shadow_interventions} that would have been applied" if summary.is_shadow else ""
    done = ", ".join(filter(None, (counted(summary.interventions, "intervention"), by_whom(summary))))
    rows.add_row("changes", f"{done}{shadow} · {counted(summary.rejections, 'rejection')}")
    if summary.canary != "none":
        rows.add_row("canary", Text(clean(" · ".join(canary_words(summary)))))
    if summary.is_guarded:
        is_news = summary.taken_back or summary.harm_stays or summary.held_since is not None
        rows.add_row("guard", Text(" · ".join(guard_words(summary)), "yellow" if is_news else ""))
    rows.add_row("recipe", _recipe(summary))
    if summary.is_shadow:
        rows.add_row("shadow", Text("the manager's proposals are judged and recorded; none is applied", "cyan"))
    if summary.origin is not None:
        rows.add_row("repeats", Text(follows(summary.origin)))
    if summary.resumed_after:
        rows.add_row("resumed", f"after step {', '.join(map(str, summary.resumed_after[-10:]))}")
    for note in summary.notes:
        rows.add_row("note", Text(clean(note), "yellow"))
    console.print(rows)


def _objectives(summary: RunSummary) -> str:
    points = (("first", summary.first), ("best", summary.best), ("last", summary.last))
    return " · ".join(f"{name} {_at(point)}" for name, point in points if point) or "not evaluated yet"


def _at(point: Point) -> str:
    return f"{number(point.value)} at step {point.step}"


def _recipe(summary: RunSummary) -> Text:
    text = Text()
    for name, now in summary.recipe_now.items():
        start = summary.recipe_start.get(name)
        text.append(" · " if text else "")
        text.append(f"{clean(name, 80)} ")
        text.append(number(now) if start == now else f"{number(start)} → {number(now)}", "" if start == now else "bold")
    return text or Text("no controls")


def _print_chart(console: Console, timeline: Timeline) -> None:
    if len(timeline.evaluations) < 3:
        return
    signal = timeline.summary.objective.partition(" ")[2]
    curve = Curve(clean(signal, 40), [(point.step, point.value) for point in timeline.evaluations])
    trials = trials_of(timeline.decisions, timeline.summary.steps)
    console.print()
    console.print(chart([curve], marks_of(timeline.decisions), console.width, 8, trials, has_key=True))


def _held(group: Sequence[Decision]) -> Text:
    steps = f"steps {group[0].step} to {group[-1].step}"
    said = clean(group[-1].detail, 300)
    by_rules = sum(decision.proposal is not None and decision.proposal.by == "rules" for decision in group)
    return Text.assemble(
        (f"#{group[0].number}-{group[-1].number}  {steps} · {len(group)} questions · no action", "bright_black"),
        (f" · the manager failed at {by_rules} of them, and rules answered" if by_rules else "", "yellow"),
        (f" · last: {said}" if said else "", "bright_black"),
    )


def _print_decision(console: Console, decision: Decision, signal: str) -> None:
    words, style = trial_ending(decision) or ENDINGS[decision.ending], _STYLES[decision.ending]
    if decision.ending == "applied":
        words = f"applied at step {decision.applied_step} as intervention {decision.intervention}"
        if decision.taken_back is not None:
            words, style = f"{words}, taken back at step {decision.taken_back.step}", "yellow"
    elif decision.ending == "shadow":
        words = f"would have been applied at step {decision.verdicts[-1].step} (shadow)"
    title = f" step {decision.step} · {decision.source} · "
    console.print(Text.assemble((f"#{decision.number} ", "bold"), title, (words, style)))
    rows = _rows()
    for label, text in _told(decision, signal):
        rows.add_row(label, text)
    if rows.row_count:
        console.print(rows)


def _told(decision: Decision, signal: str) -> Iterator[tuple[str, Text]]:
    for symptom in decision.symptoms:
        evidence = ", ".join(f"{clean(item.name, 60)} {number(item.value)}" for item in symptom.evidence)
        name = (f"{symptom.name} in {clean(symptom.signal, 80)}", _SEVERITIES[symptom.severity])
        yield "found", Text.assemble(name, f": {evidence}" if evidence else "")
    if decision.proposal is not None:
        yield from _told_proposal(decision.proposal)
        if decision.proposal.objection and not decision.verdicts:  # the verdict will name it
            yield "objected", Text(clean(decision.proposal.objection), "yellow")
    if decision.consultation is not None:
        yield "asked", Text(_consulted(decision.consultation, decision.proposal), "bright_black")
    for judged in decision.verdicts:
        if not judged.accepted:
            yield "rejected", Text(f"{clean(judged.action, 200)}: {reasons_against(judged.reasons)}", "yellow")
    if decision.tried is not None:
        yield "tried", Text(tried_words(decision.tried), _TRIED[decision.tried.outcome])
    if decision.changes:
        changed = (f"{clean(c.control, 80)} {number(c.before)} → {number(c.after)}" for c in decision.changes)
        # After a failure it is what was found in force, which may be somebody else's doing.
        is_done = decision.ending != "failed"
        yield "changed" if is_done else "in force", Text(" · ".join(changed), "green" if is_done else "yellow")
    for result in decision.read_back:
        if not result.holds:
            found = f"expected {number(result.expected)} in effect, found {number(result.observed)}"
            yield "read back", Text(f"{clean(result.control, 80)}: {found}", "red")
    if decision.read_back and all(result.holds for result in decision.read_back):
        yield "read back", Text("in effect at the next step")
    if decision.outcome is not None:
        yield "outcome", _outcome(decision)
    for label, words, tone in harm_rows(decision, signal):
        yield label, Text(words, _TONES[tone])
    if decision.detail and decision.ending not in ("rejected", "no_action"):
        yield "because", Text(clean(decision.detail), "yellow")


def _told_proposal(proposal: Proposed) -> Iterator[tuple[str, Text]]:
    if proposal.by != "manager":
        why = f": {clean(proposal.failure, 500)}" if proposal.failure else ""
        yield "answered", Text(f"the manager failed{why}; {proposal.by} answered", "yellow")
    yield "proposed", Text(clean(proposal.action, 300), "bold" if proposal.kind != "no_action" else "")
    if proposal.reason:
        yield "reason", Text(clean(proposal.reason))
    if proposal.expectation is not None:
        yield "expected", Text(expected(proposal.expectation))
    if proposal.approved_by:
        yield "approved", Text(f"by {clean(proposal.approved_by, 200)}", "green")


def reasons_against(reasons: Sequence[Rejection]) -> str:
    """Return why an action was rejected, constraint by constraint."""
    return "; ".join(f"{clean(reason.constraint, 60)}: {clean(reason.detail, 300)}" for reason in reasons)


def _consulted(taken: Consultation, proposal: Proposed | None) -> str:
    latency = proposal.latency_seconds if proposal is not None and proposal.by == "manager" else None
    seconds = f" · {latency:.1f} s" if latency is not None else ""
    return f"{clean(taken.model, 100)} · {counted(taken.calls, 'call')} · {used(taken)}{seconds}"


def _outcome(decision: Decision) -> Text:
    outcome = decision.outcome
    assert outcome is not None
    after = counted(outcome.num_evaluations, "evaluation")
    text = Text("not measured")
    if outcome.objective_after is not None:
        text = Text(f"{number(outcome.objective_before)} → {number(outcome.objective_after)} after {after}")
    if outcome.gain is not None:
        text.append(f" · gain {outcome.gain:+.4g}", "green" if outcome.gain > 0 else "red" if outcome.gain < 0 else "")
    if decision.taken_back is not None:
        text.append(" · taken back", "yellow")
    elif outcome.met is not None:
        how = "as expected" if outcome.met else "not as expected"
        text.append(f" · {how}", "green" if outcome.met else "red")
    elif not outcome.is_complete:
        text.append(" · still measuring", "cyan")
    return text


def _print_problems(console: Console, summary: RunSummary, *, every: bool) -> None:
    if not summary.problems:
        return
    listed = summary.problems if every else summary.problems[-_MOST_LISTED:]
    console.print(Text(f"\n{counted(len(summary.problems), 'problem')}", "bold red"))
    for problem in listed:
        console.print(Text(f"  step {problem.step}: {clean(problem.problem, 200)}: {clean(problem.detail, 500)}"))
    if len(listed) < len(summary.problems):
        console.print(Text(f"  the last {len(listed)} of them; the others with --all", "bright_black"))


def _rows() -> Table:
    rows = Table.grid(padding=(0, 2), pad_edge=True)
    rows.add_column(style="bright_black", no_wrap=True, min_width=9)
    rows.add_column(overflow="fold")
    return rows
