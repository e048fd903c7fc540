"""The controller's state: what a fold over the ledger knows about a run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from trimtab.controls.envelope import Envelope
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Checkpoint, Standing
from trimtab.decision.action import Action
from trimtab.decision.briefing import Briefing, Intervention, LostTrial
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.decision.schedule import Schedule
from trimtab.diagnosis.base import Symptom
from trimtab.ledger.record import ActionIntended, Arm, HarmFound, TrialLeg


class Phase(StrEnum):
    """Where the deliberation stands."""

    WATCHING = "watching"
    ASKED = "asked"
    ANSWERED = "answered"
    TRYING = "trying"
    ENACTING = "enacting"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Question:
    """An open question to a manager.

    Args:
        number: From 1.
        asked_step: Step after which it was asked.
        version: Count of applied actions then.
        symptoms: Names of the symptoms then.
        briefing: What the manager was given; the fallback answers it too.
        was_sent: False if it went to the fallback at once.
    """

    number: int
    asked_step: int
    version: int
    symptoms: tuple[str, ...]
    briefing: Briefing
    was_sent: bool = True


@dataclass(frozen=True, slots=True)
class Rewind:
    """A rollback: where the run stands in its own history since.

    Args:
        step: Step after which it happened.
        lineage_step: Steps that the restored weights had been through.
        cuts: Pairs of control and factor: how far the reflex has cut it on the way that the run is on since.
    """

    step: int
    lineage_step: int
    cuts: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial under way.

    Args:
        number: From 1.
        action: What is tried.
        symptoms: Names of the symptoms it answers.
        reason: Why it was proposed.
        expectation: What is expected of it.
        began: Step after which the state was forked.
        lineage_step: Steps that the forked weights had been through.
        base: The recipe of the fork.
        since: Step after which the present leg began; of one that went on after an early look, the step at which it would
            have begun without it.
        arm: The present arm.
        leg: Its present leg.
        is_looked_at: Whether the early look of this arm is over.
        looks: Pairs of an arm and its objective at the early look, as far as evaluated.
        objectives: Pairs of an arm and its objective after its decay, as far as evaluated.
    """

    number: int
    action: Action
    symptoms: tuple[str, ...]
    reason: str
    expectation: Expectation | None
    began: int
    lineage_step: int
    base: Recipe
    since: int
    arm: Arm = "no_action"
    leg: TrialLeg = "arm"
    is_looked_at: bool = False
    looks: tuple[tuple[Arm, float], ...] = ()
    objectives: tuple[tuple[Arm, float], ...] = ()

    @property
    def compared(self) -> tuple[float, float] | None:
        """The objectives with the action and without where both arms were measured last; None if they were not."""
        values = dict(self.looks if self.leg == "look" else self.objectives)
        return (values["candidate"], values["no_action"]) if len(values) == 2 else None


@dataclass(frozen=True, slots=True)
class State:
    """Everything the controller knows.

    Args:
        phase: Where the deliberation stands.
        envelope: What the user allows.
        manager: Name of the manager.
        total_steps: Planned length of the run; None if not known.
        evaluate_every_steps: Steps between evaluations.
        can_skip: Whether the loader can skip batches.
        initial: The recipe the run started with.
        recipe: The recipe in force.
        step: Step of the newest record.
        checkpoints: Those that can be rolled back to, oldest first.
        changed_at: Pairs of control and step of its last change.
        interventions_used: Applied actions of the manager.
        rollbacks_used: Of these, rollbacks.
        reflex_rollbacks_used: Rollbacks of the reflex.
        version: Count of all applied actions.
        num_interventions: Count of all intended actions; the last one's number.
        num_questions: Questions asked.
        question: The open question.
        proposal: The answer to it that waits for its step.
        answered_by: Who gave it.
        objection: Why it must be rejected, in somebody's words; empty for none.
        failures_in_a_row: Questions in a row that the manager did not answer.
        last_failure: What the newest of these failures was.
        breaker_left: Questions that it will not be asked, since it failed too often.
        pending: The action being carried out.
        interventions: Those so far with what was measured after them, oldest first.
        num_evaluations: Evaluations reported.
        objective: The newest value of the objective; None before the first evaluation.
        fault_attempts: Rollbacks of the reflex for the present fault.
        fault_repeats: Rollbacks of the reflex for the present fault that were no attempt, as it was back at once.
        last_reflex_step: Step of the reflex's last rollback; None if it never acted.
        last_reflex_span: Steps which that rollback undid.
        values_seen: Pairs of a control with ``max_values`` and the distinct values it has had.
        unasked: The newest symptom of each name since a manager was last asked.
        is_exhausted: Whether the reflex has given up and asked to stop.
        symptom_steps: Pairs of symptom and the step it was last recorded at.
        stop_reason: Why the training loop was asked to end; None if it was not.
        has_manager: Whether there is anybody to ask.
        schedule: The plan that the run follows; None if it follows none.
        rewinds: Its rollbacks, oldest first.
        objectives: Pairs of step and finite objective on the way that the weights have come, the newest last; some thirty.
        harm: What the guard is about to take back.
        ways_back_failed: Actions by which it could not.
        harm_left: Number of the newest intervention whose harm could not be taken back; 0 if there is none.
        taken_back_in_a_row: Interventions that the guard took back since the last one that it watched to the end and that
            brought a gain.
        helped_by: Number of the newest intervention that was seen to bring a gain; 0 if there is none.
        held_until: Pairs of a control that was taken back and the step from which it may be changed again.
        trial: The trial under way.
        num_trials: Trials begun.
        trial_steps: Steps that trials have cost.
        lost_trials: The newest trials that were lost, oldest first.
        is_untriable: Whether no trial can be judged, since the loop does not evaluate when one asks for it.
    """

    phase: Phase
    envelope: Envelope
    manager: str
    total_steps: int | None
    evaluate_every_steps: int
    can_skip: bool
    initial: Recipe
    recipe: Recipe
    step: int = 0
    checkpoints: tuple[Checkpoint, ...] = ()
    changed_at: tuple[tuple[str, int], ...] = ()
    interventions_used: int = 0
    rollbacks_used: int = 0
    reflex_rollbacks_used: int = 0
    version: int = 0
    num_interventions: int = 0
    num_questions: int = 0
    question: Question | None = None
    proposal: Proposal | None = None
    answered_by: str = ""
    objection: str = ""
    failures_in_a_row: int = 0
    last_failure: str = ""
    breaker_left: int = 0
    pending: ActionIntended | None = None
    interventions: tuple[Intervention, ...] = ()
    num_evaluations: int = 0
    objective: float | None = None
    fault_attempts: int = 0
    fault_repeats: int = 0
    last_reflex_step: int | None = None
    last_reflex_span: int = 0
    values_seen: tuple[tuple[str, tuple[float, ...]], ...] = ()
    unasked: tuple[Symptom, ...] = ()
    is_exhausted: bool = False
    symptom_steps: tuple[tuple[str, int], ...] = ()
    stop_reason: str | None = None
    has_manager: bool = True
    schedule: Schedule | None = None
    rewinds: tuple[Rewind, ...] = ()
    objectives: tuple[tuple[int, float], ...] = ()
    harm: HarmFound | None = None
    ways_back_failed: tuple[Action, ...] = ()
    harm_left: int = 0
    taken_back_in_a_row: int = 0
    helped_by: int = 0
    held_until: tuple[tuple[str, int], ...] = ()
    trial: Trial | None = None
    num_trials: int = 0
    trial_steps: int = 0
    lost_trials: tuple[LostTrial, ...] = ()
    is_untriable: bool = False

    @property
    def is_held(self) -> bool:
        """Whether the guard holds the recipe, since too many interventions in a row were taken back."""
        return self.envelope.guard.armed and self.taken_back_in_a_row >= self.envelope.guard.failures

    def standing(self, step: int) -> Standing:
        """Return where the run stands within its envelope after ``step``."""
        return Standing(
            step=step,
            recipe=self.recipe,
            initial=self.initial,
            changed_at=self.changed_at,
            interventions_used=self.interventions_used,
            rollbacks_used=self.rollbacks_used,
            reflex_rollbacks_used=self.reflex_rollbacks_used,
            version=self.version,
            checkpoints=self.checkpoints,
            can_skip=self.can_skip,
            values_seen=self.values_seen,
            objective=self.objective,
            evaluations_since_best=self._evaluations_since_best(),
            held_until=self.held_until,
            is_held=self.is_held,
        )

    def _evaluations_since_best(self) -> int | None:
        sign = 1 if self.envelope.objective.direction == "minimize" else -1
        values = [sign * value for _, value in self.objectives]
        return len(values) - 1 - values.index(min(values)) if values else None

    def lineage_step(self, step: int) -> int:
        """Return how many steps the weights had been through after ``step``: less, where a rollback has undone some."""
        last = self.last_rewind(step)
        return step if last is None else last.lineage_step + step - last.step

    def last_rewind(self, step: int) -> Rewind | None:
        """Return the newest rollback until ``step``, inclusive."""
        return next((rewind for rewind in reversed(self.rewinds) if rewind.step <= step), None)

    def under_measurement(self) -> Intervention | None:
        """Return the intervention that is still being measured, or None."""
        if self.interventions and not self.interventions[-1].is_complete:
            return self.interventions[-1]
        return None
