"""The external manager's client: every way an answer can come, be late, or not come at all."""

from __future__ import annotations

import errno
import json
import time
from pathlib import Path

import pytest

from tests.builders import a_briefing
from tests.unit.runtime.exchange_fixtures import ADJUST, HOLD, HandClock, notes, open_files, put
from trimtab.decision.wire import encode_proposal
from trimtab.errors import ReplyError
from trimtab.runtime import exchange_form, files
from trimtab.runtime.answer import Answer, Failure, ManagerClient, Withdrawing
from trimtab.runtime.clock import SystemClock
from trimtab.runtime.exchange import LOOK_EVERY_SECONDS, MAX_REFUSALS, Exchange
from trimtab.runtime.exchange_form import waiting_question
from trimtab.runtime.external import ExternalClient, read_answer


class Under:
    """A client under test, its folder and its clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = HandClock()
        self.client = ExternalClient(Exchange(folder, "first"), 60.0, self.clock, self.clock.sleep)

    def ask(self, number: int = 3) -> None:
        self.client.ask(400, a_briefing(question=number))

    def poll(self, after: float = LOOK_EVERY_SECONDS) -> Answer | Failure | None:
        self.clock.now += after
        return self.client.poll()


@pytest.fixture
def under(tmp_path: Path) -> Under:
    under = Under(tmp_path / "exchange")
    under.ask()
    return under


def test_it_is_a_client_that_is_told_when_a_question_closes(under: Under) -> None:
    client: ManagerClient = under.client
    assert isinstance(client, Withdrawing)


def test_the_question_says_until_when_it_is_open(under: Under) -> None:
    question = waiting_question(under.folder)
    assert question is not None
    assert (question.run, question.number, question.asked.step) == ("first", 3, 400)
    assert question.answer_by_seconds == under.clock.wall_seconds() + 60.0


def test_an_answer_arrives_once_with_its_latency_and_its_giver(under: Under) -> None:
    assert under.poll(5.0) is None
    put(under.folder, encode_proposal(ADJUST) | {"by": "  night\tshift "})
    outcome = under.poll(2.0)
    assert isinstance(outcome, Answer)
    assert (outcome.question, outcome.proposal, outcome.latency_seconds) == (3, ADJUST, 7.0)
    assert outcome.approved_by == "night shift"
    assert under.poll() is None
    assert open_files(under.folder) == []


def test_without_a_name_nobody_is_named(under: Under) -> None:
    put(under.folder, HOLD)
    outcome = under.poll()
    assert isinstance(outcome, Answer)
    assert outcome.approved_by == ""


def test_silence_is_a_failure_at_the_deadline_and_not_before(under: Under) -> None:
    assert under.poll(60.0) is None
    outcome = under.poll(0.001)
    assert outcome == Failure(3, "late", "no answer within 60 seconds")
    assert under.poll() is None
    assert open_files(under.folder) == []
    put(under.folder, HOLD)
    assert under.poll() is None, "an answer after the deadline counted"


def test_the_failure_says_what_was_refused(under: Under) -> None:
    put(under.folder, "adjust the rate please")
    assert under.poll() is None
    assert under.poll(1.5) is None
    outcome = under.poll(60.0)
    assert isinstance(outcome, Failure)
    assert outcome.problem == "late"
    assert "1 answer refused, the last: the reply is not JSON" in outcome.detail


def test_a_typo_can_be_corrected(under: Under) -> None:
    put(under.folder, HOLD.replace("no_action", "no_acton"))
    assert under.poll() is None
    assert "action" in notes(under.folder)[0]
    put(under.folder, HOLD)
    assert isinstance(under.poll(), Answer)


def test_too_many_bad_answers_are_a_failure(under: Under) -> None:
    for _ in range(MAX_REFUSALS - 1):
        put(under.folder, "[]")
        assert under.poll() is None
    put(under.folder, "[]")
    outcome = under.poll()
    assert isinstance(outcome, Failure)
    assert (outcome.question, outcome.problem) == (3, "not a proposal")
    assert f"{MAX_REFUSALS} answers refused" in outcome.detail
    assert under.poll() is None


def test_an_answer_to_another_question_is_not_applied(under: Under) -> None:
    put(under.folder, HOLD, 2)
    put(under.folder, HOLD, 4)
    assert under.poll() is None
    under.ask(4)
    assert under.poll() is None


def test_waiting_sleeps_in_small_slices_until_the_answer(under: Under) -> None:
    def sleep(seconds: float) -> None:
        HandClock.sleep(under.clock, seconds)
        if len(under.clock.slept) == 50:
            put(under.folder, HOLD)

    under.client._sleep = sleep
    outcome = under.client.wait(30.0)
    assert isinstance(outcome, Answer)
    assert 0.99 < outcome.latency_seconds < 1.1
    assert max(under.clock.slept) <= LOOK_EVERY_SECONDS


def test_waiting_ends_when_its_time_is_over_or_nothing_was_asked(under: Under) -> None:
    assert under.client.wait(1.0) is None
    assert under.clock.now == pytest.approx(1001.0)
    assert isinstance(under.client.wait(100.0), Failure)
    assert under.client.wait(100.0) is None


def test_a_withdrawn_question_is_gone_and_another_number_withdraws_nothing(under: Under) -> None:
    under.client.withdraw(2)
    assert open_files(under.folder) == ["question-00000003.json"]
    under.client.withdraw(3)
    assert open_files(under.folder) == []
    put(under.folder, HOLD)
    assert under.poll() is None
    assert under.poll(1000.0) is None


def test_closing_takes_the_question_back(under: Under) -> None:
    under.client.close()
    under.client.close()
    assert open_files(under.folder) == []
    assert under.poll(1000.0) is None


def test_a_run_directory_that_is_gone_is_a_failure(tmp_path: Path) -> None:
    under = Under(tmp_path / "nowhere" / "exchange")
    under.ask()
    outcome = under.poll()
    assert isinstance(outcome, Failure)
    assert outcome.problem == "exchange"
    assert "No such file" in outcome.detail
    assert under.poll() is None


def test_a_full_disk_is_a_failure_and_the_next_question_works_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    under = Under(tmp_path / "exchange")
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_new", full)
        under.ask()
    outcome = under.poll()
    assert isinstance(outcome, Failure)
    assert outcome.problem == "exchange"
    assert "No space left" in outcome.detail
    under.ask(4)
    put(under.folder, HOLD, 4)
    assert isinstance(under.poll(), Answer)


def test_a_folder_that_fails_while_looking_is_a_failure(under: Under, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "lstat", broken)
    outcome = under.poll()
    assert isinstance(outcome, Failure)
    assert outcome.problem == "exchange"
    assert under.poll() is None


@pytest.mark.parametrize("by", [1, None, ["x"], {"name": "x"}, True])
def test_a_name_that_is_no_text_is_refused(by: object) -> None:
    with pytest.raises(ReplyError, match="by is not text"):
        read_answer(json.dumps({**json.loads(HOLD), "by": by}).encode())


@pytest.mark.parametrize(
    ("by", "shown"),
    [("Ada", "Ada"), ("", ""), (" \n\t", ""), ("a\x1b[2Jb", "a [2Jb"), ("\u202eAda", "Ada"), ("x" * 5000, "x" * 80)],
)
def test_a_name_is_made_one_short_line(by: str, shown: str) -> None:
    assert exchange_form.name_of(by, "") == shown


def test_an_idle_poll_costs_microseconds(tmp_path: Path) -> None:
    client = ExternalClient(Exchange(tmp_path / "exchange", "first"), 1000.0, SystemClock())
    client.ask(400, a_briefing(question=3))
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(2000):
            client.poll()
        best = min(best, (time.perf_counter() - began) / 2000)
    assert best < 20e-6, f"{best * 1e6:.1f} microseconds"
