"""The gain table: what a run is counted by, and that all arms are made of the same training at equal compute."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from trimtab.bench.gain import (
    Arm,
    GainRun,
    GainSpec,
    against,
    best_baseline,
    canary_of,
    faults_of,
    final_of,
    from_tree,
    run,
    to_tree,
)
from trimtab.bench.gain_tasks import KINDS
from trimtab.controller.canary import cost, length
from trimtab.controls.safeguards import Canary
from trimtab.decision.random import RandomManager
from trimtab.errors import UsageError

PLAIN = GainSpec("digits", "early stopping", 3, 200)
MANAGED = replace(PLAIN, arm="random", canary_budget=1.0)


def made(arm: Arm, seed: int, best: float, task: str = "digits") -> GainRun:
    spec = replace(PLAIN, arm=arm, seed=seed, task=task)
    return GainRun(spec, ((50, best + 1), (100, best), (150, math.nan)), best + 2, 200)


def test_the_best_is_the_lowest_finite_objective_of_the_course_and_not_the_final_one() -> None:
    assert made("random", 0, 0.5).best == 0.5
    assert GainRun(PLAIN, ((50, math.nan),), math.nan, 200).best == math.inf


def test_what_trials_cost_is_a_share_of_all_steps() -> None:
    done = replace(made("random", 0, 0.5), trials=((90, "won", 30), (150, "lost", 20), (190, "lost", 0)))
    assert done.share_spent == pytest.approx(0.25)
    assert (done.count("won"), done.count("lost"), done.count("abandoned")) == (1, 2, 0)


@pytest.mark.parametrize("task", KINDS)
def test_a_trial_is_the_tasks_own_unless_said_otherwise_and_fits_once_into_the_smallest_budget(task: str) -> None:
    canary, kind = canary_of(replace(MANAGED, task=task, canary_budget=0.05)), KINDS[task]
    assert (canary.mode, canary.steps, canary.look_steps, canary.decay_steps, canary.budget) == ("win", 30, 10, 10, 0.05)
    affordable = math.ceil(cost(canary) / 0.05 / kind.evaluate_every_steps) * kind.evaluate_every_steps
    assert affordable + 1 + length(canary) <= kind.num_steps
    own = canary_of(replace(MANAGED, task=task, canary_steps=7, decay_steps=0))
    assert (own.steps, own.look_steps, own.decay_steps) == (7, 2, 0)
    assert canary_of(replace(MANAGED, task=task, canary_budget=0.05, canary_look=False)).look_steps == 0
    assert canary_of(replace(MANAGED, canary_budget=None)) == Canary()


def test_the_baseline_is_the_best_of_three_by_its_mean_on_one_task() -> None:
    runs = [made("early stopping", seed, 1.0) for seed in (0, 1)]
    runs += [made("plateau", 0, 0.1), made("plateau", 1, 1.7), made("random", 0, 0.0), made("cosine", 0, 0.0, "text")]
    arm, base = best_baseline(runs, "digits")
    assert (arm, sorted(base), base[1].best) == ("plateau", [0, 1], 1.7)
    runs = [replace(run, final=-run.best) for run in runs]
    assert best_baseline(runs, "digits", final_of)[0] == "early stopping"


def test_a_gain_is_paired_by_seed_and_told_as_a_share_of_the_baseline() -> None:
    base = {seed: made("plateau", seed, 2.0 + seed) for seed in (0, 1, 2)}  # mean 3
    worse = [made("random", seed, 2.3 + seed) for seed in (2, 0, 1)]
    effect = against(worse, base)
    assert (effect.mean, effect.low, effect.high) == (pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1))
    ends = [replace(run, final=9.0) for run in worse]
    assert against(ends, base, final_of).mean == pytest.approx((9.0 - 5.0) / 5.0)
    assert against([*worse, made("random", 9, 99.0)], base).num_pairs == 3
    with pytest.raises(UsageError):
        against([made("random", 9, 99.0)], base)


def test_what_trimtab_must_not_do_is_told() -> None:
    sound = GainRun(replace(MANAGED, canary_budget=0.15), (), 1.0, 200, ((100, "lost", 15), (200, "won", 15)))
    assert faults_of(sound, [50, 150], is_held=False) == []
    assert "held" in faults_of(sound, [50, 150], is_held=True)[0]
    assert "3 trials began and 2 ended" in faults_of(sound, [50, 150, 190], is_held=False)[0]
    assert "150 of 200" in faults_of(replace(sound, steps_made=150), [50, 150], is_held=False)[0]
    early = replace(sound, trials=((99, "lost", 15), (200, "won", 15)))
    assert "cost 15 of 99 steps" in faults_of(early, [50, 150], is_held=False)[0]


def test_a_run_comes_back_from_json_as_it_was() -> None:
    done = replace(made("random", 0, 0.5), trials=((90, "won", 30),), problems=("5: a: b",), faults=("c",), final=1.0)
    tree = json.loads(json.dumps(to_tree(done), allow_nan=False))
    back = from_tree(tree)
    assert math.isnan(back.curve[-1][1])
    assert replace(back, curve=()) == replace(done, curve=())
    assert math.isnan(from_tree(to_tree(replace(done, final=math.inf))).final)


@pytest.fixture(scope="module")
def plain() -> GainRun:
    return run(PLAIN)


def test_a_managed_run_is_the_plain_one_until_a_trial_begins_and_as_long() -> None:
    spec = replace(MANAGED, num_steps=400)  # so long that whatever is drawn, something is tried
    managed, plain = run(spec), run(replace(PLAIN, num_steps=400))
    assert managed.steps_made == plain.steps_made == 400
    assert managed.trials and managed.faults == ()
    begins = managed.trials[0][0] - length(canary_of(spec))
    until = sum(step <= begins for step, _ in plain.curve)
    assert managed.curve[:until] == plain.curve[:until] and until > 1
    during = [
        step for step, _ in managed.curve if any(end - length(canary_of(spec)) < step < end for end, _, _ in managed.trials)
    ]
    assert during == [], "an evaluation of a trial is none of the run's"
    assert run(spec).curve == managed.curve, "and can be repeated"


def test_a_manager_that_is_given_manages_as_one_of_the_tables_own_would() -> None:
    own, given = run(MANAGED), run(replace(MANAGED, arm="given"), RandomManager(MANAGED.seed))
    assert (given.curve, given.trials, given.interventions) == (own.curve, own.trials, own.interventions)
    with pytest.raises(AssertionError):
        run(replace(MANAGED, arm="given"))


def test_what_can_never_be_afforded_changes_nothing(plain: GainRun) -> None:
    done = run(replace(MANAGED, canary_budget=0.001))
    assert (done.curve, done.trials, done.interventions, done.final) == (plain.curve, (), 0, plain.final)


def test_the_cosine_schedule_starts_at_its_rate_and_ends_at_zero(plain: GainRun) -> None:
    slow = run(replace(PLAIN, arm="cosine", rate_factor=1e-9))
    assert slow.curve[0][1] == pytest.approx(slow.curve[-1][1], abs=1e-4), "at such a rate nothing is learned"
    annealed = run(replace(PLAIN, arm="cosine"))
    assert annealed.curve[0][1] != plain.curve[0][1]
    assert annealed.final < slow.final


def test_the_rate_is_reduced_after_three_evaluations_without_gain_and_not_before() -> None:
    spec = replace(PLAIN, seed=100, num_steps=700)
    plain, reduced = run(spec), run(replace(spec, arm="plateau"))
    values = [value for _, value in plain.curve]
    patience_ends = next(n for n in range(3, len(values)) if min(values[n - 2 : n + 1]) > min(values[: n - 2]))
    assert reduced.curve[: patience_ends + 1] == plain.curve[: patience_ends + 1]
    assert all(one != other for one, other in zip(reduced.curve, plain.curve, strict=True) if one[0] > 50 * (patience_ends + 1))
    assert patience_ends < len(values) - 1, "else nothing was compared"
