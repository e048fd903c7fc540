"""Proximal policy optimization on a small task: one supervisor step is one update, a rollout and what is learned from it.

The recipe is a plain object read anew in every update, so that handles can bind its attributes as controls.

References:
    Schulman et al. (2017), "Proximal Policy Optimization Algorithms"; Huang et al. (2022), "The 37 Implementation
    Details of Proximal Policy Optimization".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from trimtab.bench.scenarios.ppo_policy import Policy
from trimtab.bench.scenarios.ppo_tasks import CartPole, Floats, PointMass, Rewards, Task
from trimtab.integrations.pytorch.untyped import backward

EVALUATE_EVERY_UPDATES: Final = 5
TASKS: Final[dict[str, type[CartPole | PointMass]]] = {"cart_pole": CartPole, "point_mass": PointMass}

Report = Callable[[int, Mapping[str, float]], None]


@dataclass(slots=True)
class PpoRecipe:
    """What a run trains with; attributes may be changed between updates.

    The two learning rates count at the start only: then the optimizer's groups ``actor`` and ``critic`` have them.

    Args:
        learning_rate: Of the policy, > 0.
        value_learning_rate: Of the value function, >= 0.
        entropy_coefficient: Weight of the entropy in the loss, >= 0.
        value_coefficient: Weight of the value loss, > 0.
        clip_range: Of the probability ratio, > 0.
        target_kl: An update ends after the epoch in which the divergence passes this, in nats; may be infinite.
        num_epochs: Passes over each rollout, >= 1.
        discount: Of later rewards, in [0, 1].
        gae_lambda: Of later advantages, in [0, 1].
        gradient_clip_norm: Largest gradient norm let through, > 0.
        progress_scale: See `Rewards`.
        success_bonus: See `Rewards`.
        collision_penalty: See `Rewards`.
    """

    learning_rate: float = 1e-3
    value_learning_rate: float = 2e-3
    entropy_coefficient: float = 0.005
    value_coefficient: float = 0.5
    clip_range: float = 0.2
    target_kl: float = 0.03
    num_epochs: int = 6
    discount: float = 0.98
    gae_lambda: float = 0.95
    gradient_clip_norm: float = 0.5
    progress_scale: float = 3.0
    success_bonus: float = 5.0
    collision_penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class _Rollout:
    """Steps of all episodes, flattened: ``observations`` has shape ``[steps * episodes, observation_size]``."""

    observations: Tensor
    actions: Tensor
    log_probabilities: Tensor
    advantages: Tensor
    returns: Tensor
    values: Tensor


class Ppo:
    """A training run.

    Args:
        task: A name of `TASKS`.
        recipe: What it trains with; copied.
        seed: Of everything that is drawn.
        num_episodes: Episodes side by side.
        rollout_steps: Steps of each per update.
        minibatch_size: Steps per optimizer step.
    """

    def __init__(
        self,
        task: str,
        recipe: PpoRecipe,
        seed: int,
        num_episodes: int = 16,
        rollout_steps: int = 64,
        minibatch_size: int = 256,
    ) -> None:
        self.recipe = replace(recipe)
        draw, evaluation_draw = np.random.default_rng(seed), np.random.default_rng([seed, 1])
        self.task: Task = TASKS[task](num_episodes, draw)
        self.evaluation_task: Task = TASKS[task](32, evaluation_draw)
        self.generator = torch.Generator().manual_seed(seed)
        self.policy = Policy(self.task, self.generator)
        actor = [parameter for name, parameter in self.policy.named_parameters() if not name.startswith("critic")]
        groups = [
            {"params": actor, "lr": recipe.learning_rate, "name": "actor"},
            {"params": list(self.policy.critic.parameters()), "lr": recipe.value_learning_rate, "name": "critic"},
        ]
        self.optimizer = torch.optim.Adam(groups, eps=1e-5)
        self._rollout_steps, self._minibatch_size = rollout_steps, minibatch_size
        self._observations = _tensor(self.task.reset())

    def update(self) -> dict[str, float]:
        """Collect a rollout, learn from it, and return what a supervisor is told of it."""
        rollout = self._collect()
        kl, num_epochs = 0.0, 0
        sums = np.zeros(4)
        num_minibatches = 0
        while num_epochs < max(1, round(self.recipe.num_epochs)) and kl <= self.recipe.target_kl:
            order = torch.randperm(len(rollout.returns), generator=self.generator)
            for first in range(0, len(order), self._minibatch_size):
                sums += self._learn(rollout, order[first : first + self._minibatch_size])
                num_minibatches += 1
            num_epochs += 1
            kl = self._kl(rollout)
        loss, value_loss, entropy, grad_norm = (sums / num_minibatches).tolist()
        spread = float(rollout.returns.var())
        unexplained = float((rollout.returns - rollout.values).var())
        return {
            "loss": loss,
            "grad_norm": grad_norm,
            "entropy": entropy,
            "kl": kl,
            "value_loss": value_loss,
            "explained_variance": 1.0 - unexplained / spread if spread > 0 else math.nan,
        }

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Play one episode in each of 32 places with the policy as it explores; return its measures."""
        task, recipe = self.evaluation_task, self.recipe
        observations = task.reset()
        running = np.ones(len(observations), dtype=np.bool_)
        returned, succeeded, unsafe = (np.zeros(len(observations)) for _ in range(3))
        knows_unsafe = False
        for _ in range(task.horizon):
            outcome = task.step(self._act(_tensor(observations))[1], _rewards(recipe))
            returned += outcome.rewards * running
            succeeded += outcome.succeeded & running
            if outcome.unsafe is not None:
                knows_unsafe = True
                unsafe = np.maximum(unsafe, outcome.unsafe & running)
            running &= ~(outcome.terminated | outcome.truncated)
            observations = outcome.observations
            if not running.any():
                break
        measured = {"eval/return": float(returned.mean()), "success_rate": float(succeeded.mean())}
        return measured | ({"unsafe_rate": float(unsafe.mean())} if knows_unsafe else {})

    def _act(self, observations: Tensor) -> tuple[Tensor, Floats]:
        """Return actions as the policy draws them, and as the task takes them."""
        actions = self.policy.draw(observations, self.generator)
        return actions, actions.double().numpy().reshape(len(observations), -1)

    @torch.no_grad()
    def _collect(self) -> _Rollout:
        steps, count = self._rollout_steps, len(self._observations)
        observations, actions = list[Tensor](), list[Tensor]()
        rewards, ends = torch.zeros(steps, count), torch.zeros(steps, count)
        terms = _rewards(self.recipe)
        for step in range(steps):
            action, taken = self._act(self._observations)
            outcome = self.task.step(taken, terms)
            observations.append(self._observations)
            actions.append(action)
            rewards[step] = _tensor(outcome.rewards)
            if outcome.truncated.any():
                # Running out of time is no end of the pole's life: what would have followed counts.
                following = self.policy.values(_tensor(outcome.finals)) * _tensor(outcome.truncated)
                rewards[step] += self.recipe.discount * following
            ends[step] = _tensor(outcome.terminated | outcome.truncated)
            self._observations = _tensor(outcome.observations)
        seen, acted = torch.cat(observations), torch.cat(actions)
        values = self.policy.values(torch.cat([seen, self._observations])).view(steps + 1, count)
        advantages = self._advantages(rewards, ends, values)
        log_probabilities = self.policy.distribution(seen).log_prob(acted)
        current = values[:-1].flatten()
        return _Rollout(seen, acted, log_probabilities, advantages.flatten(), advantages.flatten() + current, current)

    def _advantages(self, rewards: Tensor, ends: Tensor, values: Tensor) -> Tensor:
        """Return generalized advantage estimates, of shape ``[steps, episodes]`` as ``rewards``."""
        advantages, ahead = torch.zeros_like(rewards), torch.zeros(rewards.shape[1])
        for step in reversed(range(len(rewards))):
            goes_on = 1.0 - ends[step]
            surprise = rewards[step] + self.recipe.discount * values[step + 1] * goes_on - values[step]
            ahead = surprise + self.recipe.discount * self.recipe.gae_lambda * goes_on * ahead
            advantages[step] = ahead
        return advantages

    def _learn(self, rollout: _Rollout, rows: Tensor) -> Floats:
        """Take one optimizer step; return loss, value loss, entropy and gradient norm."""
        recipe = self.recipe
        distribution = self.policy.distribution(rollout.observations[rows])
        ratio = (distribution.log_prob(rollout.actions[rows]) - rollout.log_probabilities[rows]).exp()
        advantages = rollout.advantages[rows]
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        clipped = ratio.clamp(1.0 - recipe.clip_range, 1.0 + recipe.clip_range)
        policy_loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
        value_loss = 0.5 * (self.policy.values(rollout.observations[rows]) - rollout.returns[rows]).square().mean()
        entropy = distribution.entropy().mean()
        loss = policy_loss + recipe.value_coefficient * value_loss - recipe.entropy_coefficient * entropy
        self.optimizer.zero_grad()
        backward(loss)
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), recipe.gradient_clip_norm)
        cast("Any", self.optimizer).step()
        return np.array([float(loss.detach()), float(value_loss.detach()), float(entropy.detach()), float(norm)])

    @torch.no_grad()
    def _kl(self, rollout: _Rollout) -> float:
        """Estimate how far the policy has moved since the rollout, in nats per action; never negative.

        References:
            Schulman (2020), "Approximating KL Divergence".
        """
        difference = self.policy.distribution(rollout.observations).log_prob(rollout.actions) - rollout.log_probabilities
        return float((difference.exp() - 1.0 - difference).mean())


Fault = Callable[[int, Ppo], None]


def train(
    seed: int,
    num_updates: int,
    report: Report,
    evaluate: Report,
    recipe: PpoRecipe | None = None,
    fault: Fault | None = None,
    task: str = "cart_pole",
) -> Ppo:
    """Train for ``num_updates`` updates.

    Args:
        seed: Of everything that is drawn; the same seed is the same run.
        num_updates: Updates, each one step of a supervisor.
        report: Called after every update with its number, from 1 on, and the signals of a step.
        evaluate: Called after every fifth update with its number and the signals of an evaluation.
        recipe: What to train with, instead of the defaults.
        fault: Called before every update with its number and the run, which it may spoil.
        task: A name of `TASKS`.

    Returns:
        The run as it ended.
    """
    run = Ppo(task, recipe or PpoRecipe(), seed)
    for update in range(1, num_updates + 1):
        if fault is not None:
            fault(update, run)
        report(update, run.update())
        if update % EVALUATE_EVERY_UPDATES == 0:
            evaluate(update, run.evaluate())
    return run


def _tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


def _rewards(recipe: PpoRecipe) -> Rewards:
    return Rewards(recipe.progress_scale, recipe.success_bonus, recipe.collision_penalty)
