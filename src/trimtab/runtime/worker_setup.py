"""What the manager's process is told besides which manager it runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any

from pydantic import TypeAdapter

from trimtab.controls.envelope import Envelope
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.ledger.codec import canonical, freeze


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """Settings for a manager's process; they travel as one JSON argument.

    Args:
        settings: How the manager is asked and what it may cost.
        envelope: SHA-256 of the envelope, in hex, for the record of each consultation.
        account: Path of the run's account of calls, tokens and money.
        deadline_seconds: Longest one question may take.
    """

    settings: ManagerSettings
    envelope: str
    account: str
    deadline_seconds: float

    def encode(self) -> str:
        """Return the JSON text that `decode` reads back."""
        return canonical(freeze(self))

    @classmethod
    def decode(cls, text: str) -> WorkerSetup:
        """Read what `encode` wrote; anything else is a defect of ours and raises ValueError."""
        return _adapter().validate_json(text, strict=True, extra="forbid")


def envelope_hash(envelope: Envelope) -> str:
    """Return the SHA-256 of an envelope's one JSON text, in hex."""
    return sha256(canonical(freeze(envelope)).encode()).hexdigest()


@cache
def _adapter() -> TypeAdapter[Any]:
    return TypeAdapter(WorkerSetup)
