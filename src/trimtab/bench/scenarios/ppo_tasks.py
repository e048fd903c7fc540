"""Two small control tasks, many episodes side by side in numpy: a pole on a cart, a point before a forbidden zone.

An episode that ends starts again at once; what ended it stands in the `Outcome`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rewards:
    """What the point is rewarded for; the pole has its one reward per step.

    Args:
        progress_scale: Per unit of length that the point comes nearer to its target.
        success_bonus: For reaching it, through the zone or not.
        collision_penalty: For every step inside the forbidden zone, >= 0.
    """

    progress_scale: float
    success_bonus: float
    collision_penalty: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One step of all episodes.

    Args:
        observations: What the policy sees next, of shape ``[episodes, observation_size]``.
        rewards: Of shape ``[episodes]``, as the fields below.
        terminated: The episode ended by itself.
        truncated: The episode ran out of time.
        finals: Observations before any episode started again.
        succeeded: The episode ended by success.
        unsafe: The step was inside the forbidden zone; None where the task has none.
    """

    observations: Floats
    rewards: Floats
    terminated: Flags
    truncated: Flags
    finals: Floats
    succeeded: Flags
    unsafe: Flags | None


class Task(Protocol):
    """Episodes side by side."""

    observation_size: int
    num_actions: int | None  # None: actions are real
    action_size: int
    horizon: int

    def reset(self) -> Floats:
        """Start every episode; return the observations."""
        ...

    def step(self, actions: Floats, rewards: Rewards) -> Outcome:
        """Take one step in every episode; ``actions`` has shape ``[episodes, action_size]``."""
        ...


class CartPole:
    """The pole on a cart, 0 pushes left and 1 right; success is a pole that stands until the time is out.

    References:
        Barto, Sutton, Anderson (1983), "Neuronlike adaptive elements that can solve difficult learning control
        problems"; dynamics and limits as in gymnasium's CartPole-v1.
    """

    observation_size = 4
    num_actions: int | None = 2
    action_size = 1

    def __init__(self, num_episodes: int, draw: np.random.Generator, horizon: int = 500) -> None:
        self.horizon = horizon
        self._draw = draw
        self._state: Floats = np.zeros((num_episodes, 4))
        self._age = np.zeros(num_episodes, dtype=np.int64)

    def reset(self) -> Floats:
        """Start every episode; return the observations."""
        self._start(np.ones(len(self._state), dtype=np.bool_))
        return self._state.copy()

    def step(self, actions: Floats, rewards: Rewards) -> Outcome:
        """Push every cart; each step is worth 1, whatever ``rewards`` says."""
        speed, angle, turn = self._state.T[1:]
        force = np.where(actions[:, 0] > 0.5, 10.0, -10.0)
        cos, sin = np.cos(angle), np.sin(angle)
        # Pole 0.1 kg with its centre at 0.5 m, 1.1 kg in all, gravity 9.8 m/s2, Euler steps of 0.02 s.
        thrust = (force + 0.05 * turn**2 * sin) / 1.1
        angular = (9.8 * sin - cos * thrust) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
        linear = thrust - 0.05 * angular * cos / 1.1
        self._state = self._state + 0.02 * np.stack([speed, linear, turn, angular], axis=1)
        self._age += 1
        terminated = (np.abs(self._state[:, 0]) > 2.4) | (np.abs(self._state[:, 2]) > np.deg2rad(12.0))
        truncated = (self._age >= self.horizon) & ~terminated
        finals = self._state.copy()
        self._start(terminated | truncated)
        return Outcome(self._state.copy(), np.ones(len(finals)), terminated, truncated, finals, truncated, None)

    def _start(self, which: Flags) -> None:
        self._state[which] = self._draw.uniform(-0.05, 0.05, (int(which.sum()), 4))
        self._age[which] = 0


class PointMass:
    """A point on a plane that steers with two velocities to a target behind a forbidden zone.

    It starts on the left, the target is on the right, a round zone on or near the line between them. Every step
    inside the zone is unsafe and is punished, but the episode goes on; success is a target reached without one. An
    observation is the point, the way to the target, the way to the middle of the zone, and the clearance from it.
    """

    observation_size = 7
    num_actions: int | None = None
    action_size = 2
    reach = 0.12
    radius = 0.3

    def __init__(self, num_episodes: int, draw: np.random.Generator, horizon: int = 50) -> None:
        self.horizon = horizon
        self._draw = draw
        self._point, self._target, self._zone = (np.zeros((num_episodes, 2)) for _ in range(3))
        self._age = np.zeros(num_episodes, dtype=np.int64)
        self._is_tainted = np.zeros(num_episodes, dtype=np.bool_)

    def reset(self) -> Floats:
        """Start every episode; return the observations."""
        self._start(np.ones(len(self._point), dtype=np.bool_))
        return self._observe()

    def step(self, actions: Floats, rewards: Rewards) -> Outcome:
        """Move every point by at most 0.1 along each axis."""
        action = np.clip(actions, -1.0, 1.0)
        before = self._distance()
        self._point = np.clip(self._point + 0.1 * action, -1.5, 1.5)
        self._age += 1
        unsafe, terminated = self._clearance() < 0.0, self._distance() < self.reach
        self._is_tainted |= unsafe
        reward = rewards.progress_scale * (before - self._distance()) - 0.01 * (action**2).sum(axis=1)
        reward = reward + rewards.success_bonus * terminated - rewards.collision_penalty * unsafe
        truncated = (self._age >= self.horizon) & ~terminated
        succeeded, finals = terminated & ~self._is_tainted, self._observe()
        self._start(terminated | truncated)
        return Outcome(self._observe(), reward, terminated, truncated, finals, succeeded, unsafe)

    def _observe(self) -> Floats:
        ways = (self._point, self._target - self._point, self._zone - self._point, self._clearance()[:, None])
        return np.concatenate(ways, axis=1)

    def _distance(self) -> Floats:
        return np.linalg.norm(self._target - self._point, axis=1)

    def _clearance(self) -> Floats:
        return np.linalg.norm(self._zone - self._point, axis=1) - self.radius

    def _start(self, which: Flags) -> None:
        count = int(which.sum())
        start = np.stack([self._draw.uniform(-1.0, -0.7, count), self._draw.uniform(-0.5, 0.5, count)], axis=1)
        target = np.stack([self._draw.uniform(0.6, 1.0, count), self._draw.uniform(-0.5, 0.5, count)], axis=1)
        along, aside = self._draw.uniform(0.45, 0.55, count), self._draw.uniform(-0.2, 0.2, count)
        zone = start + along[:, None] * (target - start)
        zone[:, 1] += aside
        self._point[which], self._target[which], self._zone[which] = start, target, zone
        self._age[which], self._is_tainted[which] = 0, False
