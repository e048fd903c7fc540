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
    if isinstance(case.action, Stop) and case.source == "manager" and not _was_evaluated(case):
        wrong.append("nothing was evaluated yet, so there is no result to stop with")
    if isinstance(case.action, SkipBatches):
        most = case.envelope.reflex.skip_batches if case.standing.can_skip else 0
        if type(case.action.count) is not int or not 1 <= case.action.count <= most:
            wrong.append(f"cannot skip {case.action.count!r} batches; allowed: 1 to {most}")
    return wrong


def _was_evaluated(case: Case) -> bool:
    return case.standing.best_checkpoint(case.envelope) is not None


def _checkpoint(case: Case, id: str) -> list[str]:
    checkpoint = case.standing.checkpoint(id)
    if checkpoint is None:
        return [f"there is no checkpoint {id[:80]!r}"]
    if case.source == "manager" and checkpoint.score is None:
        return [f"checkpoint {id} was never evaluated to a finite number"]
    return []
