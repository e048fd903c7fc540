"""Answers that were recorded are given again at their steps, and nobody is asked for what the record knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.runtime.recorded_runs import Heard, Listened, a_proposal, asked, briefing_at, evaluated, received
from trimtab.decision.action import NoAction
from trimtab.decision.proposal import hold
from trimtab.ledger.record import SUPERSEDED, AnswerDropped, ManagerFailed, ProposalReceived, Record
from trimtab.runtime.answer import Answer, Failure
from trimtab.runtime.recorded import NEVER, RecordedAnswer, RecordedClient, recorded_answers

ANSWER = Answer(7, a_proposal(), 0.5)


def client(came_at: int, *, live: Listened | None = None, heard: Heard | None = None) -> RecordedClient:
    """Return a client that knows one answer: to what was asked after step 20."""
    return RecordedClient({20: RecordedAnswer(came_at, ANSWER)}, live, heard)


class TestAnswers:
    def test_each_question_has_what_came_of_it_at_the_step_at_which_it_came(self) -> None:
        records: list[Record] = [
            evaluated(10),
            asked(10, 1),
            received(13, 1, 0.3),
            asked(20, 2),
            ManagerFailed(24, 2, "late", "no answer"),
        ]
        assert recorded_answers(records) == {
            10: RecordedAnswer(13, Answer(1, a_proposal(0.3), 0.5)),
            20: RecordedAnswer(24, Failure(2, "late", "no answer")),
        }

    def test_all_that_an_answer_brought_is_given_again(self) -> None:
        came = ProposalReceived(13, 1, a_proposal(), 2.5, objection="no", approved_by="ada")
        assert recorded_answers([asked(10, 1), came])[10].outcome == Answer(1, a_proposal(), 2.5, "no", "ada")

    def test_where_the_fallback_answered_the_managers_failure_is_given_again(self) -> None:
        by_rules = ProposalReceived(13, 1, a_proposal(), 0.0, by="rules", failure="late: after 5 s: too slow")
        assert recorded_answers([asked(10, 1), by_rules])[10] == RecordedAnswer(13, Failure(1, "late", "after 5 s: too slow"))

    def test_a_question_that_the_reflex_ended_has_no_answer_that_ever_comes(self) -> None:
        ended = ManagerFailed(14, 1, SUPERSEDED, "the reflex answers non_finite")
        assert recorded_answers([asked(10, 1), ended])[10].step == NEVER

    def test_an_answer_that_the_reflex_made_void_before_it_was_applied_still_comes(self) -> None:
        ended = ManagerFailed(14, 1, SUPERSEDED, "the reflex answers non_finite")
        assert recorded_answers([asked(10, 1), received(12, 1), ended])[10] == RecordedAnswer(12, Answer(1, a_proposal(), 0.5))

    def test_a_question_that_was_open_before_has_its_answer_by_the_step_it_was_asked_at(self) -> None:
        assert recorded_answers([received(12, 1)]) == {}
        assert recorded_answers([received(12, 1)], {1: 10})[10].step == 12

    def test_what_is_unanswered_is_asked_again_unless_the_record_is_all_there_is(self) -> None:
        records: list[Record] = [asked(10, 1), AnswerDropped(11, 1, "too late")]
        assert recorded_answers(records) == {}
        assert recorded_answers(records, is_whole=True)[10].step == NEVER

    def test_another_answer_comes_at_the_same_step_and_is_nobodys(self) -> None:
        other = RecordedAnswer(13, Answer(1, a_proposal(), 2.5, approved_by="ada")).instead(hold("left out"))
        assert other == RecordedAnswer(13, Answer(1, hold("left out"), 0.0))


class TestClient:
    @pytest.mark.parametrize("came_at", [21, 24, 29])
    def test_an_answer_that_came_between_steps_comes_at_its_step(self, came_at: int) -> None:
        target = client(came_at)
        target.ask(20, briefing_at(20, 3))
        outcomes = {step: target.poll() for step in range(21, 31)}
        assert [step for step, outcome in outcomes.items() if outcome is not None] == [came_at]
        assert outcomes[came_at] == Answer(3, a_proposal(), 0.5), "the question's number is this run's"

    def test_an_answer_that_came_at_the_boundary_comes_there(self) -> None:
        target = client(20)
        target.ask(20, briefing_at(20))
        assert target.wait(30.0) == Answer(1, a_proposal(), 0.5)
        assert target.wait(30.0) is None
        assert target.poll() is None

    def test_an_answer_that_missed_the_boundary_misses_it_again_and_at_once(self) -> None:
        live = Listened()
        target = client(22, live=live)
        target.ask(20, briefing_at(20))
        assert target.wait(30.0) is None
        assert target.poll() is None
        assert target.wait(30.0) is None, "another evaluation, of step 21"
        assert target.poll() == Answer(1, a_proposal(), 0.5)
        assert live.told("ask", "poll", "wait") == []

    def test_a_question_asked_again_after_a_resume_is_answered_at_the_recorded_step(self) -> None:
        target = client(26)
        target.ask(23, briefing_at(20))  # the state that is gone on from is that of step 23
        assert [target.poll() is not None for _ in range(24, 27)] == [False, False, True]

    def test_an_answer_that_never_comes_is_waited_for_until_somebody_gives_up(self) -> None:
        target = client(NEVER)
        target.ask(20, briefing_at(20, 3))
        assert all(target.poll() is None for _ in range(500))
        failed = target.give_up("too late")
        assert isinstance(failed, Failure)
        assert (failed.question, failed.problem) == (3, "late")
        assert failed.detail.startswith("too late")
        assert target.poll() is None

    def test_a_withdrawn_question_is_answered_no_more_and_the_manager_not_bothered(self) -> None:
        live = Listened()
        target = client(22, live=live)
        target.ask(20, briefing_at(20, 3))
        target.withdraw(2)
        assert live.told("withdraw") == [("withdraw", 2)]
        target.withdraw(3)
        assert target.poll() is target.poll() is None
        assert live.told("withdraw") == [("withdraw", 2)]
        assert len(live.told("poll")) == 2

    def test_what_the_record_does_not_answer_is_asked_and_awaited_of_the_manager(self) -> None:
        live = Listened()
        target = client(22, live=live)
        target.ask(30, briefing_at(30, 4))
        assert live.calls == [("ask", 30, 4)]
        live.outcome = Answer(4, a_proposal(), 1.0)
        assert target.poll() is target.wait(3.0) is live.outcome
        target.give_up("no more")
        target.withdraw(4)
        target.close()
        assert live.calls[1:] == [("poll",), ("wait", 3.0), ("give_up", "no more"), ("withdraw", 4), ("close",)]

    def test_a_new_question_takes_the_place_of_one_that_was_not_answered_yet(self) -> None:
        live = Listened(Answer(4, a_proposal(), 1.0))
        target = client(NEVER, live=live)
        target.ask(20, briefing_at(20))
        target.ask(30, briefing_at(30, 4))
        assert target.poll() is live.outcome

    def test_with_nobody_to_ask_what_the_record_does_not_know_comes_to_no_action(self) -> None:
        heard = Heard()
        target = client(22, heard=heard)
        target.ask(30, briefing_at(30, 4))
        outcome = target.wait(1.0)
        assert isinstance(outcome, Answer)
        assert outcome.question == 4
        assert isinstance(outcome.proposal.action, NoAction)
        idle = RecordedClient({}, None)
        assert idle.poll() is idle.wait(1.0) is None
        idle.close()

    def test_whoever_listens_hears_of_questions_and_answers_of_the_record(self) -> None:
        heard = Heard()
        target = client(22, live=Listened(), heard=heard)
        target.ask(20, briefing_at(20))
        target.poll()
        assert heard.calls == [("asked", 20)]
        target.poll()
        target.ask(30, briefing_at(30))
        assert heard.calls == [("asked", 20), ("given", 20)]

    def test_the_manager_learns_what_it_was_asked_before_oldest_first_and_before_it_is_asked_more(self) -> None:
        live = Listened()
        target = RecordedClient({20: RecordedAnswer(21, ANSWER)}, live, asked=[briefing_at(5), briefing_at(10)])
        target.ask(20, briefing_at(20))
        target.poll()
        target.ask(30, briefing_at(30))
        assert live.told("recall", "ask") == [("recall", 5), ("recall", 10), ("recall", 20), ("ask", 30, 1)]


@given(
    came=st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=1, max_size=12),
    waits=st.lists(st.booleans(), min_size=12, max_size=12),
    killed_at=st.integers(0, 120),
)
def test_every_answer_comes_at_its_step_however_polls_and_boundaries_follow_each_other(
    came: list[int | None], waits: list[bool], killed_at: int
) -> None:
    """Questions every 10 steps; each is answered so many steps later, at 0 only by waiting at the boundary, or never."""
    answers = {
        10 * place: RecordedAnswer(NEVER if later is None else 10 * place + later, Answer(99, a_proposal(), 0.1 * place))
        for place, later in enumerate(came)
    }
    target = RecordedClient(answers, None)
    given_at: dict[int, int] = {}
    begun_at = killed_at - killed_at % 10 if killed_at < 10 * len(came) else 0
    is_open = 0
    for step in range(begun_at, 10 * len(came)):
        place = step // 10
        if step > begun_at and is_open and (outcome := target.poll()) is not None:
            given_at[outcome.question], is_open = step, 0
        if step % 10 == 0:
            if is_open:
                target.give_up("another question")
            is_open = place + 1
            target.ask(step, briefing_at(step, is_open))
        if is_open and waits[place % len(waits)] and (outcome := target.wait(1.0)) is not None:
            assert outcome.question == is_open
            given_at[outcome.question], is_open = step, 0
    expected: dict[int, int] = {}
    for place, later in enumerate(came):
        if 10 * place < begun_at or later is None:
            continue
        is_missed = later == 0 and not waits[place % len(waits)]  # it is there at the first look
        expected[place + 1] = 10 * place + (1 if is_missed else later)
    assert given_at == expected
