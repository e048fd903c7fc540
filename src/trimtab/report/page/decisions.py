"""The decisions of a run as parts of the page: each from its cause to its outcome.

Decisions in a row that came to no action are one table. Where a run has thousands of them their reasons are shortened:
the full text is in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from trimtab.decision.consultation import Consultation
from trimtab.diagnosis.base import Symptom
from trimtab.report.account import Changed, Decision, Judged, Outcome, Proposed
from trimtab.report.page.markup import Markup, headings, join, name, tag, text
from trimtab.report.page.subject import Excerpt, Subject
from trimtab.report.safeguard_words import harm_rows, takes_back_words, trial_ending, tried_words
from trimtab.report.words import ENDINGS, clean, counted, expected, number, used

_OPEN_UP_TO: Final = 6  # so many interventions are shown in full at once
_FULL_UP_TO: Final = 400  # decisions; beyond that what held is told in short
_SHORT: Final = 140


def decisions_of(subject: Subject, anchor: str) -> Markup:
    """Return all decisions of a run, oldest first; each has the id ``ANCHORdNUMBER``."""
    decisions = subject.timeline.decisions
    if not decisions:
        return tag("p", "No decision yet.", class_="quiet")
    is_open = sum(one.applied_step is not None for one in decisions) <= _OPEN_UP_TO
    most = 2000 if len(decisions) <= _FULL_UP_TO else _SHORT
    parts: list[Markup] = []
    for group in subject.timeline.grouped():
        if group[0].is_idle:
            parts.append(_held(group, anchor, most))
        else:
            parts.append(_decision(group[0], subject, anchor, is_open=is_open))
    return tag("div", *parts, class_="decisions")


def ending_words(decision: Decision) -> str:
    """Say what became of a decision."""
    if decision.ending == "applied":
        back = f", taken back at step {decision.taken_back.step:,}" if decision.taken_back is not None else ""
        return f"applied at step {decision.applied_step:,}{back}"
    return trial_ending(decision) or ENDINGS[decision.ending]


def _held(group: Sequence[Decision], anchor: str, most: int) -> Markup:
    first, last = group[0], group[-1]
    numbers = f"#{first.number}" if first is last else f"#{first.number} to {last.number}"
    steps = f"step {first.step:,}" if first is last else f"steps {first.step:,} to {last.step:,}"
    by_rules = sum(one.proposal is not None and one.proposal.by == "rules" for one in group)
    fallback = f"; the manager failed at {by_rules} of them, and rules answered" if by_rules else ""
    told = f"{counted(len(group), 'question')}, no action{fallback}"
    head = tag("summary", _number(numbers), tag("span", steps, class_="step"), tag("span", told, class_="did"))
    titles = headings(("#", "step", "found", "reason", "took"), texts=("found", "reason"))
    rows = [_held_row(one, anchor, most) for one in group]
    table = tag("div", tag("table", tag("thead", titles), tag("tbody", *rows), class_="rows"), class_="wide")
    return tag("details", head, table, class_="decision held")


def _held_row(decision: Decision, anchor: str, most: int) -> Markup:
    proposal = decision.proposal
    found = [_symptom(symptom) for symptom in decision.symptoms]
    latency = proposal.latency_seconds if proposal is not None else None
    took = [f"{latency:.2f} s"] if latency is not None else []
    if decision.consultation is not None:
        took.append(used(decision.consultation))
    return tag(
        "tr",
        tag("td", str(decision.number), class_="num"),
        tag("td", f"{decision.step:,}", class_="num"),
        tag("td", *(tag("div", one) for one in found)),
        tag("td", text(proposal.reason if proposal else decision.detail, most)),
        tag("td", " · ".join(took), class_="num"),
        id=f"{anchor}d{decision.number}",
    )


def _decision(decision: Decision, subject: Subject, anchor: str, *, is_open: bool) -> Markup:
    head = tag(
        "summary",
        _number(f"#{decision.number}"),
        tag("span", f"step {decision.step:,}", class_="step"),
        tag("span", *_did(decision), class_="did"),
        tag("span", ending_words(decision), class_=f"ending {'taken-back' if decision.taken_back else decision.ending}"),
        _gain(decision),
    )
    rows = [tag("dt", label) + tag("dd", what) for label, what in _told(decision, subject)]
    body = tag("dl", *(Markup(row) for row in rows), class_="told")
    return tag(
        "details",
        head,
        body,
        class_=f"decision {decision.ending}",
        id=f"{anchor}d{decision.number}",
        open=is_open and decision.applied_step is not None,
    )


def _did(decision: Decision) -> Iterator[Markup]:
    did = name(decision.proposal.action if decision.proposal else "no proposal")
    yield did if decision.source == "manager" else join(tag("span", f"{decision.source}: ", class_="quiet"), did)
    if decision.takes_back:
        yield tag("span", f" · takes back {takes_back_words(decision)}", class_="quiet")


def _number(words: str) -> Markup:
    return tag("span", words, class_="no")


def _gain(decision: Decision) -> Markup:
    gain = decision.outcome.gain if decision.outcome is not None else None
    if gain is None and decision.harm is not None:
        gain = decision.harm.gain
    if gain is None:
        return join()
    way = "good" if gain > 0 else "bad" if gain < 0 else ""
    return tag("span", f"gain {gain:+.4g}", class_=f"gain {way}".strip())


def _told(decision: Decision, subject: Subject) -> Iterator[tuple[str, Markup]]:
    by_itself = decision.source in ("reflex", "guard")
    who = f"the {decision.source}, without asking anybody" if by_itself else f"question {decision.question} to the manager"
    yield "decided by", text(who)
    if decision.symptoms:
        yield "found", join(*(tag("div", _symptom(symptom)) for symptom in decision.symptoms))
    excerpt = subject.excerpts.get(decision.question or 0)
    if excerpt is not None:
        yield "was shown", _excerpt(excerpt)
    if decision.proposal is not None:
        yield from _told_proposal(decision, decision.proposal, subject.watched.get(decision.question or 0, ()))
    if decision.verdicts:
        yield "verdict", join(*(tag("div", _verdict(judged)) for judged in decision.verdicts))
    if decision.tried is not None:
        yield "tried", text(tried_words(decision.tried))
    if decision.changes:
        # After a failure it is what was found in force, which may be somebody else's doing.
        yield (
            "changed" if decision.ending != "failed" else "in force",
            join(*(tag("div", _change(one)) for one in decision.changes)),
        )
    if decision.read_back:
        yield "read back", join(*(tag("div", part) for part in _read_back(decision)))
    if decision.outcome is not None:
        yield "outcome", _outcome(decision, decision.outcome)
    for label, words, tone in harm_rows(decision, subject.started.envelope.objective.signal):
        yield label, tag("span", words, class_=tone or None)
    yield "cost", _cost(decision.consultation, decision.proposal, is_reflex=by_itself)
    if decision.detail and decision.ending not in ("rejected", "no_action"):
        yield "because", text(decision.detail)


def _symptom(symptom: Symptom) -> Markup:
    evidence = [tag("span", name(item.name, 60), " ", tag("b", number(item.value))) for item in symptom.evidence]
    found = tag("span", symptom.name, class_=f"symptom {symptom.severity}")
    return join(found, " in ", name(symptom.signal, 80), tag("div", *evidence, class_="evidence"))


def _told_proposal(decision: Decision, proposal: Proposed, watched: Sequence[str]) -> Iterator[tuple[str, Markup]]:
    if proposal.by != "manager":
        why = f": {clean(proposal.failure, 500)}" if proposal.failure else ""
        yield "answered", tag("span", f"the manager failed{why}; {proposal.by} answered", class_="warn")
    yield "proposed", tag("b", name(proposal.action, 400))
    if proposal.reason:
        yield "reason", tag("q", text(proposal.reason), class_="reason")
    if proposal.expectation is not None:
        watch = f"; to watch: {', '.join(clean(one, 80) for one in watched)}" if watched else ""
        yield "expected", text(expected(proposal.expectation) + watch)
    if proposal.objection and not decision.verdicts:  # the verdict will name it
        yield "objected", text(proposal.objection)
    if proposal.approved_by:
        yield "approved", text(f"by {clean(proposal.approved_by, 200)}")


def _excerpt(excerpt: Excerpt) -> Markup:
    titles = ("signal", "last", "lowest", "highest", "trend a step", "noise", "values")
    head = headings(titles, texts=("signal",))
    rows = [
        tag(
            "tr",
            tag("td", name(one.name, 80)),
            *(tag("td", number(value), class_="num") for value in (one.last, one.lowest, one.highest)),
            tag("td", f"{one.slope_per_step:+.2g} ± {one.slope_error:.1g}", class_="num"),
            tag("td", number(one.noise), class_="num"),
            tag("td", str(one.num_samples), class_="num"),
        )
        for one in excerpt.summaries
    ]
    table = tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="rows"), class_="wide") if rows else join()
    return join(table, tag("div", " · ".join(_choices(excerpt)), class_="quiet"))


def _choices(excerpt: Excerpt) -> Iterator[str]:
    if excerpt.num_signals > len(excerpt.summaries):
        yield f"and {excerpt.num_signals - len(excerpt.summaries)} more signals"
    if excerpt.best is not None:
        yield f"best checkpoint {clean(excerpt.best.id, 80)} with {number(excerpt.best.objective)}"
    yield f"could choose from {counted(excerpt.num_values, 'value')} and {counted(excerpt.num_rollbacks, 'checkpoint')}"
    yield f"{counted(excerpt.interventions_left, 'intervention')} left, {excerpt.rollbacks_left} of them may roll back"
    if not excerpt.sent:
        yield "not sent: the manager had failed too often"


def _verdict(judged: Judged) -> Markup:
    if judged.accepted:
        return join(tag("span", "accepted", class_="good"), f" after step {judged.step:,}")
    reasons = tag("ul", *(tag("li", tag("b", name(one.constraint, 60)), ": ", text(one.detail, 400)) for one in judged.reasons))
    refused = tag("span", "rejected", class_="bad")
    return join(refused, f" after step {judged.step:,}: ", name(judged.action, 300), reasons)


def _change(change: Changed) -> Markup:
    return join(name(change.control, 80), f" {number(change.before)} → ", tag("b", number(change.after)))


def _read_back(decision: Decision) -> Iterator[Markup]:
    for result in decision.read_back:
        found = f" expected {number(result.expected)}, in effect {number(result.observed)} "
        verdict = tag("span", "holds" if result.holds else "does not hold", class_="good" if result.holds else "bad")
        detail = f": {clean(result.detail, 300)}" if result.detail else ""
        yield join(name(result.control, 80), found, verdict, detail)


def _outcome(decision: Decision, outcome: Outcome) -> Markup:
    told = "not measured"
    if outcome.objective_after is not None:
        after = counted(outcome.num_evaluations, "evaluation")
        told = f"objective {number(outcome.objective_before)} → {number(outcome.objective_after)} after {after}"
    met = ""
    if decision.taken_back is not None:
        met = " · taken back"
    elif outcome.met is not None:
        met = " · as expected" if outcome.met else " · not as expected"
    elif not outcome.is_complete:
        met = " · still measuring"
    gain = _gain(decision) if outcome.gain is not None else join()
    return join(told, " · " if gain else "", gain, met)


def _cost(taken: Consultation | None, proposal: Proposed | None, *, is_reflex: bool) -> Markup:
    if is_reflex:
        return text("none: no manager was asked")
    latency = proposal.latency_seconds if proposal is not None and proposal.by == "manager" else None
    seconds = f"{latency:.2f} s" if latency is not None else "no answer of the manager's"
    if taken is None:
        return text(f"{seconds} · no language model was called")
    return join(f"{seconds} · ", name(taken.model, 100), f" · {counted(taken.calls, 'call')} · {used(taken)}")
