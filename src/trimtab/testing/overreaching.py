"""Asking for more than is offered: values past every limit, things that are no numbers, names that nobody knows.

What comes of it has to be a rejection and a record, whatever it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from trimtab.controls.bounds import Bounds
from trimtab.decision.action import Action, Adjust, Change, Rollback, RollbackAndAdjust, SkipBatches
from trimtab.decision.briefing import Briefing
from trimtab.decision.draws import Draws
from trimtab.decision.manager import Manager
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.decision.surface import Options

_NO_VALUES: Final[tuple[Any, ...]] = (
    math.nan, math.inf, -math.inf, True, False, 10**400, -(10**400), 2**63, 1, 0, -0.0, 5e-324, 1.7976931348623157e308,
    "1e-3", None, (0.1,), 1j,
)  # fmt: skip


def wild_value(base: float, bounds: Bounds, targets: Sequence[float], draws: Draws) -> Any:
    """Return a value that a manager might send for a control: seldom a good one, often one next to a limit.

    Args:
        base: The value that a change starts from.
        bounds: Of the control.
        targets: Values that a move would reach; may be empty.
        draws: Decides.
    """
    match draws.below(8):
        case 0:
            return _NO_VALUES[draws.below(len(_NO_VALUES))]
        case 1:
            return next_to((bounds.low, bounds.high)[draws.below(2)], draws)
        case 2 if targets:
            return next_to(targets[draws.below(len(targets))], draws)
        case 3:
            return base * (0.01, 0.25, 0.5, 0.999999999, 1.000000001, 2.0, 4.0, 100.0)[draws.below(8)]
        case 4:
            return base + (bounds.high - bounds.low) * (draws.below(401) - 200) / 100
        case _:
            return targets[draws.below(len(targets))] if targets else base


def next_to(value: float, draws: Draws) -> float:
    """Return ``value``, or the float just below or above it."""
    return (value, math.nextafter(value, -math.inf), math.nextafter(value, math.inf))[draws.below(3)]


class Overreaching:
    """Asks at every other question for what is not offered, and is another manager at the rest.

    Args:
        manager: The other one.
        seed: Of what is asked for.
    """

    def __init__(self, manager: Manager, seed: int) -> None:
        self._manager, self._seed = manager, seed

    def propose(self, briefing: Briefing) -> Proposal:
        """Return a proposal that nobody offered and that mostly has to be rejected, or the other manager's."""
        proposal = self._manager.propose(briefing)
        draws = Draws(f"beyond/{self._seed}/{briefing.question}")
        if draws.below(2):
            return proposal
        action = _BEYOND[draws.below(len(_BEYOND))](briefing, draws)
        expectation = None if not draws.below(8) else Expectation(gain=-1e9, within_evaluations=1)
        return Proposal(action, "more than is offered", expectation)


def _past_a_bound(briefing: Briefing, draws: Draws) -> Action:
    name, low, high = _limits(briefing, draws)
    past = (math.nextafter(low, -math.inf), math.nextafter(high, math.inf), low - 1.0, high * 1e6 + 1.0)
    return Adjust((Change(name, past[draws.below(len(past))]),))


def _no_number(briefing: Briefing, draws: Draws) -> Action:
    return Adjust((Change(_limits(briefing, draws)[0], _NO_VALUES[draws.below(len(_NO_VALUES))]),))


def _next_to_a_move(briefing: Briefing, draws: Draws) -> Action:
    offered = briefing.surface.adjustable
    if not offered:
        return _no_number(briefing, draws)
    options = offered[draws.below(len(offered))]
    value = options.values[draws.below(len(options.values))]
    return Adjust((Change(options.control, math.nextafter(value, (-math.inf, math.inf)[draws.below(2)])),))


def _back_at_once(briefing: Briefing, draws: Draws) -> Action:
    """Take a control back to where it started, whether it has stood for long enough or not."""
    moved = briefing.recipe.difference(briefing.initial)
    if not moved:
        return _past_a_bound(briefing, draws)
    name = moved[draws.below(len(moved))][0]
    return Adjust((Change(name, briefing.initial[name]),))


def _too_many(briefing: Briefing, draws: Draws) -> Action:
    changes = [_first(options) for options in briefing.surface.adjustable]
    return Adjust(tuple(changes * (2 + draws.below(9))))


def _unknown(briefing: Briefing, draws: Draws) -> Action:
    nobody = ("no_such_control", "", "../../etc", *(f"{name}/nobody" for name in briefing.recipe))
    return Adjust((Change(nobody[draws.below(len(nobody))], 0.1),))


def _nowhere(briefing: Briefing, draws: Draws) -> Action:
    changes = tuple(_first(options) for options in briefing.surface.adjustable[:1])
    return RollbackAndAdjust("step-99999999", changes) if draws.below(2) else Rollback("../../etc")


def _too_far(briefing: Briefing, draws: Draws) -> Action:
    return SkipBatches((0, -1, briefing.surface.max_skip + 1, 10**12)[draws.below(4)])


def _first(options: Options) -> Change:
    return Change(options.control, options.values[0])


def _limits(briefing: Briefing, draws: Draws) -> tuple[str, float, float]:
    if not briefing.limits:
        return "no_such_control", 0.0, 1.0
    limits = briefing.limits[draws.below(len(briefing.limits))]
    return limits.control, limits.low, limits.high


_BEYOND: Final[tuple[Callable[[Briefing, Draws], Action], ...]] = (
    _past_a_bound, _no_number, _next_to_a_move, _back_at_once, _too_many, _unknown, _nowhere, _too_far,
)  # fmt: skip
