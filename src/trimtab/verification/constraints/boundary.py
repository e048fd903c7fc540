"""boundary: a control that changes at boundaries only is changed at one."""

from __future__ import annotations

from trimtab.verification.case import Case


def boundary(case: Case) -> list[str]:
    """Reject a manager's change between two boundaries; the reflex need not wait."""
    if case.source == "reflex":
        return []
    every = case.envelope.deliberation.boundary_every_steps
    return [
        f"{control.name}: changes only after every {every} steps, not after step {case.standing.step}"
        for control, _ in case.known_changes()
        if not case.envelope.is_open(control, case.standing.step)
    ]
