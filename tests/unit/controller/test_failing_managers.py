"""What becomes of questions that a manager does not answer, of shadows, and of what a person rejects."""

from __future__ import annotations

import pytest

from tests.builders import RECIPE, a_symptom, an_envelope
from tests.fake_run import Run, propose
from trimtab.controller.event import AnswerFailed, AnswerReceived, StepTaken
from trimtab.controller.state import Phase
from trimtab.controls.envelope import Authority, Deliberation, Envelope
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.action import Adjust, Change, NoAction
from trimtab.decision.consultation import Consultation
from trimtab.decision.rules.manager import RulesManager
from trimtab.ledger.record import ManagerAsked, ManagerFailed, ProposalReceived, VerdictGiven

HALVE = Adjust((Change("learning_rate", 5e-4),))
TAKEN = Consultation("tiny", "v1", "a" * 64, "b" * 64, "c" * 64, 1, 900, 50, 0.25)


def with_settings(**changes: object) -> Envelope:
    settings = ManagerSettings(**({"fallback": "rules", "breaker_failures": 2, "breaker_questions": 3} | changes))  # type: ignore[arg-type] - the values are of many types
    return an_envelope(manager=settings, deliberation=Deliberation(stale_after_steps=50), authority=Authority(interventions=50))


def fail(run: Run, at: int, problem: str = "timeout") -> list[str]:
    assert run.now.question is not None
    return run.give(AnswerFailed(at, run.now.question.number, problem, "no idea", TAKEN))


class TestFallback:
    def test_the_rules_answer_for_it_in_the_same_record(self) -> None:
        run = Run(with_settings())
        run.evaluate(100, 2.0, a_symptom(step=100))
        assert fail(run, 104) == ["proposal_received"]
        record = run.records[-1]
        assert isinstance(record, ProposalReceived)
        assert record.proposal == RulesManager().propose(run.briefings[-1])
        assert not isinstance(record.proposal.action, NoAction), "the rules have an answer to overfitting"
        assert (record.by, record.failure, record.consultation) == ("rules", "timeout: no idea", TAKEN)
        assert run.give(StepTaken(110)) == ["verdict_given", "action_intended"]
        run.done(110)
        assert run.now.interventions[-1].source == "rules"

    def test_without_one_it_is_no_action_and_one_record(self) -> None:
        run = Run(with_settings(fallback="no_action"))
        run.evaluate(100, 2.0, a_symptom(step=100))
        assert fail(run, 104) == ["manager_failed"]
        record = run.records[-1]
        assert isinstance(record, ManagerFailed)
        assert (record.problem, record.consultation) == ("timeout", TAKEN)
        assert run.now.phase is Phase.WATCHING

    def test_it_answers_at_the_last_step_that_counts(self) -> None:
        run = Run(with_settings())
        run.evaluate(100, 2.0, a_symptom(step=100))
        assert run.give(StepTaken(149)) == []
        assert run.give(StepTaken(150)) == ["proposal_received", "verdict_given", "action_intended"]
        verdict = next(record for record in reversed(run.records) if isinstance(record, VerdictGiven))
        assert verdict.accepted
        assert run.answer(151, propose(HALVE)) == ["answer_dropped"]

    def test_a_question_that_the_reflex_ends_is_no_failure(self) -> None:
        run = Run(with_settings(fallback="no_action", breaker_failures=1))
        run.evaluate(100, 2.0, a_symptom(step=100))
        run.fault(103)
        assert "manager_failed" in [record.kind for record in run.records]
        assert (run.now.failures_in_a_row, run.now.breaker_left) == (0, 0)


class TestBreaker:
    @pytest.mark.parametrize("fallback", ["rules", "no_action"])
    def test_after_failures_in_a_row_it_is_not_asked_for_a_while_and_then_tried_again(self, fallback: str) -> None:
        run = Run(with_settings(fallback=fallback))
        sent: list[bool] = []
        for at in range(100, 1100, 100):
            run.evaluate(at, 2.0)
            asked = next(record for record in reversed(run.records) if isinstance(record, ManagerAsked))
            assert asked.step == at
            sent.append(asked.sent)
            if asked.sent:
                fail(run, at + 1)
            run.give(StepTaken(at + 10))
            assert run.now.phase is Phase.WATCHING
        assert sent == [True, True, False, False, False, True, False, False, False, True]
        assert len(run.briefings) == 4, "what is not sent asks nobody"

    def test_a_question_that_is_not_sent_says_why(self) -> None:
        run = Run(with_settings(breaker_failures=1))
        run.evaluate(100, 2.0)
        fail(run, 101)
        run.give(StepTaken(110))
        assert run.evaluate(200, 2.0)[-2:] == ["manager_asked", "proposal_received"]
        record = run.records[-1]
        assert isinstance(record, ProposalReceived)
        why = "the manager failed 1 times in a row and is not asked for a while; the last time: timeout: no idea"
        assert record.failure == f"paused: {why}"

    def test_one_answer_closes_it(self) -> None:
        run = Run(with_settings())
        run.evaluate(100, 2.0)
        fail(run, 101)
        run.give(StepTaken(110))
        run.evaluate(200, 2.0)
        run.answer(201, propose(NoAction()))
        run.give(StepTaken(210))
        assert run.now.failures_in_a_row == 0
        run.evaluate(300, 2.0)
        fail(run, 301)
        assert (run.now.failures_in_a_row, run.now.breaker_left) == (1, 0)

    @pytest.mark.parametrize("never", [0, None])
    def test_it_can_be_left_out(self, never: int | None) -> None:
        run = Run(with_settings(breaker_failures=never))
        for at in range(100, 2100, 100):
            run.evaluate(at, 2.0)
            fail(run, at + 1)
            run.give(StepTaken(at + 10))
        assert len(run.briefings) == 20


def test_a_shadow_is_judged_and_never_applied() -> None:
    run = Run(an_envelope(authority=Authority(shadow=True)))
    for at in (100, 200, 300):
        run.evaluate(at, 2.0)
        run.answer(at + 3, propose(HALVE))
        assert run.give(StepTaken(at + 10)) == ["verdict_given"]
        verdict = run.records[-1]
        assert isinstance(verdict, VerdictGiven)
        assert verdict.accepted
    assert run.orders == []
    assert (run.now.recipe, run.now.interventions_used, run.now.version) == (RECIPE, 0, 0)


def test_what_a_person_rejects_is_rejected_in_their_words() -> None:
    run = Run()
    run.evaluate(100, 2.0)
    run.give(AnswerReceived(103, 1, propose(HALVE), 0.1, objection="Kim rejected it: too early"))
    assert run.give(StepTaken(110)) == ["verdict_given"]
    verdict = run.records[-1]
    assert isinstance(verdict, VerdictGiven)
    assert [(reason.constraint, reason.detail) for reason in verdict.reasons] == [("approval", "Kim rejected it: too early")]
    assert run.now.recipe == RECIPE


def test_the_briefing_says_how_each_control_stands_and_what_is_left() -> None:
    run = Run()
    run.evaluate(100, 2.0)
    run.answer(103, propose(HALVE))
    run.give(StepTaken(110))
    run.done(110)
    run.evaluate(200, 1.9)
    briefing = run.briefings[-1]
    assert [one.control for one in briefing.limits] == [name for name, _ in briefing.recipe.values]
    rate = next(one for one in briefing.limits if one.control == "learning_rate")
    assert (rate.low, rate.high, rate.changed_step, rate.free_from_step) == (1e-6, 1e-2, 110, 130)
    assert briefing.limits[0].changed_step is None
    assert (briefing.interventions_left, briefing.rollbacks_left) == (15, 10)
