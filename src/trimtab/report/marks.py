"""What charts show of a run's decisions: its interventions as marks, its trials as spans of steps."""

from __future__ import annotations

from collections.abc import Iterable

from trimtab.report.account import Decision
from trimtab.report.safeguard_words import takes_back_words, tried_words
from trimtab.report.scale import Mark, MarkKind, TrialSpan


def marks_of(decisions: Iterable[Decision]) -> tuple[Mark, ...]:
    """Return the interventions that were applied, each with its number."""
    return tuple(_mark(decision, decision.applied_step) for decision in decisions if decision.applied_step is not None)


def _mark(decision: Decision, step: int) -> Mark:
    back = decision.taken_back
    did = decision.proposal.action if decision.proposal else ""
    kind = _kind(decision)
    words = f"{kind}: {did}" if kind in ("reflex", "guard") else did
    if decision.takes_back:
        words += f", takes back {takes_back_words(decision)}"
    if back is not None:
        words += f"; taken back by intervention {back.intervention} at step {back.step}"
    return Mark(step, words, kind, decision.intervention, is_taken_back=back is not None)


def _kind(decision: Decision) -> MarkKind:
    if decision.source in ("reflex", "guard"):
        return decision.source
    return "rollback" if decision.proposal is not None and decision.proposal.kind.startswith("rollback") else "adjust"


def trials_of(decisions: Iterable[Decision], newest_step: int, anchor: str = "") -> tuple[TrialSpan, ...]:
    """Return the trials, oldest first.

    Args:
        decisions: All of the run.
        newest_step: Up to where one that is under way reaches.
        anchor: What the ids of decisions on the page begin with; empty for no links.
    """
    return tuple(
        TrialSpan(
            from_step=tried.began,
            to_step=newest_step if tried.ended is None else tried.ended,
            kind=tried.outcome or "open",
            text=f"trial {tried.number}: {decision.proposal.action if decision.proposal else ''}: {tried_words(tried)}",
            link=f"#{anchor}d{decision.number}" if anchor else "",
        )
        for decision in decisions
        if (tried := decision.tried) is not None
    )
