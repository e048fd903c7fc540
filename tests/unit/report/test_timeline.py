from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from tests.unit.report.safeguarded_runs import GuardedRun, guarded_run, lower, tried_run
from tests.unit.report.sample_run import NON_FINITE, OVERFITTING, Play, whole_run
from tests.unit.report.scored_run import TAKEN, ScoredRun, shadow_story
from trimtab.controller.event import AnswerFailed, AnswerReceived, EnactmentFailed, RunClosed, StepTaken, SymptomRaised
from trimtab.decision.action import Adjust, Change, Rollback
from trimtab.decision.proposal import Expectation, Proposal, hold
from trimtab.errors import IllegalTransition, LedgerError
from trimtab.ledger.record import ActionApplied, AnswerDropped, VerdictGiven
from trimtab.report.account import Changed, Point, json_ready
from trimtab.report.timeline import build_timeline
from trimtab.verification.verdict import Rejection


def test_every_question_and_reflex_act_is_one_decision_with_its_ending() -> None:
    decisions = build_timeline(whole_run()).decisions
    assert [(decision.step, decision.source, decision.ending) for decision in decisions] == [
        (50, "manager", "no_action"),
        (100, "manager", "no_action"),
        (200, "manager", "applied"),
        (250, "manager", "rejected"),
        (300, "manager", "manager_failed"),
        (330, "reflex", "applied"),
        (350, "manager", "manager_failed"),
        (400, "manager", "failed"),
        (450, "manager", "applied"),
        (500, "manager", "manager_failed"),
    ]
    assert [decision.number for decision in decisions] == list(range(1, 11))
    assert [decision.intervention for decision in decisions if decision.intervention] == [1, 2, 3, 4]


def test_an_applied_proposal_is_told_from_symptom_to_outcome() -> None:
    decision = build_timeline(whole_run()).decisions[2]
    assert decision.symptoms == (OVERFITTING,)
    assert decision.proposal is not None
    assert decision.proposal.action == "rollback to step-00000100, dropout=0.1"
    assert decision.proposal.reason == "validation loss turned up"
    assert decision.proposal.latency_seconds == 0.25
    assert decision.applied_step == 210
    assert decision.changes == (Changed("dropout", 0.0, 0.1),)
    assert [result.holds for result in decision.read_back] == [True]
    outcome = decision.outcome
    assert outcome is not None
    # From the checkpoint's objective, 1.9, not from the 2.1 before the rollback.
    assert (outcome.objective_before, outcome.objective_after, outcome.expected_gain) == (1.9, 1.8, 0.05)
    assert outcome.gain == pytest.approx(0.1)
    assert outcome.met is True


def test_what_did_not_happen_says_why() -> None:
    decisions = build_timeline(whole_run()).decisions
    assert decisions[0].detail == "too early"
    assert "permitted" in decisions[3].detail
    assert [reason.constraint for reason in decisions[3].verdicts[0].reasons] == ["permitted_moves", "largest_change"]
    assert decisions[4].detail.startswith("superseded: the reflex answers non_finite; answer dropped:")
    assert decisions[6].detail == "not a proposal: the reply is not JSON"
    assert decisions[7].detail == "the binding broke"
    assert decisions[7].applied_step is None
    assert decisions[9].detail.startswith("late")


def test_the_reflex_is_told_with_the_evidence_it_acted_on() -> None:
    decision = build_timeline(whole_run()).decisions[5]
    assert [symptom.name for symptom in decision.symptoms] == ["non_finite"]
    assert decision.question is None
    assert decision.proposal is not None
    assert decision.proposal.expectation is None
    assert "attempt 1 of" in decision.proposal.reason


def test_a_rejected_choice_of_the_reflex_belongs_to_the_same_act() -> None:
    play = Play()
    play.evaluate(100, 1.9)
    played = len(play.records)
    play.feed(SymptomRaised(120, replace(NON_FINITE, step=120)))
    verdict = next(place for place, record in enumerate(play.records) if place >= played and isinstance(record, VerdictGiven))
    against = (Rejection("authority", "spent"),)
    refused = VerdictGiven(120, 0, "reflex", Adjust((Change("dropout", 0.1),)), accepted=False, reasons=against)
    decision = build_timeline([*play.records[:verdict], refused, *play.records[verdict:]]).decisions[-1]
    assert [judged.accepted for judged in decision.verdicts] == [False, True]
    assert decision.ending == "applied"
    only_refused = build_timeline([*play.records[:verdict], refused]).decisions[-1]
    assert (only_refused.ending, only_refused.detail) == ("rejected", "spent")
    assert [symptom.name for symptom in only_refused.symptoms] == ["non_finite"]


def test_an_answer_waiting_when_the_reflex_acts_is_dropped() -> None:
    play = Play()
    play.evaluate(100, 1.9)
    play.feed(AnswerReceived(101, 1, Proposal(Rollback("step-00000100"), "back", Expectation(0.0, 1)), 0.1))
    play.feed(SymptomRaised(105, replace(NON_FINITE, step=105)))
    dropped, act = build_timeline(play.records).decisions
    assert (dropped.ending, act.ending) == ("dropped", "applied")
    assert dropped.proposal is not None
    assert dropped.detail == "superseded: the reflex answers non_finite"


def test_the_summary_has_the_figures_of_the_run() -> None:
    summary = build_timeline(whole_run()).summary
    assert (summary.run, summary.manager, summary.status, summary.ended_because) == ("first", "rules", "ended", "finished")
    assert (summary.steps, summary.total_steps, summary.num_evaluations, summary.num_questions) == (1000, 1000, 9, 9)
    assert (summary.interventions, summary.reflex_interventions, summary.rejections) == (3, 1, 1)
    assert (summary.first, summary.best, summary.last) == (Point(50, 3.2), Point(300, 1.7), Point(500, 1.74))
    assert summary.recipe_start == {"dropout": 0.0, "learning_rate": 0.003}
    assert summary.recipe_now == {"dropout": 0.1, "learning_rate": 0.0015}
    assert [problem.problem for problem in summary.problems] == ["a change did not stick", "the disk is slow"]


def test_a_run_that_was_asked_to_stop_says_why() -> None:
    play = Play()
    play.feed(SymptomRaised(7, replace(NON_FINITE, step=7)))
    play.feed(RunClosed(8, "finished"))
    summary = build_timeline(play.records).summary
    assert (summary.status, summary.ended_because) == ("stopped", "reflex: non_finite")


def test_the_best_of_an_objective_to_maximize_is_the_highest() -> None:
    play = Play(objective="maximize val/loss")
    for at, value in ((100, 0.5), (200, math.inf), (300, 0.8), (400, 0.7)):
        play.evaluate(at, value)
    assert build_timeline(play.records).summary.best == Point(300, 0.8)


def test_a_ledger_cut_off_anywhere_is_still_told_in_valid_json() -> None:
    records = whole_run("\x1b[31m\n\udcff")
    for length in range(1, len(records) + 1):
        timeline = build_timeline(records[:length])
        tree = json.loads(json.dumps(timeline.as_json(), allow_nan=False))
        assert len(tree["decisions"]) == len(timeline.decisions)
        assert tree["summary"]["status"] == ("ended" if length == len(records) else "not ended")
        assert timeline.decisions == () or json.dumps(timeline.decisions[-1].as_json(), allow_nan=False)


def test_numbers_that_json_lacks_become_words() -> None:
    assert json_ready({"a": [math.nan, math.inf, -math.inf, 1.5]}) == {"a": ["NaN", "Infinity", "-Infinity", 1.5]}
    assert build_timeline(whole_run()).as_json()["decisions"][5]["symptoms"][0]["evidence"][0]["value"] == "NaN"


def test_an_empty_ledger_is_refused() -> None:
    with pytest.raises(LedgerError, match="empty"):
        build_timeline([])


def test_records_out_of_order_are_refused() -> None:
    records = whole_run()
    applied = next(record for record in records if isinstance(record, ActionApplied))
    with pytest.raises(IllegalTransition):
        build_timeline([records[0], applied])


def test_an_answer_to_no_question_is_a_problem() -> None:
    problems = build_timeline([whole_run()[0], AnswerDropped(3, 99, "who asked")]).summary.problems
    assert [problem.problem for problem in problems] == ["an answer to question 99"]


def test_what_was_accepted_in_shadow_was_not_applied() -> None:
    timeline = build_timeline(shadow_story())
    decision = timeline.decisions[2]
    assert (decision.ending, decision.applied_step, decision.intervention) == ("shadow", None, None)
    assert decision.verdicts[-1].step == 310
    assert (timeline.summary.is_shadow, timeline.summary.interventions) == (True, 0)
    assert timeline.summary.shadow_interventions == 2
    assert not build_timeline(whole_run()).summary.is_shadow


def test_who_answered_and_who_approved_is_told() -> None:
    decisions = build_timeline(shadow_story()).decisions
    approved, late, objected = decisions[2].proposal, decisions[5].proposal, decisions[6].proposal
    assert approved is not None
    assert (approved.by, approved.approved_by, decisions[2].consultation) == ("manager", "ada", TAKEN)
    assert late is not None
    assert late.by == "rules"
    assert late.failure.startswith("late: no answer within 80 steps; raise deliberation.stale_after_steps")
    assert objected is not None
    assert (objected.objection, decisions[6].ending) == ("not today", "rejected")


def test_what_a_failed_question_took_is_kept() -> None:
    run = ScoredRun()
    run.next(1.0)
    run.give(AnswerFailed(101, 1, "timeout", "no reply", TAKEN))
    (decision,) = build_timeline(run.records).decisions
    assert (decision.ending, decision.consultation) == ("manager_failed", TAKEN)


@pytest.mark.parametrize("is_answered", [False, True])
def test_a_question_that_was_open_when_the_run_ended_is_not_open_any_more(is_answered: bool) -> None:
    run = ScoredRun()
    run.next(1.0)
    if is_answered:
        run.answer(101, hold("fine"))
    assert build_timeline(run.records).decisions[-1].ending == "open"
    run.close()
    decision = build_timeline(run.records).decisions[-1]
    assert decision.ending == "unanswered"
    assert decision.detail == f"the run ended before {'its answer was judged' if is_answered else 'an answer came'}"


def test_harm_and_taking_back_are_told_at_all_that_were_watched_together_and_at_the_guards_act() -> None:
    decisions = build_timeline(guarded_run().records).decisions
    first, second, guard = decisions[3], decisions[4], decisions[5]
    assert first.harm is not None
    assert (first.harm.step, first.harm.intervention, first.harm.objective) == (600, 1, 2.5)
    assert first.harm == second.harm
    assert first.taken_back == second.taken_back
    assert first.taken_back is not None
    assert (first.taken_back.step, first.taken_back.intervention) == (601, 3)
    assert (guard.source, guard.takes_back, guard.harm, guard.taken_back) == ("guard", (1, 2), None, None)
    again = decisions[6]
    assert again.harm is not None
    assert (again.harm.intervention, decisions[7].takes_back) == (4, (4,))


def test_what_was_taken_back_before_keeps_its_own_harm() -> None:
    run = GuardedRun(2.0, 1.98, 1.96, 1.94)
    run.change(lower(5e-4), 1.90)
    run.change(Adjust((Change("dropout", 0.2),)), 2.2)
    run.take_back()
    run.next(1.91)
    run.next(2.3)
    run.take_back()
    timeline = build_timeline(run.records)
    told = {
        one.intervention: (one.harm.step, one.taken_back.intervention)
        for one in timeline.decisions
        if one.harm is not None and one.taken_back is not None
    }
    assert told == {1: (800, 4), 2: (600, 3)}
    assert [one.takes_back for one in timeline.decisions if one.source == "guard"] == [(2,), (1,)]
    assert (timeline.summary.watched, timeline.summary.taken_back) == (2, 2)


def test_the_guards_hold_is_dated() -> None:
    run = guarded_run()
    run.give(RunClosed(900, "finished"))
    summary = build_timeline(run.records).summary
    assert (summary.taken_back, summary.guard_interventions, summary.held_since) == (3, 2, 801)
    before = [record for record in run.records if record.step < 801]
    assert build_timeline(before).summary.held_since is None


def test_a_taking_back_that_failed_says_so() -> None:
    run = GuardedRun(2.0, 1.9, 1.8, 1.7)
    run.change(lower(5e-4), 2.5)
    run.give(StepTaken(501))
    run.give(EnactmentFailed(501, run.now.recipe, "no such file"))
    changed, guard = build_timeline(run.records).decisions[3:]
    assert (changed.harm is not None, changed.taken_back) == (True, None)
    assert (guard.ending, guard.detail, guard.takes_back) == ("failed", "no such file", (1,))


def test_harm_that_stays_says_why_and_the_guards_giving_up_is_no_question() -> None:
    run = GuardedRun(2.0, 1.9, 1.8, 1.7)
    run.change(lower(5e-4), 2.5)
    assert build_timeline(run.records).decisions[3].harm_stays == "", "it is about to be taken back"
    ended = GuardedRun(2.0, 1.9, 1.8, 1.7)
    ended.change(lower(5e-4), 2.5)
    ended.give(RunClosed(500, "finished"))
    assert build_timeline(ended.records).decisions[3].harm_stays == "the run ended before the guard could act"
    for at in (501, 502):
        run.give(StepTaken(at))
        run.give(EnactmentFailed(at, run.now.recipe, "no such file"))
    run.give(StepTaken(503))
    timeline = build_timeline(run.records)
    assert timeline.summary.harm_stays == (timeline.decisions[3].harm_stays,)
    assert timeline.summary.harm_stays == ("there is no way back that the envelope allows",)
    for objective in (2.4, 2.3, 2.2):
        run.next(objective)
    timeline = build_timeline(run.records)
    assert [(one.source, one.ending) for one in timeline.decisions[4:9]] == [
        ("guard", "failed"), ("guard", "failed"), ("guard", "no_action"), ("manager", "no_action"), ("manager", "no_action"),
    ]  # fmt: skip
    assert [len(group) for group in timeline.grouped()][:6] == [3, 1, 1, 1, 1, 2]


def test_harm_that_the_reflex_came_before_says_so() -> None:
    run = GuardedRun()
    for objective in (2.0, 1.9, 1.8, 1.7):
        run.next(objective, checkpoint=False)  # so a fault cannot be answered by going back before the change
    run.change(lower(5e-4), 2.5)
    run.fault(500)
    run.done(500)
    *_, blamed, reflex = build_timeline(run.records).decisions
    assert (reflex.source, reflex.ending) == ("reflex", "applied")
    assert (blamed.taken_back, blamed.harm_stays) == (None, "the run was changed before the guard could act")


def test_a_fault_is_blamed_without_a_measured_harm() -> None:
    run = GuardedRun(2.0, 1.9, 1.8, 1.7)
    run.intervene(400, lower(5e-4), within=3)
    run.fault(450)
    run.done(450)
    blamed = build_timeline(run.records).decisions[3]
    assert (blamed.harm, blamed.outcome) == (None, None)
    assert blamed.taken_back is not None
    assert blamed.taken_back.reason == "non_finite in loss while intervention 1 was watched"


def test_a_trial_is_told_with_its_early_look() -> None:
    timeline = build_timeline(tried_run().records)
    looks = [one.tried.looks for one in timeline.decisions if one.tried is not None]
    assert looks == [
        (("no_action", 2.0), ("candidate", 1.9)),
        (("no_action", 2.0), ("candidate", 1.9)),
        (("no_action", 2.0), ("candidate", 4.0)),
        (("no_action", 2.0),),
    ]
    measured = [one.tried.measured for one in timeline.decisions if one.tried is not None]
    assert measured == [(("candidate", 1.5), ("no_action", 1.6)), (("candidate", 1.7), ("no_action", 1.6)), (), ()]
    gains = [one.tried.gain for one in timeline.decisions if one.tried is not None]
    assert gains == [pytest.approx(0.1), pytest.approx(-0.1), -2.0, None]
    assert [one.ending for one in timeline.decisions] == ["applied", "not_better", "not_better", "not_better"]
    assert (timeline.summary.trials, timeline.summary.trials_won, timeline.summary.trial_steps) == (4, 1, 47)
