"""What comes back from a manager, wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from trimtab.decision.briefing import Briefing
from trimtab.decision.proposal import Proposal


@dataclass(frozen=True, slots=True)
class Answer:
    """A well-formed proposal, and how long it took."""

    question: int
    proposal: Proposal
    latency_seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """No usable answer: ``problem`` is a word for it, ``detail`` says more."""

    question: int
    problem: str
    detail: str


class ManagerClient(Protocol):
    """Asks a manager, one question at a time, without ever blocking the training thread."""

    def ask(self, step: int, briefing: Briefing) -> None:
        """Send a question; whatever goes wrong is returned by ``poll``."""
        ...

    def poll(self) -> Answer | Failure | None:
        """Return the outcome of the open question, once; None while there is none."""
        ...

    def wait(self, seconds: float) -> Answer | Failure | None:
        """Wait for the outcome of the open question, at most ``seconds``; for boundaries only."""
        ...

    def close(self) -> None:
        """End the manager; never waits for it."""
        ...
