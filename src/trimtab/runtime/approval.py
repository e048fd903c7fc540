"""Another manager's proposals, each approved or rejected by a person through the run's exchange folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimtab.controls.manager_settings import Approval
from trimtab.decision.action import NoAction
from trimtab.decision.briefing import Briefing
from trimtab.decision.json_text import excerpt, read_json
from trimtab.decision.proposal import MAX_TEXT
from trimtab.errors import ReplyError, TrimtabError
from trimtab.ledger.record import ManagerAsked
from trimtab.runtime.answer import Answer, Failure, ManagerClient, Recalling, Withdrawing, told, wait_by_polling
from trimtab.runtime.clock import Clock
from trimtab.runtime.exchange import Exchange
from trimtab.runtime.exchange_form import OpenQuestion, name_of, split_name
from trimtab.runtime.external import EXCHANGE_PROBLEM

SOMEBODY: Final = "a person"
_MAX_OBJECTION: Final = 500


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person says to a proposal.

    Args:
        approve: Whether it may go on to the verifier.
        reason: Why; may be empty.
        by: Who says so.
    """

    approve: bool
    reason: str
    by: str


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    approve: bool
    reason: Annotated[str, Field(max_length=MAX_TEXT)] = ""


@dataclass(slots=True)
class _Open:
    """The question under way, and the inner manager's answer once it is there."""

    asked: ManagerAsked
    asked_seconds: float
    answer: Answer | None = None


class ApprovingClient:
    """Asks a manager, then a person whether its proposal may be applied; no_action needs nobody's leave.

    Args:
        inner: The manager's client; its own deadline has to be shorter if a person is to have time.
        exchange: The folder through which the person answers.
        default: What a proposal gets that nobody has answered.
        deadline_seconds: Longest the manager and the person may take together.
        clock: For the deadline and the latency.
        sleep: Waits for so many seconds; used at boundaries only.
    """

    def __init__(
        self,
        inner: ManagerClient,
        exchange: Exchange,
        default: Approval,
        deadline_seconds: float,
        clock: Clock,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inner = inner
        self._exchange = exchange
        self._default: Approval = default
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._sleep = sleep
        self._open: _Open | None = None

    def recall(self, step: int, briefing: Briefing) -> None:
        """Tell the manager of a question that was answered from the record."""
        if isinstance(self._inner, Recalling):
            self._inner.recall(step, briefing)

    def ask(self, step: int, briefing: Briefing) -> None:
        """Ask the manager."""
        self._exchange.withdraw()
        self._open = _Open(ManagerAsked(step, briefing.question, briefing), self._clock.monotonic_seconds())
        self._inner.ask(step, briefing)

    def poll(self) -> Answer | Failure | None:
        """Return the outcome of the open question, once."""
        if self._open is None:
            return None
        outcome = self._hear_inner(self._open, self._inner.poll()) if self._open.answer is None else None
        return self._ended(outcome or self._hear_person(self._open))

    def wait(self, seconds: float) -> Answer | Failure | None:
        """Wait for the outcome, at most ``seconds``."""
        return wait_by_polling(self, lambda: self._open is not None, seconds, self._clock, self._sleep)

    def give_up(self, detail: str) -> Answer | Failure:
        """Give the proposal its default, if there is a proposal by now."""
        open_ = self._open
        if open_ is None or open_.answer is None:
            self._open = None
            return self._inner.give_up(detail)
        outcome = replace(self._by_default(open_.answer, detail), latency_seconds=self._age_seconds(open_))
        self._ended(outcome)
        return outcome

    def withdraw(self, question: int) -> None:
        """Take the question back: neither an answer nor an approval of it counts any more."""
        if self._open is not None and self._open.asked.question == question:
            self._open = None
            self._exchange.withdraw()
        if isinstance(self._inner, Withdrawing):
            self._inner.withdraw(question)

    def close(self) -> None:
        """Take the open question back and end the manager."""
        self._open = None
        self._exchange.withdraw()
        self._inner.close()

    def _hear_inner(self, open_: _Open, outcome: Answer | Failure | None) -> Answer | Failure | None:
        """Return the manager's outcome if that is all; else lay its proposal out for approval."""
        if outcome is None or isinstance(outcome, Failure) or isinstance(outcome.proposal.action, NoAction):
            return outcome
        open_.answer = outcome
        left = self._deadline_seconds - self._age_seconds(open_)
        if left <= 0:
            return None  # no time is left for a person: `_hear_person` gives it the default
        question = OpenQuestion(
            self._exchange.run, open_.asked, left, self._clock.wall_seconds(), outcome.proposal, self._default
        )
        try:
            self._exchange.publish(question)
        except (OSError, TrimtabError) as error:
            return Failure(outcome.question, EXCHANGE_PROBLEM, told(error), outcome.consultation)
        return None

    def _hear_person(self, open_: _Open) -> Answer | Failure | None:
        answer, question = open_.answer, open_.asked.question
        now = self._clock.monotonic_seconds()
        age = now - open_.asked_seconds
        is_late = age > self._deadline_seconds
        if answer is None:
            detail = f"no proposal within {self._deadline_seconds:g} seconds"
            return Failure(question, "late", detail) if is_late else None
        try:
            decision = self._exchange.take(read_decision, now)
        except ReplyError as error:
            return Failure(question, "not an approval", told(error), answer.consultation)
        except OSError as error:
            return Failure(question, EXCHANGE_PROBLEM, told(error), answer.consultation)
        if decision is not None:
            return replace(_decided(answer, decision), latency_seconds=age)
        late = f"nobody answered within {self._deadline_seconds:g} seconds"
        return replace(self._by_default(answer, late), latency_seconds=age) if is_late else None

    def _by_default(self, answer: Answer, late: str) -> Answer:
        if self._default == "approve":
            return replace(answer, approved_by=f"default: {late}"[:_MAX_OBJECTION])
        refusals = self._exchange.refusals
        objection = f"not approved: {late}" + (f"; {refusals}" if refusals else "")
        return replace(answer, objection=objection[:_MAX_OBJECTION])

    def _ended(self, outcome: Answer | Failure | None) -> Answer | Failure | None:
        if outcome is not None:
            self._open = None
            self._exchange.withdraw()
        return outcome

    def _age_seconds(self, open_: _Open) -> float:
        return self._clock.monotonic_seconds() - open_.asked_seconds


def read_decision(data: bytes) -> Decision:
    """Read an answer to a request for approval: ``{"approve": true, "reason": "...", "by": "..."}``.

    Raises:
        ReplyError: Correct what the message names.
    """
    tree, by = split_name(read_json(data))
    try:
        form = _Form.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the answer"
        wrong = f"{excerpt(where)}: {excerpt(first['msg'])}"
        raise ReplyError(
            f"the answer is not an approval: {wrong}", allowed='{"approve": true or false, "reason": "..."}'
        ) from None
    return Decision(form.approve, form.reason, name_of(by, SOMEBODY))


def _decided(answer: Answer, decision: Decision) -> Answer:
    if decision.approve:
        return replace(answer, approved_by=decision.by)
    reason = " ".join(decision.reason.split())
    objection = f"{decision.by} rejected it" + (f": {reason}" if reason else "")
    return replace(answer, objection=objection[:_MAX_OBJECTION])
