"""Changes that take the learning rate along: a larger batch with a larger rate.

The rate's change is part of the same action, so it must keep the rate's own bounds, largest change and
drift; it need not be one of the rate's moves, and does not wait for its dwell. That holds for the change alone,
whatever else is changed with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from trimtab.controls.control import Control
from trimtab.controls.entries import LEARNING_RATE
from trimtab.controls.envelope import Envelope
from trimtab.controls.recipe import Recipe

_POWER: Final = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}


def coupled_rate(envelope: Envelope, base: Recipe, changes: Iterable[tuple[str, float]]) -> float | None:
    """Return the learning rate that ``changes`` to ``base`` take along; None if they leave it alone.

    A rate that is changed by name is not changed a second time. The result may be outside the rate's limits.
    """
    factor = 1.0
    for name, value in changes:
        if name == LEARNING_RATE:
            return None
        if name in envelope and (power := _POWER[envelope.control(name).rate_scaling]):
            ratio = value / base[name]
            if not math.isfinite(ratio) or ratio <= 0:
                return None  # outside the control's bounds, which says so
            factor *= ratio**power
    return None if factor == 1.0 else base[LEARNING_RATE] * factor


def keeps_rate(envelope: Envelope, control: Control, base: Recipe, value: float, initial: Recipe) -> bool:
    """Return whether the rate that a change of ``control`` takes along keeps its own limits."""
    rate = coupled_rate(envelope, base, ((control.name, value),))
    if rate is None:
        return True
    return envelope.control(LEARNING_RATE).keeps_limits(rate, base[LEARNING_RATE], initial[LEARNING_RATE])
