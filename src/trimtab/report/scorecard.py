"""The scorecard: what a manager proposed and expected, against what was measured.

A proposal that was applied is held to what was measured after it; one that was not, be it rejected or in shadow, to what
happened without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from trimtab.decision.consultation import Consultation
from trimtab.ledger.record import SUPERSEDED, AnswerDropped, ManagerAsked, ManagerFailed, ProposalReceived, Record
from trimtab.report.account import Decision, RunSummary, json_ready
from trimtab.report.timeline import build_timeline
from trimtab.report.without_action import Course, Judgement, Window, judge_without

COUNTERFACTUAL: Final = (
    "No counterfactual: what happened without an action does not say what the action would have done, and that a run got worse "
    "does not say that the action would have helped. A fork or a canary would."
)
SHADOW: Final = (
    "In shadow every verdict and judgement stands for itself: nothing was applied, so no dwell, drift or budget was used up by "
    "an earlier proposal, and the same one may come again and again."
)


@dataclass(frozen=True, slots=True)
class Score:
    """One question: what became of it, and how it is judged.

    Args:
        decision: The question, its answer, the verdict and, where applied, what was measured.
        window: What happened without it; None if it was applied, or nothing was proposed.
        judgement: How events answered it.
        why: That in words.
    """

    decision: Decision
    window: Window | None
    judgement: Judgement
    why: str


@dataclass(frozen=True, slots=True)
class Totals:
    """The card in figures; proposals and judgements are the manager's own, without the fallback's.

    Args:
        questions: Questions asked.
        proposals: Answers that proposed to do something.
        no_actions: Answers that proposed no_action.
        accepted: Proposals to do something that the verifier let through; in shadow, would have.
        rejected: Proposals that it did not let through.
        against: How often each constraint stood against one.
        failures: How often each problem kept the manager from answering.
        fallback_answers: Questions that rules answered for it.
        paused: Questions that it was not asked, since it had failed too often.
        stale: Answers that came too late to count, or to a run that had changed meanwhile.
        judged: How often each judgement was given to an action or to no_action.
        hit_rate: Share of the applied proposals that brought what was expected; None if none is measured.
        latency_median_seconds: Of the manager's answers; None without any.
        latency_worst_seconds: Likewise.
        calls: Calls to a language model.
        input_tokens: Tokens it read; for an unsettled call, the most it can have been. So for the next two.
        output_tokens: Tokens it wrote.
        usd: What that cost in US dollars; None if a price is not known.
        unsettled_calls: Calls of which only the most that they can have used is known.
    """

    questions: int
    proposals: int
    no_actions: int
    accepted: int
    rejected: int
    against: Mapping[str, int]
    failures: Mapping[str, int]
    fallback_answers: int
    paused: int
    stale: int
    judged: Mapping[Judgement, int]
    hit_rate: float | None
    latency_median_seconds: float | None
    latency_worst_seconds: float | None
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    unsettled_calls: int = 0


@dataclass(frozen=True, slots=True)
class Scorecard:
    """How a manager did in a run, in shadow or at work.

    Args:
        summary: The run.
        totals: The card in figures.
        scores: Every question, oldest first.
        cautions: What the card does not say.
    """

    summary: RunSummary
    totals: Totals
    scores: tuple[Score, ...]
    cautions: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the scorecard as JSON-ready values."""
        return json_ready(self)


def build_scorecard(records: Iterable[Record]) -> Scorecard:
    """Read a ledger's records in order and return how its manager did.

    Args:
        records: From the first on; the end may be missing.

    Raises:
        LedgerError: There is no record; the run was cut off before it began.
        IllegalTransition: The records are out of order; the ledger was not written by a run.
    """
    kept = tuple(records)
    timeline = build_timeline(kept)
    course = Course(kept)
    asked = [decision for decision in timeline.decisions if decision.question is not None]
    scores = tuple(_score(decision, course, has_ended=timeline.summary.status != "not ended") for decision in asked)
    is_shadow = timeline.summary.is_shadow
    cautions = (COUNTERFACTUAL, SHADOW) if is_shadow else (COUNTERFACTUAL,)
    return Scorecard(timeline.summary, _totals(scores, kept), scores, cautions)


def _score(decision: Decision, course: Course, *, has_ended: bool) -> Score:
    if decision.question not in course.actions:
        waiting = "it was never answered" if has_ended else "no answer yet"
        return Score(decision, None, "not_judged", decision.detail or waiting)
    if decision.intervention is not None:
        return _applied(decision, has_ended=has_ended)
    window, judgement, why = judge_without(decision, course, has_ended=has_ended)
    return Score(decision, window, judgement, why)


def _applied(decision: Decision, *, has_ended: bool) -> Score:
    outcome = decision.outcome
    if decision.proposal is not None and decision.proposal.kind == "stop":
        return Score(decision, None, "not_judged", "the run was asked to end, so nothing followed")
    if decision.ending == "failed":
        return Score(decision, None, "not_judged", "it could not be carried out")
    if outcome is not None and outcome.met is not None:
        why = "it brought what it was expected to" if outcome.met else "it did not bring what it was expected to"
        return Score(decision, None, "met" if outcome.met else "not_met", why)
    is_over = has_ended or (outcome is not None and outcome.is_complete)
    return Score(decision, None, "not_judged", "it was not measured to its end" if is_over else "still measuring")


def _totals(scores: tuple[Score, ...], records: tuple[Record, ...]) -> Totals:
    own = [score for score in scores if score.decision.proposal is not None and score.decision.proposal.by == "manager"]
    acting = [score for score in own if score.decision.proposal is not None and score.decision.proposal.kind != "no_action"]
    judged: Counter[Judgement] = Counter(score.judgement for score in own)
    against = Counter(r.constraint for score in acting for verdict in score.decision.verdicts for r in verdict.reasons)
    latencies = [one.decision.proposal.latency_seconds or 0.0 for one in own if one.decision.proposal is not None]
    taken = [score.decision.consultation for score in scores if score.decision.consultation is not None]
    measured = judged["met"] + judged["not_met"]
    verdicts = [score.decision.verdicts[-1].accepted for score in acting if score.decision.verdicts]
    failures = _failures(records)
    return Totals(
        questions=len(scores),
        proposals=len(acting),
        no_actions=len(own) - len(acting),
        accepted=sum(verdicts),
        rejected=len(verdicts) - sum(verdicts),
        against=dict(against),
        failures=failures,
        fallback_answers=sum(isinstance(record, ProposalReceived) and record.by != "manager" for record in records),
        paused=sum(isinstance(record, ManagerAsked) and not record.sent for record in records),
        stale=failures.get("late", 0) + _num_stale(acting, records),
        judged=dict(judged),
        hit_rate=judged["met"] / measured if measured else None,
        latency_median_seconds=median(latencies) if latencies else None,
        latency_worst_seconds=max(latencies, default=None),
        calls=sum(one.calls for one in taken),
        input_tokens=sum(one.input_tokens for one in taken),
        output_tokens=sum(one.output_tokens for one in taken),
        usd=_usd(taken),
        unsettled_calls=sum(one.unsettled_calls for one in taken),
    )


def _failures(records: tuple[Record, ...]) -> dict[str, int]:
    """Return how often each problem kept the manager from answering, as a failure or behind the fallback's answer."""
    return dict(Counter(problem for record in records if (problem := _problem(record)) is not None))


def _problem(record: Record) -> str | None:
    """Return what kept the manager from answering; None if nothing did, or reflex or guard ended the question."""
    if isinstance(record, ManagerFailed) and record.problem != SUPERSEDED:
        return record.problem
    if isinstance(record, ProposalReceived) and record.by != "manager":
        return record.failure.partition(":")[0] or "unknown"
    return None


def _num_stale(acting: list[Score], records: tuple[Record, ...]) -> int:
    reasons = [{r.constraint for verdict in score.decision.verdicts for r in verdict.reasons} for score in acting]
    # An answer that was dropped because its question had been given up as late is counted there.
    answered = [record for record in records if isinstance(record, (ManagerFailed, ProposalReceived))]
    late = {record.question for record in answered if _problem(record) == "late"}
    dropped = sum(isinstance(record, AnswerDropped) and record.question not in late for record in records)
    return sum("freshness" in names for names in reasons) + dropped


def _usd(taken: list[Consultation]) -> float | None:
    known = [one.usd for one in taken if one.usd is not None]
    return sum(known) if len(known) == len(taken) else None
