from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.unit.integrations.pytorch.small_runs import SCHEDULERS, Run, advance
from trimtab.controls.bounds import Bounds
from trimtab.errors import ControlError, OwnershipError
from trimtab.integrations.pytorch.bindings.learning_rate import LearningRateBinding


def parameters(count: int = 1) -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2)) for _ in range(count)]


def give_gradients(optimizer: torch.optim.Optimizer, value: float = 1.0) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, value)


def two_groups(**first: Any) -> torch.optim.SGD:
    one, other = parameters(2)
    return torch.optim.SGD([{"params": [one], "lr": 0.1, **first}, {"params": [other], "lr": 0.02}], lr=0.1)


def moved(optimizer: torch.optim.Optimizer) -> list[float]:
    """Step plain SGD on gradients of 1: what each group moved is the rate it used."""
    give_gradients(optimizer)
    before = [group["params"][0].detach().clone() for group in optimizer.param_groups]
    optimizer.step()
    return [float((b - g["params"][0])[0].detach()) for b, g in zip(before, optimizer.param_groups, strict=True)]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_factor_holds_under_every_scheduler_and_leaves_its_values(name: str) -> None:
    alone, managed = two_groups(), two_groups()
    schedules = SCHEDULERS[name](alone), SCHEDULERS[name](managed)
    binding = LearningRateBinding(managed)
    binding.write(binding.read() / 4)
    for _ in range(12):
        scheduled = [group["lr"] for group in alone.param_groups]
        assert moved(alone) == pytest.approx(scheduled, rel=1e-5, abs=1e-6)
        assert moved(managed) == pytest.approx([rate / 4 for rate in scheduled], rel=1e-5, abs=1e-6)
        assert [group["lr"] for group in managed.param_groups] == scheduled
        read_back = binding.took_effect()
        assert read_back is not None
        assert read_back.holds
        assert read_back.observed == pytest.approx(max(scheduled) / 4)
        assert binding.effective_rate == read_back.observed
        for scheduler in schedules:
            advance(scheduler)
    assert binding.steps_run == 12


def test_the_reference_prefers_the_peak_of_the_schedule() -> None:
    warm_up = two_groups()
    SCHEDULERS["LinearLR"](warm_up)
    assert warm_up.param_groups[0]["lr"] == pytest.approx(0.01)
    assert LearningRateBinding(warm_up).reference == 0.1
    one_cycle = two_groups()
    SCHEDULERS["OneCycleLR"](one_cycle)
    assert LearningRateBinding(one_cycle).reference == 0.2


@pytest.mark.parametrize("capturable_like", [torch.tensor(0.1), torch.tensor(0.1, dtype=torch.float64)])
def test_a_tensor_rate_stays_the_same_tensor_even_when_groups_share_it(capturable_like: Tensor) -> None:
    rate = capturable_like.clone()
    one, other = parameters(2)
    optimizer = torch.optim.SGD([{"params": [one]}, {"params": [other]}], lr=rate, foreach=False)
    assert optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"]
    binding = LearningRateBinding(optimizer)
    binding.write(binding.read() / 2)
    assert moved(optimizer) == pytest.approx([0.05, 0.05])
    assert all(group["lr"] is rate for group in optimizer.param_groups)
    assert torch.equal(rate, capturable_like)
    read_back = binding.took_effect()
    assert read_back is not None
    assert read_back.holds


def test_the_arithmetic_for_an_accelerator_is_that_of_the_host() -> None:
    from trimtab.integrations.pytorch.bindings.learning_rate import _targets_on_device

    for bounds in (None, Bounds(0.01, 0.15), Bounds(0.2, 0.3), Bounds(0.001, 0.05)):
        for factor in (0.01, 0.5, 1.5, 8.0):
            optimizer = two_groups()
            binding = LearningRateBinding(optimizer, bounds)
            binding.write(binding.reference * factor)
            host = binding._targets((0.1, 0.02), binding.factor) or (0.1, 0.02)
            device = _targets_on_device(torch.tensor([0.1, 0.02], dtype=torch.float64), factor, bounds)
            assert device.tolist() == pytest.approx(host)
    silent = torch.tensor([0.0, 0.0])
    assert torch.equal(_targets_on_device(silent, 0.5, None), silent)


def test_groups_are_found_again_after_a_load() -> None:
    optimizer = two_groups()
    binding = LearningRateBinding(optimizer)
    saved = optimizer.state_dict()
    binding.write(0.05)
    moved(optimizer)
    optimizer.load_state_dict(saved)
    assert moved(optimizer) == pytest.approx([0.05, 0.01])
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.02]
    read_back = binding.took_effect()
    assert read_back is not None
    assert read_back.holds


class Faulty(torch.optim.SGD):
    broken = False

    def step(self, closure: Any = None) -> Any:
        if self.broken:
            raise RuntimeError("out of memory")
        return super().step(closure)


@pytest.mark.parametrize("contact", ["step", "read", "write", "state_dict", "close"])
def test_a_step_that_raises_leaves_no_scaled_rate_behind(contact: str) -> None:
    optimizer = Faulty(parameters(), lr=0.1)
    binding = LearningRateBinding(optimizer)
    binding.write(0.05)
    optimizer.broken = True
    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert binding.took_effect() is None
    optimizer.broken = False
    if contact == "step":
        assert moved(optimizer) == pytest.approx([0.05])
        assert binding.steps_run == 1  # Faulty.step and SGD.step may both run the hooks
    elif contact == "write":
        binding.write(0.07)
    else:
        {"read": binding.read, "state_dict": optimizer.state_dict, "close": binding.close}[contact]()
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_rate_moved_after_a_failed_step_is_kept() -> None:
    optimizer = Faulty(parameters(), lr=0.1)
    binding = LearningRateBinding(optimizer)
    binding.write(0.05)
    optimizer.broken = True
    with pytest.raises(RuntimeError):
        optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.08
    binding.read()
    assert optimizer.param_groups[0]["lr"] == 0.08


@pytest.mark.parametrize("scheduler", [None, "CosineAnnealingLR"])
def test_a_binding_that_changes_nothing_leaves_the_run_bit_identical(scheduler: str | None) -> None:
    make = None if scheduler is None else SCHEDULERS[scheduler]
    plain = Run(make_scheduler=make)
    expected = [plain.step() for _ in range(50)]
    managed = Run(make_scheduler=make)
    binding = LearningRateBinding(managed.optimizer, Bounds(1e-3, 1e-2))
    binding.write(binding.read())
    assert [managed.step() for _ in range(50)] == expected
    read_back = binding.took_effect()
    assert read_back is not None
    assert read_back.holds


def test_a_written_factor_does_change_the_run() -> None:
    plain = Run()
    managed = Run()
    LearningRateBinding(managed.optimizer).write(0.01)
    assert plain.step() != managed.step()


def test_a_hook_that_overwrites_the_rate_is_seen() -> None:
    optimizer = two_groups()
    binding = LearningRateBinding(optimizer)

    def overwrite(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        optimizer.param_groups[1]["lr"] = 0.5

    optimizer.register_step_pre_hook(overwrite)
    binding.write(0.05)
    moved(optimizer)
    read_back = binding.took_effect()
    assert read_back is not None
    assert not read_back.holds
    assert read_back.expected == 0.05
    assert read_back.observed == 0.5


def test_no_read_back_before_a_step_has_run() -> None:
    optimizer = two_groups()
    binding = LearningRateBinding(optimizer)
    assert binding.took_effect() is None
    assert binding.effective_rate is None
    moved(optimizer)
    assert binding.took_effect() is not None
    binding.write(0.05)
    assert binding.took_effect() is None


def test_a_step_with_a_closure_runs_at_the_scaled_rate() -> None:
    (parameter,) = parameters()
    optimizer = torch.optim.LBFGS([parameter], lr=0.1)
    binding = LearningRateBinding(optimizer)
    binding.write(0.05)
    seen: list[float] = []

    def closure() -> Tensor:
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert set(seen) == {0.05}
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert binding.steps_run == 1


@given(
    scheduled=st.floats(1e-9, 10),
    ratio=st.floats(0.01, 1),
    value=st.floats(1e-4, 1.0),
    low=st.floats(1e-5, 1e-1),
    span=st.floats(1, 1e3),
)
def test_the_factor_never_takes_a_rate_out_of_bounds(
    scheduled: float, ratio: float, value: float, low: float, span: float
) -> None:
    bounds = Bounds(low, low * span)
    optimizer = two_groups()
    binding = LearningRateBinding(optimizer, bounds)
    binding.write(value)
    for group, rate in zip(optimizer.param_groups, (scheduled, scheduled * ratio), strict=True):
        group["lr"] = rate
    used: list[float] = []
    optimizer.register_step_pre_hook(lambda o, a, k: used.extend(g["lr"] for g in o.param_groups))
    optimizer.step()
    top = max(used)
    assert min(bounds.low, scheduled) <= top <= max(bounds.high, scheduled)
    assert used[1] / used[0] == pytest.approx(ratio)
    if bounds.low <= scheduled * binding.factor <= bounds.high:
        assert top == pytest.approx(scheduled * binding.factor)
    assert [group["lr"] for group in optimizer.param_groups] == [scheduled, scheduled * ratio]


def test_a_warm_up_from_zero_is_left_at_zero() -> None:
    optimizer = two_groups()
    binding = LearningRateBinding(optimizer, Bounds(0.01, 0.2))
    binding.write(0.2)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    assert moved(optimizer) == [0.0, 0.0]
    assert binding.took_effect() is None, "a factor on a rate of 0 shows nothing yet"
    for group in optimizer.param_groups:
        group["lr"] = 0.05
    assert moved(optimizer) == pytest.approx([0.1, 0.1])
    read_back = binding.took_effect()
    assert read_back is not None
    assert read_back.holds


@pytest.mark.parametrize(
    ("scheduled", "value", "used", "holds"),
    [
        (0.005, 0.05, 0.005, False),  # below the bounds by itself: half of it is farther out
        (0.005, 0.2, 0.01, True),
        (0.05, 0.001, 0.01, True),  # cut short by the lower bound, but lower than before
        (0.01, 0.05, 0.01, False),  # at the bound
        (0.5, 0.2, 0.5, False),  # above the bounds by itself: twice of it is farther out
        (0.5, 0.05, 0.25, True),
    ],
)
def test_a_change_of_which_the_bounds_let_nothing_through_does_not_hold(
    scheduled: float, value: float, used: float, holds: bool
) -> None:
    optimizer = two_groups()
    binding = LearningRateBinding(optimizer, Bounds(0.01, 0.2))
    moved(optimizer)
    for group in optimizer.param_groups:
        group["lr"] = scheduled
    binding.write(value)
    for _ in range(2):  # also when asked later: until the next change
        assert moved(optimizer) == pytest.approx([used, used])
        read_back = binding.took_effect()
        assert read_back is not None
        assert (read_back.holds, read_back.observed) == (holds, pytest.approx(used))
        assert read_back.expected == pytest.approx(used if holds else scheduled * value / 0.1)
        said = f"the schedule's own rate is {scheduled:g}, and nothing of the change fits into 0.01 to 0.2"
        assert read_back.detail == ("" if holds else said)
    binding.write(0.1)
    moved(optimizer)
    back = binding.took_effect()
    assert back is not None
    assert back.holds, "the schedule's own rate is in effect, as it should be"


def test_a_value_written_again_and_a_change_taken_back_before_a_step_hold() -> None:
    optimizer = two_groups()
    binding = LearningRateBinding(optimizer, Bounds(0.01, 0.2))
    for group in optimizer.param_groups:
        group["lr"] = 0.005
    for values, holds in (((0.1,), True), ((0.05, 0.1), True), ((0.05,), False), ((0.02, 0.05), True), ((0.02,), False)):
        for value in values:
            binding.write(value)
        moved(optimizer)
        read_back = binding.took_effect()
        assert read_back is not None
        assert read_back.holds is holds


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, True])
def test_a_value_that_is_no_rate_is_refused(value: float) -> None:
    binding = LearningRateBinding(two_groups())
    with pytest.raises(ControlError):
        binding.write(value)
    assert binding.factor == 1.0


@pytest.mark.parametrize("rate", [math.nan, math.inf, -0.1, None])
def test_a_group_without_a_usable_rate_is_refused(rate: float | None) -> None:
    optimizer = two_groups()
    optimizer.param_groups[1]["lr"] = rate
    with pytest.raises(ControlError, match="group 1"):
        LearningRateBinding(optimizer)


def test_an_optimizer_that_cannot_be_supervised_is_refused() -> None:
    empty = two_groups()
    empty.param_groups.clear()
    with pytest.raises(ControlError, match="no parameter groups"):
        LearningRateBinding(empty)
    with pytest.raises(ControlError, match="not an optimizer"):
        LearningRateBinding(object())  # pyright: ignore[reportArgumentType] - what a user may pass
    still = torch.optim.SGD(parameters(), lr=0.0)
    with pytest.raises(ControlError, match="every learning rate is 0"):
        LearningRateBinding(still)


def test_a_wrapper_is_unwrapped_and_close_removes_every_hook() -> None:
    optimizer = two_groups()
    wrapper: Any = SimpleNamespace(optimizer=SimpleNamespace())
    wrapper.optimizer = optimizer
    binding = LearningRateBinding(wrapper)
    with pytest.raises(OwnershipError, match="already supervised"):
        LearningRateBinding(optimizer)
    binding.write(0.05)
    binding.close()
    assert moved(optimizer) == pytest.approx([0.1, 0.02])
    assert LearningRateBinding(optimizer).read() == 0.1


def test_one_named_group_is_controlled_alone_and_beside_another() -> None:
    optimizer = two_groups(name="body")
    optimizer.param_groups[1]["name"] = "head"
    body = LearningRateBinding(optimizer, group="body")
    head = LearningRateBinding(optimizer, group="head")
    assert (body.name, body.read(), head.read()) == ("learning_rate/body", 0.1, 0.02)
    head.write(0.01)
    nameless = optimizer.state_dict()
    for group in nameless["param_groups"]:
        del group["name"]
    optimizer.load_state_dict(nameless)
    assert moved(optimizer) == pytest.approx([0.1, 0.01])
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.02]
    read_backs = [binding.took_effect() for binding in (body, head)]
    assert [read_back is not None and read_back.holds for read_back in read_backs] == [True, True]
    with pytest.raises(OwnershipError):
        LearningRateBinding(optimizer)
    with pytest.raises(ControlError, match="did you mean 'head'"):
        LearningRateBinding(two_groups(name="head"), group="heat")
