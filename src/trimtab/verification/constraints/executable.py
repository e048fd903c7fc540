"""executable: the action can be carried out now and has an effect."""

from __future__ import annotations

from trimtab.decision.action import SkipBatches, Stop, changes_of, checkpoint_of
from trimtab.verification.case import Case


def executable(case: Case) -> list[str]:
    """Reject unknown controls and checkpoints, changes without effect, and skips the loader cannot do."""
    wrong: list[str] = []
    checkpoint = checkpoint_of(case.action)
    if checkpoint is not None:
        wrong.extend(_checkpoint(case, checkpoint))
    base = case.base_recipe()
    for change in changes_of(case.action):
        if change.control not in case.envelope:
            wrong.append(f"{change.control[:80]!r} is not a control of the envelope")
        elif change.value == base[change.control] and case.source == "manager":
            wrong.append(f"{change.control}: {change.value!r} is its present value")
    if isinstance(case.action, Stop) and case.source == "manager":
        wrong.extend(_stop(case))
    if isinstance(case.action, SkipBatches):
        most = case.envelope.reflex.skip_batches if case.standing.can_skip else 0
        if type(case.action.count) is not int or not 1 <= case.action.count <= most:
            wrong.append(f"cannot skip {case.action.count!r} batches; allowed: 1 to {most}")
    return wrong


def _stop(case: Case) -> list[str]:
    if case.standing.best_checkpoint(case.envelope) is None:
        return ["nothing was evaluated yet, so there is no result to stop with"]
    if case.envelope.authority.may_stop and not case.standing.may_stop(case.envelope):
        since, patience = case.standing.evaluations_since_best, case.envelope.authority.stop_patience
        return [f"the objective was best {since} evaluations ago; stop is open after {patience} without a better one"]
    return []


def _checkpoint(case: Case, id: str) -> list[str]:
    checkpoint = case.standing.checkpoint(id)
    if checkpoint is None:
        return [f"there is no checkpoint {id[:80]!r}"]
    if case.source == "manager" and checkpoint.score is None:
        return [f"checkpoint {id} was never evaluated to a finite number"]
    if case.source == "manager" and not case.standing.is_worth_going_back_to(case.envelope, checkpoint):
        return [f"checkpoint {id} has objective {checkpoint.score!r}, worse than {case.standing.objective!r} now"]
    return []
