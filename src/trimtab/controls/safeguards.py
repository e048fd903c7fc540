"""What stands between a manager and the run: the reflex, the guard and the canary, as the user sets them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from trimtab.controls.setting_checks import require_choice, require_number, require_range, require_switch
from trimtab.errors import UsageError

CanaryMode = Literal["none", "veto", "win"]

_LOOK_STEPS: Final = 10


@dataclass(frozen=True, slots=True)
class Reflex:
    """What happens within one step of a fault, without asking anybody.

    Args:
        armed: Whether the reflex acts; it is observed and recorded either way.
        learning_rate_cut: Factor on the rate from the second rollback of one fault on, in (0, 1].
        skip_batches: Batches skipped from the second rollback of one fault on, >= 0.
        attempts: Rollbacks for one fault before the run is stopped, >= 1.
        same_fault_within_steps: A fault this soon after a rollback counts as the same one, >= 1.
    """

    armed: bool = True
    learning_rate_cut: float = 0.5
    skip_batches: int = 200
    attempts: int = 4
    same_fault_within_steps: int = 200

    def __post_init__(self) -> None:
        require_switch("reflex.armed", self.armed)
        require_number("reflex.learning_rate_cut", self.learning_rate_cut, 0, 1, above_low=True)
        require_range("reflex.skip_batches", self.skip_batches, 0, 1_000_000)
        require_range("reflex.attempts", self.attempts, 1, 1000)
        require_range("reflex.same_fault_within_steps", self.same_fault_within_steps, 1, 10_000_000)


@dataclass(frozen=True, slots=True)
class Guard:
    """What happens after an intervention of the manager that does harm.

    The objective is worse than expected by more than ``tolerance`` and by more than the noise: then the recipe goes back,
    and the weights too if they are worse than before.

    Args:
        armed: Whether the guard acts.
        tolerance: Loss of the objective that is borne, as a share of its size before the intervention, in [0, 1].
        noise_factor: Loss that is borne, as a multiple of the standard deviation of the objective's noise, >= 0.
        baseline_evaluations: Evaluations before a manager is asked for the first time, >= 1: without a pace of the run's own,
            harm that only slows it would not show.
        failures: Interventions taken back in a row after which the manager is not asked again, >= 1.
        hold_evaluations: Evaluations for which a control that was taken back may not be changed; doubled with each failure
            in a row, >= 0.
    """

    armed: bool = True
    tolerance: float = 0.02
    noise_factor: float = 3.0
    baseline_evaluations: int = 3
    failures: int = 3
    hold_evaluations: int = 2

    def __post_init__(self) -> None:
        require_switch("guard.armed", self.armed)
        require_number("guard.tolerance", self.tolerance, 0, 1)
        require_number("guard.noise_factor", self.noise_factor, 0, 1_000_000)
        require_range("guard.baseline_evaluations", self.baseline_evaluations, 1, 1_000_000)
        require_range("guard.failures", self.failures, 1, 1000)
        require_range("guard.hold_evaluations", self.hold_evaluations, 0, 1_000_000)


@dataclass(frozen=True, slots=True)
class Canary:
    """Whether a manager's proposal is tried from a fork of the run before it counts.

    Each arm trains for ``steps`` on the same batches; before they are compared, its rate decays to zero over
    ``decay_steps``, since a plain short trial always prefers a lower rate (Wu et al. 2018). A candidate that is clearly worse
    at an early look is given up there.

    Args:
        mode: ``none``; ``win``: only what was measured to be better is applied; ``veto``: all but what was worse.
        steps: Steps of an arm that count if it wins, >= 1.
        look_steps: Steps of an arm after which it is looked at early, >= 0 and < ``steps``; never if 0. Where nobody asks for
            a look, an arm of 10 steps or fewer has none.
        decay_steps: Steps over which an arm's rate then decays, which never count, >= 0.
        budget: Share of the run's steps that trials may cost, in (0, 1]; a trial waits until that covers it.
        margin: How much better, or worse, an arm must be to count as that: a share of the objective's size, in [0, 1].
    """

    mode: CanaryMode = "none"
    steps: int = 30
    look_steps: int = _LOOK_STEPS
    decay_steps: int = 10
    budget: float = 0.15
    margin: float = 0.0

    def __post_init__(self) -> None:
        require_choice("canary.mode", self.mode, get_args(CanaryMode))
        require_range("canary.steps", self.steps, 1, 10_000_000)
        require_range("canary.look_steps", self.look_steps, 0, 10_000_000)
        if self.look_steps != _LOOK_STEPS:
            self.require_look()
        require_range("canary.decay_steps", self.decay_steps, 0, 10_000_000)
        require_number("canary.budget", self.budget, 0, 1, above_low=True)
        require_number("canary.margin", self.margin, 0, 1)

    def require_look(self) -> None:
        """Refuse an early look that never comes, of somebody who has asked for one.

        Raises:
            UsageError: Look within the arm, or not at all.
        """
        if self.look_steps >= self.steps:
            raise UsageError(
                f"canary.look_steps is not within an arm of {self.steps} steps",
                received=self.look_steps,
                allowed=f"less than canary.steps, which is {self.steps}",
                next_step="0 turns the early look off",
            )
