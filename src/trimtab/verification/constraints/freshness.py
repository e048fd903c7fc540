"""freshness: the answer fits the run as it is now, not as it was when the question was asked."""

from __future__ import annotations

from trimtab.verification.case import Case


def freshness(case: Case) -> list[str]:
    """Reject answers that come too late, or from before another action was applied."""
    age = case.standing.step - case.asked_step
    allowed = case.envelope.deliberation.stale_after_steps
    wrong: list[str] = []
    if age > allowed:
        wrong.append(f"the answer is {age} steps old; allowed: {allowed}")
    if case.asked_version != case.standing.version:
        wrong.append("another action was applied after the question was asked")
    return wrong
