"""The verifier: judges an action by every constraint of the envelope.

It is asked at the time of application. Its answer is a verdict, never an exception.
"""

from __future__ import annotations

from typing import Final

from trimtab.decision.action import NoAction, Stop
from trimtab.decision.proposal import Proposal
from trimtab.verification.case import Case, Constraint
from trimtab.verification.constraints.authority import authority
from trimtab.verification.constraints.boundary import boundary
from trimtab.verification.constraints.bounds import bounds
from trimtab.verification.constraints.coupled_rate import coupled_rate
from trimtab.verification.constraints.cumulative_drift import cumulative_drift
from trimtab.verification.constraints.dwell import dwell
from trimtab.verification.constraints.executable import executable
from trimtab.verification.constraints.finite import finite
from trimtab.verification.constraints.freshness import freshness
from trimtab.verification.constraints.largest_change import largest_change
from trimtab.verification.constraints.max_values import max_values
from trimtab.verification.constraints.permitted_moves import permitted_moves
from trimtab.verification.constraints.well_formed import well_formed
from trimtab.verification.verdict import Accepted, Rejected, Rejection, Verdict, seal

# well_formed and finite come first and decide alone: no other constraint may meet a stranger or compare a NaN.
CONSTRAINTS: Final[tuple[tuple[str, Constraint], ...]] = (
    ("freshness", freshness),
    ("executable", executable),
    ("authority", authority),
    ("bounds", bounds),
    ("permitted_moves", permitted_moves),
    ("largest_change", largest_change),
    ("cumulative_drift", cumulative_drift),
    ("dwell", dwell),
    ("boundary", boundary),
    ("max_values", max_values),
    ("coupled_rate", coupled_rate),
)


def verify(case: Case) -> Verdict:
    """Judge a case by all constraints.

    The reflex is bound by everything but permitted moves, dwell, boundaries and max_values: it must be able to act at once.
    So is the guard, but by neither the authority budget nor coupled_rate: it brings back what was, and names the rate.
    A schedule is the user's own plan, made beforehand: it is bound by everything but permitted moves, largest change, dwell
    and authority.
    """
    reasons = [Rejection("well_formed", detail) for detail in well_formed(case)]
    reasons = reasons or [Rejection("finite", detail) for detail in finite(case)]
    reasons = reasons or [Rejection(name, detail) for name, constraint in CONSTRAINTS for detail in constraint(case)]
    if reasons:
        return Rejected(tuple(reasons))
    return Accepted(seal(case.action, case.resulting_recipe(), case.source, case.standing.version))


def missing_expectation(proposal: Proposal) -> Rejection | None:
    """Return a rejection for an intervention that does not say what it expects."""
    if proposal.expectation is not None or isinstance(proposal.action, (NoAction, Stop)):
        return None
    return Rejection("expectation", "an intervention must say what it expects: gain and within_evaluations")
