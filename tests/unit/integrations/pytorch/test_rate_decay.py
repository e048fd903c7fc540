"""The decay of a trial's arm: a factor on every rate, inside of a step alone, whatever else scales it there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trimtab.integrations.pytorch.bindings.learning_rate import LearningRateBinding
from trimtab.integrations.pytorch.rate_decay import OptimizerRateDecay


def two_groups(one: Any, other: Any) -> torch.optim.SGD:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in (one, other)]
    return torch.optim.SGD(groups, lr=0.1)


def moved(optimizer: torch.optim.Optimizer) -> list[float]:
    """Step plain SGD on gradients of 1: what each group moved is the rate it used."""
    weights = [group["params"][0] for group in optimizer.param_groups]
    before = [float(weight.detach()) for weight in weights]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    return [was - float(weight.detach()) for was, weight in zip(before, weights, strict=True)]


@pytest.mark.parametrize("kind", [float, torch.tensor, lambda rate: torch.tensor([rate])])
def test_every_rate_is_multiplied_inside_of_a_step_alone(kind: Any) -> None:
    optimizer = two_groups(kind(0.1), kind(0.02))
    held = [group["lr"] for group in optimizer.param_groups]
    decay = OptimizerRateDecay(optimizer)
    decay.come_last()
    for factor in (0.75, 0.5, 1.0):
        decay.set(factor)
        assert moved(optimizer) == pytest.approx([0.1 * factor, 0.02 * factor], rel=1e-5)
        assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([0.1, 0.02])
    assert all(group["lr"] is rate for group, rate in zip(optimizer.param_groups, held, strict=True))


def test_a_rate_that_groups_share_is_multiplied_once() -> None:
    shared = torch.tensor(0.1)
    optimizer = two_groups(shared, shared)
    decay = OptimizerRateDecay(optimizer)
    decay.come_last()
    decay.set(0.5)
    assert moved(optimizer) == pytest.approx([0.05, 0.05])
    assert float(shared) == pytest.approx(0.1)


def test_a_control_scales_what_is_decayed_and_both_are_put_back() -> None:
    optimizer = two_groups(0.1, 0.02)
    decay = OptimizerRateDecay(optimizer)
    binding = LearningRateBinding(optimizer)
    decay.come_last()
    binding.write(0.05)
    decay.set(0.5)
    assert moved(optimizer) == pytest.approx([0.025, 0.005], rel=1e-5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.02]
    decay.close()
    assert moved(optimizer) == pytest.approx([0.05, 0.01], rel=1e-5)
