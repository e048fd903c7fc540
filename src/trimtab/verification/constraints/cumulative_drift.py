"""cumulative_drift: a control stays within its drift of where the run started."""

from __future__ import annotations

from trimtab.verification.case import Case


def cumulative_drift(case: Case) -> list[str]:
    """Reject values farther from the starting value than allowed."""
    wrong: list[str] = []
    for control, change in case.known_changes():
        start = case.standing.initial[control.name]
        distance = control.distance(start, change.value)
        if not control.within(distance, control.cumulative_drift):
            wrong.append(
                f"{control.name}: {change.value!r} is a {control.scale} of {distance:.6g} from its start {start!r}, "
                f"allowed {control.cumulative_drift:.6g}"
            )
    return wrong
