from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.unit.report.sample_run import whole_run
from tests.unit.report.scored_run import BACK, LOWER_RATE, NOISE, OVERFITTING, PLATEAU, TAKEN, ScoredRun, shadow_story
from trimtab.controller.event import AnswerFailed, StepTaken
from trimtab.controls.recipe import Recipe
from trimtab.decision.action import Rollback, Stop
from trimtab.decision.proposal import Proposal, hold
from trimtab.errors import LedgerError
from trimtab.ledger.record import ActionApplied, Record
from trimtab.report.account import Point
from trimtab.report.scorecard import COUNTERFACTUAL, SHADOW, Score, build_scorecard


def first_score(run: ScoredRun) -> Score:
    return build_scorecard(run.records).scores[0]


def after(objective: float, action: Any, *then: float, gain: float = 0.05, within: int = 2, **settings: Any) -> Score:
    """Return the score of a question at ``objective``, at which ``action`` was proposed, with ``then`` evaluated after it."""
    run = ScoredRun(**settings)
    run.next(objective)
    run.act(action, gain, within)
    for value in then:
        run.next(value)
        run.hold()
    run.close()
    return first_score(run)


@pytest.mark.parametrize(
    ("then", "judgement"),
    [
        ((0.99, 0.94), "not_needed"),
        ((0.94, math.nan), "not_needed"),
        ((0.94, 1.5), "not_needed"),  # as with an applied one, measuring ends with the gain that was expected
        ((0.99, 0.96), "open"),
        ((0.99, 1.02), "open"),
        ((0.99, 1.04), "perhaps_missed"),
        ((0.99, math.nan), "perhaps_missed"),
        ((math.inf, 0.94), "not_needed"),
        ((0.99,), "not_judged"),
        ((), "not_judged"),
    ],
)
def test_a_proposal_that_was_not_applied_is_held_to_what_happened_without_it(then: tuple[float, ...], judgement: str) -> None:
    assert after(1.0, LOWER_RATE, *then).judgement == judgement


def test_the_other_direction_is_judged_the_other_way() -> None:
    assert after(1.0, LOWER_RATE, 1.0, 1.06, direction="maximize").judgement == "not_needed"
    assert after(1.0, LOWER_RATE, 1.0, 0.96, direction="maximize").judgement == "perhaps_missed"


def test_what_happened_is_told_in_figures() -> None:
    score = after(1.0, LOWER_RATE, 0.98, 1.05, 5.0)
    window = score.window
    assert window is not None
    assert (window.at_question, window.baseline, window.noise) == (1.0, 1.0, NOISE)
    assert window.after == (Point(200, 0.98), Point(300, 1.05))  # two, as the manager said: not the third
    assert (window.gain, window.last_gain) == (pytest.approx(0.02), pytest.approx(-0.05))
    assert window.checkpoint_lead is None
    assert score.decision.verdicts[0].accepted
    assert score.decision.applied_step is None


def test_a_gain_within_the_noise_is_never_there() -> None:
    score = after(1.0, LOWER_RATE, 0.98, 0.98, gain=0.01)
    assert score.judgement == "open"
    assert "within the noise" in score.why
    assert after(1.0, LOWER_RATE, 0.98, 0.95, gain=0.01).judgement == "not_needed"


def test_only_getting_better_beyond_noise_shows_that_no_loss_needed_no_action() -> None:
    assert after(1.0, LOWER_RATE, 1.0, 1.0, gain=0.0).judgement == "open"
    assert after(1.0, LOWER_RATE, 1.0, 0.96, gain=0.0).judgement == "not_needed"
    assert after(1.0, LOWER_RATE, 1.0, 1.04, gain=0.0).judgement == "perhaps_missed"


@pytest.mark.parametrize(
    ("then", "judgement", "lead"),
    [
        ((1.3, 1.2), "perhaps_missed", 0.2),
        ((1.3, 1.02), "open", 0.02),  # worse than at the checkpoint, but not beyond noise
        ((0.94, 1.3), "not_needed", -0.06),
    ],
)
def test_a_rollback_is_held_against_its_checkpoint(then: tuple[float, ...], judgement: str, lead: float) -> None:
    run = ScoredRun()
    run.next(1.0)
    run.hold()
    run.next(1.2)
    run.act(BACK)
    for value in then:
        run.next(value)
        run.hold()
    score = build_scorecard(run.records).scores[1]
    assert score.window is not None
    assert (score.window.at_question, score.window.baseline) == (1.2, 1.0)
    assert (score.judgement, score.window.checkpoint_lead) == (judgement, pytest.approx(lead))


def test_a_rollback_to_nowhere_cannot_be_compared() -> None:
    score = after(1.0, Rollback("step-00009999"), 1.0, 1.0)
    assert (score.judgement, score.why) == ("not_judged", "its checkpoint's objective is not known")
    assert not score.decision.verdicts[0].accepted


@pytest.mark.parametrize(
    ("then", "judgement"),
    [
        ((1.0, 1.0, 1.02), "held_no_worse"),
        ((0.5, 0.5, 0.5), "held_no_worse"),
        ((1.0, 1.0, 1.04), "held_got_worse"),
        ((math.nan,), "held_got_worse"),
        ((1.0, 1.0), "not_judged"),
    ],
)
def test_holding_is_right_if_it_got_no_worse_beyond_noise(then: tuple[float, ...], judgement: str) -> None:
    run = ScoredRun()
    run.next(1.0)
    run.hold()
    for value in then:
        run.next(value)
    assert first_score(run).judgement == judgement


def test_a_stop_was_not_needed_if_the_run_got_better() -> None:
    run = ScoredRun()
    run.next(1.0)
    run.reply(Proposal(Stop(), "enough"))
    for value in (0.99, 0.97, 0.95):
        run.next(value)
    assert first_score(run).judgement == "not_needed"


def test_without_knowing_the_noise_nothing_is_judged() -> None:
    run = ScoredRun()
    run.noise = None
    run.next(1.0)
    run.act(LOWER_RATE)
    for value in (0.5, 0.4):
        run.next(value)
    score = first_score(run)
    assert (score.judgement, score.why) == ("not_judged", "too few evaluations before it to know the noise")


def test_an_evaluation_before_the_effect_could_show_does_not_count() -> None:
    run = ScoredRun(apply_after_steps=150, stale_after_steps=400)
    run.next(1.0)
    run.act(LOWER_RATE, within=1)  # its answer waits for step 250
    run.next(0.5)
    run.give(StepTaken(250))
    run.next(1.0)
    window = first_score(run).window
    assert window is not None
    assert window.after == (Point(300, 1.0),)


def test_what_follows_another_action_is_not_what_followed_without_any() -> None:
    run = ScoredRun()
    run.next(1.0)
    run.act(LOWER_RATE)
    run.next(1.5)
    run.fault(250)
    run.done(250)
    assert any(isinstance(record, ActionApplied) for record in run.records)
    run.next(0.5)
    score = first_score(run)
    assert (score.judgement, score.why) == ("not_judged", "another action was carried out at step 250")
    assert score.window is not None
    assert score.window.after == (Point(200, 1.5),)


def test_symptoms_that_stayed_went_and_came_are_told() -> None:
    run = ScoredRun()
    run.next(1.0, OVERFITTING, PLATEAU)
    run.act(LOWER_RATE)
    run.next(1.0, OVERFITTING)
    run.hold()
    run.next(1.0, OVERFITTING)
    run.next(1.0, PLATEAU)  # after what counts
    noisy = ScoredRun()
    noisy.next(1.0)
    noisy.act(LOWER_RATE)
    noisy.next(1.0)
    noisy.next(1.0, PLATEAU)
    windows = [first_score(one).window for one in (run, noisy)]
    assert [(one.stayed, one.went, one.came) for one in windows if one] == [
        (("overfitting",), ("plateau",), ()),
        ((), (), ("plateau",)),
    ]


def test_a_run_at_work_compares_what_was_expected_with_what_was_measured() -> None:
    run = ScoredRun(shadow=False)
    run.next(1.0)
    run.act(LOWER_RATE, gain=0.05)
    run.next(0.9)
    run.act(LOWER_RATE, gain=0.05)  # too soon after the last: rejected, so held to what happened without it
    run.next(0.9)
    run.hold()
    run.next(0.95)
    run.act(Rollback("step-00000200"), gain=0.05)
    run.next(1.0)
    run.next(1.0)
    run.close()
    card = build_scorecard(run.records)
    assert not card.summary.is_shadow
    assert card.cautions == (COUNTERFACTUAL,)
    judged = [(score.judgement, score.decision.ending) for score in card.scores[:4]]
    assert judged[0] == ("met", "applied")
    assert judged[1][1] == "rejected"
    assert judged[3] == ("not_met", "applied")
    assert card.totals.hit_rate == 0.5
    assert (card.totals.accepted, card.totals.rejected) == (2, 1)


def test_an_action_that_failed_or_is_being_measured_is_not_judged() -> None:
    run = ScoredRun(shadow=False)
    run.next(1.0)
    run.act(LOWER_RATE)
    assert first_score(run).why == "still measuring"
    run.close()
    assert first_score(run).why == "it was not measured to its end"
    scores = {score.decision.step: score for score in build_scorecard(whole_run()).scores}
    assert (scores[400].judgement, scores[400].why) == ("not_judged", "it could not be carried out")


def test_the_totals_add_up() -> None:
    card = build_scorecard(shadow_story())
    totals = card.totals
    assert card.summary.is_shadow
    assert card.cautions == (COUNTERFACTUAL, SHADOW)
    assert (totals.questions, totals.proposals, totals.no_actions) == (8, 4, 2)
    assert (totals.accepted, totals.rejected) == (2, 2)
    assert totals.against == {"permitted_moves": 1, "largest_change": 1, "approval": 1}
    assert (totals.fallback_answers, totals.failures, totals.stale, totals.paused) == (1, {"late": 1}, 1, 0)
    assert totals.hit_rate is None
    assert (totals.latency_median_seconds, totals.latency_worst_seconds) == (0.5, 2.0)
    assert (totals.calls, totals.input_tokens, totals.output_tokens, totals.usd) == (2, 1200, 80, 0.0012)
    assert totals.unsettled_calls == 0
    assert sum(totals.judged.values()) == totals.proposals + totals.no_actions
    assert [score.judgement for score in card.scores] == [
        "held_got_worse",
        "held_no_worse",
        "perhaps_missed",
        "not_needed",
        "not_needed",
        "not_judged",
        "not_judged",
        "not_judged",
    ]


def test_what_a_failed_question_cost_is_counted_and_an_unknown_price_is_said() -> None:
    run = ScoredRun()
    run.next(1.0)
    run.give(AnswerFailed(101, 1, "timeout", "no reply", TAKEN))
    run.next(1.0)
    unpriced = TAKEN.__class__("model-1", "v1", "aa", "bb", "cc", 1, 10, 5, None, unsettled_calls=1)
    run.reply(hold("fine"), consultation=unpriced)
    totals = build_scorecard(run.records).totals
    assert (totals.calls, totals.input_tokens, totals.usd, totals.unsettled_calls) == (3, 1210, None, 1)
    assert totals.failures == {"timeout": 1}


def test_late_and_dropped_answers_are_counted_once() -> None:
    run = ScoredRun()
    run.next(1.0)
    run.miss()
    run.answer(320, hold("too late"))
    assert build_scorecard(run.records).totals.stale == 1


def test_a_run_without_a_question_has_an_empty_card() -> None:
    card = build_scorecard(ScoredRun().records)
    assert card.scores == ()
    assert card.totals.latency_worst_seconds is None
    assert card.totals.usd == 0.0
    with pytest.raises(LedgerError, match="empty"):
        build_scorecard([])


@pytest.mark.parametrize("records", [shadow_story(), whole_run("\x1b[31m\n\udcff")])
def test_a_ledger_cut_off_anywhere_is_scored_in_valid_json(records: list[Record]) -> None:
    for length in range(1, len(records) + 1):
        card = build_scorecard(records[:length])
        tree = json.loads(json.dumps(card.as_json(), allow_nan=False))
        assert len(tree["scores"]) == card.totals.questions
        assert all(score.why for score in card.scores)


def test_a_judgement_does_not_depend_on_what_came_after_its_evaluations() -> None:
    records = shadow_story()
    whole = build_scorecard(records).scores
    for length in range(1, len(records)):
        for score, final in zip(build_scorecard(records[:length]).scores, whole, strict=False):
            if score.judgement != "not_judged":
                assert (score.judgement, score.why) == (final.judgement, final.why)


def test_nothing_was_applied_in_shadow() -> None:
    recipes = {Recipe.of(build_scorecard(shadow_story()).summary.recipe_now)}
    assert recipes == {Recipe.of(build_scorecard(shadow_story()).summary.recipe_start)}
