"""The action surface: the actions and exact values that are executable now.

A value with no effect, outside the envelope, or inside its dwell time is not on it. The verifier
accepts what is on the surface and nothing else; a property test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.controls.coupling import keeps_rate
from trimtab.controls.envelope import Envelope
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Standing


@dataclass(frozen=True, slots=True)
class Options:
    """The exact values one control may take next, sorted; never empty."""

    control: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RollbackOption:
    """A checkpoint that can be rolled back to, and what may be adjusted after it.

    Args:
        checkpoint: Its id.
        step: Step after which it was taken.
        objective: The objective evaluated on it.
        is_best: Whether no other checkpoint has a better objective.
        adjustable: Values that may be set together with the rollback, from its recipe.
    """

    checkpoint: str
    step: int
    objective: float
    is_best: bool
    adjustable: tuple[Options, ...]


@dataclass(frozen=True, slots=True)
class Surface:
    """Everything executable now besides no_action, which always is.

    Args:
        adjustable: Values that may be set without a rollback.
        rollbacks: Checkpoints that may be rolled back to, oldest first.
        max_controls: Most controls in one intervention, 0 to 3.
        max_skip: Most batches that may be skipped; 0 if none.
        may_stop: Whether stop is offered.
    """

    adjustable: tuple[Options, ...]
    rollbacks: tuple[RollbackOption, ...]
    max_controls: int
    max_skip: int
    may_stop: bool

    @property
    def is_empty(self) -> bool:
        """Whether nothing but no_action is executable."""
        return not (self.adjustable or self.rollbacks or self.max_skip or self.may_stop)


def build_surface(envelope: Envelope, standing: Standing) -> Surface:
    """Return what is executable from ``standing`` within ``envelope``."""
    if standing.interventions_left(envelope) == 0:
        return Surface((), (), 0, 0, may_stop=False)
    best = standing.best_checkpoint(envelope)
    rollbacks = (
        tuple(
            RollbackOption(
                checkpoint.id,
                checkpoint.step,
                checkpoint.score,
                is_best=checkpoint is best,
                adjustable=adjustable_from(envelope, standing, checkpoint.recipe),
            )
            for checkpoint in standing.checkpoints
            if checkpoint.score is not None and standing.is_worth_going_back_to(envelope, checkpoint)
        )
        if standing.rollbacks_left(envelope)
        else ()
    )
    return Surface(
        adjustable=adjustable_from(envelope, standing, standing.recipe),
        rollbacks=rollbacks,
        max_controls=envelope.authority.controls_per_intervention,
        max_skip=envelope.reflex.skip_batches if standing.can_skip else 0,
        may_stop=standing.may_stop(envelope),
    )


def adjustable_from(envelope: Envelope, standing: Standing, recipe: Recipe) -> tuple[Options, ...]:
    """Return the values each control may take next when ``recipe`` is in force."""
    options: list[Options] = []
    for control in envelope.controls:
        if standing.dwell_left(control) or not envelope.is_open(control, standing.step):
            continue
        values = tuple(
            value
            for value in control.reachable(recipe[control.name], standing.initial[control.name])
            if standing.may_take(control, value) and keeps_rate(envelope, control, recipe, value, standing.initial)
        )
        if values:
            options.append(Options(control.name, values))
    return tuple(options)
