"""A proposal: one action, and what its proposer says will come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from trimtab.decision.action import Action, NoAction
from trimtab.errors import ReplyError

MAX_TEXT: Final = 2000


@dataclass(frozen=True, slots=True)
class Expectation:
    """The expected outcome and the criterion of success.

    Args:
        gain: How much better the objective should be than before the intervention, in its unit;
            0 means: no worse.
        within_evaluations: Evaluations by which that should show, 1 to 3.
    """

    gain: float
    within_evaluations: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a manager proposes.

    Args:
        action: The one action.
        reason: Why, 1 to 2000 characters.
        expectation: Expected outcome; required unless the action is no_action or stop.
        watch: Signals to watch afterwards.

    Raises:
        ReplyError: Give a reason, and an expectation for an action that does something.
    """

    action: Action
    reason: str
    expectation: Expectation | None = None
    watch: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.reason.strip() or len(self.reason) > MAX_TEXT:
            raise ReplyError("a proposal needs a reason", received=self.reason[:80], allowed=f"1 to {MAX_TEXT} characters")


def hold(reason: str) -> Proposal:
    """Propose to leave the run as it is."""
    return Proposal(NoAction(), reason)
