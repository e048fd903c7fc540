"""The guard: takes back interventions of the manager that did harm.

Interventions are watched over all the evaluations of `Deliberation.measure_over_evaluations`, however soon a manager says that
they are a success. One that follows before that is watched together with those before it, from the first on: else a slow
ratchet would be measured against what it has come to itself. Each is held against the state just before it, too, and the run
goes back to the best of these states.

After each evaluation that can show an effect, the objective is held against what the run would have shown without them:
its value before, and its recent pace carried on, unless they have won a trial, which says more. A run that was getting better
is expected to go on at half its pace and slower each time; one that was getting worse, to go on getting worse. Harm is a
shortfall beyond tolerance and noise. Then:
1. If the state is worse than before, too: back to the checkpoint before the first of them, which has its recipe.
2. If it is only slower: the recipe goes back, and the progress stays.
3. After `Guard.failures` in a row without an intervention that brought a gain, the manager's changes are held.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from trimtab.controller.measuring import lag_steps, longest_lag, next_evaluation
from trimtab.controller.noise import borne, deviation
from trimtab.controller.state import State
from trimtab.controls.envelope import Objective
from trimtab.controls.standing import Checkpoint
from trimtab.decision.action import Action, Adjust, Change, Rollback, Stop, changes_of, checkpoint_of
from trimtab.decision.briefing import Intervention
from trimtab.decision.surface import Options, Surface
from trimtab.ledger.record import HarmFound
from trimtab.verification.verdict import Rejection

_PACE_OVER: Final = 4  # gains between evaluations of which the pace is the median
_SLOWER_AT_ONCE: Final = 0.5
_SLOWER_EACH_TIME: Final = 0.8


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Actions to try in order until the verifier accepts one, and why."""

    actions: tuple[Action, ...]
    reason: str


def watched(state: State) -> Intervention | None:
    """Return the first of the manager's interventions that are watched together; None if none is."""
    return next(iter(_chain(state)), None)


def _chain(state: State) -> list[Intervention]:
    """Return the manager's interventions that are watched together, the oldest first."""
    chain: list[Intervention] = []
    for one in reversed(state.interventions if state.envelope.guard.armed else ()):
        if one.source == "guard" or one.taken_back:
            continue  # those before it are still in force
        if not one.is_by_manager or isinstance(one.action, Stop):
            break
        if one.met is False and not one.evaluations_measured:
            continue  # it failed, did not stick, or had nothing measured before the next one
        if _evaluations(state, one, until=chain[0].step if chain else math.inf) >= _most(state):
            break
        chain.insert(0, one)
        if checkpoint_of(one.action):
            break  # what was before it is gone
    return chain


def _most(state: State) -> int:
    return state.envelope.deliberation.measure_over_evaluations


def _evaluations(state: State, intervention: Intervention, until: float = math.inf) -> int:
    """Return how many evaluations could show an intervention's effect, until a step, inclusive."""
    shows = intervention.step + lag_steps(state.envelope, intervention)
    return sum(shows < at <= until for at, _ in state.objectives)


def before(state: State, intervention: Intervention) -> Checkpoint | None:
    """Return the newest checkpoint of the state and the recipe just before ``intervention``; None if there is none."""
    for checkpoint in reversed(state.checkpoints):
        is_earlier = checkpoint.step < intervention.step and not checkpoint.is_left
        if is_earlier and checkpoint.recipe == intervention.recipe_before:
            return checkpoint
    return None


def find_harm(state: State, step: int, objective: float) -> HarmFound | None:
    """Return the harm that the newest evaluation shows; None if there is none.

    Args:
        state: Before the evaluation is folded.
        step: Step of the evaluation.
        objective: The evaluated objective.
    """
    chain = _chain(state)
    found = [_harm_since(state, one, step, objective, is_first=one is chain[0]) for one in chain]
    harms = [harm for harm in found if harm is not None]
    harms.sort(key=lambda harm: (not harm.is_worse, harm.gain))  # the one before which the state was best comes first
    return next((harm for harm in harms if take_back(state, harm) is not None), next(iter(harms), None))


def _harm_since(state: State, intervention: Intervention, step: int, objective: float, *, is_first: bool) -> HarmFound | None:
    """Return the harm done since ``intervention``.

    One that is not the first of those watched is blamed for a worse state alone: who acts at every evaluation would else be
    held against how bad it was long ago, and a slower pace is due to all of them.
    """
    if intervention.number <= state.harm_left or step <= intervention.step + lag_steps(state.envelope, intervention):
        return None  # there is no way back, which was said; or nothing can show yet
    known = [value for at, value in state.objectives if at <= intervention.step]
    start = _start(intervention)
    if start is None and known and not checkpoint_of(intervention.action):
        start = known[-1]  # the newest one was no number
    if start is None:
        return None
    goal = state.envelope.objective
    evaluations = sum(at > intervention.step for at, _ in state.objectives) + 1
    expected = 0.0 if checkpoint_of(intervention.action) else _foreseen(goal, known, evaluations)
    if expected > 0 and (not is_first or _was_tried(state, intervention)):
        expected = 0.0
    least_harm = borne(state.envelope.guard, known, start)
    gain = goal.gain(start, objective) if math.isfinite(objective) else -math.inf
    if expected - gain <= least_harm:
        return None
    is_worse = gain < min(0.0, expected) - least_harm
    has_changed = bool(state.recipe.difference(intervention.recipe_before))
    if not is_worse and not has_changed and checkpoint_of(intervention.action) is None:
        return None  # only slower, and the recipe is as it was before: there is nothing to take back
    return HarmFound(step, intervention.number, objective, gain, expected, least_harm, is_worse)


def take_back(state: State, harm: HarmFound) -> TakeBack | None:
    """Return how what did harm is taken back; None if there is no way back any more."""
    intervention = next((one for one in state.interventions if one.number == harm.intervention), None)
    newest = next((one for one in reversed(state.interventions) if one.source != "guard"), None)
    if intervention is None or newest is None or not newest.is_by_manager:
        return None
    verb = "is worse than before it" if harm.is_worse else "gains less than without it"
    least = harm.expected - harm.tolerance
    reason = f"{state.envelope.objective.signal} {verb}: gain {harm.gain:.4g}, expected at least {least:.4g}"
    checkpoint = before(state, intervention)
    weights: list[Action] = [] if checkpoint is None else [Rollback(checkpoint.id)]
    changed = state.recipe.difference(intervention.recipe_before)
    changes = tuple(Change(name, intervention.recipe_before[name]) for name, _ in changed)
    recipe: list[Action] = [Adjust(changes)] if changes else []
    # A rollback of the manager that only lost progress cannot be undone: what lay behind it is gone.
    actions = [*weights, *recipe] if harm.is_worse else [*recipe, *weights]
    actions = [action for action in actions if action not in state.ways_back_failed]
    return TakeBack(tuple(actions), reason) if actions else None


def take_back_for(state: State, symptom: str, signal: str) -> TakeBack | None:
    """Return how the intervention being measured is taken back because of a fault; None if there is none to blame."""
    intervention = watched(state)
    checkpoint = None if intervention is None else before(state, intervention)
    if intervention is None or checkpoint is None:
        return None
    return TakeBack((Rollback(checkpoint.id),), f"{symptom} in {signal} while intervention {intervention.number} was watched")


def objection(state: State, step: int, action: Action) -> Rejection | None:
    """Return why a change after ``step`` is too late: no evaluation behind it could take it back; None if one could."""
    lag = longest_lag(state.envelope, action)
    if not changes_of(action) or not _is_too_late(state, step, lag):
        return None
    behind = f"after {lag} steps of lag " if lag else ""
    return Rejection(
        "guard", f"harm would show {behind}at the end of the run only, at step {state.total_steps}, and could not be undone"
    )


def open_surface(state: State, surface: Surface, step: int) -> Surface:
    """Return what of an action surface is not too late after ``step``."""

    def timely(adjustable: tuple[Options, ...]) -> tuple[Options, ...]:
        lag = {control.name: control.effect_lag_steps for control in state.envelope.controls}
        return tuple(option for option in adjustable if not _is_too_late(state, step, lag[option.control]))

    rollbacks = tuple(replace(option, adjustable=timely(option.adjustable)) for option in surface.rollbacks)
    return replace(surface, adjustable=timely(surface.adjustable), rollbacks=rollbacks)


def _is_too_late(state: State, step: int, lag: int) -> bool:
    if not state.envelope.guard.armed or state.total_steps is None or not state.evaluate_every_steps:
        return False
    return next_evaluation(state, step + lag) >= state.total_steps


def _start(intervention: Intervention) -> float | None:
    """Return what the objective is held against; None if there is nothing, or nothing that could be taken back.

    After a rollback it is that of the course that was left: the way behind the checkpoint is known, and was given up.
    """
    rolled_back = checkpoint_of(intervention.action) is not None
    if rolled_back and not changes_of(intervention.action):
        return None
    start = intervention.objective_left if rolled_back else intervention.objective_before
    return start if start is not None and math.isfinite(start) else None


def helped_by(state: State) -> int:
    """Return the number of an intervention that the newest evaluation shows to have brought a gain; 0 if there is none.

    It is one of the manager's that was watched to its end just now. A gain is more than noise and, unless a trial has shown
    it already, more than the run's own pace. None counts twice, though evaluations come again after a rollback.
    """
    if not state.objectives:
        return 0
    newest, goal = state.objectives[-1][1], state.envelope.objective
    for one in reversed(state.interventions):
        is_change = one.is_by_manager and not one.taken_back and changes_of(one.action)
        start = _start(one) if is_change and one.number > state.helped_by else None
        if start is None or _evaluations(state, one) != _most(state) + 1:
            continue
        known = [value for at, value in state.objectives if at <= one.step]
        has_pace = not one.trial and checkpoint_of(one.action) is None
        by_itself = max(0.0, _pace(goal, known)) * (_most(state) + 1) if has_pace else 0.0
        if goal.gain(start, newest) > by_itself + deviation(known):
            return one.number
    return 0


def _was_tried(state: State, first: Intervention) -> bool:
    """Return whether all that is watched was measured beside no_action, which says more than the pace of the past."""
    return all(one.trial for one in state.interventions if one.number >= first.number and one.is_by_manager)


def _foreseen(goal: Objective, known: list[float], evaluations: int) -> float:
    """Return the gain after so many evaluations if the run goes on by itself; 0 where its pace is not known.

    Most runs get slower: the newest gain counts if it is less than usual, and each next one is foreseen as less by as much.
    """
    usual = _pace(goal, known)
    if usual <= 0:
        return usual * evaluations
    if usual <= deviation(known):
        return 0.0  # no pace that could be told from noise
    pace = max(0.0, min(usual, goal.gain(known[-2], known[-1])))
    slower = min(_SLOWER_EACH_TIME, pace / usual)
    return _SLOWER_AT_ONCE * pace * sum(slower**number for number in range(evaluations))


def _pace(goal: Objective, known: list[float]) -> float:
    """Return the usual gain from one evaluation to the next; 0 where that is not known."""
    gains = [goal.gain(one, other) for one, other in pairwise(known[-_PACE_OVER - 1 :])]
    return statistics.median(gains) if len(gains) >= 2 else 0.0
