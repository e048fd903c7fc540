"""What comes back from a manager, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from trimtab.decision.briefing import Briefing
from trimtab.decision.consultation import Consultation
from trimtab.decision.proposal import Proposal
from trimtab.errors import CapReached, ProviderError, ReplyError, TrimtabError
from trimtab.runtime.clock import Clock

_MAX_TOLD: Final = 500
_POLL_EVERY_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Answer:
    """A well-formed proposal, how long it took, and what it took.

    Args:
        question: The question it answers.
        proposal: The proposal.
        latency_seconds: Seconds since the question.
        objection: Why it must be rejected, such as a person's words; empty for none.
        approved_by: Who approved it, where approval was asked for.
        consultation: What asking a language model took.
    """

    question: int
    proposal: Proposal
    latency_seconds: float
    objection: str = ""
    approved_by: str = ""
    consultation: Consultation | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """No usable answer: ``problem`` is a word for it, ``detail`` says more."""

    question: int
    problem: str
    detail: str
    consultation: Consultation | None = None


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

    def give_up(self, detail: str) -> Answer | Failure:
        """Return what the open question comes to now: no later step counts.

        Args:
            detail: Why nobody can wait any longer; for the record.
        """
        ...

    def close(self) -> None:
        """End the manager; never waits for it."""
        ...


def problem_of(error: BaseException) -> str:
    """Return a word for what a manager raised."""
    if isinstance(error, ProviderError):
        return error.fault
    if isinstance(error, CapReached):
        return "cap reached"
    return "not a proposal" if isinstance(error, ReplyError) else "error"


def told(error: BaseException) -> str:
    """Return what a manager raised as one short text."""
    return (str(error) if isinstance(error, TrimtabError) else repr(error))[:_MAX_TOLD]


@runtime_checkable
class Withdrawing(Protocol):
    """A client whose question others can see, so that it has to be told when an answer no longer counts."""

    def withdraw(self, question: int) -> None:
        """Take the question back if it is still open; never raises."""
        ...


@runtime_checkable
class Recalling(Protocol):
    """A client whose manager may want to know what was asked before the run was resumed."""

    def recall(self, step: int, briefing: Briefing) -> None:
        """Tell the manager, before the next question, of one that was answered from the record; never blocks."""
        ...


def wait_by_polling(
    client: ManagerClient, is_open: Callable[[], bool], seconds: float, clock: Clock, sleep: Callable[[float], None]
) -> Answer | Failure | None:
    """Poll a client now and then until its question has an outcome, is no longer open, or ``seconds`` are over."""
    end = clock.monotonic_seconds() + seconds
    while is_open():
        outcome = client.poll()
        left = end - clock.monotonic_seconds()
        if outcome is not None or left <= 0:
            return outcome
        sleep(min(left, _POLL_EVERY_SECONDS))
    return None
