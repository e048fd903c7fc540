"""Events: what the runtime tells the controller."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.actuation.binding import ReadBack
from trimtab.controller.effect import Shift
from trimtab.controller.state import State
from trimtab.controls.recipe import Recipe
from trimtab.decision.consultation import Consultation
from trimtab.decision.proposal import Proposal
from trimtab.decision.schedule import ScheduleEntry
from trimtab.diagnosis.base import Symptom
from trimtab.ledger.record import RunResumed, RunStarted, TrialBegan, TrialEnded, TrialMoved
from trimtab.telemetry.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class RunBegan:
    """trimtab was attached to a run."""

    record: RunStarted


@dataclass(frozen=True, slots=True)
class RunWentOn:
    """trimtab was attached to a run again.

    Args:
        record: What is recorded of it.
        state: Folded from the records that still count.
        lost: Checkpoints of that state that cannot be rolled back to any more.
    """

    record: RunResumed
    state: State
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepTaken:
    """A step was made while a question is open or answered."""

    step: int


@dataclass(frozen=True, slots=True)
class ScheduleReached:
    """A step was made after which the schedule says ``entry``; None for its end."""

    step: int
    entry: ScheduleEntry | None


@dataclass(frozen=True, slots=True)
class CheckpointWritten:
    """A state was saved completely."""

    step: int
    checkpoint: str
    state_hash: str = ""


@dataclass(frozen=True, slots=True)
class SymptomRaised:
    """A step detector found something after ``step``."""

    step: int
    symptom: Symptom


@dataclass(frozen=True, slots=True)
class EvaluationReported:
    """The user reported an evaluation; ``checkpoint`` is that of the evaluated state."""

    step: int
    objective: float
    metrics: tuple[tuple[str, float], ...]
    checkpoint: str | None
    snapshot: Snapshot
    symptoms: tuple[Symptom, ...]


@dataclass(frozen=True, slots=True)
class AnswerReceived:
    """A manager answered with a well-formed proposal.

    Args:
        step: Step at which the answer came.
        question: The question.
        proposal: The answer.
        latency_seconds: How long it took.
        objection: Why it must be rejected, such as a person's words; empty for none.
        approved_by: Who approved it, where approval was asked for.
        consultation: What asking a language model took.
    """

    step: int
    question: int
    proposal: Proposal
    latency_seconds: float
    objection: str = ""
    approved_by: str = ""
    consultation: Consultation | None = None


@dataclass(frozen=True, slots=True)
class AnswerFailed:
    """A manager's answer is late, lost or not a proposal."""

    step: int
    question: int
    problem: str
    detail: str
    consultation: Consultation | None = None


@dataclass(frozen=True, slots=True)
class EnactmentDone:
    """The effect `Enact` was carried out; ``recipe`` was read from the live objects."""

    step: int
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class EnactmentFailed:
    """The effect `Enact` failed, at least in part.

    Args:
        step: Step after which it was tried.
        recipe: What is in force, read from the live objects.
        problem: What went wrong.
        restored: The checkpoint whose state was restored all the same, or None.
        unusable: The checkpoint that turned out damaged, or None.
    """

    step: int
    recipe: Recipe
    problem: str
    restored: str | None = None
    unusable: str | None = None


@dataclass(frozen=True, slots=True)
class Shifted:
    """The effect `Shift` was carried out; ``record`` has the recipe that was read from the live objects."""

    step: int
    record: TrialBegan | TrialMoved | TrialEnded


@dataclass(frozen=True, slots=True)
class ShiftFailed:
    """The effect `Shift` failed.

    Args:
        step: Step after which it was tried.
        recipe: What is in force, read from the live objects.
        problem: What went wrong.
        effect: What was tried.
        went_back: Whether a kept state was brought back before.
        attempted: Whether it was the action of a candidate that failed, behind that.
    """

    step: int
    recipe: Recipe
    problem: str
    effect: Shift
    went_back: bool = False
    attempted: bool = False


@dataclass(frozen=True, slots=True)
class TrialCutOff:
    """The training loop ended during a trial."""

    step: int


@dataclass(frozen=True, slots=True)
class ReadBackTaken:
    """The first optimizer step after an intervention was observed."""

    step: int
    intervention: int
    results: tuple[ReadBack, ...]


@dataclass(frozen=True, slots=True)
class ProblemFound:
    """Something went wrong beside the training."""

    step: int
    problem: str
    detail: str


@dataclass(frozen=True, slots=True)
class RunClosed:
    """The run ends."""

    step: int
    reason: str


Event = (
    RunBegan
    | RunWentOn
    | StepTaken
    | ScheduleReached
    | CheckpointWritten
    | SymptomRaised
    | EvaluationReported
    | AnswerReceived
    | AnswerFailed
    | EnactmentDone
    | EnactmentFailed
    | Shifted
    | ShiftFailed
    | TrialCutOff
    | ReadBackTaken
    | ProblemFound
    | RunClosed
)
