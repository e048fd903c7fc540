"""What a detector is: it reads the telemetry and names a symptom with evidence, or says nothing.

Step detectors run after every step and must be O(1); evaluation detectors run after an evaluation.
A detector holds no state: all memory is in the telemetry, so it survives a resume with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from trimtab.controls.envelope import Objective
from trimtab.telemetry.telemetry import Telemetry
from trimtab.telemetry.window import Window

SymptomName = Literal["non_finite", "loss_spike", "divergence", "plateau", "overfitting"]
Severity = Literal["notice", "warning", "critical"]


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
    """What a detector may read: the telemetry after ``step``, and what the run is about."""

    step: int
    telemetry: Telemetry
    objective: Objective

    def objective_window(self) -> Window | None:
        """Return the window of the objective, or None before the first evaluation."""
        return self.telemetry.window(self.objective.signal)


class Detector(Protocol):
    """Finds one symptom."""

    def detect(self, view: View) -> Symptom | None:
        """Return the symptom if the view shows it, else None."""
        ...
