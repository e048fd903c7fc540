"""What becomes of a question that the manager did not answer: the fallback answers it, or nobody does."""

from __future__ import annotations

from trimtab.controller.draft import Draft
from trimtab.decision.consultation import Consultation
from trimtab.decision.rules.manager import RulesManager
from trimtab.ledger.record import ManagerFailed, ProposalReceived

_MAX_DETAIL = 500


def said_late(steps: int) -> str:
    """Say that no answer came while it could count, and what helps."""
    return f"no answer within {steps} steps; raise deliberation.stale_after_steps, or wait at evaluations with mode boundary"


def answer_for_it(draft: Draft, at: int, problem: str, detail: str, consultation: Consultation | None = None) -> None:
    """Record that the manager failed: with the fallback's answer in the same record, or as no_action.

    Args:
        draft: With an open question.
        at: Step at which it failed.
        problem: A word for what went wrong.
        detail: More about it.
        consultation: What the failed attempt took.
    """
    question = draft.state.question
    assert question is not None
    if draft.state.envelope.manager.fallback != "rules":
        draft.append(ManagerFailed(at, question.number, problem, detail, consultation))
        return
    # The rules are a pure function of the briefing, so they need no process and take no time that counts.
    proposal = RulesManager().propose(question.briefing)
    why = f"{problem}: {detail}"[:_MAX_DETAIL]
    draft.append(ProposalReceived(at, question.number, proposal, 0.0, by="rules", failure=why, consultation=consultation))
