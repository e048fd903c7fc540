"""`trimtab scorecard`: what a manager proposed and expected, against what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimtab.cli.run_reading import find_run
from trimtab.cli.show import reasons_against
from trimtab.cli.terminal import STATUS_STYLES, clean, counted, make_console, number, print_json
from trimtab.ledger.course import iter_course
from trimtab.report.account import Decision
from trimtab.report.scorecard import Score, Scorecard, Totals, build_scorecard
from trimtab.report.without_action import NOISE_FACTOR, Judgement, Window
from trimtab.report.words import expected, used

_JUDGEMENTS: Final[dict[Judgement, tuple[str, str]]] = {
    "met": ("as expected", "green"),
    "not_met": ("not as expected", "red"),
    "not_needed": ("not needed", "green"),
    "perhaps_missed": ("perhaps missed", "red"),
    "open": ("open", "cyan"),
    "held_no_worse": ("held, no worse", "green"),
    "held_got_worse": ("held, got worse", "red"),
    "not_judged": ("not judged", "bright_black"),
}
_OF_ACTIONS: Final[tuple[Judgement, ...]] = ("met", "not_met", "not_needed", "open", "perhaps_missed", "not_judged")
_OF_HOLDING: Final[tuple[Judgement, ...]] = ("held_no_worse", "held_got_worse", "not_judged")


def scorecard(
    run: Annotated[Path, typer.Argument(help="Run directory, or the name of one under ./runs.")],
    every: Annotated[bool, typer.Option("--all", help="Show every question.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score a manager: what it proposed and expected, against what happened with or without it."""
    card = build_scorecard(entry.record for entry in iter_course(find_run(run).ledger))
    if as_json:
        print_json(card.as_json())
    else:
        print_scorecard(make_console(), card, every=every)


def print_scorecard(console: Console, card: Scorecard, *, every: bool) -> None:
    """Print a scorecard; without ``every``, questions in a row that tell the same are told once."""
    _print_head(console, card)
    for group in _groups(card.scores, every=every):
        console.print()
        if len(group) > 1 and _is_quiet(group[0]):
            console.print(_quiet(group))
        else:
            _print_score(console, group[0], group[1:])
    if not card.scores:
        console.print(Text("\nNo question yet." if card.summary.status == "not ended" else "\nNo question.", "bright_black"))
    console.print()
    for caution in card.cautions:
        console.print(Text(caution, "yellow"))


def _print_head(console: Console, card: Scorecard) -> None:
    summary, totals = card.summary, card.totals
    mode = ("in shadow", "cyan") if summary.is_shadow else ("at work", "green")
    title = (clean(summary.run, 200), "bold"), f" · {clean(summary.manager, 100)} · ", mode, " · "
    console.print(Text.assemble(*title, (summary.status, STATUS_STYLES[summary.status])))
    rows = _rows()
    told = "proposals are judged and recorded; none is applied" if summary.is_shadow else "what is accepted is applied"
    rows.add_row("mode", Text(told))
    rows.add_row("objective", Text(clean(summary.objective, 100)))
    rows.add_row("asked", Text(_asked(totals)))
    if totals.proposals:
        rows.add_row("verdicts", Text(_verdicts(totals, is_shadow=summary.is_shadow)))
        rows.add_row("actions", _judged([score for score in card.scores if not _is_holding(score)], _OF_ACTIONS))
    if totals.no_actions:
        rows.add_row("holding", _judged([score for score in card.scores if _is_holding(score)], _OF_HOLDING))
    if totals.hit_rate is not None:
        rows.add_row("hit rate", Text(f"{totals.hit_rate:.0%} of the measured interventions brought what was expected"))
    for label, text in _answering(totals):
        rows.add_row(label, text)
    console.print(rows)


def _asked(totals: Totals) -> str:
    parts = [counted(totals.questions, "question"), counted(totals.proposals, "proposal"), f"{totals.no_actions} no action"]
    if totals.fallback_answers:
        parts.append(f"{totals.fallback_answers} answered by rules instead")
    return " · ".join(parts)


def _verdicts(totals: Totals, *, is_shadow: bool) -> str:
    against = ", ".join(f"{clean(name, 60)} {count}" for name, count in sorted(totals.against.items()))
    accepted = "would have been accepted" if is_shadow else "accepted"
    return f"{totals.accepted} {accepted} · {totals.rejected} rejected" + (f" ({against})" if against else "")


def _judged(scores: Sequence[Score], listed: Sequence[Judgement]) -> Text:
    """Count the judgements of the manager's own answers."""
    text = Text()
    own = [score.judgement for score in scores if score.decision.proposal and score.decision.proposal.by == "manager"]
    for judgement in listed:
        if judgement in own:
            words, style = _JUDGEMENTS[judgement]
            text.append(" · " if text else "")
            text.append(f"{own.count(judgement)} {words}", style)
    return text or Text("none", "bright_black")


def _answering(totals: Totals) -> Iterator[tuple[str, Text]]:
    if totals.latency_median_seconds is not None:
        worst = totals.latency_worst_seconds or 0.0
        yield "latency", Text(f"median {totals.latency_median_seconds:.3g} s · worst {worst:.3g} s")
    if totals.failures:
        problems = ", ".join(f"{clean(name, 60)} {count}" for name, count in sorted(totals.failures.items()))
        yield "failures", Text(f"{sum(totals.failures.values())} ({problems})", "yellow")
    if totals.stale:
        yield (
            "stale",
            Text(f"{counted(totals.stale, 'answer')} too late to count, or to a run that had changed", "yellow"),
        )
    if totals.calls:
        yield "spent", Text(f"{counted(totals.calls, 'call')} · {used(totals)}")


def _is_holding(score: Score) -> bool:
    return score.decision.proposal is not None and score.decision.proposal.kind == "no_action"


def _is_quiet(score: Score) -> bool:
    """Return whether nothing was proposed, and nothing says that this was wrong."""
    return score.decision.proposal is None or (_is_holding(score) and score.judgement != "held_got_worse")


def _is_more_of(score: Score, first: Score) -> bool:
    """Return whether a question tells nothing that the one before has not told."""
    if _is_quiet(score) or _is_quiet(first):
        return _is_quiet(score) and _is_quiet(first)
    return _told_apart(score) == _told_apart(first)


def _told_apart(score: Score) -> tuple[object, ...]:
    proposal, verdicts = score.decision.proposal, score.decision.verdicts
    action = (proposal.by, proposal.action) if proposal is not None else ()
    return action, score.decision.ending, score.judgement, score.why, tuple(judged.reasons for judged in verdicts)


def _groups(scores: Sequence[Score], *, every: bool) -> Iterator[list[Score]]:
    group: list[Score] = []
    for score in scores:
        if group and (every or not _is_more_of(score, group[0])):
            yield group
            group = []
        group.append(score)
    if group:
        yield group


def _quiet(group: Sequence[Score]) -> Text:
    holding = [score for score in group if _is_holding(score)]
    unanswered = len(group) - len(holding)
    parts = [f"{len(holding)} no action"] if holding else []
    parts.extend([f"{unanswered} without an answer"] if unanswered else [])
    numbers = f"?{group[0].decision.question}-{group[-1].decision.question}"
    text = Text(f"{numbers}  steps {group[0].decision.step} to {group[-1].decision.step} · {' · '.join(parts)}", "bright_black")
    if holding:
        text.append(": ", "bright_black")
        given = [score.judgement for score in holding]
        listed: list[Judgement] = [judgement for judgement in _OF_HOLDING if judgement in given]
        for place, judgement in enumerate(listed):
            words, style = _JUDGEMENTS[judgement]
            text.append(", " if place else "", "bright_black")
            text.append(f"{given.count(judgement)} {words}", style)
    return text


def _print_score(console: Console, score: Score, more: Sequence[Score]) -> None:
    decision = score.decision
    title = (f"?{decision.question} ", "bold"), f" step {decision.step} · ", _became(decision), " · "
    console.print(Text.assemble(*title, _JUDGEMENTS[score.judgement]))
    rows = _rows()
    for label, text in _told(score):
        rows.add_row(label, text)
    if more:
        steps = (
            f"steps {more[0].decision.step} to {more[-1].decision.step}" if len(more) > 1 else f"step {more[0].decision.step}"
        )
        rows.add_row("again", Text(f"the same at {counted(len(more), 'more question')}, {steps}", "bright_black"))
    console.print(rows)


def _became(decision: Decision) -> tuple[str, str]:
    if decision.ending == "shadow":
        return f"would have been applied at step {decision.verdicts[-1].step}", "cyan"
    if decision.applied_step is not None:
        return f"applied at step {decision.applied_step}", "green"
    words = decision.ending.replace("_", " ")
    return ("no answer", "yellow") if decision.ending == "manager_failed" else (words, "")


def _told(score: Score) -> Iterator[tuple[str, Text]]:
    decision, proposal, window = score.decision, score.decision.proposal, score.window
    if proposal is not None:
        if proposal.by != "manager":
            yield "answered", Text(f"by {proposal.by}, for the manager", "yellow")
        yield "proposed", Text(clean(proposal.action, 300), "bold" if proposal.kind != "no_action" else "")
        if proposal.expectation is not None:
            yield "expected", Text(expected(proposal.expectation))
    for judged in decision.verdicts:
        if not judged.accepted:
            yield "rejected", Text(reasons_against(judged.reasons), "yellow")
    if decision.outcome is not None and decision.outcome.objective_after is not None:
        outcome = decision.outcome
        gain = f" · gain {outcome.gain:+.4g}" if outcome.gain is not None else ""
        yield "measured", Text(f"{number(outcome.objective_before)} → {number(outcome.objective_after)}{gain}")
    if window is not None:
        yield from _told_window(window, is_holding=_is_holding(score))
    yield "so", Text(clean(score.why, 500), _JUDGEMENTS[score.judgement][1])


def _told_window(window: Window, *, is_holding: bool) -> Iterator[tuple[str, Text]]:
    if window.after:
        after = ", ".join(number(point.value) for point in window.after)
        # A rollback's gain is against its checkpoint, which has a line of its own.
        is_shown = window.gain is not None and window.checkpoint_lead is None
        last = f", at the end {window.last_gain:+.4g}" if len(window.after) > 1 and window.last_gain != window.gain else ""
        gain = f" · gain {window.gain:+.4g}{last}" if is_shown else ""
        noise = f" · noise ±{number(NOISE_FACTOR * window.noise)}" if window.noise is not None else ""
        yield "followed" if is_holding else "without", Text(f"{number(window.at_question)} → {after}{gain}{noise}")
    if window.checkpoint_lead is not None:
        lead = window.checkpoint_lead
        words = "better" if lead >= 0 else "worse"
        yield "checkpoint", Text(f"{number(window.baseline)}, {words} by {number(abs(lead))} than the best that followed")
    moved = (("stayed", window.stayed), ("went", window.went), ("came", window.came))
    text = " · ".join(f"{word} {', '.join(clean(name, 60) for name in names)}" for word, names in moved if names)
    if text:
        yield "symptoms", Text(text)


def _rows() -> Table:
    rows = Table.grid(padding=(0, 2), pad_edge=True)
    rows.add_column(style="bright_black", no_wrap=True, min_width=9)
    rows.add_column(overflow="fold")
    return rows
