"""largest_change: one intervention does not change a control by more than allowed."""

from __future__ import annotations

from trimtab.verification.case import Case


def largest_change(case: Case) -> list[str]:
    """Reject changes larger than the control's limit, measured from the recipe they start from; a schedule's step is meant."""
    if case.source == "schedule":
        return []
    base = case.base_recipe()
    wrong: list[str] = []
    for control, change in case.known_changes():
        distance = control.distance(base[control.name], change.value)
        if not control.within(distance, control.largest_change):
            wrong.append(
                f"{control.name}: {base[control.name]!r} to {change.value!r} is a {control.scale} of {distance:.6g}, "
                f"allowed {control.largest_change:.6g}"
            )
    return wrong
