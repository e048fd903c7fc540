"""coupled_rate: a learning rate that a change takes along keeps the rate's own limits."""

from __future__ import annotations

from trimtab.controls.coupling import keeps_rate
from trimtab.verification.case import Case


def coupled_rate(case: Case) -> list[str]:
    """Reject changes whose learning rate would leave its bounds, largest change or drift; the guard names its rate."""
    if case.source == "guard":
        return []
    return [
        f"{control.name}: {change.value!r} takes learning_rate along to where its own limits forbid"
        for control, change in case.known_changes()
        if not keeps_rate(case.envelope, control, case.base_recipe(), change.value, case.standing.initial)
    ]
