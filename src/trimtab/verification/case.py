"""The case a constraint judges: an action, who proposed it, and where the run stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from trimtab.controls.control import Control
from trimtab.controls.coupling import coupled_rate
from trimtab.controls.entries import LEARNING_RATE
from trimtab.controls.envelope import Envelope
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Standing
from trimtab.decision.action import Action, Change, changes_of, checkpoint_of
from trimtab.verification.verdict import Source


@dataclass(frozen=True, slots=True)
class Case:
    """What is judged.

    Args:
        action: The proposed action.
        source: A manager, the reflex, the guard, or the schedule that the user gave in a manager's place.
        envelope: What the user allows.
        standing: Where the run stands now, at the time of application.
        asked_step: Step after which the question was asked; the present step for the reflex.
        asked_version: Count of applied actions when the question was asked.
        lineage_step: Steps that the weights have been through, for a schedule, which counts in them; else None.
    """

    action: Action
    source: Source
    envelope: Envelope
    standing: Standing
    asked_step: int
    asked_version: int
    lineage_step: int | None = None

    def base_recipe(self) -> Recipe:
        """Return the recipe the changes start from: the checkpoint's after a rollback, else today's."""
        id = checkpoint_of(self.action)
        checkpoint = None if id is None else self.standing.checkpoint(id)
        return self.standing.recipe if checkpoint is None else checkpoint.recipe

    def resulting_recipe(self) -> Recipe:
        """Return the recipe after the action, with a learning rate that is taken along."""
        base = self.base_recipe()
        changes = [(change.control, change.value) for change in changes_of(self.action)]
        # What the guard brings back, a rate that was taken along included, it names.
        rate = None if self.source == "guard" else coupled_rate(self.envelope, base, changes)
        return base.replace(changes if rate is None else [*changes, (LEARNING_RATE, rate)])

    def known_changes(self) -> list[tuple[Control, Change]]:
        """Return the changes whose control the envelope has."""
        return [
            (self.envelope.control(change.control), change)
            for change in changes_of(self.action)
            if change.control in self.envelope
        ]


class Constraint(Protocol):
    """One rule that an action must keep."""

    def __call__(self, case: Case) -> list[str]:
        """Return what is wrong, one sentence each; empty if the rule is kept."""
        ...
