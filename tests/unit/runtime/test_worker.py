"""The worker's side of the protocol, without a process."""

from __future__ import annotations

import io
import json

import pytest

from tests.builders import a_briefing
from trimtab.decision.briefing import Briefing
from trimtab.decision.no_action import NoActionManager
from trimtab.decision.proposal import Proposal, hold
from trimtab.decision.wire import parse_reply
from trimtab.errors import LedgerError
from trimtab.ledger.codec import canonical, encode
from trimtab.ledger.record import ManagerAsked, RunEnded
from trimtab.runtime.worker import answer, serve


def a_question(number: int = 1) -> str:
    return canonical(encode(ManagerAsked(400, number, a_briefing(question=number))))


class Raising:
    def propose(self, briefing: Briefing) -> Proposal:
        raise RuntimeError("no idea " * 200)


class Garbage:
    def __init__(self, garbage: object) -> None:
        self.garbage = garbage

    def propose(self, briefing: Briefing) -> Proposal:
        return self.garbage  # type: ignore[return-value]


class Echo:
    def propose(self, briefing: Briefing) -> Proposal:
        assert briefing == a_briefing(question=briefing.question), "the briefing did not survive the way"
        return hold(f"question {briefing.question}")


def test_a_question_is_answered_with_a_reply_that_parses() -> None:
    message = answer(Echo(), a_question(7))
    assert message["question"] == 7
    assert parse_reply(str(message["reply"])) == hold("question 7")


def test_a_manager_that_raises_answers_with_the_error() -> None:
    message = answer(Raising(), a_question())
    assert message["question"] == 1
    assert str(message["error"]).startswith("RuntimeError('no idea")
    assert len(str(message["error"])) <= 500


@pytest.mark.parametrize(
    "garbage", [None, 3, "adjust", [{"action": "adjust"}], object()], ids=["None", "3", "text", "a list", "object"]
)
def test_a_manager_that_returns_garbage_answers_with_an_error(garbage: object) -> None:
    assert "error" in answer(Garbage(garbage), a_question())


def test_only_questions_are_answered() -> None:
    with pytest.raises(LedgerError, match="a question is a manager_asked record; received run_ended"):
        answer(NoActionManager(), canonical(encode(RunEnded(1, "finished"))))


def test_every_question_gets_one_line_until_the_input_ends() -> None:
    answers = io.StringIO()
    serve(Echo(), io.StringIO("".join(a_question(number) + "\n" for number in (1, 2, 3))), answers)
    assert [json.loads(line)["question"] for line in answers.getvalue().splitlines()] == [1, 2, 3]


def test_a_manager_may_answer_in_the_wire_form() -> None:
    reply = {"action": {"kind": "no_action"}, "reason": "nothing to do"}
    assert answer(Garbage(reply), a_question()) == {"question": 1, "reply": json.dumps(reply)}
