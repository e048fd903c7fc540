"""Judging a proposal that was not applied by what happened without it.

Rules:
1. It is held to what an applied one is held to: the best of the evaluations it named, from the step at which it would have
   been applied, until another action was carried out.
2. A difference counts only beyond the noise, `NOISE_FACTOR` times that of one evaluation, as the manager was told it.
3. Where nothing can be judged, the reason is given. No judgement says what the action would have done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt
from typing import Final, Literal

from trimtab.controls.envelope import Objective
from trimtab.decision.action import Action, NoAction, changes_of, checkpoint_of
from trimtab.diagnosis.base import Symptom
from trimtab.ledger.record import (
    ActionApplied,
    ActionFailed,
    EvaluationRecorded,
    ManagerAsked,
    ProposalReceived,
    Record,
    RunStarted,
    SymptomObserved,
)
from trimtab.report.account import Decision, Point

# Of the difference of two evaluations with independent noise, two standard deviations.
NOISE_FACTOR: Final = 2 * sqrt(2)
_LEAST_SAMPLES: Final = 4  # with fewer evaluations there is no estimate of the noise

# Of an applied proposal: met, not_met. Of one that was not applied: not_needed (what it expected came without it),
# perhaps_missed (the run got worse beyond noise), open (neither). Of no_action: held_no_worse, held_got_worse (beyond noise).
Judgement = Literal["met", "not_met", "not_needed", "perhaps_missed", "open", "held_no_worse", "held_got_worse", "not_judged"]


@dataclass(frozen=True, slots=True)
class Window:
    """What was evaluated after a proposal that was not applied, as far as it counts.

    Args:
        at_question: Objective when it was asked; None if it was not finite.
        baseline: What gains count from: the checkpoint's objective for a rollback, else that at the question.
        noise: Standard deviation of one evaluation's noise, as the manager was told it; None if not known.
        after: The evaluations, oldest first.
        gain: How much better the best of them is than the baseline; None where there is nothing to compare.
        last_gain: How much better the last of them is.
        checkpoint_lead: How much better the checkpoint is than the best of them; None if it is no rollback.
        stayed: Symptoms at the question that were found again.
        went: Symptoms at the question that were not.
        came: Symptoms that were found afterwards only.
    """

    at_question: float | None
    baseline: float | None
    noise: float | None
    after: tuple[Point, ...] = ()
    gain: float | None = None
    last_gain: float | None = None
    checkpoint_lead: float | None = None
    stayed: tuple[str, ...] = ()
    went: tuple[str, ...] = ()
    came: tuple[str, ...] = ()


class Course:
    """What can be looked up in a ledger: where each question stands, and what was recorded after it."""

    def __init__(self, records: tuple[Record, ...]) -> None:
        started = records[0]
        assert isinstance(started, RunStarted)
        self.envelope = started.envelope
        self.records = records
        self.asked: dict[int, tuple[int, ManagerAsked]] = {}
        self.actions: dict[int, Action] = {}
        self.objectives: dict[int, float | None] = {}  # at each question; None if it was not finite
        self._checkpoints: list[tuple[int, str, float]] = []
        newest: float | None = None
        for place, record in enumerate(records):
            if isinstance(record, ManagerAsked):
                self.asked[record.question] = (place, record)
                self.objectives[record.question] = newest
            elif isinstance(record, ProposalReceived):
                self.actions[record.question] = record.proposal.action
            elif isinstance(record, EvaluationRecorded):
                newest = record.objective if isfinite(record.objective) else None
                if record.checkpoint is not None:
                    self._checkpoints.append((place, record.checkpoint, record.objective))

    def objective_of(self, checkpoint: str, place: int) -> float | None:
        """Return the objective of a checkpoint as it was known at that place; None if it was not, or is not finite."""
        known = (value for at, name, value in reversed(self._checkpoints) if at < place and name == checkpoint)
        value = next(known, None)
        return value if value is not None and isfinite(value) else None

    def lag_steps(self, action: Action) -> int:
        """Return the steps until what it changes can show, as an applied action is measured."""
        named = [change.control for change in changes_of(action) if change.control in self.envelope]
        return max((self.envelope.control(name).effect_lag_steps for name in named), default=0)


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a proposal is held to.

    Args:
        action: What was proposed.
        objective: What the run is about.
        gain: The gain that was expected; 0 if it only must not get worse.
        num_evaluations: Evaluations by which that should show.
        target: The checkpoint it would have gone back to; None if it is no rollback.
        has_ended: Whether no more evaluations will come.
    """

    action: Action
    objective: Objective
    gain: float
    num_evaluations: int
    target: str | None
    has_ended: bool


def judge_without(decision: Decision, course: Course, *, has_ended: bool) -> tuple[Window, Judgement, str]:
    """Judge the proposal of a question that was not applied; return what happened, the judgement and its reason."""
    assert decision.question is not None
    place, asked = course.asked[decision.question]
    terms = _terms(decision, course, has_ended=has_ended)
    start = _start(course, terms, place, asked)
    from_step = (decision.verdicts[0].step if decision.verdicts else decision.step) + course.lag_steps(terms.action)
    after, end, between = _evaluations_after(course, terms, start, place, from_step)
    if start.baseline is None or not after:
        return replace(start, after=after), "not_judged", between if not after and between else _unknown(start, terms)
    finite = [point.value for point in after if isfinite(point.value)]
    gain = max((terms.objective.gain(start.baseline, value) for value in finite), default=-inf)
    stayed, went, came = _symptoms_after(course, asked, place, end, after[-1].step)
    lead = None if terms.target is None else -gain
    last = terms.objective.gain(start.baseline, after[-1].value) if isfinite(after[-1].value) else -inf
    window = replace(start, after=after, gain=gain, last_gain=last, checkpoint_lead=lead, stayed=stayed, went=went, came=came)
    return window, *_judge(window, terms, gain, last, between)


def _terms(decision: Decision, course: Course, *, has_ended: bool) -> _Terms:
    assert decision.question is not None
    action = course.actions[decision.question]
    expectation = decision.proposal.expectation if decision.proposal else None
    limit = course.envelope.deliberation.measure_over_evaluations
    return _Terms(
        action=action,
        objective=course.envelope.objective,
        gain=expectation.gain if expectation else 0.0,
        num_evaluations=max(1, min(limit, expectation.within_evaluations)) if expectation else limit,
        target=checkpoint_of(action),
        has_ended=has_ended,
    )


def _start(course: Course, terms: _Terms, place: int, asked: ManagerAsked) -> Window:
    summary = asked.briefing.snapshot.get(terms.objective.signal)
    noise = summary.noise if summary is not None and summary.num_samples >= _LEAST_SAMPLES else None
    at_question = course.objectives[asked.question]
    return Window(at_question, at_question if terms.target is None else course.objective_of(terms.target, place), noise)


def _evaluations_after(
    course: Course, terms: _Terms, start: Window, place: int, from_step: int
) -> tuple[tuple[Point, ...], int, str]:
    """Return the evaluations that count, where the last of them stands, and what ended them before their time, if anything.

    As with an applied action they end where another action was carried out, or early with the gain that was expected.
    """
    found: list[Point] = []
    end = place
    for at in range(place + 1, len(course.records)):
        record = course.records[at]
        if isinstance(record, (ActionApplied, ActionFailed)):
            return tuple(found), end, f"another action was carried out at step {record.step}"
        if not isinstance(record, EvaluationRecorded) or record.step <= from_step:
            continue
        found.append(Point(record.step, record.objective))
        end = at
        if len(found) == terms.num_evaluations or (terms.gain > 0 and _is_reached(start, terms, record.objective)):
            break
    return tuple(found), end, ""


def _is_reached(start: Window, terms: _Terms, objective: float) -> bool:
    """Return whether what was expected is there, and more than noise."""
    if start.baseline is None or start.noise is None:
        return False
    gain = terms.objective.gain(start.baseline, objective)
    return gain >= terms.gain and gain > NOISE_FACTOR * start.noise


def _judge(window: Window, terms: _Terms, gain: float, last: float, between: str) -> tuple[Judgement, str]:
    is_holding = isinstance(terms.action, NoAction)
    worse: Judgement = "held_got_worse" if is_holding else "perhaps_missed"
    if not isfinite(last):
        return worse, "the objective is no longer finite"
    if window.noise is None:
        return "not_judged", "too few evaluations before it to know the noise"
    least = NOISE_FACTOR * window.noise
    if not is_holding and gain >= terms.gain and gain > least:
        return "not_needed", "the run got better all the same" if terms.gain <= 0 else "the gain it expected came without it"
    if between or len(window.after) < terms.num_evaluations:
        came = f"{len(window.after)} of {terms.num_evaluations} evaluations"
        return "not_judged", between or (f"only {came} came" if terms.has_ended else f"{came} so far")
    # A rollback is held against its checkpoint, which is known: even the best of what followed has to be worse than that.
    if terms.target is not None:
        if -gain > least:
            return worse, "all that followed was worse than its checkpoint, beyond noise"
    elif -last > least:
        return worse, "the objective was worse afterwards, beyond noise"
    if is_holding:
        return "held_no_worse", "the objective was no worse afterwards, beyond noise"
    if 0 < terms.gain <= least:
        return "open", "neither better nor worse beyond noise; what it expected is within the noise"
    return "open", "neither as good as it expected nor worse, beyond noise"


def _unknown(start: Window, terms: _Terms) -> str:
    """Say why there is nothing to compare."""
    if start.baseline is None:
        return (
            "the objective at the question is not known" if terms.target is None else "its checkpoint's objective is not known"
        )
    return "no evaluation came after it" if terms.has_ended else "no evaluation after it so far"


def _symptoms_after(
    course: Course, asked: ManagerAsked, place: int, end: int, last_step: int
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return which symptoms stayed, went and came up to the last evaluation that counts.

    A warning is recorded each time it is found, another symptom after a pause only: that it went is known only from a
    later briefing, which lists them all.
    """
    then: dict[str, Symptom] = {symptom.name: symptom for symptom in asked.briefing.symptoms}
    seen: set[str] = set()
    is_complete = False
    for at in range(place + 1, len(course.records)):
        record = course.records[at]
        if at > end and (record.step > last_step or isinstance(record, EvaluationRecorded)):
            break
        if isinstance(record, SymptomObserved):
            seen.add(record.symptom.name)
        elif isinstance(record, ManagerAsked):
            seen.update(symptom.name for symptom in record.briefing.symptoms)
            is_complete = True
    went = [name for name, symptom in then.items() if name not in seen and (is_complete or symptom.severity == "warning")]
    return tuple(sorted(seen & then.keys())), tuple(sorted(went)), tuple(sorted(seen - then.keys()))
