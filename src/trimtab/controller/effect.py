"""Effects: what the controller tells the runtime to do, in order."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.decision.briefing import Briefing
from trimtab.ledger.record import Record
from trimtab.verification.verdict import VerifiedAction


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
    """Carry out a verified action, then report `EnactmentDone` or `EnactmentFailed`."""

    verified: VerifiedAction


@dataclass(frozen=True, slots=True)
class DeleteCheckpoint:
    """Remove a checkpoint's files; nothing refers to it any more."""

    checkpoint: str


Effect = Append | Ask | Enact | DeleteCheckpoint
