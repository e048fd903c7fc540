"""The records of the ledger: what was seen by a manager, decided, applied and measured.

A record is a fact in the past tense. The whole state of the controller is a fold over them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from trimtab.actuation.binding import ReadBack
from trimtab.controls.envelope import Envelope
from trimtab.controls.recipe import Recipe
from trimtab.decision.action import Action
from trimtab.decision.briefing import Briefing
from trimtab.decision.consultation import Consultation
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.decision.schedule import Schedule
from trimtab.diagnosis.base import Symptom
from trimtab.verification.verdict import Rejection, Source

SCHEMA: Final = "trimtab/ledger/1"

SUPERSEDED: Final = "superseded"  # the problem of a question that the reflex ended: no fault of the manager

RAISED: Final = "the training loop raised"  # how the reason of a run begins whose loop did not end in order
PROCESS_ENDED: Final = "the process ended"  # the reason of a run that nobody closed
NOTICED_AT_RESUME: Final = (
    "damaged checkpoints were passed over",
    "the data position was not restored",
    "an evaluation that was due when the run was resumed is missing",
    "what was measured behind the resumed state cannot be given up",
)

Arm = Literal["no_action", "candidate"]
TrialOutcome = Literal["won", "lost", "abandoned"]
TrialLeg = Literal["arm", "look", "decay"]
Answerer = Literal["manager", "rules"]
Isolation = Literal["process", "thread", "outside", "nowhere"]  # nowhere: there is nobody to ask


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The first record of every ledger.

    Args:
        step: 0.
        schema: Version of the records.
        run: Name of the run.
        envelope: What the user allows.
        recipe: The recipe the run starts with, as read from the live objects.
        manager: Which manager, as given by the user.
        isolation: Where the manager runs.
        total_steps: Planned length; None if not known.
        evaluate_every_steps: Steps between evaluations.
        can_skip: Whether the loader can skip batches.
        notes: What is limited in this run, such as a data position that cannot be restored.
        versions: Pairs of package and version.
        schedule: The plan that the run follows; None if it follows none.
    """

    step: int
    schema: Literal["trimtab/ledger/1"]
    run: str
    envelope: Envelope
    recipe: Recipe
    manager: str
    isolation: Isolation
    total_steps: int | None
    evaluate_every_steps: int
    can_skip: bool
    notes: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    schedule: Schedule | None = None
    kind: Literal["run_started"] = "run_started"


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose course a run follows, if it repeats that of another.

    Args:
        kind: ``replay``: every answer is that of the other run's ledger. ``branch``: all but that to ``decision``.
        run: Name of the other run.
        head: Hash of the newest line of its ledger.
        decision: Number of the question that is answered differently, or would be in the treated branch; 0 for none.
        change: What is answered instead, in words; empty for nothing.
        seed: Seed of the random numbers from the answer to ``decision`` on; 0 for those of the other run.
    """

    kind: Literal["replay", "branch"]
    run: str
    head: str
    decision: int = 0
    change: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class RunResumed:
    """Another process goes on with the run from a saved state.

    What was recorded after ``after`` and before this record belongs to a course that is left: the steps behind the
    saved state are made again. Answers that were recorded there are used again, not asked for.

    Args:
        step: Step of the state.
        checkpoint: The state; None for the beginning.
        after: Sequence number of the newest record that still counts.
        versions: Pairs of package and version.
        origin: Whose course the run follows from here; None for its own.
        run: Name of the run from here on, if it is another one; empty for the same.
    """

    step: int
    checkpoint: str | None
    after: int
    versions: tuple[tuple[str, str], ...]
    origin: Origin | None = None
    run: str = ""
    kind: Literal["run_resumed"] = "run_resumed"


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A state was saved completely after ``step`` and can be rolled back to.

    Args:
        step: The step.
        checkpoint: Its id.
        state_hash: SHA-256 over all that a step depends on: two states with the same hash are the same, bit for bit.
    """

    step: int
    checkpoint: str
    state_hash: str = ""
    kind: Literal["checkpoint_saved"] = "checkpoint_saved"


@dataclass(frozen=True, slots=True)
class CheckpointDeleted:
    """A checkpoint was given up and can no longer be rolled back to."""

    step: int
    checkpoint: str
    kind: Literal["checkpoint_deleted"] = "checkpoint_deleted"


@dataclass(frozen=True, slots=True)
class EvaluationRecorded:
    """An evaluation was reported.

    Args:
        step: Step it was made after.
        objective: Value of the objective.
        metrics: All reported values, sorted by name.
        checkpoint: The checkpoint of the evaluated state, or None.
    """

    step: int
    objective: float
    metrics: tuple[tuple[str, float], ...]
    checkpoint: str | None
    kind: Literal["evaluation_recorded"] = "evaluation_recorded"


@dataclass(frozen=True, slots=True)
class SymptomObserved:
    """The diagnosis found something; repeats within a short time are not recorded again."""

    step: int
    symptom: Symptom
    kind: Literal["symptom_observed"] = "symptom_observed"


@dataclass(frozen=True, slots=True)
class ManagerAsked:
    """A manager was given a briefing.

    Args:
        step: Step after which it was asked.
        question: Number of the question, from 1.
        briefing: What it was given.
        sent: False if the question went to the fallback at once, since the manager had failed too often.
    """

    step: int
    question: int
    briefing: Briefing
    sent: bool = True
    kind: Literal["manager_asked"] = "manager_asked"


@dataclass(frozen=True, slots=True)
class ProposalReceived:
    """A question was answered; the answer now waits for its step.

    Args:
        step: Step at which the answer came.
        question: The question.
        proposal: The answer.
        latency_seconds: How long the manager took; 0 for the fallback.
        by: Who answered: ``manager``, or ``rules`` as its fallback.
        failure: Why the manager did not, if the fallback answered.
        objection: Why the proposal must be rejected whatever the verifier says, such as a person's words; empty for none.
        approved_by: Who approved it, where approval was asked for.
        consultation: What asking a language model took, an unsuccessful call included.
    """

    step: int
    question: int
    proposal: Proposal
    latency_seconds: float
    by: Answerer = "manager"
    failure: str = ""
    objection: str = ""
    approved_by: str = ""
    consultation: Consultation | None = None
    kind: Literal["proposal_received"] = "proposal_received"


@dataclass(frozen=True, slots=True)
class ManagerFailed:
    """A manager gave no usable answer: late, dead, or not a proposal. It counts as no_action."""

    step: int
    question: int
    problem: str
    detail: str
    consultation: Consultation | None = None
    kind: Literal["manager_failed"] = "manager_failed"


@dataclass(frozen=True, slots=True)
class AnswerDropped:
    """An answer came for a question that is no longer open."""

    step: int
    question: int
    detail: str
    kind: Literal["answer_dropped"] = "answer_dropped"


@dataclass(frozen=True, slots=True)
class VerdictGiven:
    """The verifier judged an action; ``question`` is 0 unless it is a manager's."""

    step: int
    question: int
    source: Source
    action: Action
    accepted: bool
    reasons: tuple[Rejection, ...]
    kind: Literal["verdict_given"] = "verdict_given"


@dataclass(frozen=True, slots=True)
class TrialBegan:
    """The state was forked to try a verified action against no_action; the arm of no_action comes first.

    Args:
        step: Step after which it was forked.
        trial: Number of the trial, from 1.
        question: The question that the action answers.
        action: What is tried.
        recipe: The recipe that the action leads to.
        symptoms: Names of the symptoms it answers.
        reason: Why it was proposed.
        expectation: What is expected of it.
    """

    step: int
    trial: int
    question: int
    action: Action
    recipe: Recipe
    symptoms: tuple[str, ...]
    reason: str
    expectation: Expectation | None
    kind: Literal["trial_began"] = "trial_began"


@dataclass(frozen=True, slots=True)
class TrialMoved:
    """A trial goes on with another leg.

    Args:
        step: Step after which it does.
        trial: Its number.
        arm: The arm from here on.
        leg: ``arm``: it trains; ``look``: it is evaluated early, and goes on from here; ``decay``: its rate decays before it is
            evaluated.
        recipe: The recipe in force, read from the live objects.
        went_back: Whether the state went back for it: to the fork, the early look or the end of the arm.
    """

    step: int
    trial: int
    arm: Arm
    leg: TrialLeg
    recipe: Recipe
    went_back: bool
    kind: Literal["trial_moved"] = "trial_moved"


@dataclass(frozen=True, slots=True)
class TrialMeasured:
    """An arm was evaluated, early or at the end of its decay; ``objective`` is not one of the run's own."""

    step: int
    trial: int
    arm: Arm
    leg: TrialLeg
    objective: float
    kind: Literal["trial_measured"] = "trial_measured"


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """A trial is over.

    Args:
        step: Step after which the run goes on by itself.
        trial: Its number.
        outcome: ``won``: the run goes on from the candidate; ``lost`` and ``abandoned``: as if there had been no trial.
        reason: What was compared, or why it was not.
        spent: Steps that it cost.
        recipe: The recipe in force, read from the live objects.
        went_back: Whether the state went back to the end of the arm of no_action.
    """

    step: int
    trial: int
    outcome: TrialOutcome
    reason: str
    spent: int
    recipe: Recipe
    went_back: bool
    kind: Literal["trial_ended"] = "trial_ended"


@dataclass(frozen=True, slots=True)
class ActionIntended:
    """An action is about to be carried out; durable before anything is touched.

    Args:
        step: Step after which it is carried out.
        intervention: Its number, from 1.
        source: A manager, the reflex, the guard, or the schedule.
        action: What is to be done.
        recipe: The recipe to be in force afterwards.
        symptoms: Names of the symptoms it answers.
        reason: Why it was proposed.
        expectation: What is expected of it; None but for a manager's.
        then_skip_batches: Batches the reflex will skip next, 0 for none.
        takes_back: Number of the first of the interventions that the guard takes back with it, 0 for none.
        trial: Number of the trial that it won, 0 for none: then it is carried out by going on from the candidate's arm.
    """

    step: int
    intervention: int
    source: Source
    action: Action
    recipe: Recipe
    symptoms: tuple[str, ...]
    reason: str
    expectation: Expectation | None
    then_skip_batches: int = 0
    takes_back: int = 0
    trial: int = 0
    kind: Literal["action_intended"] = "action_intended"


@dataclass(frozen=True, slots=True)
class ActionApplied:
    """An action was carried out after ``step``; ``recipe`` was read from the live objects."""

    step: int
    intervention: int
    recipe: Recipe
    kind: Literal["action_applied"] = "action_applied"


@dataclass(frozen=True, slots=True)
class ActionFailed:
    """An action could not be carried out, at least in part.

    Args:
        step: Step after which it was tried.
        intervention: Its number.
        recipe: What is in force, read from the live objects.
        problem: What went wrong.
        restored: The checkpoint whose state was restored all the same, or None.
    """

    step: int
    intervention: int
    recipe: Recipe
    problem: str
    restored: str | None = None
    kind: Literal["action_failed"] = "action_failed"


@dataclass(frozen=True, slots=True)
class ReadBackRecorded:
    """What the first optimizer step after an intervention really used."""

    step: int
    intervention: int
    results: tuple[ReadBack, ...]
    kind: Literal["read_back_recorded"] = "read_back_recorded"


@dataclass(frozen=True, slots=True)
class InterventionMeasured:
    """What an intervention brought, as far as evaluated.

    Args:
        step: Step of the newest evaluation.
        intervention: Its number.
        objective_after: Best objective since.
        gain: How much better that is than before it; negative if worse, None if nothing was known before.
        evaluations_measured: Evaluations since.
        is_complete: Whether measuring has ended.
        met: Whether the expectation was met; None while open, and without an expectation.
    """

    step: int
    intervention: int
    objective_after: float
    gain: float | None
    evaluations_measured: int
    is_complete: bool
    met: bool | None
    kind: Literal["intervention_measured"] = "intervention_measured"


@dataclass(frozen=True, slots=True)
class HarmFound:
    """The guard found that an intervention did harm; it is taken back after the next step.

    Args:
        step: Step of the evaluation that shows it.
        intervention: Its number; of several that are watched together, the first one's.
        objective: What was evaluated.
        gain: How much better that is than before the intervention; negative if worse.
        expected: The gain that the run's recent pace would have brought without it.
        tolerance: The shortfall that is borne, in the unit of the objective.
        is_worse: Whether the state is worse than before, so that the weights go back too.
    """

    step: int
    intervention: int
    objective: float
    gain: float
    expected: float
    tolerance: float
    is_worse: bool
    kind: Literal["harm_found"] = "harm_found"


@dataclass(frozen=True, slots=True)
class ProblemNoticed:
    """Something went wrong beside the training; the recipe is held, training goes on."""

    step: int
    problem: str
    detail: str
    kind: Literal["problem_noticed"] = "problem_noticed"


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run was closed in order."""

    step: int
    reason: str
    kind: Literal["run_ended"] = "run_ended"


Record = (
    RunStarted
    | RunResumed
    | CheckpointSaved
    | CheckpointDeleted
    | EvaluationRecorded
    | SymptomObserved
    | ManagerAsked
    | ProposalReceived
    | ManagerFailed
    | AnswerDropped
    | VerdictGiven
    | TrialBegan
    | TrialMoved
    | TrialMeasured
    | TrialEnded
    | ActionIntended
    | ActionApplied
    | ActionFailed
    | ReadBackRecorded
    | InterventionMeasured
    | HarmFound
    | ProblemNoticed
    | RunEnded
)

# On disk before the run goes on: what was intended, and what became of it.
DURABLE: Final = (
    RunStarted,
    RunResumed,
    CheckpointSaved,
    TrialBegan,
    TrialEnded,
    ActionIntended,
    ActionApplied,
    ActionFailed,
    RunEnded,
)
