"""The reflex: what to try against a critical symptom, without asking anybody.

The ladder for one fault (a fault soon after a rollback is the same one):
1. Roll back to the newest good checkpoint. A divergence also cuts the learning rate, since the same
   rate would lead there again; a non-finite value may have been a transient.
2. As 1, with the rate cut, and skip the batches that led to the fault.
3. As 2, from one checkpoint earlier each time.
4. When the attempts or the budget are used up, ask the loop to stop, name the fault and say what to look
   at: the cause lies where rollbacks do not reach.

A fault that is back at once, before its place has been reached again, may be a burst that ends by itself. It is given a few
steps for that, which are undone like the others, before rung 1 is tried again; after two such repeats the ladder is climbed.

A checkpoint that was saved when the loss had already left its level is not good, however finite it is.

References:
    Chowdhery et al. (2022), PaLM, section 5.1: restart about 100 steps back, skip 200 to 500 batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from trimtab.controller.state import State
from trimtab.controller.transitions import fault_attempt, is_back_at_once, is_to_wait
from trimtab.controls.catalogue import base_name
from trimtab.controls.control import Control
from trimtab.controls.entries import LEARNING_RATE
from trimtab.controls.standing import Checkpoint
from trimtab.decision.action import Action, Change, Rollback, RollbackAndAdjust, Stop, checkpoint_of
from trimtab.diagnosis.base import SINCE_STEP, STATE_DAMAGED, Symptom
from trimtab.ledger.record import ActionIntended
from trimtab.telemetry.signal import GRAD_NORM

_DATA: Final = "look at the batches behind that checkpoint, and at logarithms, divisions and square roots in the loss"
_GRADIENT: Final = "the loss is finite and its gradient is not: look at square roots, norms and divisions near 0 in the model"
_COURSE: Final = "look at the data behind that checkpoint, and at the learning rate, which no permitted cut made low enough"
_STATE: Final = "look for what writes weights, optimizer state or the rate beside the optimizer"


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions to try in order until the verifier accepts one, why, and batches to skip after it."""

    actions: tuple[Action, ...]
    reason: str
    then_skip_batches: int


def plan(state: State, step: int, symptom: Symptom) -> Plan | None:
    """Return what the reflex does after ``step`` about ``symptom``; None if it is not armed, not concerned, or waits."""
    reflex = state.envelope.reflex
    if not reflex.armed or symptom.severity != "critical":
        return None
    attempt, is_repeat = fault_attempt(state, step), is_back_at_once(state, step)
    if is_repeat and is_to_wait(state, step):
        return None
    found = f"{symptom.name} in {symptom.signal}"
    good = _good(state, symptom)
    if not good:
        return Plan((Stop(),), f"{found}, and no good checkpoint to go back to: {_look_at(symptom)}", 0)
    if attempt > reflex.attempts:
        return Plan((Stop(),), f"{found} is back after {_rollbacks(state)} rollbacks: {_look_at(symptom)}", 0)
    if is_repeat:
        reason = f"{found}, back at once: once more, as it may have passed"
        return Plan((*_with_rate(state, good[-1], 1.0), Rollback(good[-1].id), Stop()), reason, 0)
    # Each rollback gives up what lies behind it, so the one before the newest is one step earlier each time.
    checkpoint = good[-2] if attempt > 2 and len(good) > 1 else good[-1]
    actions: list[Action] = [Rollback(checkpoint.id), Stop()]
    if attempt > 1 or symptom.name == "divergence":
        actions = [*_with_rate(state, checkpoint, reflex.learning_rate_cut), *actions]
    reason = f"{found}, attempt {attempt} of {reflex.attempts}"
    return Plan(tuple(actions), reason, reflex.skip_batches if attempt > 1 and state.can_skip else 0)


def said_of_skipping(rollback: ActionIntended) -> str:
    """Return which batches are passed over after a rollback, in words."""
    return f"pass over batches 1 to {rollback.then_skip_batches} behind {checkpoint_of(rollback.action)}: they led to the fault"


def _good(state: State, symptom: Symptom) -> list[Checkpoint]:
    """Return the checkpoints that can be gone back to, oldest first; at least the oldest of those that are finite."""
    finite = [c for c in state.checkpoints if not c.is_left and (c.objective is None or math.isfinite(c.objective))]
    since = next((evidence.value for evidence in symptom.evidence if evidence.name == SINCE_STEP), math.inf)
    # A loss is measured before the step that it leads to: what the step before had done shows in it for the first time.
    return [checkpoint for checkpoint in finite if checkpoint.step < since - 1] or finite[:1]


def _rollbacks(state: State) -> int:
    return state.fault_attempts + state.fault_repeats


def _look_at(symptom: Symptom) -> str:
    if symptom.name == STATE_DAMAGED:
        return _STATE
    if symptom.name == "divergence":
        return _COURSE
    return _GRADIENT if symptom.signal == GRAD_NORM else _DATA


def _with_rate(state: State, checkpoint: Checkpoint, factor: float) -> list[Action]:
    """Return the rollback with the rates times ``factor``; nothing if they are then the checkpoint's own, or there are none."""
    rates = [control for control in state.envelope.controls if base_name(control.name) == LEARNING_RATE]
    changes = [Change(control.name, _cut(state, control, checkpoint, factor)) for control in rates]
    changes = [change for change in changes if change.value != checkpoint.recipe[change.control]]
    most = state.envelope.authority.controls_per_intervention
    return [RollbackAndAdjust(checkpoint.id, tuple(changes[:most]))] if changes else []


def _cut(state: State, control: Control, checkpoint: Checkpoint, factor: float) -> float:
    # From the lower of the two rates: the checkpoint's recipe would undo an earlier cut.
    present = min(state.recipe[control.name], checkpoint.recipe[control.name])
    # As far down as the envelope lets one change go: a rejected cut would be no cut at all.
    return max(
        present * factor,
        control.bounds.low,
        control.least_within(control.largest_change, checkpoint.recipe[control.name]),
        control.least_within(control.cumulative_drift, state.initial[control.name]),
    )
