"""boundary: a control that changes at boundaries only is changed at one."""

from __future__ import annotations

from trimtab.verification.case import Case


def boundary(case: Case) -> list[str]:
    """Reject a change between two boundaries; only managers and schedules wait, these by the weights' steps."""
    if case.source in ("reflex", "guard"):
        return []
    every = case.envelope.deliberation.boundary_every_steps
    step = case.standing.step if case.lineage_step is None else case.lineage_step
    return [
        f"{control.name}: changes only after every {every} steps, not after step {step}"
        for control, _ in case.known_changes()
        if not case.envelope.is_open(control, step)
    ]
