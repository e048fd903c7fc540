"""The head of a run's part of the page, and the table that compares several runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from trimtab.report.account import Point
from trimtab.report.page.markup import Markup, headings, join, name, tag, text
from trimtab.report.page.plot import COLOURS
from trimtab.report.page.spent import spent_on
from trimtab.report.page.subject import Standing, Subject
from trimtab.report.safeguard_words import by_whom, canary_words, guard_words
from trimtab.report.words import clean, counted, number, resume_command

_STANDINGS: Final[dict[Standing, str]] = {
    "ended": "ended",
    "stopped": "stopped early",
    "running": "still going on",
    "cut off": "cut off",
}


def moment(seconds: float) -> str:
    """Return a time since 1970 as a date with the time of day; a dash where it is no time."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return "-"


def standing_words(subject: Subject) -> str:
    """Say how a run stands, and as of when if it goes on or was cut off."""
    summary, words = subject.timeline.summary, _STANDINGS[subject.standing]
    if subject.standing == "running":
        return f"{words} as of {moment(subject.newest_seconds)}, step {summary.steps:,}"
    because = f": {clean(summary.ended_because, 300)}" if summary.ended_because else ""
    if subject.standing == "cut off":
        raised = f"{because};" if summary.status == "cut off" else ":"  # else whatever it was asked before is no cause
        return f"{words} after step {summary.steps:,}{raised} its newest record is of {moment(subject.newest_seconds)}"
    return words + because


def pill(subject: Subject) -> Markup:
    """Return how a run stands as one coloured word."""
    return tag("span", _STANDINGS[subject.standing], class_=f"pill {subject.standing.replace(' ', '-')}")


def heading(subject: Subject, *, level: str) -> Markup:
    """Return a run's name, how it stands, and what the reader has to know before anything else."""
    summary = subject.timeline.summary
    parts = [
        tag(level, name(summary.run), pill(subject)),
        tag("p", standing_words(subject), class_="quiet"),
        tag("dl", *_figures(subject), class_="figures"),
    ]
    parts += [tag("p", warning, class_="caution") for warning in _warnings(subject)]
    return join(*parts)


def _figures(subject: Subject) -> Iterator[Markup]:
    summary = subject.timeline.summary
    spent = spent_on(subject.timeline.decisions)
    planned = f"of {summary.total_steps:,} planned" if summary.total_steps else ""
    by_itself = by_whom(summary) or "none by reflex or guard"
    signal = subject.started.envelope.objective.signal
    yield _figure(f"best {signal}", _value(summary.best), _at(summary.best))
    yield _figure(f"newest {signal}", _value(summary.last), _at(summary.last))
    yield _figure(f"first {signal}", _value(summary.first), _at(summary.first))
    yield _figure("steps", f"{summary.steps:,}", planned)
    shadow = f"; {summary.shadow_interventions} more would have been applied" if summary.is_shadow else ""
    yield _figure("interventions", str(summary.interventions), by_itself + shadow)
    yield _figure(
        "rejections",
        str(summary.rejections),
        f"{summary.num_questions:,} questions asked" if summary.num_questions != 1 else "1 question asked",
    )
    yield _figure(
        "manager", clean(summary.manager, 60), f"answers took {spent.latency}" if spent.latency != "-" else "no answer"
    )
    calls = f"{counted(spent.calls, 'call')}; tokens: {spent.tokens}" if spent.calls else "no language model was called"
    yield _figure("cost", spent.price, calls)
    yield _figure("canary", *canary_words(summary), is_half=True)
    yield _figure("guard", *guard_words(summary), is_half=True)


def _figure(title: str, value: str, note: str, *, is_half: bool = False) -> Markup:
    told = tag("dd", tag("b", name(value, 60)), tag("span", note))
    return tag("div", tag("dt", name(title, 80)), told, class_="half" if is_half else None)


def _value(point: Point | None) -> str:
    return number(point.value) if point is not None else "-"


def _at(point: Point | None) -> str:
    return f"at step {point.step:,}" if point is not None else "not evaluated yet"


def _warnings(subject: Subject) -> Iterator[str]:
    summary = subject.timeline.summary
    if subject.damage:
        yield f"The ledger is damaged, and nothing from there on is shown: {subject.damage}"
    elif not subject.verification.ok:
        yield f"The standalone verifier does not accept the ledger: {subject.verification.problem}"
    elif subject.standing == "cut off":  # a damaged ledger is not gone on with
        yield f"It can be gone on with: {resume_command(subject.path)}"
    if subject.torn_bytes:
        why = "it is being written" if subject.standing == "running" else "whoever wrote it was cut off"
        yield f"The ledger's last line is unfinished ({counted(subject.torn_bytes, 'byte')}): {why}."
    if summary.is_shadow:
        yield "In shadow: the manager's proposals are judged and recorded; none is applied."
    if subject.series_problem:
        yield subject.series_problem


def comparison_table(subjects: Sequence[Subject], anchors: Sequence[str]) -> Markup:
    """Return the key figures of several runs, a row for each; the best objective of those alike is marked."""
    measured = ("steps", "first", "best", "newest", "interventions", "by reflex or guard", "rejections")
    titles = ("run", "standing", *measured, "cost")
    head = headings(titles, texts=("run", "standing", "cost"))
    best = _best_of(subjects)
    rows = [_row(place, one, anchors[place], is_best=place in best) for place, one in enumerate(subjects)]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="rows compared"), class_="wide")


def _row(place: int, subject: Subject, anchor: str, *, is_best: bool) -> Markup:
    summary = subject.timeline.summary
    swatch = tag("i", class_=f"swatch c{place % COLOURS}")
    run = tag("a", name(summary.run, 80), href=f"#{anchor}")
    figures = (
        f"{summary.steps:,}",
        _value(summary.first),
        tag("b", _value(summary.best), title="the best of these runs") if is_best else _value(summary.best),
        _value(summary.last),
        str(summary.interventions),
        str(summary.reflex_interventions + summary.guard_interventions),
        str(summary.rejections),
    )
    return tag(
        "tr",
        tag("th", swatch, run, tag("div", clean(subject.path, 200), class_="quiet"), scope="row"),
        tag("td", pill(subject)),
        *(tag("td", figure, class_="num") for figure in figures),
        tag("td", text(spent_on(subject.timeline.decisions).price)),
    )


def _best_of(subjects: Sequence[Subject]) -> set[int]:
    """Return the places of the runs with the best value of their objective, where several have the same objective."""
    found: set[int] = set()
    for objective in {subject.started.envelope.objective for subject in subjects}:
        alike = [
            (place, subject.timeline.summary.best)
            for place, subject in enumerate(subjects)
            if subject.started.envelope.objective == objective
        ]
        values = [point.value for _, point in alike if point is not None]
        if len(values) > 1:
            best = min(values) if objective.direction == "minimize" else max(values)
            found |= {place for place, point in alike if point is not None and point.value == best}
    return found
