"""well_formed: the action is one of the closed union, built of the parts it declares."""

from __future__ import annotations

from trimtab.decision.action import Action, Change, changes_of, checkpoint_of
from trimtab.verification.case import Case


def well_formed(case: Case) -> list[str]:
    """Reject strangers: other actions, changes that are none, names that are no strings."""
    if not isinstance(case.action, Action):
        return [f"a {type(case.action).__name__} is not an action"]
    checkpoint, changes = checkpoint_of(case.action), changes_of(case.action)
    if checkpoint is not None and not isinstance(checkpoint, str):
        return [f"a checkpoint is named by a string, not by a {type(checkpoint).__name__}"]
    if not isinstance(changes, tuple):
        return [f"changes come as a tuple, not as a {type(changes).__name__}"]
    return [
        f"{change!r:.80} is not a change of a named control"
        for change in changes
        if not isinstance(change, Change) or not isinstance(change.control, str)
    ]
