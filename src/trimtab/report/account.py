"""The account of a run: plain values for the decision timeline, as read from its ledger.

Texts are as they stand in the ledger: whoever prints them has to neutralise them. JSON has no
non-finite numbers, so `as_json` gives them as the strings ``NaN``, ``Infinity`` and ``-Infinity``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, cast

from trimtab.actuation.binding import ReadBack
from trimtab.controls.safeguards import CanaryMode
from trimtab.decision.consultation import Consultation
from trimtab.decision.proposal import Expectation
from trimtab.diagnosis.base import Symptom
from trimtab.ledger.record import RAISED, Answerer, Arm, HarmFound, Origin, TrialOutcome
from trimtab.verification.verdict import Rejection, Source

# What became of a decision. `open` is one whose end is not in the ledger (yet), `unanswered` one that was open when the
# run ended, `shadow` one that was accepted in a run that applies nothing, `not_better` one that was tried and not applied.
Ending = Literal[
    "applied", "shadow", "not_better", "no_action", "rejected", "manager_failed", "dropped", "failed", "unanswered", "open"
]
Status = Literal["ended", "stopped", "cut off", "not ended"]


def is_raised(reason: str) -> bool:
    """Return whether a run that ended for this reason was cut off by an exception in its training loop."""
    return reason.startswith(RAISED)


@dataclass(frozen=True, slots=True)
class Proposed:
    """What was proposed.

    Args:
        kind: Kind of the action.
        action: The action in words.
        reason: Why.
        expectation: What was expected of it; None for the reflex and for no_action.
        latency_seconds: How long the manager took; None for the reflex.
        by: Who answered a question: the manager, or ``rules`` as its fallback.
        failure: Why the manager did not, if the fallback answered.
        objection: Why somebody wants it rejected; empty for none.
        approved_by: Who approved it, where approval was asked for.
    """

    kind: str
    action: str
    reason: str
    expectation: Expectation | None
    latency_seconds: float | None
    by: Answerer = "manager"
    failure: str = ""
    objection: str = ""
    approved_by: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """The verifier's verdict on an action, after ``step``."""

    step: int
    action: str
    accepted: bool
    reasons: tuple[Rejection, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """A control whose value an intervention changed."""

    control: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an intervention brought, as far as measured.

    Args:
        objective_before: Objective of the state it started from; None if never evaluated.
        objective_after: Best objective since; None if it failed before an evaluation came.
        gain: How much better that is; None where there is nothing finite to compare with.
        expected_gain: What was expected; None for the reflex.
        num_evaluations: Evaluations counted.
        is_complete: Whether measuring has ended.
        met: Whether the expectation was met; None while open, and without one.
    """

    objective_before: float | None
    objective_after: float | None
    gain: float | None
    expected_gain: float | None
    num_evaluations: int
    is_complete: bool
    met: bool | None


@dataclass(frozen=True, slots=True)
class Tried:
    """The trial of a proposal.

    Args:
        number: Its number, from 1.
        began: Step after which the state was forked.
        ended: Step after which the run went on by itself; None while the trial is under way.
        outcome: How it ended; None while it is under way.
        reason: What was compared, or why nothing was.
        spent: Steps that it cost.
        looks: Pairs of an arm and its objective at the early look, as far as there was one.
        measured: Likewise after the decay of its rate.
        gain: How much better the objective was with it than without; None while it is under way, and if they were not
            compared.
    """

    number: int
    began: int
    ended: int | None = None
    outcome: TrialOutcome | None = None
    reason: str = ""
    spent: int = 0
    looks: tuple[tuple[Arm, float], ...] = ()
    measured: tuple[tuple[Arm, float], ...] = ()
    gain: float | None = None


@dataclass(frozen=True, slots=True)
class TakenBack:
    """How the guard took an intervention back.

    Args:
        step: Step after which it did.
        intervention: Number of the guard's own intervention.
        action: What it did, in words.
        reason: Why.
    """

    step: int
    intervention: int
    action: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """One question to the manager, or one act of the reflex, the guard or the schedule, from its cause to its outcome.

    Args:
        number: From 1, in the order they began.
        source: Who decided.
        question: Number of the question; None for the others.
        step: Step after which it was asked, or after which they acted.
        symptoms: What had been found then, with evidence.
        proposal: What was proposed; None while no answer came.
        consultation: What asking a language model took, also without an answer, and the most it can have taken where it
            has unsettled calls; None for other managers.
        verdicts: Verdicts in order: the reflex goes on to its next choice after a rejection.
        intervention: Number of the intervention; None if nothing was carried out.
        applied_step: Step after which it was applied; None if it was not.
        changes: Controls whose value it changed.
        read_back: What the next optimizer step really used.
        outcome: What it brought; None while not measured.
        ending: What became of it.
        detail: Why nothing happened, or what went wrong; empty if there is nothing to say.
        tried: Its trial; None if it was not tried.
        harm: What the guard found it, or those watched with it, to have done; None if no harm was found.
        taken_back: How the guard took it back; None if it did not.
        harm_stays: Why the harm was not taken back; empty if it was, has yet to be, or there was none.
        takes_back: Numbers of the interventions that it, as the guard's, takes back, or would have if it had not failed.
    """

    number: int
    source: Source
    question: int | None
    step: int
    symptoms: tuple[Symptom, ...]
    proposal: Proposed | None = None
    consultation: Consultation | None = None
    verdicts: tuple[Judged, ...] = ()
    intervention: int | None = None
    applied_step: int | None = None
    changes: tuple[Changed, ...] = ()
    read_back: tuple[ReadBack, ...] = ()
    outcome: Outcome | None = None
    ending: Ending = "open"
    detail: str = ""
    tried: Tried | None = None
    harm: HarmFound | None = None
    taken_back: TakenBack | None = None
    harm_stays: str = ""
    takes_back: tuple[int, ...] = ()

    @property
    def is_idle(self) -> bool:
        """Whether it is a question that came to no action."""
        return self.question is not None and self.ending == "no_action"

    def as_json(self) -> dict[str, Any]:
        """Return the decision as JSON-ready values."""
        return json_ready(self)


@dataclass(frozen=True, slots=True)
class Point:
    """A value of the objective, and the step it was evaluated after."""

    step: int
    value: float


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong beside the training."""

    step: int
    problem: str
    detail: str


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run at a glance.

    Args:
        run: Its name.
        manager: Which manager.
        status: Whether its ledger was closed in order, or the loop was asked to stop before; ``cut off`` if the training
            loop raised; ``not ended`` is running, or cut off without a word.
        ended_because: What the loop raised, why it was asked to stop, or the reason given at its end; None if neither.
        steps: Step of the newest record.
        total_steps: Planned length; None if not known.
        objective: Direction and signal, such as ``minimize val/loss``.
        first: First evaluation.
        best: Best finite evaluation.
        last: Newest evaluation.
        num_evaluations: Evaluations reported.
        num_questions: Questions asked.
        interventions: Actions applied, whoever decided them.
        reflex_interventions: Of these, those of the reflex.
        guard_interventions: Of these, those of the guard.
        rejections: Verdicts against an action.
        is_shadow: Whether the manager's proposals are judged and recorded, but never applied.
        shadow_interventions: Actions that would have been applied, were it not for that.
        recipe_start: Recipe the run began with.
        recipe_now: Recipe in force.
        problems: What went wrong beside the training.
        notes: What is limited in this run.
        versions: Packages and their versions.
        resumed_after: Steps that other processes went on from.
        origin: Whose course it follows; None for its own.
        trials: Trials of proposals.
        trials_won: Of these, those after which the proposal was applied.
        trial_steps: Steps that they cost.
        untried: Why there is none, though the canary tries proposals; else empty.
        canary: Whether a proposal is tried before it counts.
        is_guarded: Whether the guard acts.
        watched: Interventions of the manager that it watched.
        unwatched: For each of the others, why it could not.
        taken_back: Interventions that it took back.
        harm_stays: Why harm was not taken back, each reason once.
        held_since: Step since which it holds the recipe; None if it does not.
    """

    run: str
    manager: str
    status: Status
    ended_because: str | None
    steps: int
    total_steps: int | None
    objective: str
    first: Point | None
    best: Point | None
    last: Point | None
    num_evaluations: int
    num_questions: int
    interventions: int
    reflex_interventions: int
    guard_interventions: int
    rejections: int
    is_shadow: bool
    shadow_interventions: int
    recipe_start: Mapping[str, float]
    recipe_now: Mapping[str, float]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    resumed_after: tuple[int, ...]
    origin: Origin | None
    trials: int
    trials_won: int
    trial_steps: int
    untried: str
    canary: CanaryMode
    is_guarded: bool
    watched: int
    unwatched: tuple[str, ...]
    taken_back: int
    harm_stays: tuple[str, ...]
    held_since: int | None

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON-ready values."""
        return json_ready(self)


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run at a glance, its decisions and its evaluations, oldest first."""

    summary: RunSummary
    decisions: tuple[Decision, ...]
    evaluations: tuple[Point, ...]

    def grouped(self) -> Iterator[list[Decision]]:
        """Yield the decisions, questions in a row that came to no action together."""
        group: list[Decision] = []
        for decision in self.decisions:
            if group and not (decision.is_idle and group[-1].is_idle):
                yield group
                group = []
            group.append(decision)
        if group:
            yield group

    def as_json(self) -> dict[str, Any]:
        """Return the timeline as JSON-ready values."""
        return json_ready(self)


def json_ready(value: Any) -> Any:
    """Return dataclasses, mappings, sequences and numbers as values that are valid JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_ready(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (tuple, list)):
        return [json_ready(item) for item in cast("list[object]", value)]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
