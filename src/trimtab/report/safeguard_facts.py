"""What no single record says of guard and canary: which interventions were watched, and why nothing was tried, or lost."""

from __future__ import annotations

import math
from collections.abc import Iterable

from trimtab.controller import canary, guard
from trimtab.controller.measuring import lag_steps
from trimtab.controller.state import State
from trimtab.controls.safeguards import Canary
from trimtab.decision.action import Stop, changes_of, checkpoint_of
from trimtab.decision.briefing import Intervention
from trimtab.ledger.record import VerdictGiven


def seen_by_guard(state: State, step: int) -> set[int]:
    """Return the numbers of the interventions whose effect an evaluation after ``step`` shows to the guard.

    Args:
        state: Before the evaluation is folded.
        step: Step of the evaluation.
    """
    first = guard.watched(state)
    if first is None:
        return set()
    numbers = blamed(state, first.number)
    together = [one for one in state.interventions if one.number in numbers and _has_way_back(one)]
    # As the guard does: what failed, or did not stick, is passed over.
    acting = [one for one in together if one.met is not False or one.evaluations_measured]
    return {one.number for one in acting if step > one.step + lag_steps(state.envelope, one)}


def watched_by_guard(done: Iterable[Intervention], seen: set[int]) -> tuple[int, tuple[str, ...]]:
    """Return how many interventions the guard watched, and for each of the manager's others why it could not.

    Args:
        done: What was applied.
        seen: Numbers of those whose effect an evaluation showed to the guard.
    """
    # A stop has nothing behind it to watch.
    watchable = [one for one in done if one.is_by_manager and not isinstance(one.action, Stop)]
    # What a fault was blamed on was watched, though no evaluation came.
    unseen = [one for one in watchable if not one.taken_back and one.number not in seen]
    return len(watchable) - len(unseen), tuple(map(_why_unwatched, unseen))


def _why_unwatched(one: Intervention) -> str:
    if not _has_way_back(one):
        return "a rollback without a change has nothing to take back"
    return "no evaluation came that could show its effect"


def blamed(state: State, first: int) -> tuple[int, ...]:
    """Return the numbers of the manager's interventions in force that are watched together, by that of the first."""
    return tuple(one.number for one in state.interventions if one.is_by_manager and one.number >= first and not one.taken_back)


def _has_way_back(one: Intervention) -> bool:
    return checkpoint_of(one.action) is None or bool(changes_of(one.action))


def first_trial_step(settings: Canary) -> int:
    """Return the first step after which the budget covers a trial."""
    return math.ceil(canary.cost(settings) / settings.budget)


def trial_gain(state: State) -> float | None:
    """Return how much better the arm of the action was where the trial under way compared both last; None if it did not."""
    if state.trial is None or state.trial.compared is None:
        return None
    candidate, held = state.trial.compared
    return state.envelope.objective.gain(held, candidate) if math.isfinite(candidate) else -math.inf


def why_not_tried(state: State, verdict: VerdictGiven) -> str:
    """Return why what a verdict on the manager is about is not tried first; empty if it is, or needs no trial.

    Args:
        state: Before the verdict is folded.
        verdict: The verdict.
    """
    if not canary.is_tried(state, verdict.action):
        return ""
    objections = [reason for reason in verdict.reasons if reason.constraint == "canary"]
    objection = next(iter(objections), None) or canary.objection(state, verdict.step)
    if objection is not None:
        return f"at step {verdict.step:,} {objection.detail}"
    return "" if verdict.accepted else "what was proposed was rejected"


def why_no_trial(state: State, not_tried: str) -> str:
    """Return why a run has tried nothing; empty if it has, or was not to.

    Args:
        state: The newest.
        not_tried: Why the newest proposal that needed a trial had none; empty if none needed one.
    """
    settings = state.envelope.canary
    if settings.mode == "none" or state.num_trials:
        return ""
    if state.envelope.authority.shadow:
        return "in shadow nothing is tried"
    if not_tried:
        return not_tried
    first = first_trial_step(settings)
    if state.step < first:
        return f"a trial costs up to {canary.cost(settings)} steps, and the budget covers none before step {first:,}"
    objection = canary.objection(state, first)
    if objection is not None:  # so none could begin later either
        return f"at step {first:,} {objection.detail}"
    return "nothing was proposed that needs a trial" if state.num_questions else "no question was asked"
