"""The controls trimtab knows, each with moves and limits that suit it unless the user says otherwise."""

from __future__ import annotations

from typing import Final

from trimtab.controls.bounds import Bounds
from trimtab.controls.control import Control
from trimtab.controls.moves import Moves, Multiply, SetTo
from trimtab.errors import ControlError

LEARNING_RATE: Final = "learning_rate"
WEIGHT_DECAY: Final = "weight_decay"
DROPOUT: Final = "dropout"

DEFAULT_DWELL_STEPS: Final = 50


def learning_rate(
    low: float,
    high: float,
    *,
    moves: Moves | None = None,
    largest_change: float = 4.0,
    cumulative_drift: float = 1000.0,
    dwell_steps: int = DEFAULT_DWELL_STEPS,
    group: str | None = None,
) -> Control:
    """Declare the learning rate as a control.

    The value is the optimizer's reference rate: the largest ``initial_lr`` (or ``lr``) of its
    groups when trimtab attached. It acts as a factor on whatever schedule the run has, so the ratios
    between groups and the shape of the schedule are kept.

    Args:
        low: Lowest value, > 0, inclusive; in the optimizer's unit.
        high: Highest value, inclusive.
        moves: Permitted moves; by default multiply by 0.25, 0.5, 0.75, 1.25, 1.5 or 2.
        largest_change: Largest ratio in one intervention, inclusive.
        cumulative_drift: Largest ratio to the starting value, inclusive.
        dwell_steps: Steps before the next change.
        group: Name of one parameter group (``param_groups[i]["name"]``); by default all groups.

    Raises:
        ControlError: Change the argument that the message names.
    """
    chosen = moves or Multiply((0.25, 0.5, 0.75, 1.25, 1.5, 2.0))
    return Control(
        _named(LEARNING_RATE, group), Bounds(low, high), chosen, "ratio", largest_change, cumulative_drift, dwell_steps
    )


def weight_decay(
    low: float,
    high: float,
    *,
    moves: Moves | None = None,
    largest_change: float | None = None,
    cumulative_drift: float | None = None,
    dwell_steps: int = DEFAULT_DWELL_STEPS,
    group: str | None = None,
) -> Control:
    """Declare the optimizer's weight decay as a control; groups without decay keep none.

    Args:
        low: Lowest value, inclusive.
        high: Highest value, inclusive.
        moves: Permitted moves; by default set to 0, 0.01, 0.03, 0.1, 0.3 or 1.
        largest_change: Largest difference in one intervention, inclusive; by default the whole range.
        cumulative_drift: Largest difference to the starting value, inclusive; by default the whole range.
        dwell_steps: Steps before the next change.
        group: Name of one parameter group; by default all groups.

    Raises:
        ControlError: Change the argument that the message names.
    """
    bounds = Bounds(low, high)
    if low < 0:
        raise ControlError("a negative weight decay makes weights grow", received=f"low={low!r}", allowed="low >= 0")
    span = high - low
    chosen = moves or SetTo((0.0, 0.01, 0.03, 0.1, 0.3, 1.0))
    largest = span if largest_change is None else largest_change
    drift = span if cumulative_drift is None else cumulative_drift
    return Control(_named(WEIGHT_DECAY, group), bounds, chosen, "difference", largest, drift, dwell_steps)


def dropout(
    low: float,
    high: float,
    *,
    moves: Moves | None = None,
    largest_change: float = 0.25,
    cumulative_drift: float | None = None,
    dwell_steps: int = DEFAULT_DWELL_STEPS,
) -> Control:
    """Declare the dropout probability of all dropout modules as a control.

    The value is the largest probability among them; modules keep their ratios to it.

    Args:
        low: Lowest probability, >= 0, inclusive.
        high: Highest probability, < 1, inclusive.
        moves: Permitted moves; by default set to 0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4 or 0.5.
        largest_change: Largest difference in one intervention, inclusive.
        cumulative_drift: Largest difference to the starting value, inclusive; by default the whole range.
        dwell_steps: Steps before the next change.

    Raises:
        ControlError: Change the argument that the message names.
    """
    bounds = Bounds(low, high)
    if low < 0 or high >= 1:
        raise ControlError("dropout is a probability", received=f"low={low!r}, high={high!r}", allowed="0 <= low, high < 1")
    chosen = moves or SetTo((0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5))
    drift = high - low if cumulative_drift is None else cumulative_drift
    return Control(DROPOUT, bounds, chosen, "difference", largest_change, drift, dwell_steps)


CATALOGUE: Final = {LEARNING_RATE: learning_rate, WEIGHT_DECAY: weight_decay, DROPOUT: dropout}


def base_name(name: str) -> str:
    """Return the catalogue's name of a control: ``learning_rate`` for ``learning_rate/decoder``."""
    return name.partition("/")[0]


def group_name(name: str) -> str | None:
    """Return the parameter group a control is for, or None if it is for all."""
    return name.partition("/")[2] or None


def _named(name: str, group: str | None) -> str:
    return name if group is None else f"{name}/{group}"
