"""The moves permitted on a control: which values can be reached in one intervention.

A move list is finite, so a manager chooses from exact values instead of inventing numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from trimtab.controls.bounds import is_finite_number
from trimtab.errors import ControlError


@dataclass(frozen=True, slots=True)
class Multiply:
    """Multiply the present value by one of ``factors`` (positive, finite, not 1)."""

    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", _finite("factors", self.factors))
        if any(factor <= 0 or factor == 1 for factor in self.factors):
            raise ControlError("a factor has no effect or turns the sign", received=self.factors, allowed="> 0, not 1")

    def targets(self, value: float) -> tuple[float, ...]:
        """Return the values reachable from ``value`` in one move."""
        return _changed(value, (value * factor for factor in self.factors))


@dataclass(frozen=True, slots=True)
class SetTo:
    """Set the value to one of ``values`` (finite)."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _finite("values", self.values))

    def targets(self, value: float) -> tuple[float, ...]:
        """Return the values reachable from ``value`` in one move."""
        return _changed(value, self.values)


@dataclass(frozen=True, slots=True)
class Add:
    """Add one of ``amounts`` (finite, not 0) to the present value."""

    amounts: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "amounts", _finite("amounts", self.amounts))
        if 0 in self.amounts:
            raise ControlError("an added amount has no effect", received=self.amounts, allowed="not 0")

    def targets(self, value: float) -> tuple[float, ...]:
        """Return the values reachable from ``value`` in one move."""
        return _changed(value, (value + amount for amount in self.amounts))


Moves = Multiply | SetTo | Add


def _changed(value: float, targets: Iterable[float]) -> tuple[float, ...]:
    # A move whose result equals the present value (2 x 0, an added ulp lost in rounding) is not a move.
    # Compared as floats, since an integer may round to the present value; adding 0.0 makes a zero of -0.0.
    numbers = {float(target) + 0.0 for target in targets if is_finite_number(target)}
    return tuple(sorted(number for number in numbers if number != value))


def _finite(what: str, numbers: object) -> tuple[float, ...]:
    """Return what was given as a tuple of finite numbers; a list becomes one."""
    if not isinstance(numbers, (tuple, list)):
        raise ControlError(
            f"{what} are given one by one",
            received=repr(numbers),
            allowed="a tuple of finite numbers",
            next_step=f"write ({numbers!r},), with a comma, for a single one" if is_finite_number(numbers) else None,
        )
    known = tuple(cast("Iterable[float]", numbers))
    if not known or not all(map(is_finite_number, known)):
        raise ControlError(f"{what} must be finite numbers, at least one", received=known)
    return known
