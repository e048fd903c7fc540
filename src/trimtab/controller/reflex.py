"""The reflex: what to try against a critical symptom, without asking anybody.

The ladder for one fault (a fault soon after a rollback is the same one):
1. Roll back to the newest good checkpoint. A divergence also cuts the learning rate, since the same
   rate would lead there again; a non-finite value may have been a transient.
2. As 1, with the rate cut, and skip the batches that led to the fault.
3. As 2, from one checkpoint earlier each time.
4. When the attempts or the budget are used up, ask the loop to stop and name the fault: the cause
   lies where rollbacks do not reach.

References:
    Chowdhery et al. (2022), PaLM, section 5.1: restart about 100 steps back, skip 200 to 500 batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab.controller.state import State
from trimtab.controller.transitions import fault_attempt
from trimtab.controls.catalogue import base_name
from trimtab.controls.control import Control
from trimtab.controls.entries import LEARNING_RATE
from trimtab.controls.standing import Checkpoint
from trimtab.decision.action import Action, Change, Rollback, RollbackAndAdjust, Stop
from trimtab.diagnosis.base import Symptom


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions to try in order until the verifier accepts one, why, and batches to skip after it."""

    actions: tuple[Action, ...]
    reason: str
    then_skip_batches: int


def plan(state: State, step: int, symptom: Symptom) -> Plan | None:
    """Return what the reflex does after ``step`` about ``symptom``; None if it is not armed or not concerned."""
    reflex = state.envelope.reflex
    if not reflex.armed or symptom.severity != "critical":
        return None
    attempt = fault_attempt(state, step)
    good = [c for c in state.checkpoints if not c.is_left and (c.objective is None or math.isfinite(c.objective))]
    if not good:
        return Plan((Stop(),), f"{symptom.name} in {symptom.signal}, and no good checkpoint to go back to", 0)
    if attempt > reflex.attempts:
        reason = f"{symptom.name} in {symptom.signal} is back after {attempt - 1} rollbacks: look at the data and the model"
        return Plan((Stop(),), reason, 0)
    # Each rollback gives up what lies behind it, so the one before the newest is one step earlier each time.
    checkpoint = good[-2] if attempt > 2 and len(good) > 1 else good[-1]
    actions: list[Action] = [Rollback(checkpoint.id), Stop()]
    if attempt > 1 or symptom.name == "divergence":
        actions = [*_with_cut(state, checkpoint), *actions]
    reason = f"{symptom.name} in {symptom.signal}, attempt {attempt} of {reflex.attempts}"
    return Plan(tuple(actions), reason, reflex.skip_batches if attempt > 1 and state.can_skip else 0)


def _with_cut(state: State, checkpoint: Checkpoint) -> list[Action]:
    rates = [control for control in state.envelope.controls if base_name(control.name) == LEARNING_RATE]
    changes = tuple(Change(control.name, _cut(state, control, checkpoint)) for control in rates)
    most = state.envelope.authority.controls_per_intervention
    return [RollbackAndAdjust(checkpoint.id, changes[:most])] if changes else []


def _cut(state: State, control: Control, checkpoint: Checkpoint) -> float:
    # From the lower of the two rates: the checkpoint's recipe would undo an earlier cut.
    present = min(state.recipe[control.name], checkpoint.recipe[control.name])
    # As far down as the envelope lets one change go: a rejected cut would be no cut at all.
    return max(
        present * state.envelope.reflex.learning_rate_cut,
        control.bounds.low,
        control.least_within(control.largest_change, checkpoint.recipe[control.name]),
        control.least_within(control.cumulative_drift, state.initial[control.name]),
    )
