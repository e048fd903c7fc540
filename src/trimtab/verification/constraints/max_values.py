"""max_values: a control takes no more distinct values than its budget, since each new one costs a compilation."""

from __future__ import annotations

from trimtab.verification.case import Case


def max_values(case: Case) -> list[str]:
    """Reject a value that the control never had, once its values are used up; reflex and guard may cost more."""
    if case.source in ("reflex", "guard"):
        return []
    return [
        f"{control.name}: {change.value!r} would be more than {control.max_values} distinct values in this run"
        for control, change in case.known_changes()
        if not case.standing.may_take(control, change.value)
    ]
