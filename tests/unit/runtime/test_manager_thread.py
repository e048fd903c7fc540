"""A manager object may hang, raise or return garbage: the client returns a Failure."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.builders import a_briefing
from tests.unit.runtime.workers import outcome_of
from trimtab.decision.action import Adjust, Change
from trimtab.decision.briefing import Briefing
from trimtab.decision.no_action import NoActionManager
from trimtab.decision.proposal import Expectation, Proposal, hold
from trimtab.runtime.answer import Answer, Failure
from trimtab.runtime.clock import SystemClock
from trimtab.runtime.manager_thread import ManagerThread


class Hanging:
    def __init__(self) -> None:
        self.go_on = threading.Event()

    def propose(self, briefing: Briefing) -> Proposal:
        self.go_on.wait(30)
        return hold(f"question {briefing.question}")


class Doing:
    def __init__(self, result: Any) -> None:
        self.result = result

    def propose(self, briefing: Briefing) -> Proposal:
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    manager = Hanging()
    yield manager
    manager.go_on.set()


def client_of(manager: Any, deadline_seconds: float = 20.0) -> ManagerThread:
    return ManagerThread(manager, deadline_seconds, SystemClock())


def test_an_answer_arrives_once() -> None:
    client = client_of(NoActionManager())
    assert client.poll() is None
    client.ask(400, a_briefing(question=3))
    outcome = outcome_of(client)
    assert isinstance(outcome, Answer)
    assert outcome.question == 3
    assert client.poll() is None


@pytest.mark.parametrize(
    ("result", "problem", "detail"),
    [
        (RuntimeError("no idea"), "error", "no idea"),
        (SystemExit(3), "error", "SystemExit(3)"),
        (asyncio.CancelledError(), "error", "CancelledError()"),
        (None, "not a proposal", "something else than a proposal; received NoneType"),
        ("adjust", "not a proposal", "something else than a proposal; received str"),
        (Proposal(Adjust((Change("dropout", math.nan),)), "why", Expectation(0.0, 1)), "not a proposal", "changes.0.value"),
        (Proposal(Adjust(()), "why", Expectation(0.0, 1)), "not a proposal", "action"),
        (Proposal("adjust", "why"), "not a proposal", "action"),  # type: ignore[arg-type] - a wrong value, on purpose
    ],
    ids=["raises", "exits", "is cancelled", "None", "text", "NaN", "no change", "text as action"],
)  # fmt: skip
def test_what_is_no_proposal_is_a_failure(result: Any, problem: str, detail: str) -> None:
    client = client_of(Doing(result))
    client.ask(400, a_briefing())
    outcome = client.wait(20.0)
    assert isinstance(outcome, Failure)
    assert outcome.problem == problem
    assert detail in outcome.detail


def test_a_hanging_object_is_late_then_busy_and_comes_back(hanging: Hanging) -> None:
    client = client_of(hanging, 0.05)
    client.ask(400, a_briefing(question=1))
    before = time.perf_counter()
    assert client.poll() is None
    assert time.perf_counter() - before < 0.05
    late = outcome_of(client)
    assert isinstance(late, Failure)
    assert (late.question, late.problem) == (1, "late")
    client.ask(500, a_briefing(question=2))
    busy = client.poll()
    assert isinstance(busy, Failure)
    assert (busy.question, busy.problem) == (2, "busy")
    hanging.go_on.set()
    assert client._thread is not None
    client._thread.join(20)
    client._deadline_seconds = 20.0
    client.ask(600, a_briefing(question=3))
    back = outcome_of(client)
    assert isinstance(back, Answer), back
    assert back.proposal.reason == "question 3", "the late answer to question 1 was taken for that to 3"


def test_waiting_is_for_so_long_and_no_longer(hanging: Hanging) -> None:
    client = client_of(hanging, 0.1)
    client.ask(400, a_briefing())
    began = time.monotonic()
    outcome = client.wait(0.15)
    assert 0.1 <= time.monotonic() - began < 5
    assert isinstance(outcome, Failure)
    assert outcome.problem == "late"


def test_closing_leaves_the_thread_behind(hanging: Hanging) -> None:
    client = client_of(hanging)
    client.ask(400, a_briefing())
    client.close()
    assert client.poll() is None
    assert client._thread is not None
    assert client._thread.daemon, "the process could not end"


def test_a_thread_that_cannot_be_started_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    client = client_of(NoActionManager())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        client.ask(400, a_briefing())
        outcome = client.poll()
    assert isinstance(outcome, Failure)
    assert outcome.problem == "gone"
    client.ask(400, a_briefing(question=2))
    assert isinstance(outcome_of(client), Answer)
