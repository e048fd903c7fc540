"""How an integration turns what a training loop reports into numbers, without a device sync."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reading:
    """Numbers measured after ``step``; on an accelerator they arrive some steps later.

    Args:
        step: The step.
        values: By signal name.
        refused: Why a reported value was left out, as it is no number; None if all were taken in.
        is_apart: Whether the values came apart from their step, perhaps late.
    """

    step: int
    values: Mapping[str, float]
    refused: str | None = None
    is_apart: bool = False


class Reader(Protocol):
    """Turns reported values into readings."""

    def take(self, step: int, signals: Mapping[str, object]) -> list[Reading]:
        """Take in one step's values and return the readings that are complete, oldest first."""
        ...

    def take_apart(self, step: int, signals: Mapping[str, object]) -> Reading:
        """Return those of the values for ``step`` that are at hand; the others come with a later `take`."""
        ...

    def drain(self) -> list[Reading]:
        """Return all readings that are not complete yet, oldest first; waits for the device."""
        ...

    def discard(self) -> None:
        """Forget values that are not complete yet: they belong to a course that was left."""
        ...

    def take_now(self, step: int, signals: Mapping[str, object]) -> Reading:
        """Return values as numbers at once; may wait for a device, so for evaluations only."""
        ...
