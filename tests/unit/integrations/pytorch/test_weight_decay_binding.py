from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.unit.integrations.pytorch.small_runs import Run
from trimtab.errors import ControlError, OwnershipError
from trimtab.integrations.pytorch.bindings.weight_decay import WeightDecayBinding


def optimizer(*decays: float) -> torch.optim.AdamW:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "weight_decay": decay} for decay in decays]
    return torch.optim.AdamW(groups, lr=0.1)


def decays(target: torch.optim.Optimizer) -> list[float]:
    return [group["weight_decay"] for group in target.param_groups]


def test_groups_keep_their_ratio_and_undecayed_ones_stay_so() -> None:
    target = optimizer(0.1, 0.03, 0.0)
    binding = WeightDecayBinding(target)
    assert binding.read() == 0.1
    binding.write(0.2)
    assert decays(target) == pytest.approx([0.2, 0.06, 0.0])
    binding.write(0.0)
    assert decays(target) == [0.0, 0.0, 0.0]
    binding.write(0.1)
    assert decays(target) == [0.1, 0.03, 0.0]  # exactly as at the start


def test_all_groups_are_set_if_none_decays() -> None:
    target = optimizer(0.0, 0.0)
    WeightDecayBinding(target).write(0.1)
    assert decays(target) == [0.1, 0.1]


def test_a_group_added_later_follows() -> None:
    target = optimizer(0.1)
    binding = WeightDecayBinding(target)
    target.add_param_group({"params": [nn.Parameter(torch.ones(1))], "weight_decay": 0.1})
    target.add_param_group({"params": [nn.Parameter(torch.ones(1))], "weight_decay": 0.0})
    binding.write(0.3)
    assert decays(target) == pytest.approx([0.3, 0.3, 0.0])


def test_the_read_back_sees_what_the_step_used() -> None:
    target = optimizer(0.1, 0.0)
    binding = WeightDecayBinding(target)
    binding.write(0.3)
    assert binding.took_effect() is None
    target.step()
    held = binding.took_effect()
    assert held is not None
    assert (held.expected, held.observed, held.holds) == (0.3, 0.3, True)
    target.param_groups[0]["weight_decay"] = 0.05
    target.step()
    lost = binding.took_effect()
    assert lost is not None
    assert (lost.expected, lost.observed, lost.holds) == (0.3, 0.05, False)


def test_a_load_does_not_undo_what_was_written_and_is_not_touched_otherwise() -> None:
    target = optimizer(0.1, 0.0)
    saved = target.state_dict()
    binding = WeightDecayBinding(target)
    target.param_groups[0]["weight_decay"] = 0.7
    target.load_state_dict(saved)
    assert decays(target) == [0.1, 0.0]
    binding.write(0.3)
    target.load_state_dict(saved)
    assert decays(target) == [0.3, 0.0]
    target.step()
    read_back = binding.took_effect()
    assert read_back is not None
    assert read_back.holds


def test_a_binding_that_changes_nothing_leaves_the_run_bit_identical() -> None:
    plain, expected = Run(), []
    expected = [plain.step() for _ in range(10)]
    managed = Run()
    WeightDecayBinding(managed.optimizer)
    assert [managed.step() for _ in range(10)] == expected


def test_the_written_value_acts() -> None:
    target = optimizer(0.1)
    WeightDecayBinding(target).write(1.0)
    (parameter,) = target.param_groups[0]["params"]
    parameter.grad = torch.zeros(1)
    target.step()
    assert float(parameter.detach()) == pytest.approx(1 - 0.1 * 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, True])
def test_a_value_that_is_no_decay_is_refused(value: float) -> None:
    target = optimizer(0.1)
    with pytest.raises(ControlError):
        WeightDecayBinding(target).write(value)
    assert decays(target) == [0.1]


def test_what_has_no_decay_or_another_owner_is_refused() -> None:
    with pytest.raises(ControlError, match="leave weight_decay out"):
        WeightDecayBinding(torch.optim.LBFGS([nn.Parameter(torch.ones(1))]))
    target = optimizer(0.1)
    first = WeightDecayBinding(target)
    with pytest.raises(OwnershipError):
        WeightDecayBinding(target)
    first.close()
    WeightDecayBinding(target)


def test_one_named_group_is_controlled_alone() -> None:
    target = optimizer(0.1, 0.2)
    target.param_groups[1]["name"] = "head"
    binding = WeightDecayBinding(target, "head")
    assert (binding.name, binding.read()) == ("weight_decay/head", 0.2)
    binding.write(0.4)
    assert decays(target) == [0.1, 0.4]
    with pytest.raises(OwnershipError):
        WeightDecayBinding(target)


def test_a_tensor_is_filled_in_place_and_reads_as_what_was_written() -> None:
    held = torch.tensor(0.1)
    target = optimizer(0.1)
    target.param_groups[0]["weight_decay"] = held
    binding = WeightDecayBinding(target)
    assert binding.read() == 0.1  # not the 0.1000000015 that a float32 tensor makes of it
    binding.write(0.123456789012)
    assert target.param_groups[0]["weight_decay"] is held
    assert binding.read() == 0.123456789012
    held.fill_(0.3)
    assert binding.read() == 0.3
