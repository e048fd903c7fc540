"""authority: the run's budget of interventions and rollbacks, and of controls changed together."""

from __future__ import annotations

from trimtab.decision.action import Adjust, NoAction, Rollback, RollbackAndAdjust, Stop, changes_of, checkpoint_of
from trimtab.verification.case import Case


def authority(case: Case) -> list[str]:
    """Reject what the budget no longer covers, and changes of none, too many or repeated controls."""
    if isinstance(case.action, NoAction):
        return []
    return _budget(case) + _arity(case)


def _budget(case: Case) -> list[str]:
    envelope, standing = case.envelope, case.standing
    rolls_back = checkpoint_of(case.action) is not None
    if case.source == "reflex":
        left = envelope.authority.reflex_rollbacks - standing.reflex_rollbacks_used
        return [f"the reflex has used its {standing.reflex_rollbacks_used} rollbacks"] if rolls_back and left <= 0 else []
    if case.source == "guard":
        is_covered = isinstance(case.action, (Adjust, Rollback))
        return [] if is_covered else ["the guard takes back, and does nothing else"]
    if case.source == "schedule":
        is_covered = isinstance(case.action, (Adjust, Stop))
        return [] if is_covered else ["a schedule adjusts and stops, and does nothing else"]
    if standing.is_held:
        return ["the guard holds the recipe: too many interventions in a row were taken back"]
    if standing.interventions_left(envelope) <= 0:
        return [f"the authority budget of {envelope.authority.interventions} interventions is used up"]
    if isinstance(case.action, Stop) and not envelope.authority.may_stop:
        return ["the authority does not cover stop"]
    if rolls_back and standing.rollbacks_left(envelope) <= 0:
        return [f"the authority budget of {envelope.authority.rollbacks} rollbacks is used up"]
    return []


def _arity(case: Case) -> list[str]:
    if not isinstance(case.action, (Adjust, RollbackAndAdjust)):
        return []
    names = [change.control for change in changes_of(case.action)]
    most = len(names) if case.source in ("schedule", "guard") else case.envelope.authority.controls_per_intervention
    wrong: list[str] = []
    if not 1 <= len(names) <= most:
        wrong.append(f"{len(names)} controls in one intervention; allowed: 1 to {most}")
    if len(set(names)) != len(names):
        wrong.append("a control is changed twice in one intervention")
    return wrong
