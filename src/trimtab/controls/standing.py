"""Where a run stands within its envelope: what has been changed, spent and saved so far."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab.controls.control import Control
from trimtab.controls.envelope import Envelope
from trimtab.controls.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved state that can be rolled back to.

    Args:
        id: Its name, such as ``step-00000400``.
        step: The step after which it was taken.
        objective: The objective evaluated on that state; None while it is not known.
        recipe: The recipe then in force.
        is_left: Whether a rollback left the course it lies on; a manager may still go back to it, the
            reflex does not.
    """

    id: str
    step: int
    objective: float | None
    recipe: Recipe
    is_left: bool = False

    @property
    def score(self) -> float | None:
        """The objective if it can be compared; None if the state was not evaluated to a finite number."""
        return self.objective if self.objective is not None and math.isfinite(self.objective) else None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands within its envelope at a step.

    Args:
        step: Optimizer steps executed so far.
        recipe: The recipe in force.
        initial: The recipe the run started with.
        changed_at: Pairs of control name and the step of its last change; absent if never changed.
        interventions_used: Interventions of the manager so far.
        rollbacks_used: Of these, those that rolled back.
        reflex_rollbacks_used: Rollbacks of the reflex so far.
        version: Count of all applied actions; an answer to an older version is stale.
        checkpoints: Those that can be rolled back to, oldest first.
        can_skip: Whether the run's loader can skip batches.
        values_seen: Pairs of a control with ``max_values`` and the distinct values it has had.
        objective: The newest objective on this course; None if none is known.
        evaluations_since_best: Evaluations on this course since its best one; None if there was none.
        held_until: Pairs of a control whose change was taken back and the step from which it may be changed again.
        is_held: Whether too many interventions in a row were taken back, so that no more are made.
    """

    step: int
    recipe: Recipe
    initial: Recipe
    changed_at: tuple[tuple[str, int], ...]
    interventions_used: int
    rollbacks_used: int
    reflex_rollbacks_used: int
    version: int
    checkpoints: tuple[Checkpoint, ...]
    can_skip: bool
    values_seen: tuple[tuple[str, tuple[float, ...]], ...] = ()
    objective: float | None = None
    evaluations_since_best: int | None = None
    held_until: tuple[tuple[str, int], ...] = ()
    is_held: bool = False

    def checkpoint(self, id: str) -> Checkpoint | None:
        """Return the checkpoint of that id, or None."""
        return next((checkpoint for checkpoint in self.checkpoints if checkpoint.id == id), None)

    def best_checkpoint(self, envelope: Envelope) -> Checkpoint | None:
        """Return the checkpoint with the best objective; None if none has a finite one."""
        best: Checkpoint | None = None
        for checkpoint in self.checkpoints:
            if checkpoint.score is None:
                continue
            if best is None or best.score is None or envelope.objective.better(checkpoint.score, best.score):
                best = checkpoint
        return best

    def dwell_left(self, control: Control) -> int:
        """Return for how many more steps the control's present value must stand; 0 if it may change."""
        changed, held = dict(self.changed_at).get(control.name), dict(self.held_until).get(control.name, 0)
        free = held if changed is None else max(held, changed + control.dwell_steps)
        return max(0, free - self.step)

    def may_take(self, control: Control, value: float) -> bool:
        """Return whether the control may take ``value`` within its budget of distinct values."""
        if control.max_values is None:
            return True
        seen = dict(self.values_seen).get(control.name, (self.initial[control.name],))
        return value in seen or len(seen) < control.max_values

    def is_worth_going_back_to(self, envelope: Envelope, checkpoint: Checkpoint) -> bool:
        """Return whether a checkpoint is no worse than the present course: else a rollback only loses progress."""
        now = self.objective
        if checkpoint.score is None:
            return False
        return now is None or not math.isfinite(now) or not envelope.objective.better(now, checkpoint.score)

    def may_stop(self, envelope: Envelope) -> bool:
        """Return whether a manager may ask the loop to end: there is a result, and it has not got better for a while."""
        since = self.evaluations_since_best
        is_patient = since is None or since >= envelope.authority.stop_patience
        return envelope.authority.may_stop and is_patient and self.best_checkpoint(envelope) is not None

    def interventions_left(self, envelope: Envelope) -> int:
        """Return how many interventions the authority budget still allows."""
        return 0 if self.is_held else max(0, envelope.authority.interventions - self.interventions_used)

    def rollbacks_left(self, envelope: Envelope) -> int:
        """Return how many rollbacks a manager may still order."""
        return min(self.interventions_left(envelope), max(0, envelope.authority.rollbacks - self.rollbacks_used))
