"""Traces: what a training run reported, recorded once, so that any set of detectors can be replayed over it.

A trace is a file of JSON lines: what it is, then one line per report in the order of the run. A non-finite value is
written as a string, because JSON has none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from trimtab.errors import UsageError

Kind = Literal["step", "evaluation", "recipe"]

_DIGITS: Final = 7  # what a float32 holds


@dataclass(frozen=True, slots=True)
class Moment:
    """What a run reported at one point.

    Args:
        step: The step that had been taken.
        kind: Signals of a step, of an evaluation, or the recipe that is in force from here on.
        values: By name.
    """

    step: int
    kind: Kind
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Course:
    """What a trace is of.

    Args:
        scenario: Name of the training.
        variant: Which settings of it.
        seed: Of everything drawn.
        fault: Name of the fault, or None.
        injected_step: The first step that the fault can change; None without one.
        objective: Such as ``"minimize val/loss"``.
        evaluate_every_steps: Steps between evaluations.
        num_steps: Steps in all.
    """

    scenario: str
    variant: str
    seed: int
    fault: str | None
    injected_step: int | None
    objective: str
    evaluate_every_steps: int
    num_steps: int

    @property
    def name(self) -> str:
        """A name for files and tables, of its own for each trace."""
        return f"{self.scenario}-{self.variant}-{self.fault or 'none'}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Trace:
    """A run as a supervisor would have been told of it."""

    course: Course
    moments: tuple[Moment, ...]

    def objective_values(self) -> list[tuple[int, float]]:
        """Return step and value of every evaluation of the objective."""
        name = self.course.objective.split()[-1]
        return [(at.step, at.values[name]) for at in self.moments if at.kind == "evaluation" and name in at.values]


def write_trace(path: Path, trace: Trace) -> None:
    """Write a trace; the file is there whole or not at all."""
    lines = [json.dumps(asdict(trace.course))]
    lines += [json.dumps([at.step, at.kind, {k: _encoded(v) for k, v in at.values.items()}]) for at in trace.moments]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(path)


def read_trace(path: Path) -> Trace:
    """Read what `write_trace` wrote.

    Raises:
        UsageError: Delete the file that the message names and record it again.
    """
    try:
        head, *rest = path.read_text(encoding="utf-8").splitlines()
        return Trace(Course(**json.loads(head)), tuple(_moment(json.loads(line)) for line in rest))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError("the trace cannot be read", received=f"{path}: {error}", next_step="delete the file") from error


def _encoded(value: float) -> float | str:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else str(value)


def _moment(entry: Any) -> Moment:
    step, kind, values = entry
    return Moment(step, kind, {name: float(value) for name, value in values.items()})
