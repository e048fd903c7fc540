from __future__ import annotations

import pytest

from tests.builders import an_envelope
from tests.fake_run import Run
from tests.unit.report.safeguarded_runs import GuardedRun, lower, tried_run
from trimtab.controller.event import RunClosed, StepTaken
from trimtab.controls.envelope import Authority
from trimtab.controls.safeguards import Canary
from trimtab.decision.action import Action, Adjust, Change, Rollback, Stop
from trimtab.decision.proposal import hold
from trimtab.report.account import RunSummary
from trimtab.report.safeguard_facts import first_trial_step
from trimtab.report.timeline import build_timeline

NO_EVALUATION = "no evaluation came that could show its effect"
MERE_ROLLBACK = "a rollback without a change has nothing to take back"


def summary_of(run: Run) -> RunSummary:
    return build_timeline(run.records).summary


def test_a_change_is_watched_from_the_first_evaluation_on_that_can_show_its_effect() -> None:
    run = GuardedRun(2.0, 1.9, 1.8, 1.7)
    run.intervene(400, lower(5e-4), within=3)
    assert (summary_of(run).watched, summary_of(run).unwatched) == (0, (NO_EVALUATION,))
    run.next(1.65)
    assert (summary_of(run).watched, summary_of(run).unwatched) == (1, ())


def test_a_fault_that_a_change_was_blamed_for_was_watched_without_an_evaluation() -> None:
    run = GuardedRun(2.0, 1.9, 1.8, 1.7)
    run.intervene(400, lower(5e-4), within=3)
    run.fault(450)
    run.done(450)
    assert (summary_of(run).watched, summary_of(run).unwatched, summary_of(run).taken_back) == (1, (), 1)


@pytest.mark.parametrize(("action", "unwatched"), [(Rollback("step-00000100"), (MERE_ROLLBACK,)), (Stop(), ())])
def test_what_cannot_be_taken_back_is_not_said_to_be_watched(action: Action, unwatched: tuple[str, ...]) -> None:
    run = Run(an_envelope(authority=Authority(may_stop=True)))
    for step in range(100, 800, 100):  # a stop needs some evaluations without a better one
        run.evaluate(step, 2.0 + step / 1000)
        run.answer(step + 1, hold("wait"))
        run.give(StepTaken(step + 10))
    run.evaluate(800, 2.8)
    run.intervene(800, action)
    run.evaluate(900, 1.7)
    assert [one.action for one in run.now.interventions] == [action]
    assert (summary_of(run).watched, summary_of(run).unwatched) == (0, unwatched)


def test_the_guards_own_interventions_are_none_that_it_watches() -> None:
    run = GuardedRun(2.0, 1.9, 1.8, 1.7)
    run.change(lower(5e-4), 2.5)
    run.take_back()
    run.next(1.7)
    assert (summary_of(run).interventions, summary_of(run).watched, summary_of(run).unwatched) == (2, 1, ())


BEHIND = ": an evaluation has to come between its end and the run's"


def a_canary(**changes: float) -> Canary:
    known = {"steps": 10, "look_steps": 4, "decay_steps": 3, "budget": 0.1, "margin": 0.0}
    return Canary("win", **(known | changes))  # pyright: ignore[reportArgumentType] - counts and shares in one mapping


def an_idle_run(canary: Canary, *at: int, total_steps: int | None = None, shadow: bool = False) -> Run:
    """A run that is evaluated, and whose manager always holds."""
    run = Run(an_envelope(canary=canary, authority=Authority(shadow=shadow)), total_steps=total_steps)
    for step in at:
        run.evaluate(step, 2.0)
        if run.now.question is not None:
            run.answer(step + 1, hold("fine"))
            run.give(StepTaken(step + 10))
    return run


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (an_idle_run(a_canary(), 100), "a trial costs up to 20 steps, and the budget covers none before step 200"),
        (an_idle_run(a_canary(), 100, 205, total_steps=220), f"at step 200 a trial takes 30 steps, and 20 are left{BEHIND}"),
        (an_idle_run(a_canary(), 300), "nothing was proposed that needs a trial"),
        (an_idle_run(a_canary(), 300, shadow=True), "in shadow nothing is tried"),
        (tried_run(), ""),
        (an_idle_run(Canary()), ""),
    ],
)  # fmt: skip
def test_a_run_without_a_trial_says_why(run: Run, why: str) -> None:
    assert summary_of(run).untried == why


def test_that_nobody_was_asked_is_said_where_the_budget_is_no_reason() -> None:
    run = an_idle_run(a_canary())
    run.give(RunClosed(400, "finished"))
    assert summary_of(run).untried == "no question was asked"


def test_what_was_proposed_and_not_tried_says_why() -> None:
    run = an_idle_run(a_canary(), 100)
    run.evaluate(300, 2.0)
    run.intervene(300, Adjust((Change("learning_rate", 7.0),)))
    assert summary_of(run).untried == "what was proposed was rejected"


def test_what_a_veto_could_not_try_was_applied_and_says_why() -> None:
    run = Run(an_envelope(canary=Canary("veto", steps=10, look_steps=4, decay_steps=3, budget=0.1)))
    run.evaluate(100, 2.0)
    run.intervene(100, lower(5e-4))
    assert summary_of(run).interventions == 1
    assert summary_of(run).untried.startswith("at step 110 a trial may cost 20 steps; the budget is 10% of 110 steps")


def test_the_first_trial_begins_when_its_whole_cost_is_covered() -> None:
    assert first_trial_step(a_canary(budget=0.1)) == 200
    assert first_trial_step(a_canary(budget=0.15)) == 134
