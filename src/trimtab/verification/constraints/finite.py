"""finite: every proposed value is a finite number; checked before any comparison."""

from __future__ import annotations

import math

from trimtab.decision.action import changes_of
from trimtab.verification.case import Case


def finite(case: Case) -> list[str]:
    """Reject NaN, infinities, booleans and whatever is not a float."""
    return [
        f"{change.control}: {change.value!r} is not a finite number"
        for change in changes_of(case.action)
        if type(change.value) is not float or not math.isfinite(change.value)
    ]
