"""The PPO scenario learns, repeats itself, and reads its recipe anew in every update."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from trimtab.bench.scenarios.ppo import Fault, Ppo, PpoRecipe, train
from trimtab.bench.scenarios.ppo_tasks import PointMass

STEP_SIGNALS = {"loss", "grad_norm", "entropy", "kl", "value_loss", "explained_variance"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def record(
    seed: int, num_updates: int, task: str = "cart_pole", recipe: PpoRecipe | None = None, fault: Fault | None = None
) -> tuple[list[tuple[int, dict[str, float]]], list[tuple[int, dict[str, float]]], Ppo]:
    steps, evaluations = list[tuple[int, dict[str, float]]](), list[tuple[int, dict[str, float]]]()

    def report(update: int, values: Mapping[str, float]) -> None:
        steps.append((update, dict(values)))

    def evaluate(update: int, values: Mapping[str, float]) -> None:
        evaluations.append((update, dict(values)))

    run = train(seed, num_updates, report, evaluate, recipe, fault, task)
    return steps, evaluations, run


@pytest.mark.parametrize(("task", "more"), [("cart_pole", set[str]()), ("point_mass", {"unsafe_rate"})])
def test_it_reports_every_update_and_every_fifth_evaluation(task: str, more: set[str]) -> None:
    steps, evaluations, _ = record(0, 10, task)
    assert [update for update, _ in steps] == list(range(1, 11))
    assert [update for update, _ in evaluations] == [5, 10]
    assert all(values.keys() == STEP_SIGNALS for _, values in steps)
    assert all(values.keys() == {"eval/return", "success_rate"} | more for _, values in evaluations)
    assert all(math.isfinite(value) for _, values in steps for value in values.values())
    assert all(values["kl"] >= 0 for _, values in steps)


@pytest.mark.parametrize("task", ["cart_pole", "point_mass"])
def test_the_same_seed_is_the_same_run_whatever_else_draws(task: str) -> None:
    first = record(3, 5, task)
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    assert record(3, 5, task)[:2] == first[:2]
    assert record(4, 5, task)[:2] != first[:2]


def test_it_leaves_the_global_generators_alone() -> None:
    before = torch.get_rng_state()
    record(0, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_pole_is_learned_within_thirty_updates() -> None:
    _, evaluations, _ = record(0, 30)
    assert evaluations[0][1]["eval/return"] < 150
    assert evaluations[-1][1]["eval/return"] > 400


def test_the_recipe_given_is_copied() -> None:
    recipe = PpoRecipe()

    def spoil(update: int, run: Ppo) -> None:
        run.recipe.clip_range = 0.01

    _, _, run = record(0, 1, recipe=recipe, fault=spoil)
    assert recipe == PpoRecipe()
    assert run.recipe.clip_range == 0.01


CHANGES = {"entropy_coefficient": 0.2, "value_coefficient": 0.01, "clip_range": 0.01, "num_epochs": 2.0, "discount": 0.5}


@pytest.mark.parametrize(("name", "value"), [*CHANGES.items(), ("gradient_clip_norm", 1e-3), ("gae_lambda", 0.1)])
def test_a_change_between_updates_counts_from_the_next_one(name: str, value: float) -> None:
    def change(update: int, run: Ppo) -> None:
        if update == 3:
            setattr(run.recipe, name, value)

    plain, changed = record(0, 3)[0], record(0, 3, fault=change)[0]
    assert changed[:2] == plain[:2]
    assert changed[2] != plain[2]


@pytest.mark.parametrize("name", ["collision_penalty", "success_bonus", "progress_scale"])
def test_a_change_of_the_reward_counts_too(name: str) -> None:
    def near(update: int, run: Ppo) -> None:
        assert isinstance(run.task, PointMass)
        run.task.reach = 1.2  # so that an untrained policy gets there

    def changed(update: int, run: Ppo) -> None:
        near(update, run)
        setattr(run.recipe, name, 50.0)

    assert record(0, 2, "point_mass", fault=changed)[0] != record(0, 2, "point_mass", fault=near)[0]


def test_an_update_ends_after_the_epoch_that_passes_the_target() -> None:
    free = record(0, 3, recipe=PpoRecipe(num_epochs=20, target_kl=math.inf, learning_rate=5e-3))[0]
    bound = record(0, 3, recipe=PpoRecipe(num_epochs=20, target_kl=1e-6, learning_rate=5e-3))[0]
    one = record(0, 3, recipe=PpoRecipe(num_epochs=1, target_kl=math.inf, learning_rate=5e-3))[0]
    assert bound == one
    assert free != one


def test_a_course_cut_short_by_time_is_worth_what_would_have_followed() -> None:
    def expect_a_hundred(update: int, run: Ppo) -> None:
        run.task.horizon = 1
        torch.nn.init.constant_(list(run.policy.critic.parameters())[-1], 100.0)

    steps = record(0, 1, recipe=PpoRecipe(value_learning_rate=0.0, discount=0.99), fault=expect_a_hundred)[0]
    # One step is worth 1 and 0.99 of the hundred that is expected after it; as an end it would be worth 1 alone.
    assert steps[0][1]["value_loss"] < 5.0


def test_actor_and_critic_have_their_own_rates() -> None:
    run = Ppo("point_mass", PpoRecipe(learning_rate=0.1, value_learning_rate=0.2), 0)
    assert {group["name"]: group["lr"] for group in run.optimizer.param_groups} == {"actor": 0.1, "critic": 0.2}
    named = sum(len(group["params"]) for group in run.optimizer.param_groups)
    assert named == len(list(run.policy.parameters()))
