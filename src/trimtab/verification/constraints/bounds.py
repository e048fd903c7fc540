"""bounds: low <= value <= high, and a whole number where only such make sense."""

from __future__ import annotations

from trimtab.verification.case import Case


def bounds(case: Case) -> list[str]:
    """Reject values outside the inclusive bounds; a NaN is outside."""
    return [
        f"{control.name}: {change.value!r} is outside [{control.bounds.low!r}, {control.bounds.high!r}]"
        f"{' or not whole' if control.is_whole else ''}"
        for control, change in case.known_changes()
        if not control.admits(change.value)
    ]
