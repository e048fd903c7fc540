"""The tasks of the PPO scenario: the pole falls as gymnasium's does, the point is judged by where it goes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from trimtab.bench.scenarios.ppo_tasks import CartPole, PointMass, Rewards

REWARDS = Rewards(progress_scale=3.0, success_bonus=5.0, collision_penalty=1.0)


def test_the_pole_moves_as_in_gymnasium_to_the_last_step() -> None:
    num_ends = 0
    reference: Any = gymnasium.make("CartPole-v1")
    for seed in range(5):
        draw = np.random.default_rng(seed)
        ours = CartPole(1, np.random.default_rng(seed))
        reference.reset(seed=seed)
        ours._state = np.asarray(reference.unwrapped.state, dtype=np.float64)[None, :]
        for _ in range(200):
            action = int(draw.integers(2))
            state, _, terminated, _, _ = reference.step(action)
            outcome = ours.step(np.array([[float(action)]]), REWARDS)
            # gymnasium rounds what it returns to single precision, not what it goes on with.
            np.testing.assert_allclose(outcome.finals[0], reference.unwrapped.state, rtol=0, atol=1e-12)
            np.testing.assert_allclose(outcome.finals[0], state, rtol=1e-6, atol=1e-7)
            assert bool(outcome.terminated[0]) == terminated
            if terminated:
                num_ends += 1
                break
    reference.close()
    assert num_ends == 5


def test_a_pole_that_outlives_its_time_succeeds_and_starts_again() -> None:
    task = CartPole(3, np.random.default_rng(0), horizon=5)
    task.reset()
    outcomes = [task.step(np.full((3, 1), float(step % 2)), REWARDS) for step in range(5)]
    assert not any(outcome.truncated.any() or outcome.succeeded.any() for outcome in outcomes[:4])
    assert outcomes[4].truncated.all()
    assert outcomes[4].succeeded.all()
    assert not outcomes[4].terminated.any()
    assert (np.abs(outcomes[4].observations) <= 0.05).all()
    assert not (outcomes[4].finals == outcomes[4].observations).any()
    assert all(outcome.unsafe is None and (outcome.rewards == 1.0).all() for outcome in outcomes)


def run_point(aside: float, steps: int = 40) -> tuple[list[bool], list[bool], list[bool], list[float]]:
    """Steer one point from the left to the right, ``aside`` of a zone in the middle of its way."""
    task = PointMass(1, np.random.default_rng(0))
    task.reset()
    task._point[:], task._target[:], task._zone[:] = (-0.8, aside), (0.8, aside), (0.0, 0.0)
    unsafe, succeeded, terminated, rewards = list[bool](), list[bool](), list[bool](), list[float]()
    for _ in range(steps):
        outcome = task.step(np.array([[1.0, 0.0]]), REWARDS)
        assert outcome.unsafe is not None
        for kept, flags in ((unsafe, outcome.unsafe), (succeeded, outcome.succeeded), (terminated, outcome.terminated)):
            kept.append(bool(flags[0]))
        rewards.append(float(outcome.rewards[0]))
        if terminated[-1]:
            break
    return unsafe, succeeded, terminated, rewards


def test_a_point_that_passes_beside_the_zone_succeeds() -> None:
    unsafe, succeeded, terminated, rewards = run_point(aside=0.4)
    assert not any(unsafe)
    assert succeeded[-1]
    assert terminated[-1]
    # 15 or 16 steps of 0.1 towards the target, 3 per unit of length, 0.01 for each action, 5 for reaching it.
    assert sum(rewards) == pytest.approx(3.0 * 0.1 * len(rewards) - 0.01 * len(rewards) + 5.0, abs=1e-9)


def test_a_point_that_crosses_the_zone_reaches_its_target_without_success_and_pays_for_each_step() -> None:
    unsafe, succeeded, terminated, rewards = run_point(aside=0.0)
    assert terminated[-1]
    assert not any(succeeded)
    assert 5 <= sum(unsafe) <= 6
    assert sum(rewards) == pytest.approx(3.0 * 0.1 * len(rewards) - 0.01 * len(rewards) + 5.0 - sum(unsafe), abs=1e-9)


def test_a_point_that_stands_runs_out_of_time() -> None:
    task = PointMass(8, np.random.default_rng(0), horizon=20)
    task.reset()
    outcomes = [task.step(np.zeros((8, 2)), REWARDS) for _ in range(20)]
    assert outcomes[-1].truncated.all()
    assert not any(outcome.truncated.any() for outcome in outcomes[:-1])
    assert not any(outcome.unsafe is None or outcome.unsafe.any() or outcome.succeeded.any() for outcome in outcomes)


def test_most_points_have_the_zone_in_their_way() -> None:
    task = PointMass(500, np.random.default_rng(0))
    task.reset()
    way = task._target - task._point
    aside = np.abs(way[:, 0] * (task._zone - task._point)[:, 1] - way[:, 1] * (task._zone - task._point)[:, 0])
    distance = aside / np.linalg.norm(way, axis=1)
    assert (distance < task.radius).all()
    assert (task._clearance() > 0.05).all()


@pytest.mark.parametrize("task", [CartPole, PointMass])
def test_the_same_seed_is_the_same_course(task: type[CartPole | PointMass]) -> None:
    one, other = task(4, np.random.default_rng(3)), task(4, np.random.default_rng(3))
    assert (one.reset() == other.reset()).all()
    draw = np.random.default_rng(0)
    for _ in range(100):
        actions = draw.uniform(-1, 1, (4, one.action_size))
        left, right = one.step(actions, REWARDS), other.step(actions, REWARDS)
        assert (left.observations == right.observations).all()
        assert (left.rewards == right.rewards).all()
        assert left.observations.shape == (4, one.observation_size)
