"""bounds: low <= value <= high."""

from __future__ import annotations

from trimtab.verification.case import Case


def bounds(case: Case) -> list[str]:
    """Reject values outside the inclusive bounds; a NaN is outside."""
    return [
        f"{control.name}: {change.value!r} is outside [{control.bounds.low!r}, {control.bounds.high!r}]"
        for control, change in case.known_changes()
        if not control.bounds.contain(change.value)
    ]
