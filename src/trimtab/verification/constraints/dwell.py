"""dwell: a changed value stands for a while before it is changed again."""

from __future__ import annotations

from trimtab.verification.case import Case


def dwell(case: Case) -> list[str]:
    """Reject a manager's change of a control that changed too recently; nobody else need wait."""
    if case.source != "manager":
        return []
    return [
        f"{control.name}: must stand for {left} more steps"
        for control, _ in case.known_changes()
        if (left := case.standing.dwell_left(control))
    ]
