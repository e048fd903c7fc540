"""Where a run's record comes from and whether it can be trusted: envelope, versions, ledger, resumes, notes, problems."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.controls.control import Control
from trimtab.controls.moves import Add, Moves, Multiply
from trimtab.ledger.record import Origin, RunResumed
from trimtab.report.page.markup import Markup, headings, join, name, tag, text
from trimtab.report.page.overview import moment
from trimtab.report.page.spent import spent_on
from trimtab.report.page.subject import Subject
from trimtab.report.safeguard_words import CANARY_MODES
from trimtab.report.words import clean, counted, follows, number

_LISTED_MOVES: Final = 12


def provenance_of(subject: Subject) -> Markup:
    """Return what is known of how a run came to be recorded."""
    rows = [tag("dt", label) + tag("dd", what) for label, what in _facts(subject)]
    return tag("dl", *(Markup(row) for row in rows), class_="told")


def envelope_of(subject: Subject) -> Markup:
    """Return the envelope: what each control was allowed, where it began and where it stands."""
    envelope, summary = subject.started.envelope, subject.timeline.summary
    titles = ("control", "low", "high", "began at", "now", "moves", "largest change", "drift", "dwell")
    head = headings(titles, texts=("control", "moves"))
    rows = [_control_row(control, summary.recipe_start.get(control.name), summary.recipe_now.get(control.name))
            for control in envelope.controls]  # fmt: skip
    table = tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="rows"), class_="wide")
    none = tag("p", "No controls: only rollbacks were possible.", class_="quiet")
    return join(table if rows else none, tag("p", _authority(subject), class_="quiet"))


def problems_of(subject: Subject) -> Markup:
    """Return what went wrong beside the training, all of it."""
    problems = subject.timeline.summary.problems
    if not problems:
        return tag("p", "None was recorded.", class_="quiet")
    head = headings(("step", "problem", "detail"), texts=("problem", "detail"))
    rows = [
        tag("tr", tag("td", f"{one.step:,}", class_="num"), tag("td", name(one.problem, 200)), tag("td", text(one.detail, 500)))
        for one in problems
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="rows"), class_="wide")


def _facts(subject: Subject) -> Iterator[tuple[str, Markup]]:
    started, summary = subject.started, subject.timeline.summary
    deliberation = started.envelope.deliberation
    yield "run", name(summary.run, 400)
    yield "directory", tag("code", clean(subject.path, 500))
    yield "began", text(moment(subject.began_seconds))
    yield "newest record", text(moment(subject.newest_seconds))
    asked = f"every {counted(deliberation.every_evaluations, 'evaluation')} of {started.evaluate_every_steps:,} steps"
    yield (
        "manager",
        join(name(summary.manager, 200), f" · isolation: {started.isolation} · mode {deliberation.mode} · asked {asked}"),
    )
    yield from _taken(subject)
    yield "objective", name(summary.objective, 200)
    yield "versions", text(", ".join(f"{clean(key, 60)} {clean(value, 60)}" for key, value in summary.versions.items()) or "-")
    yield "ledger", _ledger(subject)
    for resume in subject.resumes:
        yield "resumed", _resumed(resume)
    for note in summary.notes:
        yield "note", text(note, 1000)


def _taken(subject: Subject) -> Iterator[tuple[str, Markup]]:
    spent = spent_on(subject.timeline.decisions)
    yield "answers took", text(spent.latency)
    if spent.calls:
        models = ", ".join(spent.models[:5])
        yield (
            "language model",
            join(name(models, 300), f" · {counted(spent.calls, 'call')} · tokens: {spent.tokens} · {spent.price}"),
        )


def _ledger(subject: Subject) -> Markup:
    found = subject.verification
    whole = tag("span", "whole", class_="good") if found.ok else tag("span", "damaged", class_="bad")
    where = f" at line {found.line}" if found.line is not None else ""
    problem = "" if found.ok else f"{where}: {found.problem}"
    left = found.records - subject.num_entries
    beside = f", {left} of them of courses that were left" if left > 0 and found.ok else ""
    parts = [tag("div", whole, f"{problem} · {counted(found.records, 'record')}{beside}, as the standalone verifier finds it")]
    if found.head is not None:
        parts.append(tag("div", "head ", tag("code", f"{found.head[0]}:{found.head[1]}")))
    return join(*parts)


def _resumed(resume: RunResumed) -> Markup:
    whence = f"from {clean(resume.checkpoint, 100)}" if resume.checkpoint is not None else "from the beginning"
    versions = ", ".join(f"{clean(package, 60)} {clean(version, 60)}" for package, version in resume.versions)
    parts = [f"at step {resume.step:,}, {whence}; records after {resume.after} up to here belong to a course that was left"]
    if resume.origin is not None:
        parts.append(_origin(resume.origin))
    return join(" · ".join(parts), f" · {versions}" if versions else "")


def _origin(origin: Origin) -> str:
    return f"{follows(origin)}; the head of that run's ledger is {clean(origin.head, 80)}"


def _control_row(control: Control, start: float | None, now: float | None) -> Markup:
    change = f"x{number(control.largest_change)}" if control.scale == "ratio" else f"±{number(control.largest_change)}"
    drift = f"x{number(control.cumulative_drift)}" if control.scale == "ratio" else f"±{number(control.cumulative_drift)}"
    values = (number(control.bounds.low), number(control.bounds.high), number(start), number(now))
    label = f"{control.name} ({control.unit})" if control.unit else control.name
    return tag(
        "tr",
        tag("th", name(label, 160), scope="row"),
        *(tag("td", value, class_="num") for value in values),
        tag("td", _moves(control.moves)),
        *(tag("td", value, class_="num") for value in (change, drift)),
        tag("td", counted(control.dwell_steps, "step"), class_="num"),
    )


def _moves(moves: Moves) -> str:
    if isinstance(moves, Multiply):
        words, values = "multiply by", moves.factors
    elif isinstance(moves, Add):
        words, values = "add", moves.amounts
    else:
        words, values = "set to", moves.values
    more = f" and {len(values) - _LISTED_MOVES} more" if len(values) > _LISTED_MOVES else ""
    return f"{words} {', '.join(map(number, values[:_LISTED_MOVES]))}{more}"


def _authority(subject: Subject) -> str:
    allowed = subject.started.envelope.authority
    stop = "may stop the run" if allowed.may_stop else "may not stop the run"
    return (
        f"In all: {counted(allowed.interventions, 'intervention')} of the manager, {allowed.rollbacks} of them rollbacks, "
        f"{counted(allowed.controls_per_intervention, 'control')} at once; {stop}. "
        f"The reflex: {counted(allowed.reflex_rollbacks, 'rollback')}. {_safeguards(subject)}"
    )


def _safeguards(subject: Subject) -> str:
    guard, canary = subject.started.envelope.guard, subject.started.envelope.canary
    held = f"holds the recipe after {counted(guard.failures, 'intervention')} in a row that it took back"
    told = f"The guard: {held if guard.armed else 'off'}. "
    if canary.mode == "none":
        return f"{told}The canary: off."
    arms = f"arms of {counted(canary.steps, 'step')}, trials may cost {canary.budget:.0%} of the run"
    return f"{told}The canary: {CANARY_MODES[canary.mode]}; {arms}."
