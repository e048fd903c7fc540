"""How far the moves of a control carry: what one move reaches, and how many it takes to the ends of its range."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from trimtab.controls.control import Control
from trimtab.controls.moves import Multiply, SetTo

_MOST_MOVES: Final = 1000
_NEGLIGIBLE: Final = 1e-3  # of the range: factors come ever closer to 0 and never reach it


@dataclass(frozen=True, slots=True)
class Journey:
    """The way to one end of the range, always by the longest move.

    Args:
        num_moves: Moves that it takes.
        value: The value where no move leads farther.
    """

    num_moves: int
    value: float


@dataclass(frozen=True, slots=True)
class Reach:
    """What a run that starts in the middle of a control's range can reach.

    Args:
        start: The middle: of the permitted values, or of the range.
        one_move: Values that one move reaches.
        up: The way up.
        down: The way down.
    """

    start: float
    one_move: tuple[float, ...]
    up: Journey
    down: Journey


def reach_of(control: Control) -> Reach:
    """Return how far the moves of a control carry from the middle of its range."""
    start = middle(control)
    return Reach(start, control.reachable(start, start), _journey(control, start, max), _journey(control, start, min))


def middle(control: Control) -> float:
    """Return a value in the middle of the range: the geometric mean for a ratio, one that can be reached if whole."""
    low, high = control.bounds.low, control.bounds.high
    if isinstance(control.moves, SetTo) and (permitted := sorted(filter(control.admits, control.moves.values))):
        return permitted[len(permitted) // 2]
    centre = math.sqrt(low) * math.sqrt(high) if control.scale == "ratio" else low + (high - low) / 2
    if not control.is_whole:
        return centre
    growth = [factor for factor in control.moves.factors if factor > 1] if isinstance(control.moves, Multiply) else []
    value = low if growth else float(round(centre))
    while growth and control.admits(value * min(growth)) and value * min(growth) <= centre:
        value *= min(growth)
    return value


def _journey(control: Control, start: float, farthest: Callable[[Sequence[float]], float]) -> Journey:
    value = start
    is_endless = control.scale == "difference" and isinstance(control.moves, Multiply)
    least = _NEGLIGIBLE * (control.bounds.high - control.bounds.low) if is_endless else 0.0
    for taken in range(_MOST_MOVES):
        following = farthest((value, *control.reachable(value, start)))
        if abs(following - value) <= least:
            return Journey(taken, value)
        value = following
    return Journey(_MOST_MOVES, value)
