"""Measuring an intervention: what was expected of it against what the next evaluations show."""

from __future__ import annotations

import math

from trimtab.controller.state import State
from trimtab.controls.envelope import Envelope
from trimtab.decision.action import Action, changes_of
from trimtab.decision.briefing import Intervention
from trimtab.ledger.record import InterventionMeasured


def lag_steps(envelope: Envelope, intervention: Intervention) -> int:
    """Return the steps until what was changed can show."""
    return longest_lag(envelope, intervention.action)


def longest_lag(envelope: Envelope, action: Action) -> int:
    """Return the longest lag among the controls that an action changes."""
    changed = (change.control for change in changes_of(action) if change.control in envelope)
    return max((envelope.control(name).effect_lag_steps for name in changed), default=0)


def next_evaluation(state: State, step: int) -> int:
    """Return the step of the run's first evaluation behind ``step``; ``step`` where it is not known when it evaluates."""
    every = state.evaluate_every_steps
    return (step // every + 1) * every if every else step


def measure(state: State, step: int, objective: float) -> InterventionMeasured | None:
    """Return what the newest evaluation says about the intervention still being measured.

    A non-finite objective counts as an evaluation without a gain.
    """
    earlier, envelope = state.under_measurement(), state.envelope
    if earlier is None or step <= earlier.step + lag_steps(envelope, earlier):
        return None  # no step has used the new values yet, or none of their effect can show
    best = objective
    after = earlier.objective_after
    if after is not None and math.isfinite(after) and not envelope.objective.better(objective, after):
        best = after
    before = earlier.objective_before
    gain: float | None = None
    if before is not None and math.isfinite(before):
        gain = envelope.objective.gain(before, best) if math.isfinite(best) else -math.inf
    seen = earlier.evaluations_measured + 1
    limit = envelope.deliberation.measure_over_evaluations
    expectation = earlier.expectation
    if expectation is not None:
        limit = min(limit, expectation.within_evaluations)
    met = gain >= expectation.gain if expectation is not None and gain is not None else None
    # A gain that was expected and is there ends the measuring; that nothing was lost shows at the end only.
    is_early = met is True and expectation is not None and expectation.gain > 0
    is_complete = seen >= limit or is_early
    return InterventionMeasured(
        step=step,
        intervention=earlier.number,
        objective_after=best,
        gain=gain,
        evaluations_measured=seen,
        is_complete=is_complete,
        met=met if is_complete else None,
    )
