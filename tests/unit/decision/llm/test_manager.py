"""The language-model manager, with a provider and an account that are lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from tests.builders import a_briefing
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.action import NoAction
from trimtab.decision.consultation import MAX_REPLY_TEXT, Consultation
from trimtab.decision.llm.manager import LlmManager
from trimtab.decision.llm.prompt import TEMPLATE, decision_prompt, reasoning_prompt
from trimtab.decision.llm.provider import Completion, Request
from trimtab.decision.llm.schema import reply_schema
from trimtab.errors import CapReached, ProviderError, ReplyError

BRIEFING = a_briefing()
ENVELOPE = "e" * 64


def no_action(reason: str = "nothing to do") -> str:
    properties = reply_schema(BRIEFING)["properties"]
    return json.dumps(
        {
            "reason": reason,
            "action": {"kind": "no_action"},
            "expected_gain": properties["expected_gain"]["enum"][0],
            "within_evaluations": "1",
            "watch": [],
        }
    )


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Listed:
    """Answers from a list; a number in it passes that many seconds first."""

    replies: list[str | Exception | Completion]
    clock: Clock = field(default_factory=Clock)
    seconds: float = 1.0
    requests: list[Request] = field(default_factory=list)
    model: str = "asked"

    def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        self.clock.now += self.seconds
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, Completion) else Completion(reply, "answered", 1000, 40)

    def most_input_tokens(self, request: Request) -> int:
        return 5000


@dataclass
class Book:
    """An account that keeps everything; a dollar for every million tokens."""

    most_calls: int = 100
    reserved: list[tuple[int, int]] = field(default_factory=list)
    settled: dict[int, tuple[int, int]] = field(default_factory=dict)

    def reserve(self, input_tokens: int, output_tokens: int) -> int:
        if len(self.reserved) >= self.most_calls:
            raise CapReached("another call could pass the cap")
        self.reserved.append((input_tokens, output_tokens))
        return len(self.reserved) - 1

    def settle(self, reservation: int, input_tokens: int, output_tokens: int) -> None:
        self.settled[reservation] = (input_tokens, output_tokens)

    def usd(self, input_tokens: int, output_tokens: int) -> float | None:
        return (input_tokens + output_tokens) / 1e6


@dataclass
class Room:
    """A manager with all around it."""

    provider: Listed
    book: Book
    manager: LlmManager
    reports: list[Consultation]


def a_room(
    replies: Sequence[str | Exception | Completion], *, book: Book | None = None, seconds: float = 1.0, **settings: object
) -> Room:
    provider, book = Listed(list(replies), seconds=seconds), book or Book()
    chosen = ManagerSettings(**settings)  # type: ignore[arg-type] - the values are of many types
    manager = LlmManager(provider, chosen, book, ENVELOPE, 10.0, provider.clock)
    reports: list[Consultation] = []
    manager.report_to(reports.append)
    return Room(provider, book, manager, reports)


def test_one_call_is_rendered_made_reserved_settled_and_reported() -> None:
    room = a_room([no_action("wait")], reply_tokens=300, temperature=0.5)
    proposal = room.manager.propose(BRIEFING)
    assert (proposal.action, proposal.reason) == (NoAction(), "wait")
    (request,) = room.provider.requests
    prompt = decision_prompt(BRIEFING, ManagerSettings(reply_tokens=300, temperature=0.5))
    assert (request.messages, request.schema) == (prompt.messages, reply_schema(BRIEFING))
    assert (request.reply_tokens, request.temperature, request.timeout_seconds) == (300, 0.5, 10.0)
    assert (room.book.reserved, room.book.settled) == ([(5000, 300)], {0: (1000, 40)})
    before, after = room.reports
    assert (before.model, before.calls, before.input_tokens, before.output_tokens) == ("asked", 1, 5000, 300)
    assert (after.model, after.calls, after.input_tokens, after.output_tokens) == ("answered", 1, 1000, 40)
    assert (after.template, after.prompt, after.schema, after.envelope) == (TEMPLATE, prompt.hash, prompt.schema_hash, ENVELOPE)
    assert after.usd == pytest.approx(1040 / 1e6)
    assert after.replies == (no_action("wait"),)


def test_two_stages_reason_in_prose_and_transcribe() -> None:
    room = a_room(["I would wait: the slope is noise.", no_action()], stages=2)
    assert room.manager.propose(BRIEFING).action == NoAction()
    first, second = room.provider.requests
    assert first.schema is None
    assert first.messages == reasoning_prompt(BRIEFING, ManagerSettings(stages=2)).messages
    assert second.schema == reply_schema(BRIEFING)
    assert "I would wait: the slope is noise." in second.messages[-1].text
    assert second.timeout_seconds == pytest.approx(9.0), "both calls share one deadline"
    last = room.reports[-1]
    assert (last.calls, last.input_tokens, last.output_tokens, len(last.replies)) == (2, 2000, 80, 2)
    assert last.prompt == reasoning_prompt(BRIEFING, ManagerSettings(stages=2)).hash
    assert last.schema == decision_prompt(BRIEFING, ManagerSettings()).schema_hash


@pytest.mark.parametrize("stages", [1, 2])
def test_a_reply_that_cannot_be_read_is_asked_for_once_more_with_what_is_wrong(stages: int) -> None:
    prose = ["prose"] if stages == 2 else []
    room = a_room([*prose, "{not JSON", no_action()], stages=stages)
    assert room.manager.propose(BRIEFING).action == NoAction()
    again, before = room.provider.requests[-1], room.provider.requests[-2]
    assert again.messages[: len(before.messages)] == before.messages
    reply, correction = again.messages[len(before.messages) :]
    assert (reply.role, reply.text, correction.role) == ("assistant", "{not JSON", "user")
    assert "JSON" in correction.text
    assert len(room.book.settled) == stages + 1


def test_a_second_unreadable_reply_is_the_end() -> None:
    room = a_room(["{", '{"action": 3}', no_action()])
    with pytest.raises(ReplyError):
        room.manager.propose(BRIEFING)
    assert len(room.provider.requests) == 2
    assert room.reports[-1].replies == ("{", '{"action": 3}')


def test_a_failed_call_is_not_repeated_and_stays_spent_at_its_most() -> None:
    room = a_room([ProviderError("overloaded", "503"), no_action()])
    with pytest.raises(ProviderError, match="503"):
        room.manager.propose(BRIEFING)
    assert len(room.provider.requests) == 1
    assert room.book.settled == {}
    (report,) = room.reports
    assert (report.calls, report.input_tokens, report.replies, report.unsettled_calls) == (1, 5000, (), 1)


def test_a_failed_call_that_is_known_to_have_cost_less_is_settled() -> None:
    room = a_room([ProviderError("cut_off", "length", input_tokens=700, output_tokens=300)])
    with pytest.raises(ProviderError):
        room.manager.propose(BRIEFING)
    assert room.book.settled == {0: (700, 300)}
    assert (room.reports[-1].input_tokens, room.reports[-1].output_tokens) == (700, 300)
    assert [report.unsettled_calls for report in room.reports] == [1, 0]


def test_a_failed_call_that_read_nothing_costs_nothing() -> None:
    room = a_room(["{", ProviderError("rate_limited", "429", input_tokens=0, output_tokens=0)])
    with pytest.raises(ProviderError):
        room.manager.propose(BRIEFING)
    assert room.book.settled == {0: (1000, 40), 1: (0, 0)}
    last = room.reports[-1]
    assert (last.calls, last.input_tokens, last.output_tokens, last.unsettled_calls) == (2, 1000, 40, 0)
    assert last.usd == pytest.approx(1040 / 1e6)


def test_what_the_provider_does_not_count_stays_at_its_most() -> None:
    room = a_room([Completion(no_action(), "answered", None, None)], reply_tokens=300)
    room.manager.propose(BRIEFING)
    assert room.book.settled == {0: (5000, 300)}
    assert [report.unsettled_calls for report in room.reports] == [1, 1]


def test_calls_are_counted_as_unsettled_one_by_one() -> None:
    room = a_room([Completion("prose", "answered", 1000, None), "{", no_action()], stages=2)
    room.manager.propose(BRIEFING)
    assert [report.unsettled_calls for report in room.reports] == [1, 1, 2, 1, 2, 1]


def test_nothing_is_called_without_a_reservation() -> None:
    room = a_room([no_action()], book=Book(most_calls=0))
    with pytest.raises(CapReached):
        room.manager.propose(BRIEFING)
    assert (room.provider.requests, room.reports) == ([], [])


def test_a_retry_needs_a_reservation_too() -> None:
    room = a_room(["{", no_action()], book=Book(most_calls=1))
    with pytest.raises(CapReached):
        room.manager.propose(BRIEFING)
    assert len(room.provider.requests) == 1


def test_no_call_is_begun_when_the_time_is_up() -> None:
    room = a_room(["prose", no_action()], stages=2, seconds=9.99)
    with pytest.raises(ProviderError, match="no time is left"):
        room.manager.propose(BRIEFING)
    assert len(room.provider.requests) == 1


def test_the_next_question_starts_anew() -> None:
    room = a_room(["{", no_action(), no_action()])
    room.manager.propose(BRIEFING)
    room.manager.propose(BRIEFING)
    assert (room.reports[-1].calls, len(room.reports[-1].replies)) == (1, 1)
    assert room.provider.requests[-1].timeout_seconds == pytest.approx(10.0)


def test_a_long_reply_is_cut_in_the_record_only() -> None:
    room = a_room([no_action("x" * 1500) + " " * 20_000])
    assert room.manager.propose(BRIEFING).reason == "x" * 1500
    assert len(room.reports[-1].replies[0]) == MAX_REPLY_TEXT


def test_a_budget_that_leaves_nothing_to_choose_costs_no_call() -> None:
    room = a_room([], briefing_tokens=500)
    proposal = room.manager.propose(BRIEFING)
    assert proposal.action == NoAction()
    assert "manager.briefing_tokens=500 leaves room for no_action only" in proposal.reason
    assert (room.provider.requests, room.book.reserved) == ([], [])
