"""The policy and the value function of the PPO scenario."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from trimtab.bench.scenarios.ppo_tasks import Task


class Policy(nn.Module):
    """A policy and a value function, apart from each other; real actions have one deviation each, whatever the state."""

    def __init__(self, task: Task, generator: torch.Generator, width: int = 64, log_std: float = -0.7) -> None:
        super().__init__()
        outputs = task.num_actions or task.action_size
        self.actor = _network(task.observation_size, width, outputs, 0.01, generator)
        self.critic = _network(task.observation_size, width, 1, 1.0, generator)
        self.log_std = None if task.num_actions else nn.Parameter(torch.full((task.action_size,), log_std))

    def distribution(self, observations: Tensor) -> Distribution:
        """Return the distribution of the actions, one per row of ``observations``."""
        outputs = self.actor(observations)
        if self.log_std is None:
            return Categorical(logits=outputs, validate_args=False)
        return Independent(Normal(outputs.tanh(), self.log_std.exp(), validate_args=False), 1, validate_args=False)

    def values(self, observations: Tensor) -> Tensor:
        """Return the expected return of each row of ``observations``."""
        return self.critic(observations).squeeze(-1)

    def draw(self, observations: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one action per row, of shape ``[rows]`` or ``[rows, action_size]``, from ``generator``."""
        outputs = self.actor(observations)
        if self.log_std is None:
            return torch.multinomial(outputs.softmax(-1), 1, generator=generator).squeeze(-1)
        return outputs.tanh() + self.log_std.exp() * torch.randn(outputs.shape, generator=generator)


def _network(inputs: int, width: int, outputs: int, last_gain: float, generator: torch.Generator) -> nn.Sequential:
    layers = [
        _linear(inputs, width, math.sqrt(2), generator),
        nn.Tanh(),
        _linear(width, width, math.sqrt(2), generator),
        nn.Tanh(),
        _linear(width, outputs, last_gain, generator),
    ]
    return nn.Sequential(*layers)


def _linear(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    # Without torch's own start, which would draw from the global generator.
    layer = cast("nn.Linear", cast("Any", nn.utils).skip_init(nn.Linear, inputs, outputs))
    nn.init.orthogonal_(layer.weight, gain, generator)
    nn.init.zeros_(layer.bias)
    return layer
