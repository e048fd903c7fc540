from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import Optimizer

from tests.unit.integrations.pytorch.small_runs import Run
from trimtab.controls.catalogue import momentum
from trimtab.errors import ControlError, OwnershipError
from trimtab.integrations.pytorch.binders import bind
from trimtab.integrations.pytorch.bindings.groups import share_of_rest
from trimtab.integrations.pytorch.bindings.momentum import Beta2Binding, MomentumBinding, beta2_slot
from trimtab.integrations.pytorch.training import Training

MAKERS: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda groups: torch.optim.SGD(groups, lr=0.05),
    "SGD-nesterov": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True),
    "SGD-fused": lambda groups: torch.optim.SGD(groups, lr=0.05, fused=True),
    "SGD-foreach": lambda groups: torch.optim.SGD(groups, lr=0.05, foreach=True),
    "RMSprop": lambda groups: torch.optim.RMSprop(groups, lr=0.01, momentum=0.5),
    "Adam": lambda groups: torch.optim.Adam(groups, lr=0.05),
    "AdamW-fused": lambda groups: torch.optim.AdamW(groups, lr=0.05, fused=True),
    "NAdam": lambda groups: torch.optim.NAdam(groups, lr=0.05),
}


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.ones(2, 2))


def adam(*betas: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW([{"params": [parameter()], "betas": pair} for pair in betas], lr=0.1)


@pytest.mark.parametrize("name", MAKERS)
def test_a_written_momentum_is_that_of_a_run_constructed_with_it(name: str) -> None:
    other = Run(MAKERS[name])
    for group in other.optimizer.param_groups:
        if "betas" in group:
            group["betas"] = (0.7, group["betas"][1])
        else:
            group["momentum"] = 0.7
    expected = [other.step() for _ in range(5)]
    run = Run(MAKERS[name])
    binding = MomentumBinding(run.optimizer)
    binding.write(0.7)
    assert [run.step() for _ in range(5)] == expected
    read_back = binding.took_effect()
    assert read_back is not None
    assert (read_back.expected, read_back.observed, read_back.holds) == (0.7, 0.7, True)


@pytest.mark.parametrize("name", MAKERS)
def test_momentum_may_go_to_zero_and_back_while_it_runs(name: str) -> None:
    run = Run(MAKERS[name])
    binding = MomentumBinding(run.optimizer)
    for value in (0.9, 0.0, 0.5):
        run.step()
        binding.write(value)
        run.step()
        assert binding.read() == value
    assert all(bool(torch.isfinite(one).all()) for one in run.model.parameters())


@pytest.mark.parametrize("kind", [MomentumBinding, Beta2Binding])
@pytest.mark.parametrize("name", ["Adam", "RMSprop"])
def test_a_binding_that_changes_nothing_leaves_the_run_bit_identical(kind: Any, name: str) -> None:
    plain = Run(MAKERS[name])
    expected = [plain.step() for _ in range(8)]
    managed = Run(MAKERS[name])
    binding = kind(managed.optimizer)
    binding.write(binding.read())
    assert [managed.step() for _ in range(8)] == expected


def test_writing_a_momentum_of_zero_leaves_the_int_that_stands_there() -> None:
    optimizer = torch.optim.SGD([parameter()], lr=0.1)
    binding = MomentumBinding(optimizer)
    binding.write(0.0)
    assert type(optimizer.param_groups[0]["momentum"]) is int
    binding.write(0.5)
    assert optimizer.param_groups[0]["momentum"] == 0.5


def test_equal_groups_stay_equal_and_others_keep_the_ratio_of_one_minus_beta() -> None:
    optimizer = adam((0.9, 0.999), (0.9, 0.99), (0.8, 0.999), (0.0, 0.999))
    binding = MomentumBinding(optimizer)
    binding.write(0.95)
    assert [group["betas"][0] for group in optimizer.param_groups] == [0.95, 0.95, pytest.approx(0.9), 0.0]
    assert [group["betas"][1] for group in optimizer.param_groups] == [0.999, 0.99, 0.999, 0.999]
    binding.write(0.1)
    assert [group["betas"][0] for group in optimizer.param_groups] == [0.1, 0.1, 0.0, 0.0]
    binding.write(0.9)
    assert [group["betas"][0] for group in optimizer.param_groups] == [0.9, 0.9, 0.8, 0.0]  # exactly as at the start


def test_momentum_and_beta2_of_one_optimizer_do_not_disturb_each_other() -> None:
    optimizer = adam((0.9, 0.999))
    one, other = MomentumBinding(optimizer), Beta2Binding(optimizer)
    one.write(0.8)
    other.write(0.95)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.95)
    assert (one.read(), other.read()) == (0.8, 0.95)


@given(st.floats(0, 0.9999), st.lists(st.floats(0, 0.9999), min_size=1, max_size=4).filter(lambda betas: max(betas) > 0))
def test_shares_of_decay_rates_stay_between_zero_and_the_value(value: float, betas: list[float]) -> None:
    longest = max(betas)
    shares = [share_of_rest(value, beta, longest) for beta in betas]
    assert all(0 <= one <= value + 1e-12 for one in shares)
    assert [share_of_rest(longest, beta, longest) for beta in betas] == betas


def test_tensors_are_filled_in_place_and_a_list_stays_a_list() -> None:
    first, second = torch.tensor(0.9), torch.tensor(0.999)
    optimizer = adam((first, second))
    binding = MomentumBinding(optimizer)
    assert binding.read() == 0.9
    binding.write(0.85)
    held = optimizer.param_groups[0]["betas"]
    assert type(held) is tuple
    assert held[0] is first
    assert held[1] is second
    assert float(first) == pytest.approx(0.85)
    assert binding.read() == 0.85  # not the 0.8500000238 that a float32 tensor makes of it
    shared = [0.9, 0.999]
    listed = torch.optim.Adam([{"params": [parameter()], "betas": shared}], lr=0.1)
    MomentumBinding(listed).write(0.5)
    assert listed.param_groups[0]["betas"] == [0.5, 0.999]
    assert shared == [0.9, 0.999]


def test_a_tensor_shared_with_another_group_is_not_filled() -> None:
    shared = torch.tensor(0.9)
    optimizer = adam((shared, torch.tensor(0.99)), (shared, torch.tensor(0.99)))
    optimizer.param_groups[0]["name"] = "head"
    with pytest.raises(ControlError, match="a tensor of its own"):
        MomentumBinding(optimizer, "head")
    MomentumBinding(optimizer).write(0.5)
    assert float(shared) == 0.5


def test_capturable_adam_with_tensor_betas_takes_steps_with_the_new_values() -> None:
    runs = []
    for beta in (0.9, 0.6):
        torch.manual_seed(0)
        one = parameter()
        optimizer = torch.optim.Adam([one], lr=torch.tensor(0.1), betas=(torch.tensor(beta), torch.tensor(0.99)), foreach=False)
        binding = MomentumBinding(optimizer)
        if beta == 0.9:
            binding.write(0.6)
        for _ in range(4):
            one.grad = torch.full((2, 2), 0.3)
            optimizer.step()
        read_back = binding.took_effect()
        assert read_back is not None
        assert read_back.holds
        runs.append(one.detach().clone())
    assert torch.equal(*runs)


@pytest.mark.parametrize(("kind", "position", "value"), [(MomentumBinding, 0, 0.5), (Beta2Binding, 1, 0.95)])
def test_a_load_does_not_undo_what_was_written_and_is_not_touched_otherwise(kind: Any, position: int, value: float) -> None:
    optimizer = adam((0.9, 0.999), (0.9, 0.999))
    saved = optimizer.state_dict()
    binding = kind(optimizer)
    optimizer.param_groups[0]["betas"] = (0.1, 0.2)
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    binding.write(value)
    optimizer.load_state_dict(saved)
    assert [group["betas"][position] for group in optimizer.param_groups] == [value, value]
    optimizer.step()
    read_back = binding.took_effect()
    assert read_back is not None
    assert read_back.holds


def test_another_hand_on_momentum_is_seen() -> None:
    optimizer = adam((0.9, 0.999))
    binding = MomentumBinding(optimizer)
    binding.write(0.8)
    optimizer.param_groups[0]["betas"] = (0.3, 0.999)
    optimizer.step()
    read_back = binding.took_effect()
    assert read_back is not None
    assert (read_back.expected, read_back.observed, read_back.holds) == (0.8, 0.3, False)
    assert binding.read() == 0.3


def test_a_key_that_vanishes_does_not_end_the_training() -> None:
    optimizer = torch.optim.SGD([parameter()], lr=0.1, momentum=0.9)
    binding = MomentumBinding(optimizer)
    binding._slots = lambda: 1 / 0  # type: ignore[assignment,method-assign] - a wrong value, on purpose
    optimizer.step()
    read_back = binding.took_effect()
    assert read_back is not None
    assert math.isnan(read_back.observed)
    assert not read_back.holds


def test_one_named_group_is_controlled_alone() -> None:
    optimizer = adam((0.9, 0.999), (0.8, 0.99))
    optimizer.param_groups[1]["name"] = "head"
    binding = MomentumBinding(optimizer, "head")
    assert (binding.name, binding.read()) == ("momentum/head", 0.8)
    binding.write(0.5)
    assert [group["betas"][0] for group in optimizer.param_groups] == [0.9, 0.5]
    with pytest.raises(OwnershipError):
        MomentumBinding(optimizer)
    binding.close()
    MomentumBinding(optimizer)


def test_where_the_second_beta_is_found() -> None:
    rmsprop = torch.optim.RMSprop([parameter()], lr=0.1)
    binding = Beta2Binding(rmsprop)
    assert binding.read() == 0.99
    binding.write(0.9)
    assert rmsprop.param_groups[0]["alpha"] == 0.9
    for without in (torch.optim.ASGD([parameter()]), torch.optim.SGD([parameter()], lr=0.1), torch.optim.LBFGS([parameter()])):
        with pytest.raises(ControlError, match="leave beta2 out of the controls"):
            Beta2Binding(without)
    assert beta2_slot({"betas": (0.9, 0.99, 0.999)}) is None


def test_what_has_no_momentum_or_no_buffers_for_one_is_refused() -> None:
    with pytest.raises(ControlError, match="leave momentum out of the controls"):
        MomentumBinding(torch.optim.Adagrad([parameter()]))
    with pytest.raises(ControlError, match="construct the optimizer with a momentum"):
        MomentumBinding(torch.optim.RMSprop([parameter()], lr=0.1))
    with pytest.raises(ControlError, match="0 <= momentum < 1"):
        MomentumBinding(torch.optim.SGD([parameter()], lr=0.1, momentum=1.0))
    bound = MomentumBinding(adam((0.9, 0.999)))
    for value in (1.0, -0.1, math.nan, math.inf, True):
        with pytest.raises(ControlError):
            bound.write(value)
    assert bound.read() == 0.9


def test_a_scheduler_that_cycles_momentum_is_refused_and_one_that_does_not_is_fine() -> None:
    optimizer = torch.optim.SGD([parameter()], lr=0.1, momentum=0.9)
    control = momentum(0.0, 0.99)
    cycling = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=10)
    with pytest.raises(OwnershipError, match="cycle_momentum=False"):
        bind(control, Training(nn.Linear(1, 1), optimizer, scheduler=cycling))
    calm = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=10, cycle_momentum=False)
    assert bind(control, Training(nn.Linear(1, 1), optimizer, scheduler=calm)).name == "momentum"
