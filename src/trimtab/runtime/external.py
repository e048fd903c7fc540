"""The external manager: whoever answers through the run's exchange folder, an agent or a person."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from trimtab.decision.briefing import Briefing
from trimtab.decision.json_text import read_json
from trimtab.decision.proposal import Proposal
from trimtab.decision.wire import proposal_from
from trimtab.errors import ReplyError, TrimtabError
from trimtab.ledger.record import ManagerAsked
from trimtab.runtime.answer import Answer, Failure, told, wait_by_polling
from trimtab.runtime.clock import Clock
from trimtab.runtime.exchange import Exchange
from trimtab.runtime.exchange_form import OpenQuestion, name_of, split_name

EXCHANGE_PROBLEM: Final = "exchange"


class ExternalClient:
    """Lays each question out in the exchange folder and looks for the answer.

    Args:
        exchange: The folder.
        deadline_seconds: Longest one question may take.
        clock: For the deadline and the latency.
        sleep: Waits for so many seconds; used at boundaries only.
    """

    def __init__(
        self, exchange: Exchange, deadline_seconds: float, clock: Clock, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._exchange = exchange
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._sleep = sleep
        self._question: int | None = None
        self._asked_seconds = 0.0
        self._failure: Failure | None = None

    def ask(self, step: int, briefing: Briefing) -> None:
        """Lay the question out."""
        self._question = briefing.question
        self._asked_seconds = self._clock.monotonic_seconds()
        self._failure = None
        asked = ManagerAsked(step, briefing.question, briefing)
        question = OpenQuestion(self._exchange.run, asked, self._deadline_seconds, self._clock.wall_seconds())
        try:
            self._exchange.publish(question)
        except (OSError, TrimtabError) as error:
            self._failure = Failure(briefing.question, EXCHANGE_PROBLEM, told(error))

    def poll(self) -> Answer | Failure | None:
        """Return the outcome of the open question, once."""
        if self._question is None:
            return None
        outcome = self._failure or self._look(self._question)
        if outcome is not None:
            self._question = None
        return outcome

    def wait(self, seconds: float) -> Answer | Failure | None:
        """Wait for the outcome, at most ``seconds``."""
        return wait_by_polling(self, lambda: self._question is not None, seconds, self._clock, self._sleep)

    def give_up(self, detail: str) -> Failure:
        """Take the question back, and say what was wrong with the answers that came."""
        question, refusals = self._question, self._exchange.refusals
        self.close()
        return Failure(question or 0, "late", f"{detail}; {refusals}" if refusals else detail)

    def withdraw(self, question: int) -> None:
        """Take the question back: an answer to it no longer counts."""
        if self._question == question:
            self.close()

    def close(self) -> None:
        """Take the open question back."""
        self._question = None
        self._exchange.withdraw()

    def _look(self, question: int) -> Answer | Failure | None:
        now = self._clock.monotonic_seconds()
        age = now - self._asked_seconds
        try:
            answer = self._exchange.take(read_answer, now)
        except ReplyError as error:
            return Failure(question, "not a proposal", told(error))
        except OSError as error:
            return Failure(question, EXCHANGE_PROBLEM, told(error))
        if answer is not None:
            proposal, by = answer
            return Answer(question, proposal, age, approved_by=by)
        if age <= self._deadline_seconds:
            return None
        refusals = self._exchange.refusals
        self._exchange.withdraw()
        detail = f"no answer within {self._deadline_seconds:g} seconds"
        return Failure(question, "late", f"{detail}; {refusals}" if refusals else detail)


def read_answer(data: bytes) -> tuple[Proposal, str]:
    """Read an answer: a reply in the wire form, and beside it who gives it.

    Raises:
        ReplyError: Correct what the message names.
    """
    reply, by = split_name(read_json(data))
    return proposal_from(reply), name_of(by, "")
