"""The envelope: everything the user allows trimtab to do to a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from trimtab.controls.control import Control
from trimtab.controls.entries import LEARNING_RATE
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.controls.safeguards import Canary, Guard, Reflex
from trimtab.controls.setting_checks import require_choice, require_number, require_range, require_switch
from trimtab.errors import ControlError, UsageError, nearest

Direction = Literal["minimize", "maximize"]
Mode = Literal["async", "boundary"]


@dataclass(frozen=True, slots=True)
class Objective:
    """The evaluated signal that the run is about, and which way is better."""

    signal: str
    direction: Direction

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Read ``"minimize val/loss"`` or ``"maximize val/accuracy"``.

        Raises:
            UsageError: Write a direction, a space and the signal's name.
        """
        words = text.split()
        if len(words) == 2 and words[0] == "minimize":
            return cls(words[1], "minimize")
        if len(words) == 2 and words[0] == "maximize":
            return cls(words[1], "maximize")
        raise UsageError(
            "the objective is malformed",
            received=text,
            allowed='"minimize SIGNAL" or "maximize SIGNAL"',
            next_step='write for example "minimize val/loss"',
        )

    def __str__(self) -> str:
        return f"{self.direction} {self.signal}"

    def gain(self, before: float, after: float) -> float:
        """Return by how much ``after`` is better than ``before``; negative if it is worse."""
        return before - after if self.direction == "minimize" else after - before

    def better(self, one: float, other: float) -> bool:
        """Return whether ``one`` is strictly better than ``other``."""
        return self.gain(other, one) > 0


@dataclass(frozen=True, slots=True)
class Authority:
    """How much may be done to one run in all.

    Args:
        interventions: Applied actions of the manager, >= 0.
        rollbacks: Of these, how many may roll back, >= 0.
        reflex_rollbacks: Rollbacks of the reflex, >= 0; it then stops the run instead of looping.
        controls_per_intervention: Controls changed together, 1 to 3.
        may_stop: Whether a manager may ask the training loop to end.
        stop_patience: Evaluations without a better objective before it may, >= 0.
        shadow: Whether the manager's proposals are judged and recorded, but never applied. The reflex is not concerned.
    """

    interventions: int = 16
    rollbacks: int = 10
    reflex_rollbacks: int = 6
    controls_per_intervention: int = 3
    may_stop: bool = True
    stop_patience: int = 2
    shadow: bool = False

    def __post_init__(self) -> None:
        for name in ("interventions", "rollbacks", "reflex_rollbacks", "stop_patience"):
            require_range(f"authority.{name}", getattr(self, name), 0, 1_000_000)
        require_range("authority.controls_per_intervention", self.controls_per_intervention, 1, 3)
        for name in ("may_stop", "shadow"):
            require_switch(f"authority.{name}", getattr(self, name))


@dataclass(frozen=True, slots=True)
class Deliberation:
    """When a manager is asked, and when its answer counts.

    Args:
        mode: ``async`` never waits; ``boundary`` waits at an evaluation, up to the deadline.
        every_evaluations: Ask after every so many evaluations, >= 1.
        apply_after_steps: An answer is applied this many steps after the question, not sooner, so
            that a manager's speed does not change the run, >= 1. In mode ``boundary`` it is 1.
        stale_after_steps: An answer that cannot be applied within this many steps of the question
            is dropped, >= apply_after_steps.
        boundary_every_steps: After which steps a control that changes at boundaries only may change: every
            so many, >= 1; such as the steps of one epoch or rollout. If the envelope has such a control,
            every answer waits for the next boundary.
        deadline_seconds: Longest a manager may take, > 0.
        measure_over_evaluations: Evaluations over which an intervention is measured, 1 to 3.
    """

    mode: Mode = "async"
    every_evaluations: int = 1
    apply_after_steps: int = 10
    stale_after_steps: int = 200
    boundary_every_steps: int = 1
    deadline_seconds: float = 30.0
    measure_over_evaluations: int = 3

    @property
    def lead_steps(self) -> int:
        """Steps from a question to the application of its answer."""
        return 1 if self.mode == "boundary" else self.apply_after_steps

    def __post_init__(self) -> None:
        require_choice("the mode", self.mode, get_args(Mode))
        require_range("deliberation.every_evaluations", self.every_evaluations, 1, 1_000_000)
        require_range("deliberation.apply_after_steps", self.apply_after_steps, 1, 1_000_000)
        require_range("deliberation.stale_after_steps", self.stale_after_steps, self.apply_after_steps, 10_000_000)
        require_range("deliberation.boundary_every_steps", self.boundary_every_steps, 1, 10_000_000)
        require_range("deliberation.measure_over_evaluations", self.measure_over_evaluations, 1, 3)
        require_number("deliberation.deadline_seconds", self.deadline_seconds, 0, 86_400, above_low=True)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the user allows: the controls with their limits, and how much may be done to a run.

    Args:
        objective: The signal the run is about.
        controls: Controls with distinct names; may be empty, then only rollbacks are possible.
        authority: Budget per run.
        deliberation: When a manager is asked and its answer counts.
        reflex: What happens on a fault.
        signals: Pairs of a role (see `trimtab.telemetry.roles`) and the name the run reports it under;
            roles that are left out are found by their usual names.
        manager: How the manager is asked, what it may cost, and what happens when it fails.
        guard: What happens after an intervention that does harm.
        canary: Whether a proposal is tried before it counts, and what that may cost.

    Raises:
        ControlError: Declare each control once, ``learning_rate`` where another takes it along, and one such at most.
    """

    objective: Objective
    controls: tuple[Control, ...]
    authority: Authority = field(default_factory=Authority)
    deliberation: Deliberation = field(default_factory=Deliberation)
    reflex: Reflex = field(default_factory=Reflex)
    signals: tuple[tuple[str, str], ...] = ()
    manager: ManagerSettings = field(default_factory=ManagerSettings)
    guard: Guard = field(default_factory=Guard)
    canary: Canary = field(default_factory=Canary)

    def __post_init__(self) -> None:
        names = [control.name for control in self.controls]
        for name in names:
            if names.count(name) > 1:
                raise ControlError("a control is declared twice", received=name, next_step="keep one declaration")
        coupled = [control.name for control in self.controls if control.rate_scaling != "none"]
        if coupled and LEARNING_RATE not in names:
            raise ControlError(
                f"{coupled[0]} takes learning_rate along, which is not a control",
                next_step="declare learning_rate too, or leave rate_scaling out",
            )
        if len(coupled) > 1:
            raise ControlError(
                "two controls take learning_rate along",
                received=", ".join(coupled),
                allowed="one, so that a change of both cannot take the rate past its limits",
                next_step="leave rate_scaling out of the others",
            )

    def __contains__(self, name: str) -> bool:
        return any(control.name == name for control in self.controls)

    def applies_at(self, asked_step: int) -> int:
        """Return the step after which the answer to a question is applied, if it is there by then."""
        soonest = asked_step + self.deliberation.lead_steps
        every = self.deliberation.boundary_every_steps
        boundary = -(-soonest // every) * every
        waits = any(control.when == "boundary" for control in self.controls)
        return boundary if waits and boundary <= asked_step + self.deliberation.stale_after_steps else soonest

    def is_open(self, control: Control, step: int) -> bool:
        """Return whether ``control`` may change after ``step``: always, or at boundaries only."""
        return control.when == "live" or step % self.deliberation.boundary_every_steps == 0

    def control(self, name: str) -> Control:
        """Return the control of that name.

        Raises:
            ControlError: Name one of the envelope's controls.
        """
        for control in self.controls:
            if control.name == name:
                return control
        hint = nearest(name, [control.name for control in self.controls])
        raise ControlError("the envelope has no such control", received=name, next_step=hint)
