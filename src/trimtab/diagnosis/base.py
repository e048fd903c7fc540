"""What a detector is: it reads the telemetry and names a symptom with evidence, or says nothing.

Step detectors run after every step and must be O(1); evaluation detectors run after an evaluation.
A detector holds no state: all memory is in the telemetry, so it survives a resume with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from trimtab.controls.envelope import Objective
from trimtab.controls.recipe import Recipe
from trimtab.telemetry.roles import Roles
from trimtab.telemetry.telemetry import Telemetry
from trimtab.telemetry.window import Window

SymptomName = Literal[
    "non_finite",
    "state_damaged",
    "loss_spike",
    "divergence",
    "plateau",
    "overfitting",
    "underfitting",
    "over_regularization",
    "gradient_explosion",
    "gradient_vanishing",
    "dead_units",
    "oscillation",
    "loss_imbalance",
    "entropy_collapse",
    "entropy_runaway",
    "kl_blowup",
    "value_fit_poor",
    "cautious_exploration",
    "unsafe_exploration",
    "noisy_metrics",
    "metric_stale",
]
Severity = Literal["notice", "warning", "critical"]

STATE_DAMAGED: Final = "state_damaged"
# Evidence of a critical symptom: the step from which on the loss shows it. What was saved since is not to be gone back to.
SINCE_STEP: Final = "since_step"
_USUAL_ROLES: Final = Roles()
_NO_CONTROLS: Final = Recipe(())


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measured number behind a symptom; may be non-finite where that is the finding."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Symptom:
    """A named finding about the run.

    Args:
        name: Which finding.
        severity: ``critical`` calls the reflex, ``warning`` a manager, ``notice`` nobody.
        step: Step after which it was found.
        signal: The signal it was found in.
        evidence: The numbers it rests on.
    """

    name: SymptomName
    severity: Severity
    step: int
    signal: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class View:
    """What a detector may read.

    Args:
        step: The step that was last reported.
        telemetry: All signals after it.
        objective: What the run is about.
        roles: Finds signals by what they mean.
        recipe: The recipe in force.
        evaluate_every_steps: Steps between evaluations.
        is_in_trial: Whether a trial is under way: its evaluations are none of the run's.
    """

    step: int
    telemetry: Telemetry
    objective: Objective
    roles: Roles = _USUAL_ROLES
    recipe: Recipe = _NO_CONTROLS
    evaluate_every_steps: int = 100
    is_in_trial: bool = False

    def window(self, role: str) -> Window | None:
        """Return the window of the signal with that role, or None if the run does not report it."""
        return self.roles.window(self.telemetry, role)

    def name(self, role: str) -> str:
        """Return the name under which the run reports that role; the role itself if it does not."""
        return self.roles.name(self.telemetry, role) or role

    def objective_window(self) -> Window | None:
        """Return the window of the objective, or None before the first evaluation."""
        return self.telemetry.window(self.objective.signal)


class Detector(Protocol):
    """Finds one symptom."""

    def detect(self, view: View) -> Symptom | None:
        """Return the symptom if the view shows it, else None."""
        ...
