"""The briefing: all that a manager gets to see of a run, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from trimtab.controls.envelope import Objective
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Checkpoint
from trimtab.decision.action import Action
from trimtab.decision.proposal import Expectation
from trimtab.decision.surface import Surface
from trimtab.diagnosis.base import Symptom
from trimtab.telemetry.snapshot import Snapshot

MAX_INTERVENTIONS: Final = 24
MAX_LOST_TRIALS: Final = 12


@dataclass(frozen=True, slots=True)
class Intervention:
    """An earlier intervention: what was expected of it and what was measured after it.

    Args:
        number: From 1.
        source: Who proposed it: a manager's name, ``reflex``, ``guard`` or ``schedule``.
        step: Step after which it was applied.
        action: What was done.
        symptoms: Names of the symptoms it answered.
        reason: Why it was proposed.
        recipe_before: The recipe in force just before it.
        expectation: What was expected; None but for a manager's.
        objective_before: Objective of the state it started from; None if never evaluated.
        objective_after: Best objective measured since, over at most the measured evaluations.
        gain: How much better that is than before; None while nothing was measured.
        evaluations_measured: Evaluations seen since.
        is_complete: Whether measuring has ended.
        met: Whether the expectation was met; None while not known.
        objective_left: The newest objective of the course that it left, if it rolled back; None otherwise.
        taken_back: Whether the guard took it back, since it did harm.
        trial: Number of the trial in which it was measured to be better; 0 if it was applied without one.
    """

    number: int
    source: str
    step: int
    action: Action
    symptoms: tuple[str, ...]
    reason: str
    recipe_before: Recipe
    expectation: Expectation | None
    objective_before: float | None
    objective_after: float | None = None
    gain: float | None = None
    evaluations_measured: int = 0
    is_complete: bool = False
    met: bool | None = None
    objective_left: float | None = None
    taken_back: bool = False
    trial: int = 0

    @property
    def is_by_manager(self) -> bool:
        """Whether a manager proposed it."""
        return self.source not in ("reflex", "guard", "schedule")


@dataclass(frozen=True, slots=True)
class LostTrial:
    """An earlier proposal that was tried, was not measured to be better, and so was not applied.

    Args:
        number: Number of the trial, from 1.
        step: Step after which it began.
        action: What was tried.
        symptoms: Names of the symptoms it answered.
        reason: Why it was proposed.
        with_it: Objective that was measured with it; None if a fault ended the trial before.
        without_it: Objective that was measured without it over the same steps; None likewise.
    """

    number: int
    step: int
    action: Action
    symptoms: tuple[str, ...]
    reason: str
    with_it: float | None = None
    without_it: float | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """When an answer counts.

    Args:
        asked_step: Step after which the question was asked.
        applies_at_step: Step after which the answer is applied, if it is there.
        stale_after_step: Last step after which it can still be applied.
        total_steps: Planned length of the run; None if not known.
        evaluate_every_steps: Steps between evaluations, and so between questions at the least.
    """

    asked_step: int
    applies_at_step: int
    stale_after_step: int
    total_steps: int | None
    evaluate_every_steps: int


@dataclass(frozen=True, slots=True)
class ControlLimits:
    """How a control stands in its envelope.

    Args:
        control: Its name.
        unit: What its values are, in a word or two; empty if that says nothing.
        low: Lowest value allowed, inclusive.
        high: Highest value allowed, inclusive.
        effect_lag_steps: Steps until a change can show in the objective.
        changed_step: Step of its last change; None if it never changed.
        free_from_step: First step after which it may change again, as far as its dwell goes.
    """

    control: str
    unit: str
    low: float
    high: float
    effect_lag_steps: int
    changed_step: int | None
    free_from_step: int


@dataclass(frozen=True, slots=True)
class Briefing:
    """What a manager is given to decide on.

    Args:
        question: Number of the question, from 1; the answer must carry it.
        version: Count of actions applied when asked; a later action makes the answer stale.
        objective: What the run is about.
        timing: When the answer counts.
        recipe: The recipe in force.
        initial: The recipe the run started with.
        snapshot: The telemetry.
        symptoms: What the diagnosis found at this evaluation.
        best: The best checkpoint, if any was evaluated.
        interventions: The newest earlier ones, at most `MAX_INTERVENTIONS`, oldest first.
        surface: What is executable.
        limits: How each control stands, in the order of the recipe.
        interventions_left: How many more interventions the envelope allows.
        rollbacks_left: Of these, how many may roll back.
        lost_trials: The newest proposals that were tried and not applied, at most `MAX_LOST_TRIALS`, oldest first.
    """

    question: int
    version: int
    objective: Objective
    timing: Timing
    recipe: Recipe
    initial: Recipe
    snapshot: Snapshot
    symptoms: tuple[Symptom, ...]
    best: Checkpoint | None
    interventions: tuple[Intervention, ...]
    surface: Surface
    limits: tuple[ControlLimits, ...] = ()
    interventions_left: int = 0
    rollbacks_left: int = 0
    lost_trials: tuple[LostTrial, ...] = ()
