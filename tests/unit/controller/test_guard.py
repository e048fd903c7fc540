"""The guard: harm beyond tolerance and noise is taken back, progress is not, and after enough failures it holds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import RECIPE, a_symptom, an_envelope
from tests.fake_run import Run, propose
from trimtab.actuation.binding import ReadBack
from trimtab.controller.event import AnswerReceived, EnactmentFailed, ReadBackTaken, StepTaken
from trimtab.controller.state import Phase
from trimtab.controls.catalogue import learning_rate
from trimtab.controls.envelope import Authority
from trimtab.controls.recipe import Recipe
from trimtab.controls.safeguards import Guard
from trimtab.decision.action import Action, Adjust, Change, Rollback, RollbackAndAdjust, SkipBatches, checkpoint_of
from trimtab.decision.proposal import hold
from trimtab.ledger.record import ActionIntended, HarmFound, ManagerFailed, ProblemNoticed, VerdictGiven

HALVE = Adjust((Change("learning_rate", 5e-4),))


def a_run(*objectives: float, can_skip: bool = False, **guard: Any) -> Run:
    """A run with an evaluation every 100 steps at which the manager held, but for the last."""
    known: dict[str, Any] = {"baseline_evaluations": 1}
    settings = Guard(**(known | guard))
    run = Run(an_envelope(guard=settings, authority=Authority(interventions=50, rollbacks=20)), can_skip=can_skip)
    for number, objective in enumerate(objectives, start=1):
        run.evaluate(number * 100, objective)
        if number < len(objectives):
            run.answer(number * 100 + 1, hold("wait"))
            run.give(StepTaken(number * 100 + 10))
    return run


def intervened(*objectives: float, action: Action = HALVE, gain: float = 0.0, **guard: Any) -> Run:
    run = a_run(*objectives, **guard)
    run.intervene(len(objectives) * 100, action, gain=gain, within=3)
    run.checkpoint(len(objectives) * 100 + 10)
    return run


def taken_back(run: Run) -> list[ActionIntended]:
    return [record for record in run.records if isinstance(record, ActionIntended) and record.source == "guard"]


def test_what_makes_the_objective_worse_goes_back_with_the_weights() -> None:
    run = intervened(2.0, 1.9, 1.8, 1.7)
    kinds = run.evaluate(500, 2.5)
    assert kinds == ["evaluation_recorded", "intervention_measured", "harm_found"], "and the manager is not asked"
    assert run.now.phase is Phase.WATCHING
    assert run.give(StepTaken(501)) == ["verdict_given", "action_intended"]
    [order] = taken_back(run)
    assert (order.action, order.takes_back, order.recipe) == (Rollback("step-00000400"), 1, RECIPE)
    run.done(501)
    assert (run.now.recipe, run.now.objective, run.now.harm) == (RECIPE, 1.7, None)
    assert [(one.source, one.taken_back, one.met) for one in run.now.interventions] == [
        ("scripted", True, False),
        ("guard", False, None),
    ]
    assert run.now.interventions_used == 1, "the guard does not spend the manager's authority"


def test_what_only_slows_the_run_goes_back_and_the_progress_stays() -> None:
    run = intervened(3.0, 2.6, 2.2, 1.8)
    run.evaluate(500, 1.75)
    run.give(StepTaken(501))
    [order] = taken_back(run)
    assert (order.action, order.recipe) == (Adjust((Change("learning_rate", 1e-3),)), RECIPE)
    run.done(501)
    assert run.now.recipe == RECIPE
    assert run.now.objective == 1.75


@pytest.mark.parametrize(
    ("known", "after"),
    [
        ((3.0, 2.6, 2.2, 1.8), 1.55),  # progress at half the pace and more
        ((2.0, 2.0, 2.0, 2.0), 2.03),  # within the tolerance
        ((2.0, 2.2, 1.9, 2.1, 2.0), 2.25),  # within the noise
        ((1.5, 1.6, 1.7, 1.8), 1.9),  # it was getting worse at that pace by itself
        ((2.0,), 2.1),  # of the noise nothing is known
    ],
)
def test_what_the_run_would_have_shown_anyway_is_no_harm(known: tuple[float, ...], after: float) -> None:
    run = intervened(*known)
    assert "harm_found" not in run.evaluate(len(known) * 100 + 100, after)


@pytest.mark.parametrize(("known", "after"), [((2.0, 2.0, 2.0, 2.0), 2.05), ((1.5, 1.6, 1.7, 1.8), 2.1), ((2.0,), 2.2)])
def test_more_than_that_is_harm(known: tuple[float, ...], after: float) -> None:
    run = intervened(*known)
    assert "harm_found" in run.evaluate(len(known) * 100 + 100, after)


def test_a_manager_cannot_promise_harm_away() -> None:
    run = intervened(2.0, 1.9, 1.8, 1.7, gain=-100.0)
    assert "harm_found" in run.evaluate(500, 2.5)


@pytest.mark.parametrize("objective", [math.nan, math.inf])
def test_an_objective_that_is_no_number_is_harm(objective: float) -> None:
    run = intervened(2.0, 1.9, 1.8, 1.7)
    assert "harm_found" in run.evaluate(500, objective)
    run.give(StepTaken(501))
    assert checkpoint_of(taken_back(run)[0].action) == "step-00000400"


def test_a_manager_cannot_shorten_the_watch() -> None:
    run = a_run(2.0, 1.9, 1.8, 1.7)
    run.intervene(400, HALVE, gain=-5.0, within=1)
    run.evaluate(500, 1.65)
    assert run.now.under_measurement() is None
    run.answer(501, hold("wait"))
    run.give(StepTaken(510))
    assert "harm_found" in run.evaluate(600, 2.5)
    run.give(StepTaken(601))
    assert checkpoint_of(taken_back(run)[0].action) == "step-00000400"


def test_nothing_is_found_before_the_lag_has_passed() -> None:
    run = a_run(2.0, 1.9, 1.8, 1.7)
    run.intervene(400, Adjust((Change("weight_decay", 0.1),)), within=3)
    lag = run.now.envelope.control("weight_decay").effect_lag_steps
    assert lag > 0
    assert "harm_found" not in run.evaluate(410 + lag, 9.0)
    assert "harm_found" in run.evaluate(411 + lag, 9.0)


BACK_AND_HALVE = RollbackAndAdjust("step-00000200", (Change("learning_rate", 5e-4),))


@pytest.mark.parametrize(
    ("action", "after", "found"),
    [
        (Rollback("step-00000200"), 9.0, False),  # it has the recipe and the way of its checkpoint: nothing to take back
        (BACK_AND_HALVE, 1.75, False),  # worse than its checkpoint, and better than the course that was left
        (BACK_AND_HALVE, 2.0, True),
    ],
)
def test_a_rollback_is_held_against_the_course_that_it_left(action: Action, after: float, found: bool) -> None:
    run = intervened(1.6, 1.5, 1.7, 1.8, action=action)
    assert ("harm_found" in run.evaluate(500, after)) is found
    if found:
        run.give(StepTaken(501))
        run.done(501)
        assert (taken_back(run)[0].action, run.now.recipe) == (Rollback("step-00000200"), RECIPE)


def test_nobody_is_asked_before_the_run_has_a_pace_of_its_own() -> None:
    run = Run(an_envelope(guard=Guard(baseline_evaluations=3)))
    assert [run.evaluate(at, 2.0)[-1] for at in (100, 200, 300)] == ["evaluation_recorded"] * 2 + ["manager_asked"]
    run = Run(an_envelope(guard=Guard(armed=False, baseline_evaluations=3)))
    assert run.evaluate(100, 2.0)[-1] == "manager_asked"


def test_a_disarmed_guard_does_nothing() -> None:
    run = intervened(2.0, 1.9, 1.8, 1.7, armed=False)
    assert "harm_found" not in run.evaluate(500, 9.0)


def test_the_way_back_is_kept_while_an_intervention_is_measured() -> None:
    run = intervened(2.0, 1.9, 1.5, 1.7)
    for at in (411, 412, 413, 414, 415):
        run.checkpoint(at)
    assert "step-00000400" in run.ids
    run.evaluate(500, 1.65)
    run.answer(501, hold("wait"))
    run.give(StepTaken(510))
    run.evaluate(600, 1.6)
    run.answer(601, hold("wait"))
    run.give(StepTaken(610))
    run.evaluate(700, 1.58)
    run.answer(701, hold("wait"))
    run.give(StepTaken(710))
    run.checkpoint(720)
    assert "step-00000400" not in run.ids


def test_a_divergence_is_blamed_on_the_intervention_that_is_measured() -> None:
    run = intervened(2.0, 1.9, 1.8, 1.7)
    run.fault(450, "divergence")
    [order] = taken_back(run)
    assert (order.action, order.symptoms) == (Rollback("step-00000400"), ("divergence",))
    run.done(450)
    assert (run.now.recipe, run.now.reflex_rollbacks_used, run.now.taken_back_in_a_row) == (RECIPE, 0, 1)
    run.fault(460, "divergence")
    assert run.records[-1].kind == "action_intended"
    assert len(taken_back(run)) == 1, "what comes after that is the reflex's"


def test_an_open_question_is_closed_for_it() -> None:
    run = intervened(2.0, 1.9, 1.8, 1.7)
    run.evaluate(500, 1.65)
    assert run.now.phase is Phase.ASKED
    run.evaluate(550, 2.5)
    assert run.give(StepTaken(551)) == ["manager_failed", "verdict_given", "action_intended"]
    assert [record.problem for record in run.records if isinstance(record, ManagerFailed)] == ["superseded"]
    run.done(551)
    assert run.give(AnswerReceived(552, run.now.num_questions, propose(HALVE), 0.1)) == ["answer_dropped"]


def failed(run: Run, at: int) -> int:
    """Let the manager do harm once more after step ``at``; return the step from which it may do so again."""
    options = run.briefings[-1].surface.adjustable
    run.intervene(at, Adjust((Change(options[0].control, options[0].values[0]),)))
    assert run.now.under_measurement() is not None
    run.checkpoint(at + 10)
    run.evaluate(at + 100, 9.0)
    run.give(StepTaken(at + 101))
    run.done(at + 101)
    return at + 200


def test_a_control_that_was_taken_back_is_held_twice_as_long_each_time() -> None:
    run = a_run(2.0, 1.9, 1.8, 1.7, hold_evaluations=2, failures=9)
    at = 400
    for held in (200, 400, 800):
        control = run.briefings[-1].surface.adjustable[0].control
        at = failed(run, at)
        assert dict(run.now.held_until)[control] == at - 99 + held
        run.evaluate(at, 1.7)
        assert control not in [options.control for options in run.briefings[-1].surface.adjustable]


def test_after_enough_failures_in_a_row_the_recipe_is_held_and_that_is_said() -> None:
    run = a_run(2.0, 1.9, 1.8, 1.7, failures=3, hold_evaluations=0)
    at, num_questions = 400, 0
    for _ in range(3):
        assert not run.now.is_held
        at = failed(run, at)
        num_questions = run.now.num_questions
        run.evaluate(at, 1.7)
    assert run.now.is_held
    assert run.now.num_questions == num_questions, "nobody is asked any more"
    [said] = [record for record in run.records if isinstance(record, ProblemNoticed)]
    assert said.problem == "the guard holds the recipe"
    assert "3 interventions" in said.detail
    assert run.now.recipe == RECIPE


def test_a_gain_that_was_watched_to_its_end_makes_the_count_begin_anew() -> None:
    assert counts_after(HALVE, (1.5, 1.3, 1.1, 0.9)) == [1, 1, 1, 0], "not when its own promise is kept: harm may show later"


@pytest.mark.parametrize(
    ("action", "objectives"),
    [
        (HALVE, (1.6, 1.5, 1.4, 1.3)),
        (HALVE, (1.7, 1.7, 1.7, 1.69)),
        (SkipBatches(3), (1.5, 1.3, 1.1, 0.9)),
    ],
)
def test_what_a_run_gains_by_itself_does_not(action: Action, objectives: tuple[float, ...]) -> None:
    assert counts_after(action, objectives) == [1, 1, 1, 1]


def counts_after(action: Action, objectives: tuple[float, ...]) -> list[int]:
    """Let one intervention fail in a run that gains 0.1 at each evaluation, then make another; return the failures counted."""
    run = a_run(2.0, 1.9, 1.8, 1.7, can_skip=True, failures=2, hold_evaluations=0)
    at = failed(run, 400)
    run.evaluate(at, 1.7)
    run.intervene(at, action, gain=0.05, within=1)
    counts: list[int] = []
    for number, objective in enumerate(objectives, start=1):
        run.evaluate(at + 100 * number, objective)
        counts.append(run.now.taken_back_in_a_row)
        run.answer(at + 100 * number + 1, hold("wait"))
        run.give(StepTaken(at + 100 * number + 10))
    return counts


def test_no_intervention_makes_the_count_begin_anew_twice() -> None:
    run = intervened(2.0, 1.9, 1.8, 1.7, hold_evaluations=0)
    for at, objective in ((500, 1.5), (600, 1.3)):
        run.evaluate(at, objective)
        run.answer(at + 1, hold("wait"))
        run.give(StepTaken(at + 10))
    run.evaluate(700, 1.1)
    run.intervene(700, Adjust((Change("dropout", 0.2),)), gain=-1.0)
    run.checkpoint(710)
    run.evaluate(800, 1.05)
    assert run.now.helped_by == 1
    run.evaluate(900, 9.0)
    run.give(StepTaken(901))
    run.done(901)
    assert (run.now.taken_back_in_a_row, run.now.objective) == (1, 1.1)
    run.evaluate(1000, 1.0)
    assert [step for step, _ in run.now.objectives][-4:] == [500, 600, 700, 1000], "the fourth behind it, again"
    assert run.now.taken_back_in_a_row == 1


@pytest.mark.parametrize(("gain", "within"), [(0.0, 3), (1e-9, 1)])
def test_a_promise_that_is_easily_kept_does_not_put_off_the_hold(gain: float, within: int) -> None:
    run = a_run(20.0, 19.0, 18.0, 17.0, hold_evaluations=0)
    at, objective, counts = 400, 17.0, list[int]()
    for _ in range(3):
        run.intervene(at, HALVE, gain=gain, within=within)
        run.checkpoint(at + 10)
        assert "harm_found" in run.evaluate(at + 100, objective - 0.02), "it slows the run down"
        run.give(StepTaken(at + 101))
        run.done(at + 101)
        counts.append(run.now.taken_back_in_a_row)
        for later in (200, 300):
            objective -= 1.0
            run.evaluate(at + later, objective)
            if later == 200 and not run.now.is_held:
                run.answer(at + 201, hold("wait"))
                run.give(StepTaken(at + 210))
        at += 300
    assert counts == [1, 2, 3]
    assert run.now.is_held


def test_where_the_way_back_fails_the_recipe_is_taken_back_and_if_that_fails_too_it_is_said_once() -> None:
    run = intervened(2.0, 1.9, 1.8, 1.7)
    run.evaluate(500, 2.5)
    run.give(StepTaken(501))
    run.give(EnactmentFailed(501, run.now.recipe, "damaged", None, "step-00000400"))
    assert run.now.harm is not None
    assert (run.now.taken_back_in_a_row, run.now.interventions[0].taken_back) == (0, False), "it was not taken back"
    run.give(StepTaken(502))
    assert taken_back(run)[-1].action == Adjust((Change("learning_rate", 1e-3),))
    run.give(EnactmentFailed(502, run.now.recipe, "stuck", None, None))
    assert "problem_noticed" in run.give(StepTaken(503))
    assert run.now.harm is None
    assert run.give(StepTaken(504)) == []
    assert "harm_found" not in run.evaluate(600, 2.6), "nor is it tried for ever"


@pytest.mark.parametrize(("second", "is_harm"), [(Change("learning_rate", 1e-3), False), (Change("dropout", 0.2), True)])
def test_what_only_slowed_and_was_undone_by_the_manager_keeps_its_progress(second: Change, is_harm: bool) -> None:
    run = intervened(10.0, 9.0, 8.0, 7.0)
    assert "harm_found" not in run.evaluate(500, 6.6)
    run.intervene(500, Adjust((second,)), within=3)
    run.checkpoint(510)
    assert ("harm_found" in run.evaluate(600, 6.5)) == is_harm


def test_the_way_back_is_never_to_a_state_behind_the_action() -> None:
    run = Run(an_envelope(guard=Guard(baseline_evaluations=1)), can_skip=True)
    run.evaluate(100, 2.0)
    run.intervene(100, SkipBatches(3))
    run.checkpoint(110)  # of the state behind it, under the same recipe
    run.evaluate(200, 2.5)
    run.give(StepTaken(201))
    assert [order.action for order in taken_back(run)] == [Rollback("step-00000100")]


def test_noise_is_no_pace() -> None:
    run = intervened(2.0, 1.8, 2.02, 1.82, 2.01, 1.8)
    run.evaluate(700, 9.0)
    [harm] = [record for record in run.records if isinstance(record, HarmFound)]
    assert harm.expected == 0.0


def test_a_change_that_did_not_stick_is_not_judged() -> None:
    run = intervened(2.0, 1.9, 1.8, 1.7)
    run.give(ReadBackTaken(411, 1, (ReadBack("learning_rate", 5e-4, 1e-3, holds=False),)))
    assert "harm_found" not in run.evaluate(500, 2.5)


def test_the_harm_that_was_found_is_in_the_record() -> None:
    run = intervened(2.0, 1.9, 1.8, 1.7)
    run.evaluate(500, 2.5)
    [harm] = [record for record in run.records if isinstance(record, HarmFound)]
    assert (harm.intervention, harm.objective, harm.is_worse) == (1, 2.5, True)
    assert harm.gain == pytest.approx(-0.8)
    assert harm.expected == pytest.approx(0.05)
    assert harm.tolerance == pytest.approx(0.034)


def test_a_critical_symptom_with_the_evaluation_leaves_it_to_one_of_them() -> None:
    run = intervened(2.0, 1.9, 1.8, 1.7)
    run.evaluate(500, math.nan, a_symptom("non_finite", "critical", 500))
    run.fault(501)
    assert run.now.phase is Phase.ENACTING
    run.done(501)
    assert run.give(StepTaken(501)) == []
    assert len(taken_back(run)) == 1


def test_interventions_in_quick_succession_are_watched_and_taken_back_together() -> None:
    run = a_run(2.6, 2.4, 2.2, 2.0)
    lows = {"learning_rate": 5e-4, "dropout": 0.2, "weight_decay": 0.03}
    objectives = iter((1.92, 1.855, 1.8))
    kinds: list[str] = []
    for number, (control, value) in enumerate(lows.items(), start=4):
        assert "harm_found" not in kinds
        run.intervene(number * 100, Adjust((Change(control, value),)), gain=-1.0, within=1)
        run.checkpoint(number * 100 + 10)
        kinds = run.evaluate(number * 100 + 100, next(objectives))
    assert "harm_found" in kinds, "each lost little against the one before it"
    run.give(StepTaken(701))
    [order] = taken_back(run)
    assert (order.takes_back, order.recipe) == (1, RECIPE)
    run.done(701)
    assert [one.taken_back for one in run.now.interventions] == [True, True, True, False]
    assert run.now.taken_back_in_a_row == 1
    assert {name for name, _ in run.now.held_until} == set(lows)


def test_what_was_watched_to_the_end_is_a_new_beginning() -> None:
    run = intervened(2.0, 1.9, 1.8, 1.7, gain=0.5)
    for number, objective in enumerate((1.65, 1.6, 1.55)):
        run.evaluate(500 + number * 100, objective)
        run.answer(501 + number * 100, hold("wait"))
        run.give(StepTaken(510 + number * 100))
    run.evaluate(800, 1.5)
    run.intervene(800, Adjust((Change("dropout", 0.2),)))
    run.checkpoint(810)
    run.evaluate(900, 1.9)
    run.give(StepTaken(901))
    [order] = taken_back(run)
    assert order.takes_back == 2
    assert order.recipe["learning_rate"] == 5e-4


@pytest.mark.parametrize(("total_steps", "is_late"), [(600, False), (501, False), (500, True), (450, True), (None, False)])
def test_a_change_is_open_while_an_evaluation_before_the_end_could_take_it_back(total_steps: int | None, is_late: bool) -> None:
    run = Run(an_envelope(guard=Guard(baseline_evaluations=1)), total_steps=total_steps)
    for number, objective in enumerate((2.0, 1.9, 1.7, 1.8), start=1):
        run.evaluate(number * 100, objective)
        if number < 4:
            run.answer(number * 100 + 1, hold("wait"))
            run.give(StepTaken(number * 100 + 10))
    surface = run.briefings[-1].surface
    assert (surface.adjustable == ()) == is_late
    assert "step-00000300" in [option.checkpoint for option in surface.rollbacks], "a way back is open to the end"
    assert all((option.adjustable == ()) == is_late for option in surface.rollbacks)
    run.answer(401, propose(HALVE))
    assert ("action_intended" in run.give(StepTaken(410))) != is_late
    if is_late:
        [reason] = [record for record in run.records if isinstance(record, VerdictGiven)][-1].reasons
        assert (reason.constraint, "at the end of the run only" in reason.detail) == ("guard", True)


def test_what_shows_late_is_closed_earlier() -> None:
    slow = learning_rate(1e-6, 1e-2, effect_lag_steps=100)
    run = Run(
        an_envelope(controls=(slow,), guard=Guard(baseline_evaluations=1)),
        recipe=Recipe.of({"learning_rate": 1e-3}),
        total_steps=501,
    )
    run.evaluate(100, 2.0)
    assert run.briefings[-1].surface.adjustable != ()
    run.answer(101, hold("wait"))
    run.give(StepTaken(110))
    run.evaluate(400, 1.9)
    assert run.briefings[-1].surface.adjustable == ()
    assert all(option.adjustable == () for option in run.briefings[-1].surface.rollbacks)


def test_without_a_guard_nothing_is_too_late() -> None:
    run = Run(an_envelope(guard=Guard(armed=False)), total_steps=400)
    run.evaluate(300, 2.0)
    assert run.briefings[-1].surface.adjustable != ()


def tried(*objectives: float) -> Run:
    """A run in which halving the rate has won a trial after the last of these evaluations."""
    run = intervened(*objectives)
    *others, newest = run.now.interventions
    run.state = run.refolded = replace(run.now, interventions=(*others, replace(newest, trial=1)))
    return run


def test_what_has_won_a_trial_is_not_blamed_for_a_slower_pace_but_for_a_worse_state() -> None:
    slower = (1.7, 1.7, 1.69)
    untried, measured = intervened(2.0, 1.9, 1.8, 1.7), tried(2.0, 1.9, 1.8, 1.7)
    found = [
        [("harm_found" in run.evaluate(500 + 100 * at, value)) for at, value in enumerate(slower)]
        for run in (untried, measured)
    ]
    assert (any(found[0]), any(found[1])) == (True, False)
    assert "harm_found" in tried(2.0, 1.9, 1.8, 1.7).evaluate(500, 1.9)


def test_a_manager_that_acts_at_every_evaluation_is_held_against_the_state_just_before_too() -> None:
    run = a_run(0.8, 0.7, 0.62, 0.56)
    at, values = 400, [0.53, 0.5, 0.47, 0.44, 0.41]
    for number, objective in enumerate(values):
        run.intervene(at, Adjust((Change("weight_decay", (0.03, 0.01)[number % 2]),)))
        run.checkpoint(at + 10)
        at += 100
        assert "harm_found" not in run.evaluate(at, objective)
    run.intervene(at, HALVE)
    run.checkpoint(at + 10)
    assert "harm_found" in run.evaluate(at + 100, 0.5), "still better than when it began to act"
    run.give(StepTaken(at + 101))
    [order] = taken_back(run)
    assert order.action == Rollback(f"step-{at:08d}"), "and what came before it stays"
    run.done(at + 101)
    assert [one.taken_back for one in run.now.interventions[-3:]] == [False, True, False]


def test_what_is_still_in_force_behind_a_taking_back_goes_on_being_watched() -> None:
    run = intervened(2.0, 1.98, 1.96, 1.94)
    assert "harm_found" not in run.evaluate(500, 1.935)
    run.intervene(500, Adjust((Change("dropout", 0.2),)))
    run.checkpoint(510)
    assert "harm_found" in run.evaluate(600, 2.5)
    run.give(StepTaken(601))
    assert taken_back(run)[-1].action == Rollback("step-00000500"), "the best of the states before"
    run.done(601)
    assert [one.taken_back for one in run.now.interventions] == [False, True, False]
    assert "harm_found" in run.evaluate(700, 2.1), "the first of them does harm, too"
    run.give(StepTaken(701))
    assert taken_back(run)[-1].action == Rollback("step-00000400")
