"""What is legal in an envelope, but most likely not meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from trimtab.controls.control import Control
from trimtab.controls.envelope import Envelope
from trimtab.controls.moves import Add, Multiply, SetTo
from trimtab.controls.reach import reach_of

_WIDEST = 1e6
_LEAST_BRIEFING_TOKENS = 1000


def oddities(envelope: Envelope) -> tuple[str, ...]:
    """Return one sentence for everything in an envelope that is legal but odd."""
    found = [*_of_budget(envelope), *_of_timing(envelope), *_of_manager(envelope)]
    for control in envelope.controls:
        found += [f"{control.name}: {said}" for said in (*oddities_of(control), *_of_staleness(envelope, control))]
    return tuple(found)


def oddities_of(control: Control, start: float | None = None) -> tuple[str, ...]:
    """Return one sentence for everything in a control's limits that is legal but odd.

    Args:
        control: The control.
        start: The value that the run starts with; None if it is not known. A `dead_end` there is not repeated here.
    """
    return (*_of_moves(control), *_of_control(control, start))


def dead_end(control: Control, start: float) -> str | None:
    """Return why a run that starts with ``start`` can never change the control, or only once; None if it can."""
    if control.bounds.low == control.bounds.high:
        return "low equals high: it can never change"
    if control.max_values == 1:
        return "max_values is 1, the starting value: it can never change"
    reached = control.reachable(start, start)
    if not reached:
        return f"no move is possible from {start:g}, where it starts"
    if not any(control.reachable(value, start) for value in reached):
        return f"one move from {start:g} leads to {_listed(reached)}, and none leads away from there"
    return None


def _of_budget(envelope: Envelope) -> Iterator[str]:
    authority, reflex = envelope.authority, envelope.reflex
    if not envelope.controls:
        yield "there are no controls: a manager can only roll back and stop"
    if authority.interventions == 0:
        yield "authority.interventions is 0: a manager may do nothing"
    elif authority.rollbacks > authority.interventions:
        yield f"authority.rollbacks is {authority.rollbacks}, but each counts among the {authority.interventions} interventions"
    if not reflex.armed:
        yield "reflex.armed is false: a fault is recorded, and nothing is done about it"
    elif authority.reflex_rollbacks == 0:
        yield "authority.reflex_rollbacks is 0: the first fault stops the run"


def _of_timing(envelope: Envelope) -> Iterator[str]:
    timing = envelope.deliberation
    waiting = [control.name for control in envelope.controls if control.when == "boundary"]
    if waiting and timing.boundary_every_steps == 1:
        yield f"deliberation.boundary_every_steps is 1, so every step is a boundary, also for {', '.join(waiting)}"
    if waiting and timing.boundary_every_steps > timing.stale_after_steps:
        yield (
            f"deliberation.boundary_every_steps ({timing.boundary_every_steps}) is more than stale_after_steps "
            f"({timing.stale_after_steps}): answers for {', '.join(waiting)} may go stale before a boundary comes"
        )
    if not waiting and timing.boundary_every_steps > 1:
        yield "deliberation.boundary_every_steps has no effect: no control has `when: boundary`"


def _of_manager(envelope: Envelope) -> Iterator[str]:
    settings, timing = envelope.manager, envelope.deliberation
    if settings.briefing_tokens < _LEAST_BRIEFING_TOKENS:
        yield (
            f"manager.briefing_tokens is {settings.briefing_tokens}: a prompt that small may offer nothing but no_action; "
            "see trimtab prompt --preview --tokens"
        )
    if settings.approval_default == "approve" and timing.mode == "async":
        yield (
            f"manager.approval_default is approve: a person has {timing.stale_after_steps} steps and "
            f"{timing.deadline_seconds:g} seconds, whichever ends first, and what is not rejected by then is applied"
        )


def _of_moves(control: Control) -> Iterator[str]:
    moves, bounds = control.moves, control.bounds
    if bounds.low == bounds.high:
        yield "low equals high: it can never change"
        return
    if isinstance(moves, SetTo):
        outside = [value for value in moves.values if not control.admits(value)]
        if outside:
            reason = f"not within {bounds.low:g} to {bounds.high:g}{', or not whole' if control.is_whole else ''}"
            yield f"set {_listed(outside)} can never be reached: {reason}"
        inside = sorted({float(value) for value in moves.values if control.admits(value)})
        gaps = [
            f"{one:g} to {other:g}"
            for one, other in pairwise(inside)
            if not control.within(control.distance(one, other), control.largest_change)
        ]
        if gaps:
            yield f"largest_change {control.largest_change:g} is smaller than the move from {', '.join(gaps)}"
        return
    blocked = [amount for amount in _amounts(moves) if not control.within(_size(moves, amount), _limit(control))]
    # A factor on values that are measured as differences moves them by an amount that depends on the value.
    if blocked and (control.scale == "ratio" or isinstance(moves, Add)):
        kind = "multiply" if isinstance(moves, Multiply) else "add"
        yield f"{kind} {_listed(blocked)} can never be used: more than largest_change, cumulative_drift or the bounds allow"


def _of_control(control: Control, start: float | None) -> Iterator[str]:
    low, high = control.bounds.low, control.bounds.high
    if low == high:
        return
    if low > 0 and high / low > _WIDEST:
        yield f"the bounds span a factor of {high / low:.0e}"
    if start is None:
        reach = reach_of(control)
        if not reach.one_move:
            yield f"no move is possible from {reach.start:g}, the middle of its range"
        elif reach.up.num_moves == 0 or reach.down.num_moves == 0:
            yield f"its moves only lead {'down' if reach.up.num_moves == 0 else 'up'}"
        if control.max_values == 1:
            yield "max_values is 1, the starting value: it can never change"
    if control.dwell_steps < control.effect_lag_steps:
        yield (
            f"dwell_steps ({control.dwell_steps}) is less than effect_lag_steps ({control.effect_lag_steps}): "
            "it may change again before the last change shows"
        )


def _of_staleness(envelope: Envelope, control: Control) -> Iterator[str]:
    stale = envelope.deliberation.stale_after_steps
    if control.dwell_steps > stale:
        yield f"dwell_steps ({control.dwell_steps}) is more than stale_after_steps ({stale}): answers go stale while it waits"


def _amounts(moves: Multiply | Add) -> tuple[float, ...]:
    return moves.factors if isinstance(moves, Multiply) else moves.amounts


def _size(moves: Multiply | Add, amount: float) -> float:
    return max(amount, 1 / amount) if isinstance(moves, Multiply) else abs(amount)


def _limit(control: Control) -> float:
    low, high = control.bounds.low, control.bounds.high
    span = high / low if control.scale == "ratio" else high - low
    return min(span, control.largest_change, control.cumulative_drift)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
