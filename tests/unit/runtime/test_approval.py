"""Human mode: a proposal goes on only with somebody's leave, or by a default that is stated beforehand."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from tests.builders import a_briefing
from tests.unit.runtime.exchange_fixtures import ADJUST, HandClock, notes, open_files, put
from trimtab.controls.manager_settings import Approval
from trimtab.decision.briefing import Briefing
from trimtab.decision.consultation import Consultation
from trimtab.decision.proposal import Proposal, hold
from trimtab.errors import ReplyError
from trimtab.runtime import files
from trimtab.runtime.answer import Answer, Failure, ManagerClient, Withdrawing
from trimtab.runtime.approval import ApprovingClient, Decision, read_decision
from trimtab.runtime.exchange import LOOK_EVERY_SECONDS, MAX_REFUSALS, Exchange
from trimtab.runtime.exchange_form import waiting_question

TOOK = Consultation("model", "1", "p", "s", "e", 1, 100, 10, None)


class Inner:
    """A manager whose outcome is set by the test."""

    def __init__(self) -> None:
        self.outcome: Answer | Failure | None = None
        self.asked: list[int] = []
        self.withdrawn: list[int] = []
        self.is_closed = False

    def ask(self, step: int, briefing: Briefing) -> None:
        self.asked.append(briefing.question)

    def poll(self) -> Answer | Failure | None:
        outcome, self.outcome = self.outcome, None
        return outcome

    def wait(self, seconds: float) -> Answer | Failure | None:
        raise AssertionError("waiting in the inner client would let the person's answer lie")

    def give_up(self, detail: str) -> Failure:
        return Failure(3, "late", detail)

    def withdraw(self, question: int) -> None:
        self.withdrawn.append(question)

    def close(self) -> None:
        self.is_closed = True


class Under:
    """A client under test with its inner manager, its folder and its clock."""

    def __init__(self, folder: Path, default: Approval = "reject") -> None:
        self.folder = folder
        self.clock = HandClock()
        self.inner = Inner()
        self.client = ApprovingClient(self.inner, Exchange(folder, "first"), default, 60.0, self.clock, self.clock.sleep)
        self.client.ask(400, a_briefing(question=3))

    def poll(self, after: float = LOOK_EVERY_SECONDS) -> Answer | Failure | None:
        self.clock.now += after
        return self.client.poll()

    def propose(self, after: float = 1.0, proposal: Proposal = ADJUST) -> Answer | Failure | None:
        self.inner.outcome = Answer(3, proposal, after, consultation=TOOK)
        return self.poll(after)


@pytest.fixture
def under(tmp_path: Path) -> Under:
    return Under(tmp_path / "exchange")


def answered(outcome: Answer | Failure | None) -> Answer:
    assert isinstance(outcome, Answer), outcome
    return outcome


def test_nobody_is_asked_before_the_manager_has_proposed(under: Under) -> None:
    client: ManagerClient = under.client
    assert isinstance(client, Withdrawing)
    assert under.inner.asked == [3]
    assert under.poll() is None
    assert not under.folder.exists()


def test_no_action_needs_nobodys_leave(under: Under) -> None:
    outcome = answered(under.propose(proposal=hold("calm")))
    assert (outcome.proposal, outcome.approved_by, outcome.objection) == (hold("calm"), "", "")
    assert outcome.consultation == TOOK
    assert not under.folder.exists()
    assert under.poll() is None


def test_the_request_shows_the_proposal_the_default_and_the_time_that_is_left(under: Under) -> None:
    assert under.propose(after=20.0) is None
    question = waiting_question(under.folder)
    assert question is not None
    assert (question.proposal, question.default, question.deadline_seconds) == (ADJUST, "reject", 40.0)
    assert question.answer_by_seconds == 1_700_000_000.0 + 1060.0


@pytest.mark.parametrize(
    ("answer", "by"),
    [({}, "a person"), ({"by": "Ada"}, "Ada"), ({"by": " "}, "a person"), ({"by": "A" * 300, "reason": "fine"}, "A" * 80)],
)
def test_an_approved_proposal_goes_on_with_the_name(under: Under, answer: dict[str, Any], by: str) -> None:
    under.propose()
    put(under.folder, {"approve": True, **answer})
    outcome = answered(under.poll(2.0))
    assert (outcome.proposal, outcome.approved_by, outcome.objection) == (ADJUST, by, "")
    assert (outcome.latency_seconds, outcome.consultation) == (3.0, TOOK)
    assert open_files(under.folder) == []
    assert under.poll() is None


@pytest.mark.parametrize(
    ("answer", "objection"),
    [
        ({}, "a person rejected it"),
        ({"reason": "too soon\n\tafter the last"}, "a person rejected it: too soon after the last"),
        ({"reason": "no", "by": "Ada"}, "Ada rejected it: no"),
        ({"reason": "n" * 2000, "by": "Ada"}, "Ada rejected it: " + "n" * 483),
    ],
)
def test_a_rejected_proposal_goes_on_with_the_objection(under: Under, answer: dict[str, Any], objection: str) -> None:
    under.propose()
    put(under.folder, {"approve": False, **answer})
    outcome = answered(under.poll())
    assert (outcome.proposal, outcome.approved_by, outcome.objection) == (ADJUST, "", objection)
    assert outcome.consultation == TOOK


def test_nobody_by_the_deadline_is_a_rejection(under: Under) -> None:
    assert under.propose() is None
    assert under.poll(59.0) is None
    outcome = answered(under.poll())
    assert (outcome.approved_by, outcome.objection) == ("", "not approved: nobody answered within 60 seconds")
    assert (outcome.proposal, outcome.consultation) == (ADJUST, TOOK)
    assert open_files(under.folder) == []
    put(under.folder, {"approve": True})
    assert under.poll() is None, "an approval after the deadline counted"


def test_nobody_by_the_deadline_is_an_approval_where_the_user_said_so(tmp_path: Path) -> None:
    under = Under(tmp_path / "exchange", "approve")
    assert under.propose() is None
    outcome = answered(under.poll(60.0))
    assert (outcome.approved_by, outcome.objection) == ("default: nobody answered within 60 seconds", "")


def test_the_deadline_counts_from_the_question_not_from_the_proposal(under: Under) -> None:
    assert under.propose(after=50.0) is None
    assert under.poll(10.0) is None
    assert answered(under.poll()).objection == "not approved: nobody answered within 60 seconds"


def test_a_manager_that_takes_all_the_time_leaves_none_for_a_person(under: Under) -> None:
    outcome = answered(under.propose(after=61.0))
    assert outcome.objection == "not approved: nobody answered within 60 seconds"
    assert not under.folder.exists()


def test_a_manager_that_never_answers_is_late(under: Under) -> None:
    assert under.poll(60.0) is None
    assert under.poll() == Failure(3, "late", "no proposal within 60 seconds")
    assert under.poll() is None


def test_a_failure_of_the_manager_passes_through(under: Under) -> None:
    under.inner.outcome = Failure(3, "gone", "it died", TOOK)
    assert under.poll() == Failure(3, "gone", "it died", TOOK)
    assert not under.folder.exists()


def test_a_bad_answer_can_be_corrected_and_too_many_are_a_failure(under: Under) -> None:
    under.propose()
    for _ in range(MAX_REFUSALS - 1):
        put(under.folder, {"approve": "yes"})
        assert under.poll() is None
    assert "approve" in notes(under.folder)[0]
    put(under.folder, {"approve": "yes"})
    outcome = under.poll()
    assert isinstance(outcome, Failure)
    assert (outcome.problem, outcome.consultation) == ("not an approval", TOOK)


def test_a_proposal_is_no_approval(under: Under) -> None:
    under.propose()
    put(under.folder, {"action": {"kind": "stop"}, "reason": "enough"})
    assert under.poll() is None
    outcome = answered(under.poll(60.0))
    assert outcome.proposal == ADJUST
    assert "1 answer refused" in outcome.objection


def test_a_full_disk_is_a_failure_that_keeps_the_consultation(under: Under, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_new", full)
    outcome = under.propose()
    assert isinstance(outcome, Failure)
    assert (outcome.problem, outcome.consultation) == ("exchange", TOOK)
    assert under.poll(100.0) is None


def test_a_folder_that_fails_while_looking_is_a_failure(under: Under, monkeypatch: pytest.MonkeyPatch) -> None:
    under.propose()
    monkeypatch.setattr(Path, "lstat", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    outcome = under.poll()
    assert isinstance(outcome, Failure)
    assert outcome.problem == "exchange"


def test_waiting_covers_the_manager_and_the_person(under: Under) -> None:
    def sleep(seconds: float) -> None:
        HandClock.sleep(under.clock, seconds)
        if len(under.clock.slept) == 10:
            under.inner.outcome = Answer(3, ADJUST, 0.2)
        if len(under.clock.slept) == 40:
            put(under.folder, {"approve": True})

    under.client._sleep = sleep
    assert answered(under.client.wait(60.0)).approved_by == "a person"
    assert under.clock.now < 1002.0
    assert max(under.clock.slept) <= LOOK_EVERY_SECONDS
    assert under.client.wait(60.0) is None


def test_waiting_is_for_so_long_and_no_longer(under: Under) -> None:
    assert under.client.wait(2.0) is None
    assert under.clock.now == pytest.approx(1002.0)


def test_a_question_that_was_superseded_is_withdrawn_everywhere(under: Under) -> None:
    under.propose()
    under.client.withdraw(2)
    assert open_files(under.folder) == ["question-00000003.json"]
    under.client.withdraw(3)
    assert open_files(under.folder) == []
    assert under.inner.withdrawn == [2, 3]
    put(under.folder, {"approve": True})
    assert under.poll(100.0) is None


def test_the_next_question_forgets_the_last_proposal(under: Under) -> None:
    under.propose()
    put(under.folder, {"approve": True})
    under.client.ask(500, a_briefing(question=4))
    assert under.poll() is None
    assert open_files(under.folder) == []
    assert notes(under.folder) == ["not applied: question 3 was not open\n"]


def test_closing_ends_the_manager_and_withdraws_the_request(under: Under) -> None:
    under.propose()
    under.client.close()
    assert under.inner.is_closed
    assert open_files(under.folder) == []
    assert under.poll() is None


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"approve": 1}, {"approve": "true"}, {"approve": None}, {"approve": True, "reason": 1}, {"approve": True, "x": 1},
        {"approve": True, "by": 1}, {"approve": True, "reason": "r" * 2001}, [], [True], True, "approve", None,
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_approval_is_refused(answer: object) -> None:
    with pytest.raises(ReplyError):
        read_decision(json.dumps(answer).encode())


@pytest.mark.parametrize("text", [b"", b"{", b'{"approve":true,"approve":false}', b'{"approve":true}{}', b"\xff", b"[" * 9999])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ReplyError):
        read_decision(text)


def test_an_approval_is_read() -> None:
    read = read_decision(b'{"approve": false, "reason": "no", "by": "Ada"}')
    assert read == Decision(approve=False, reason="no", by="Ada")


@pytest.mark.parametrize("default", ["approve", "reject"])
def test_a_proposal_that_no_later_step_could_apply_gets_the_default(tmp_path: Path, default: Approval) -> None:
    under = Under(tmp_path / "exchange", default)
    assert under.propose() is None
    outcome = under.client.give_up("no answer within 40 steps")
    assert isinstance(outcome, Answer)
    assert outcome.proposal == ADJUST
    assert outcome.consultation == TOOK
    if default == "approve":
        assert (outcome.approved_by, outcome.objection) == ("default: no answer within 40 steps", "")
    else:
        assert (outcome.approved_by, outcome.objection) == ("", "not approved: no answer within 40 steps")
    assert under.poll() is None, "it is no longer open"


def test_without_a_proposal_giving_up_is_the_inner_managers_failure(tmp_path: Path) -> None:
    under = Under(tmp_path / "exchange", "approve")
    assert under.client.give_up("no answer within 40 steps") == Failure(3, "late", "no answer within 40 steps")
