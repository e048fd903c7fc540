"""A schedule: a fixed plan of changes, which a run follows without any manager.

Rules:
1. Its steps are lineage steps: the steps that the weights have been through. They go back with a rollback, as the
   optimizer's own schedule does, so a run that was thrown back follows the same plan from there.
2. What is due is a function of the lineage step alone; an entry is due at exactly its step.
3. A value may be given relative to the recipe that the run starts with, so that a plan fits another model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from trimtab.controls.recipe import Recipe
from trimtab.decision.action import Adjust, Change
from trimtab.errors import UsageError

MOST_STEPS: Final = 10**15  # no run is longer; keeps arithmetic on steps exact


@dataclass(frozen=True, slots=True)
class Planned:
    """The value that a control shall have.

    Args:
        control: Its name.
        value: The value, or with ``of`` what it is where the run starts with ``of``.
        of: The starting value that ``value`` goes with: in a run that starts with another one, it is changed by the same
            factor. 1 makes ``value`` a factor on the starting value. None for a value that is the same in every run.
    """

    control: str
    value: float
    of: float | None = None

    def value_in(self, initial: Recipe) -> float:
        """Return the value in a run that starts with the recipe ``initial``; a control it has not counts from 1."""
        if self.of is None:
            return self.value
        start = dict(initial.values).get(self.control, 1.0)
        return self.value if start == self.of else start * (self.value / self.of)


@dataclass(frozen=True, slots=True)
class ScheduleEntry:
    """Changes that are made together, after one step.

    Args:
        step: The lineage step, >= 0; after step 0 means before training begins.
        changes: At least one, of distinct controls.
        reason: Why, for the record; may be empty.
    """

    step: int
    changes: tuple[Planned, ...]
    reason: str = ""

    def action(self, initial: Recipe, cuts: Mapping[str, float], lows: Mapping[str, float]) -> Adjust:
        """Return the changes as an action.

        Args:
            initial: The recipe that the run started with.
            cuts: Factors to which the reflex has cut controls, by name: a plan does not undo them.
            lows: Lowest values of the controls, by name: no cut leads below.
        """
        changes: list[Change] = []
        for planned in self.changes:
            value, cut = planned.value_in(initial), cuts.get(planned.control)
            if cut is not None:
                value = min(value, max(value * cut, lows.get(planned.control, -math.inf)))
            changes.append(Change(planned.control, value + 0.0))
        return Adjust(tuple(changes))


@dataclass(frozen=True, slots=True)
class Schedule:
    """A fixed plan.

    Args:
        entries: By step, rising; those of one step are applied in their order.
        stop_after: Lineage step after which the loop is asked to end; None for never.
    """

    entries: tuple[ScheduleEntry, ...] = ()
    stop_after: int | None = None

    def due(self, lineage_step: int) -> tuple[ScheduleEntry, ...]:
        """Return the entries of exactly this step, in order."""
        low, high = 0, len(self.entries)
        while low < high:  # bisect, without a list of all steps at every step
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.entries[middle].step < lineage_step else (low, middle)
        end = low
        while end < len(self.entries) and self.entries[end].step == lineage_step:
            end += 1
        return self.entries[low:end]

    def moved(self, scale: float = 1.0, shift: int = 0) -> Schedule:
        """Return the plan with its steps multiplied by ``scale``, rounded, and then later by ``shift`` steps.

        What would come before the start is in force from the start.

        Args:
            scale: > 0 and finite.
            shift: Steps; may be negative.

        Raises:
            UsageError: Give a positive factor, and steps that stay below 1e15.
        """
        if isinstance(scale, bool) or not math.isfinite(scale) or scale <= 0:
            raise UsageError("the scale of a schedule is out of range", received=scale, allowed="a finite factor > 0")
        entries = tuple(replace(entry, step=_moved(entry.step, scale, shift)) for entry in self.entries)
        stop_after = None if self.stop_after is None else _moved(self.stop_after, scale, shift)
        return Schedule(entries, None if stop_after is None else max(1, stop_after))


def _moved(step: int, scale: float, shift: int) -> int:
    # Whole numbers stay exact; half a step goes up, so that equal distances stay as equal as they can.
    scaled = step if scale == 1 else step * scale
    if scaled + abs(shift) >= MOST_STEPS:
        raise UsageError("a step of the schedule would be too late", received=f"{scaled:.6g}", allowed=f"< {MOST_STEPS:.0e}")
    return max(0, (scaled if isinstance(scaled, int) else math.floor(scaled + 0.5)) + shift)


def relative(control: str, value: float, start: float) -> Planned:
    """Return ``value`` relative to ``start``: as a factor where one gives it exactly, else beside its start."""
    if start != 0 and math.isfinite(ratio := value / start):
        for digits in (3, 6, 9, 12, 15, 17):
            factor = float(f"{ratio:.{digits}g}")
            if start * factor == value:
                return Planned(control, factor, 1.0)
        return Planned(control, value, start)
    return Planned(control, value)
