"""An oracle of the envelope: judges what was done to live values by books of its own.

Rules:
1. It shares no code with verification, and asks no control whether a value is allowed: it reads the declared numbers and
   does its own arithmetic. Ratios and differences have the documented slack of 1e-9; bounds have none.
2. It sees values, not proposals: what they were, what they are, and whether a saved state was brought back in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from trimtab.controls.control import Control
from trimtab.controls.envelope import Envelope
from trimtab.controls.moves import Multiply, SetTo
from trimtab.verification.verdict import Source

_SLACK: Final = 1 + 1e-9
_RATE: Final = "learning_rate"
_POWER: Final = {"linear": 1.0, "sqrt": 0.5}


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done to the live values after a step.

    Args:
        step: The step.
        by: Who had it done.
        before: The values until then.
        after: The values since.
        restored: The values of the saved state that was brought back; None if none was.
    """

    step: int
    by: Source
    before: Mapping[str, float]
    after: Mapping[str, float]
    restored: Mapping[str, float] | None = None


@dataclass
class Books:
    """What was done to one run so far.

    Args:
        changed_at: Step of each control's last change.
        interventions: Of the manager.
        rollbacks: Of these, those that rolled back.
        reflex_rollbacks: Of the reflex.
        values: Distinct values that each control has had.
    """

    changed_at: dict[str, int] = field(default_factory=dict[str, int])
    interventions: int = 0
    rollbacks: int = 0
    reflex_rollbacks: int = 0
    values: dict[str, set[float]] = field(default_factory=dict[str, set[float]])


class EnvelopeOracle:
    """Watches one run.

    Args:
        envelope: What is allowed.
        start: The values that the run starts with.
        books: What was done to it already; by default nothing.
        rounding: Relative error with which values are read, >= 0: 0 for plain numbers; it is granted to everything but bounds.
    """

    def __init__(
        self, envelope: Envelope, start: Mapping[str, float], books: Books | None = None, rounding: float = 0.0
    ) -> None:
        self._envelope, self._start, self._rounding = envelope, dict(start), rounding
        self.books = books or Books()
        for name, value in start.items():
            self.books.values.setdefault(name, {value})

    def see(self, applied: Applied) -> list[str]:
        """Judge what was done, and take it into the books; return what leaves the envelope, one sentence each."""
        found = list(self.breaches(applied))
        books, rolls_back = self.books, applied.restored is not None
        if applied.by == "manager":
            books.interventions += 1
            books.rollbacks += rolls_back
        books.reflex_rollbacks += applied.by == "reflex" and rolls_back
        for name, value in applied.after.items():
            if not self._is_same(value, applied.before[name]):
                books.changed_at[name] = applied.step
            books.values[name].add(value)
        return found

    def breaches(self, applied: Applied) -> Iterator[str]:
        """Yield what leaves the envelope, without taking it into the books."""
        where = f"step {applied.step}, {applied.by}"
        for control in self._envelope.controls:
            value = applied.after[control.name]
            for wrong in self._at_rest(control, value):
                yield f"{where}: {control.name}={value!r} {wrong}"
        base = applied.before if applied.restored is None else applied.restored
        changed = [c for c in self._envelope.controls if not self._is_same(applied.after[c.name], base[c.name])]
        taken_along = self._is_taken_along(base, applied.after)
        named = [control for control in changed if not (control.name == _RATE and taken_along)]
        for wrong in self._authority(applied, len(named)):
            yield f"{where}: {wrong}"
        for control in changed:
            value, old = applied.after[control.name], base[control.name]
            for wrong in self._on_the_way(control, old, value, applied, is_named=control in named):
                yield f"{where}: {control.name} from {old!r} to {value!r}: {wrong}"

    def _at_rest(self, control: Control, value: float) -> Iterator[str]:
        """Judge a value by itself: this holds whoever brought it about."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            yield "is not a finite number"
            return
        if not (control.bounds.low <= value <= control.bounds.high):
            yield f"is outside [{control.bounds.low!r}, {control.bounds.high!r}]"
        if control.is_whole and value != math.floor(value):
            yield "is not whole"
        if self._apart(control, self._start[control.name], value) > control.cumulative_drift * self._slack:
            yield f"has drifted from {self._start[control.name]!r} by more than {control.cumulative_drift!r}"

    def _on_the_way(self, control: Control, old: float, new: float, applied: Applied, *, is_named: bool) -> Iterator[str]:
        """Judge a change by where it started."""
        if not math.isfinite(new):
            return
        if applied.by != "schedule" and self._apart(control, old, new) > control.largest_change * self._slack:
            yield f"more than {control.largest_change!r} at once"
        if applied.by == "manager" and is_named:
            if not any(self._is_same(new, target) for target in _moved(control, old)):
                yield "no permitted move"
            since = applied.step - self.books.changed_at.get(control.name, applied.step - control.dwell_steps)
            if since < control.dwell_steps:
                yield f"after {since} steps of {control.dwell_steps}"
        if applied.by in ("manager", "schedule") and is_named:
            every = self._envelope.deliberation.boundary_every_steps
            if control.when == "boundary" and applied.by == "manager" and applied.step % every:
                yield f"not at a multiple of {every} steps"
            had = self.books.values[control.name]
            if control.max_values is not None and new not in had and len(had) >= control.max_values:
                yield f"more than {control.max_values} distinct values"

    def _authority(self, applied: Applied, num_changed: int) -> Iterator[str]:
        authority, books = self._envelope.authority, self.books
        if applied.by == "reflex" and applied.restored is not None and books.reflex_rollbacks >= authority.reflex_rollbacks:
            yield f"rollback {books.reflex_rollbacks + 1} of {authority.reflex_rollbacks}"
        if applied.by != "manager":
            return
        if authority.shadow:
            yield "done in shadow"
        if books.interventions >= authority.interventions:
            yield f"intervention {books.interventions + 1} of {authority.interventions}"
        if applied.restored is not None and books.rollbacks >= authority.rollbacks:
            yield f"rollback {books.rollbacks + 1} of {authority.rollbacks}"
        if num_changed > authority.controls_per_intervention:
            yield f"{num_changed} controls at once of {authority.controls_per_intervention}"

    def _is_taken_along(self, base: Mapping[str, float], after: Mapping[str, float]) -> bool:
        """Return whether the learning rate changed as the declared scaling of another control's change says."""
        for control in self._envelope.controls:
            power = _POWER.get(control.rate_scaling, 0.0)
            old, new = base[control.name], after[control.name]
            if power and old > 0 and math.isfinite(new) and new > 0 and new != old:
                return math.isclose(after[_RATE], base[_RATE] * (new / old) ** power, rel_tol=max(1e-12, self._rounding))
        return False

    @property
    def _slack(self) -> float:
        return _SLACK * (1 + 2 * self._rounding)

    def _is_same(self, one: float, other: float) -> bool:
        return one == other or (self._rounding > 0 and math.isclose(one, other, rel_tol=self._rounding))

    @staticmethod
    def _apart(control: Control, one: float, other: float) -> float:
        if control.scale == "difference":
            return abs(one - other)
        return math.inf if one <= 0 or other <= 0 else max(one / other, other / one)


def _moved(control: Control, value: float) -> list[float]:
    """Return where the declared moves lead from ``value``."""
    moves = control.moves
    if isinstance(moves, Multiply):
        return [value * factor for factor in moves.factors]
    if isinstance(moves, SetTo):
        return [float(target) for target in moves.values]
    return [value + amount for amount in moves.amounts]
