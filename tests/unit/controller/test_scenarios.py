"""Whole scenarios, driven with events only."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.builders import RECIPE, a_run_started, a_symptom, an_envelope
from tests.fake_run import Run, propose
from trimtab.actuation.binding import ReadBack
from trimtab.controller.event import (
    AnswerFailed,
    AnswerReceived,
    CheckpointWritten,
    EnactmentDone,
    EnactmentFailed,
    Event,
    ProblemFound,
    ReadBackTaken,
    RunBegan,
    RunClosed,
    StepTaken,
    SymptomRaised,
)
from trimtab.controller.state import Phase
from trimtab.controller.step import KEPT_CHECKPOINTS, step
from trimtab.controls.catalogue import learning_rate
from trimtab.controls.envelope import Authority, Deliberation
from trimtab.controls.recipe import Recipe
from trimtab.controls.safeguards import Reflex
from trimtab.decision.action import Action, Adjust, Change, NoAction, Rollback, RollbackAndAdjust, SkipBatches, Stop
from trimtab.decision.proposal import Proposal, hold
from trimtab.errors import IllegalTransition

HALVE = Adjust((Change("learning_rate", 5e-4),))


class TestDeliberation:
    def test_from_the_first_evaluation_to_the_next_question(self) -> None:
        run = Run()
        assert run.kinds == ["run_started"]
        assert run.evaluate(100, 2.0, a_symptom(step=100)) == ["evaluation_recorded", "symptom_observed", "manager_asked"]
        briefing = run.briefings[-1]
        assert (briefing.question, briefing.version, briefing.timing.applies_at_step) == (1, 0, 110)
        assert briefing.best is not None
        assert briefing.best.objective == 2.0
        assert run.give(StepTaken(101)) == []
        assert run.answer(103, propose(HALVE, gain=0.2, within=2)) == ["proposal_received"]
        assert run.now.phase is Phase.ANSWERED
        for at in range(104, 110):
            assert run.give(StepTaken(at)) == []
        assert run.give(StepTaken(110)) == ["verdict_given", "action_intended"]
        assert run.orders[-1].recipe["learning_rate"] == 5e-4
        assert run.now.recipe == RECIPE
        assert run.done(110) == ["action_applied"]
        assert (run.now.recipe["learning_rate"], run.now.version, run.now.interventions_used) == (5e-4, 1, 1)
        assert run.now.changed_at == (("learning_rate", 110),)
        assert run.evaluate(200, 1.9) == ["evaluation_recorded", "intervention_measured", "manager_asked"]
        (trial,) = run.briefings[-1].interventions
        assert (trial.is_complete, trial.met, trial.symptoms) == (False, None, ("overfitting",))
        assert trial.gain == pytest.approx(0.1)
        run.answer(201, hold("wait"))
        assert run.give(StepTaken(210)) == ["verdict_given"]
        assert run.evaluate(300, 1.7) == ["evaluation_recorded", "intervention_measured", "manager_asked"]
        (trial,) = run.briefings[-1].interventions
        assert (trial.is_complete, trial.met, trial.evaluations_measured) == (True, True, 2)
        assert run.evaluate(400, 1.6) == ["evaluation_recorded"]

    def test_an_answer_is_applied_at_its_step_however_early_it_came(self) -> None:
        for answered in (100, 105, 110):
            run = Run()
            run.evaluate(100, 2.0)
            run.answer(answered, propose(HALVE))
            applied = [at for at in range(answered, 130) if "action_intended" in run.give(StepTaken(at))]
            assert applied == [110]

    def test_a_late_answer_is_applied_at_once_until_it_is_stale(self) -> None:
        for answered, kinds in ((300, ["verdict_given", "action_intended"]), (301, ["verdict_given"])):
            run = Run()
            run.evaluate(100, 2.0)
            run.answer(answered, propose(HALVE))
            assert run.give(StepTaken(answered)) == kinds

    def test_no_answer_in_time_closes_the_question(self) -> None:
        run = Run()
        run.evaluate(100, 2.0)
        assert run.give(StepTaken(299)) == []
        assert run.give(StepTaken(301)) == ["manager_failed"]
        assert run.answer(302, propose(HALVE)) == ["answer_dropped"]
        assert run.give(StepTaken(303)) == []
        assert run.now.recipe == RECIPE

    def test_in_boundary_mode_it_applies_at_the_next_step(self) -> None:
        run = Run(an_envelope(deliberation=Deliberation(mode="boundary")))
        run.evaluate(100, 2.0)
        run.answer(100, propose(HALVE))
        assert run.give(StepTaken(101)) == ["verdict_given", "action_intended"]

    def test_answers_to_other_questions_are_dropped_and_the_first_answer_counts(self) -> None:
        run = Run()
        run.evaluate(100, 2.0)
        assert run.give(AnswerReceived(101, 7, propose(HALVE), 0.1)) == ["answer_dropped"]
        assert run.give(AnswerFailed(101, 0, "error", "")) == ["answer_dropped"]
        assert run.answer(102, propose(HALVE)) == ["proposal_received"]
        assert run.answer(103, propose(Adjust((Change("learning_rate", 2e-3),)))) == ["answer_dropped"]
        assert run.give(AnswerFailed(104, 1, "error", "")) == ["answer_dropped"]
        run.give(StepTaken(110))
        assert run.orders[-1].action == HALVE

    def test_a_failed_answer_is_no_action(self) -> None:
        run = Run()
        run.evaluate(100, 2.0)
        assert run.give(AnswerFailed(101, 1, "error", "not JSON")) == ["manager_failed"]
        assert (run.now.phase, run.now.question) == (Phase.WATCHING, None)
        assert "manager_asked" in run.evaluate(200, 2.0)

    @pytest.mark.parametrize(
        "proposal",
        [
            propose(Adjust((Change("learning_rate", 1.0),))),
            propose(Adjust((Change("learning_rate", math.nan),))),
            propose(Rollback("step-00000999")),
            Proposal(HALVE, "expects nothing"),
            propose(Adjust(())),
        ],
        ids=str,
    )
    def test_a_bad_proposal_is_a_rejection_and_nothing_more(self, proposal: Proposal) -> None:
        run = Run()
        run.evaluate(100, 2.0)
        run.answer(101, proposal)
        assert run.give(StepTaken(110)) == ["verdict_given"]
        assert run.orders == []
        assert (run.now.phase, run.now.recipe, run.now.version) == (Phase.WATCHING, RECIPE, 0)

    def test_it_asks_only_every_so_many_evaluations(self) -> None:
        run = Run(an_envelope(deliberation=Deliberation(every_evaluations=3)))
        asked = [number for number in range(1, 4) if "manager_asked" in run.evaluate(100 * number, 2.0)]
        assert asked == [3]

    def test_it_does_not_ask_when_nothing_can_be_done(self) -> None:
        run = Run(an_envelope(authority=Authority(interventions=0)))
        assert "manager_asked" not in run.evaluate(100, 2.0)

    def test_the_dwell_time_is_kept(self) -> None:
        run = Run(an_envelope(controls=(learning_rate(1e-6, 1e-2, dwell_steps=95),)), recipe=Recipe.of({"learning_rate": 1e-3}))
        run.evaluate(100, 2.0)
        run.intervene(100, HALVE)
        for at, accepted in ((194, False), (205, True)):
            run.evaluate(at - 10, 2.0)
            run.answer(at - 10, propose(Adjust((Change("learning_rate", 1e-3),))))
            assert ("action_intended" in run.give(StepTaken(at))) == accepted

    def test_budgets_end(self) -> None:
        run = Run(an_envelope(authority=Authority(interventions=3, rollbacks=1)))
        for number in range(1, 9):
            at = 100 * number
            if "manager_asked" in run.evaluate(at, 2.0 + 0.01 * number):
                run.intervene(at, Rollback("step-00000100"))
        assert (run.now.rollbacks_used, run.now.interventions_used) == (1, 1)

    def test_a_managers_stop_asks_the_loop_to_end_and_leaves_the_reflex_awake(self) -> None:
        run = Run(an_envelope(authority=Authority(stop_patience=0)))
        run.evaluate(100, 2.0)
        run.answer(101, Proposal(Stop(), "enough"))
        run.give(StepTaken(110))
        run.done(110)
        assert run.now.stop_reason is not None
        assert run.evaluate(200, 1.0) == ["evaluation_recorded"]
        run.fault(210)
        run.done(210)
        assert run.now.reflex_rollbacks_used == 1


class TestMeasuring:
    @pytest.mark.parametrize(
        ("expected", "values", "met"),
        [
            (0.1, (1.8,), True),
            (0.1, (1.95, 1.89), True),
            (0.1, (1.95, 1.95), False),
            (0.0, (2.0, 2.1), True),
            (-0.1, (2.05, 2.2), True),
        ],
    )
    def test_met_as_soon_as_the_best_since_reaches_it(self, expected: float, values: tuple[float, ...], met: bool) -> None:
        run = Run()
        run.evaluate(100, 2.0)
        run.intervene(100, HALVE, gain=expected)
        for number, value in enumerate(values, start=2):
            assert run.now.under_measurement() is not None
            run.evaluate(100 * number, value)
        assert run.now.under_measurement() is None
        assert run.now.interventions[-1].met is met
        assert run.now.interventions[-1].objective_after == min(values)

    def test_against_a_non_finite_objective_nothing_is_met(self) -> None:
        run = Run()
        run.evaluate(50, 2.0)
        run.give(AnswerFailed(51, 1, "error", ""))
        run.evaluate(100, math.nan)
        run.intervene(100, HALVE)
        run.evaluate(200, 1.0)
        run.evaluate(300, 1.0)
        assert (run.now.interventions[-1].is_complete, run.now.interventions[-1].met) == (True, None)

    def test_a_non_finite_evaluation_counts_as_one_without_a_gain(self) -> None:
        run = Run()
        run.evaluate(100, 2.0)
        run.intervene(100, HALVE, gain=-10.0)
        assert "intervention_measured" in run.evaluate(200, math.nan)
        run.evaluate(300, math.nan)
        last = run.now.interventions[-1]
        assert (last.is_complete, last.met, last.gain) == (True, False, -math.inf)

    def test_a_non_finite_evaluation_does_not_hide_an_earlier_gain(self) -> None:
        run = Run()
        run.evaluate(100, 2.0)
        run.intervene(100, HALVE, gain=1.0)
        run.evaluate(200, 1.9)
        run.evaluate(300, math.nan)
        last = run.now.interventions[-1]
        assert (last.objective_after, last.gain, last.met) == (1.9, pytest.approx(0.1), False)

    def test_an_evaluation_at_the_step_of_the_intervention_does_not_count(self) -> None:
        run = Run()
        run.evaluate(100, 2.0)
        run.intervene(100, HALVE)
        assert "intervention_measured" not in run.evaluate(110, 1.0)

    def test_a_later_intervention_ends_measuring(self) -> None:
        run = Run()
        run.evaluate(100, 2.0)
        run.intervene(100, HALVE, gain=1.0)
        run.evaluate(200, 2.01)
        run.intervene(200, Rollback("step-00000100"))
        first, second = run.now.interventions
        assert (first.is_complete, first.met) == (True, None)
        assert (second.is_complete, second.objective_before) == (False, 2.0)


class TestReflex:
    def test_a_fault_rolls_back_at_once(self) -> None:
        run = Run()
        run.checkpoint(100)
        assert run.fault(150) == ["symptom_observed", "verdict_given", "action_intended"]
        assert run.orders[-1].action == Rollback("step-00000100")
        run.done(150)
        assert (run.now.reflex_rollbacks_used, run.now.interventions_used, run.now.version) == (1, 0, 1)

    def test_a_divergence_cuts_the_rate_at_once(self) -> None:
        run = Run()
        run.checkpoint(100)
        run.fault(150, "divergence")
        assert run.orders[-1].action == RollbackAndAdjust("step-00000100", (Change("learning_rate", 5e-4),))

    def test_the_open_question_is_superseded_in_each_phase(self) -> None:
        for answered in (False, True):
            run = Run()
            run.evaluate(100, 2.0)
            if answered:
                run.answer(101, propose(Adjust((Change("learning_rate", 2e-3),))))
            assert run.fault(105) == ["symptom_observed", "manager_failed", "verdict_given", "action_intended"]
            assert (run.now.question, run.now.proposal) == (None, None)
            run.done(105)
            assert run.give(StepTaken(110)) == []
            assert run.answer(111, propose(HALVE)) == ["answer_dropped"]
            assert run.now.recipe == RECIPE

    def test_during_an_enactment_it_waits(self) -> None:
        run = Run()
        run.evaluate(100, 2.0)
        run.answer(101, propose(HALVE))
        run.give(StepTaken(110))
        assert run.fault(110) == ["symptom_observed"]
        assert len(run.orders) == 1

    def test_the_ladder_ends_in_a_stop(self) -> None:
        run = Run(can_skip=True)
        for at in (100, 200, 300):
            run.checkpoint(at)
        actions: list[Action] = []
        for at in range(350, 450, 10):
            run.fault(at)
            if run.now.phase is not Phase.ENACTING:
                break
            actions.append(run.orders[-1].action)
            while run.now.phase is Phase.ENACTING:
                run.done(at)
                if run.orders[-1].action != actions[-1]:
                    actions.append(run.orders[-1].action)
        cut = [RollbackAndAdjust(f"step-{at:08d}", (Change("learning_rate", rate),)) for at, rate in (
            (300, 5e-4), (200, 2.5e-4), (100, 2.5e-4),
        )]  # fmt: skip
        skip = SkipBatches(200)
        assert actions == [Rollback("step-00000300"), cut[0], skip, cut[1], skip, cut[2], skip, Stop()]
        assert run.now.stop_reason == "reflex: non_finite"
        assert run.now.reflex_rollbacks_used == 4

    def test_no_cut_is_ever_undone_by_the_next_rollback(self) -> None:
        run = Run(an_envelope(reflex=Reflex(attempts=6)))
        run.checkpoint(100)
        rates: list[float] = []
        for at in range(150, 210, 10):
            run.fault(at, "divergence")
            run.done(at)
            rates.append(run.now.recipe["learning_rate"])
        assert rates == [5e-4, 2.5e-4, 2.5e-4, 2.5e-4, 2.5e-4, 2.5e-4]

    @pytest.mark.parametrize("cut", [1.0, 0.5, 0.1, 1e-6])
    def test_a_cut_beyond_the_envelope_is_cut_short_and_not_dropped(self, cut: float) -> None:
        limits = learning_rate(9e-4, 1e-2, largest_change=1.25, cumulative_drift=1.05)
        run = Run(
            an_envelope(controls=(limits,), reflex=Reflex(learning_rate_cut=cut)), recipe=Recipe.of({"learning_rate": 1e-3})
        )
        run.checkpoint(100)
        run.fault(150, "divergence")
        run.done(150)
        assert run.now.recipe["learning_rate"] == pytest.approx(max(cut * 1e-3, 1e-3 / 1.05))

    def test_a_fault_long_after_is_a_new_one(self) -> None:
        run = Run()
        run.checkpoint(100)
        attempts: list[int] = []
        # The second comes after all 50 undone steps and 200 more, the third after 251 + 200.
        for at in (150, 150 + 50 + 201, 401 + 301 + 200):
            run.fault(at)
            run.done(at)
            attempts.append(run.now.fault_attempts)
        assert attempts == [1, 1, 2]

    def test_a_spent_budget_stops(self) -> None:
        run = Run(an_envelope(authority=Authority(reflex_rollbacks=1)))
        run.checkpoint(100)
        run.fault(150)
        run.done(150)
        assert run.fault(500) == ["symptom_observed", "verdict_given", "verdict_given", "action_intended"]
        assert run.orders[-1].action == Stop()

    def test_without_a_good_checkpoint_it_stops(self) -> None:
        run = Run()
        run.evaluate(100, math.nan)
        run.fault(101)
        assert run.orders[-1].action == Stop()

    def test_a_rollback_that_fails_again_and_again_ends_in_a_stop(self) -> None:
        run = Run()
        run.checkpoint(100)
        for at in range(150, 160):
            run.fault(at)
            if run.orders[-1].action == Stop():
                break
            run.give(EnactmentFailed(at, run.now.recipe, "the checkpoint is damaged"))
        assert run.orders[-1].action == Stop()
        assert len(run.orders) == Reflex().attempts + 1

    def test_it_asks_to_stop_once_even_if_that_is_said_to_have_failed(self) -> None:
        run = Run()
        run.fault(150)
        run.give(EnactmentFailed(150, RECIPE, "refused"))
        assert run.now.stop_reason == "reflex: non_finite"
        assert run.fault(151) == []

    def test_disarmed_it_only_watches(self) -> None:
        run = Run(an_envelope(reflex=Reflex(armed=False)))
        run.checkpoint(100)
        assert run.fault(150) == ["symptom_observed"]
        assert run.orders == []

    def test_what_is_not_critical_is_recorded_at_most_once_in_fifty_steps(self) -> None:
        run = Run()
        spikes = [run.give(SymptomRaised(at, a_symptom("loss_spike", "notice", at))) for at in range(100, 160, 10)]
        assert spikes == [["symptom_observed"], [], [], [], [], ["symptom_observed"]]

    def test_an_envelope_without_a_learning_rate_rolls_back_only(self) -> None:
        run = Run(an_envelope(controls=()), recipe=Recipe(()))
        run.checkpoint(100)
        run.fault(150, "divergence")
        assert run.orders[-1].action == Rollback("step-00000100")


class TestEnactment:
    def test_a_failure_leaves_the_recipe_and_is_an_intervention_that_did_not_help(self) -> None:
        run = Run()
        run.evaluate(100, 2.0)
        run.answer(101, propose(HALVE))
        run.give(StepTaken(110))
        assert run.give(EnactmentFailed(110, RECIPE, "refused")) == ["action_failed"]
        assert (run.now.phase, run.now.recipe, run.now.version, run.now.interventions_used) == (Phase.WATCHING, RECIPE, 1, 1)
        (failed,) = run.now.interventions
        assert (failed.is_complete, failed.met) == (True, False)
        assert "manager_asked" in run.evaluate(200, 2.0)

    def test_a_read_back_that_does_not_hold_is_a_problem(self) -> None:
        run = Run()
        results = (ReadBack("learning_rate", 1.0, 2.0, holds=False), ReadBack("dropout", 0.1, 0.1, holds=True))
        assert run.give(ReadBackTaken(5, 1, results)) == ["read_back_recorded", "problem_noticed"]
        assert run.give(ProblemFound(6, "disk", "full")) == ["problem_noticed"]

    @pytest.mark.parametrize("event", [EnactmentDone(5, RECIPE), EnactmentFailed(5, RECIPE, "x")])
    def test_one_that_was_not_ordered_is_illegal(self, event: Event) -> None:
        with pytest.raises(IllegalTransition, match=type(event).__name__):
            Run().give(event)


class TestRetention:
    def test_the_newest_few_and_the_best_are_kept(self) -> None:
        run = Run(an_envelope(authority=Authority(interventions=0)))
        for number, objective in enumerate((3.0, 1.0, 2.0, 2.1, 2.2, 2.3, 2.4), start=1):
            run.evaluate(number, objective)
        assert run.ids == ["step-00000002", "step-00000005", "step-00000006", "step-00000007"]
        assert run.deleted == ["step-00000001", "step-00000003", "step-00000004"]
        run.evaluate(8, 0.5)
        run.evaluate(9, 0.6)
        assert "step-00000002" not in run.ids

    def test_a_nan_never_takes_the_place_of_the_best(self) -> None:
        run = Run(an_envelope(authority=Authority(interventions=0)))
        for number, objective in enumerate((math.nan, -math.inf, 1.0, 2.0, math.nan, math.inf, math.nan), start=1):
            run.evaluate(number, objective)
        assert "step-00000003" in run.ids

    def test_the_left_course_is_given_up_but_not_its_best(self) -> None:
        run = Run()
        for number, objective in enumerate((2.0, 1.0, 3.0), start=1):
            run.evaluate(100 * number, objective)
            run.give(AnswerFailed(100 * number, run.now.num_questions, "error", ""))
        run.evaluate(400, 3.5)
        run.intervene(400, Rollback("step-00000200"))
        assert run.ids == ["step-00000200"]
        assert set(run.deleted) == {"step-00000100", "step-00000300", "step-00000400"}

    def test_going_back_before_the_best_keeps_the_best(self) -> None:
        run = Run()
        run.evaluate(100, 2.0)
        run.give(AnswerFailed(100, 1, "error", ""))
        run.evaluate(200, 1.0)
        run.intervene(200, Rollback("step-00000100"))
        assert run.ids == ["step-00000100", "step-00000200"]

    def test_a_name_written_again_is_one_checkpoint(self) -> None:
        run = Run()
        for _ in range(3):
            run.evaluate(100, 2.0)
        assert run.ids == ["step-00000100"]
        assert run.deleted == []

    def test_the_state_stays_small_over_many_evaluations(self) -> None:
        run = Run(an_envelope(authority=Authority(interventions=5)), can_skip=True)
        sizes: list[int] = []
        for number in range(1, 400):
            at = 300 * number
            if "manager_asked" in run.evaluate(at, 2.0 + (number % 7) / 10, a_symptom(step=at)):
                run.intervene(at, NoAction() if number % 2 else Rollback(run.ids[-1]))
            sizes.append(len(repr(replace(run.now, envelope=an_envelope()))))
        assert max(sizes[200:]) <= max(sizes[:200]) + 100
        assert len(run.ids) <= KEPT_CHECKPOINTS + 1
        assert len(run.now.interventions) <= 5


class TestEnd:
    def test_closing_twice_records_once(self) -> None:
        run = Run()
        assert run.give(RunClosed(5, "finished")) == ["run_ended"]
        assert run.give(RunClosed(6, "finished")) == []

    @pytest.mark.parametrize("prepare", ["asked", "answered", "enacting"])
    def test_it_can_be_closed_in_every_phase(self, prepare: str) -> None:
        run = Run()
        run.evaluate(100, 2.0)
        if prepare != "asked":
            run.answer(101, propose(HALVE))
        if prepare == "enacting":
            run.give(StepTaken(110))
        assert run.now.phase.value == prepare
        run.give(RunClosed(111, "finished"))
        assert (run.now.phase, run.now.question) == (Phase.ENDED, None)
        assert run.give(StepTaken(112)) == []

    @pytest.mark.parametrize(
        "event", [CheckpointWritten(9, "a"), ProblemFound(9, "a", "b"), AnswerReceived(9, 1, hold("x"), 0.0)]
    )
    def test_after_the_end_nothing_is_recorded(self, event: Event) -> None:
        run = Run()
        run.give(RunClosed(5, "finished"))
        with pytest.raises(IllegalTransition, match="ended"):
            run.give(event)

    def test_a_run_begins_once_and_first(self) -> None:
        with pytest.raises(IllegalTransition, match="StepTaken"):
            step(None, StepTaken(1))
        with pytest.raises(IllegalTransition, match="once"):
            Run().give(RunBegan(a_run_started()))
