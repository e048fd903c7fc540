"""Effects: what the controller tells the runtime to do, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from trimtab.decision.briefing import Briefing
from trimtab.ledger.record import Record, TrialBegan, TrialEnded, TrialMoved
from trimtab.verification.verdict import VerifiedAction

# Names of the states that a trial keeps: the fork, an early look, and the ends of the arms.
START: Final = "start"
LOOK: Final = "look"
NO_ACTION: Final = "no_action"
CANDIDATE: Final = "candidate"


@dataclass(frozen=True, slots=True)
class Append:
    """Append a record to the ledger; the state has been folded over it already."""

    record: Record


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a briefing to the manager."""

    briefing: Briefing


@dataclass(frozen=True, slots=True)
class Enact:
    """Carry out a verified action, then report `EnactmentDone` or `EnactmentFailed`.

    Args:
        verified: The action.
        fork: Name of the kept state in which it was carried out already, which is brought back; empty for none.
    """

    verified: VerifiedAction
    fork: str = ""


@dataclass(frozen=True, slots=True)
class Shift:
    """Change the state for a trial, in this order; then report `Shifted`, or `ShiftFailed`.

    Args:
        record: What is recorded once it is done.
        keep: Name under which the present state is kept in memory; empty for not at all.
        back_to: Name of a kept state that is brought back; empty for none.
        for_the_last_time: Whether that one is given up then.
        attempt: The action that is then carried out.
    """

    record: TrialBegan | TrialMoved | TrialEnded
    keep: str = ""
    back_to: str = ""
    for_the_last_time: bool = False
    attempt: VerifiedAction | None = None


@dataclass(frozen=True, slots=True)
class Decay:
    """Multiply the rate of the next step by ``factor``, whatever the controls say; until the state is shifted."""

    factor: float


@dataclass(frozen=True, slots=True)
class DeleteCheckpoint:
    """Remove a checkpoint's files; nothing refers to it any more."""

    checkpoint: str


Effect = Append | Ask | Enact | Shift | Decay | DeleteCheckpoint
