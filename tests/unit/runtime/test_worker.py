"""The worker's side of the protocol, without a process."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable

import pytest

from tests.builders import a_briefing
from trimtab.decision.briefing import Briefing
from trimtab.decision.consultation import Consultation
from trimtab.decision.manager import Manager
from trimtab.decision.no_action import NoActionManager
from trimtab.decision.proposal import Proposal, hold
from trimtab.decision.wire import parse_reply
from trimtab.errors import CapReached, LedgerError, ProviderError, ReplyError
from trimtab.ledger.codec import canonical, encode, freeze
from trimtab.ledger.record import ManagerAsked, RunEnded
from trimtab.runtime.worker import answer, remember, serve


def a_question(number: int = 1) -> str:
    return canonical(encode(ManagerAsked(400, number, a_briefing(question=number))))


def said(manager: Manager, line: str) -> list[dict[str, object]]:
    messages: list[dict[str, object]] = []
    answer(manager, line, messages.append)
    return messages


class Exiting:
    def propose(self, briefing: Briefing) -> Proposal:
        sys.exit(3)

    def remember(self, briefing: Briefing) -> None:
        sys.exit(4)


class Raising:
    def propose(self, briefing: Briefing) -> Proposal:
        raise RuntimeError("no idea " * 200)


class Garbage:
    def __init__(self, garbage: object) -> None:
        self.garbage = garbage

    def propose(self, briefing: Briefing) -> Proposal:
        return self.garbage  # type: ignore[return-value] - a wrong value, on purpose


class Echo:
    def propose(self, briefing: Briefing) -> Proposal:
        assert briefing == a_briefing(question=briefing.question), "the briefing did not survive the way"
        return hold(f"question {briefing.question}")


def test_a_question_is_answered_with_a_reply_that_parses() -> None:
    (message,) = said(Echo(), a_question(7))
    assert message["question"] == 7
    assert parse_reply(str(message["reply"])) == hold("question 7")


def test_a_manager_that_raises_answers_with_the_error() -> None:
    (message,) = said(Raising(), a_question())
    assert message["question"] == 1
    assert str(message["error"]).startswith("RuntimeError('no idea")
    assert len(str(message["error"])) <= 500


def test_a_manager_that_exits_answers_with_that() -> None:
    (message,) = said(Exiting(), a_question())
    assert (message["problem"], message["error"]) == ("error", "SystemExit(3)")


def test_a_manager_that_exits_while_it_remembers_is_still_asked(capsys: pytest.CaptureFixture[str]) -> None:
    remember(Exiting(), a_question())
    assert capsys.readouterr().err == "SystemExit(4)\n"


def test_an_interrupt_is_meant_for_the_process() -> None:
    class Interrupted:
        def propose(self, briefing: Briefing) -> Proposal:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        said(Interrupted(), a_question())


@pytest.mark.parametrize(
    "garbage", [None, 3, "adjust", [{"action": "adjust"}], object()], ids=["None", "3", "text", "a list", "object"]
)
def test_a_manager_that_returns_garbage_answers_with_an_error(garbage: object) -> None:
    (message,) = said(Garbage(garbage), a_question())
    assert (message["problem"], "error" in message, "reply" in message) == ("not a proposal", True, False)


def test_only_questions_are_answered() -> None:
    with pytest.raises(LedgerError, match="a question is a manager_asked record; received run_ended"):
        said(NoActionManager(), canonical(encode(RunEnded(1, "finished"))))


def test_every_question_gets_one_line_until_the_input_ends() -> None:
    messages: list[dict[str, object]] = []
    serve(Echo(), io.StringIO("".join(a_question(number) + "\n" for number in (1, 2, 3))), messages.append)
    assert [message["question"] for message in messages] == [1, 2, 3]


def test_a_manager_may_answer_in_the_wire_form() -> None:
    reply = {"action": {"kind": "no_action"}, "reason": "nothing to do"}
    assert said(Garbage(reply), a_question()) == [{"question": 1, "reply": json.dumps(reply)}]


def a_consultation(calls: int = 1) -> Consultation:
    return Consultation("tiny", "v1", "a" * 64, "b" * 64, "c" * 64, calls, 100 * calls, 10 * calls, None, ("hm",) * calls)


class Consulted:
    """Reports two calls, then answers or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def report_to(self, listener: Callable[[Consultation], None]) -> None:
        self.listener = listener

    def propose(self, briefing: Briefing) -> Proposal:
        self.listener(a_consultation(1))
        self.listener(a_consultation(2))
        if self.error is not None:
            raise self.error
        return hold("thought about it")


def test_what_a_call_takes_is_said_before_the_answer() -> None:
    first, second, last = said(Consulted(), a_question())
    assert first == {"question": 1, "consultation": freeze(a_consultation(1))}
    assert second == {"question": 1, "consultation": freeze(a_consultation(2))}
    assert "reply" in last


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (ProviderError("rate_limited", "slow down"), "rate_limited"),
        (CapReached("another call could pass the cap"), "cap reached"),
        (ReplyError("the reply is no choice"), "not a proposal"),
        (KeyError("anything else"), "error"),
    ],
)
def test_what_went_wrong_has_a_word(error: Exception, problem: str) -> None:
    last = said(Consulted(error), a_question())[-1]
    assert last["problem"] == problem
    assert str(last["error"])
