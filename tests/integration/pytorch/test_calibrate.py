"""Calibration on live runs: what it finds, and that afterwards the run is exactly where it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import trimtab
from tests.integration.pytorch.conftest import WORKLOADS, Workload, digest, supervise
from trimtab.controls.bounds import Bounds
from trimtab.controls.catalogue import dropout, learning_rate
from trimtab.controls.envelope import Envelope, Objective
from trimtab.errors import ControlError, OwnershipError, UsageError
from trimtab.integrations.pytorch.calibration import Calibration, calibrate
from trimtab.integrations.pytorch.rate_curve import Reading, Sweep


def step_of(workload: Workload, *, schedules: bool = False) -> Callable[[Any], Tensor]:
    def step(batch: Any) -> Tensor:
        inputs, targets = batch
        workload.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(workload.model(inputs), targets)
        loss.backward()
        workload.optimizer.step()
        if schedules and workload.scheduler is not None:
            workload.scheduler.step()
        return loss

    return step


def measure(workload: Workload, step: Callable[[Any], Any] | None = None, **options: Any) -> Calibration:
    known: dict[str, Any] = {"loader": workload.loader, "scheduler": workload.scheduler, "num_steps": 40}
    return calibrate(workload.model, workload.optimizer, step or step_of(workload), **(known | options))


def everything(workload: Workload) -> list[Any]:
    model, optimizer = workload.model, workload.optimizer
    scheduler = None if workload.scheduler is None else repr(workload.scheduler.state_dict())
    return [
        digest(model, optimizer),
        repr(np.random.get_state()),
        workload.loader.state_dict(),
        scheduler,
        len(optimizer.state),
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if parameter.grad is None else parameter.grad.tolist() for parameter in model.parameters()],
    ]


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("before", [0, 7])
def test_training_goes_on_bit_for_bit_as_without_it(name: str, before: int) -> None:
    plain, measured = WORKLOADS[name](3), WORKLOADS[name](3)
    plain.train(before + 20)
    measured = WORKLOADS[name](3)
    if before:
        measured.train(before)
    was = everything(measured)
    found = measure(measured, step_of(measured, schedules=True))
    assert len(found.sweeps) == 3
    assert everything(measured) == was
    measured.train(20)
    assert measured.hashes == plain.hashes


class Odd(Exception):
    pass


@pytest.mark.parametrize("error", [Odd, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("at", [1, 17, 65])
def test_whatever_the_step_raises_the_run_is_where_it_was(error: type[BaseException], at: int) -> None:
    workload = WORKLOADS["batch_norm"](1)
    workload.train(5)
    layers: Any = workload.model
    layers[0].weight.requires_grad_(False)
    layers[1].eval()
    was, groups = everything(workload), [group["lr"] for group in workload.optimizer.param_groups]
    step, calls = step_of(workload), 0

    def failing(batch: Any) -> Any:
        nonlocal calls
        calls += 1
        loss = step(batch)
        layers[0].weight.requires_grad_(True)
        workload.model.train()
        random.random()
        np.random.random()
        if calls == at:
            raise error("enough")
        return loss

    with pytest.raises(error, match="enough"):
        measure(workload, failing, low=1e-6, high=1e-3)
    assert everything(workload) == was
    assert [group["lr"] for group in workload.optimizer.param_groups] == groups
    assert len(workload.optimizer._optimizer_step_pre_hooks) == 0
    measure(workload)  # the learning rate was given back


def test_a_step_that_fails_inside_the_optimizer_leaves_the_schedules_rate() -> None:
    workload = WORKLOADS["mlp"](0)
    was = everything(workload)

    def failing(batch: Any) -> Any:
        workload.optimizer.zero_grad()
        next(workload.model.parameters()).grad = torch.zeros(32, 12, dtype=torch.float32).to_sparse()
        workload.optimizer.step()

    with pytest.raises(RuntimeError, match="sparse"):
        measure(workload, failing)
    assert everything(workload) == was


def test_gradients_are_the_same_tensors_with_the_same_values() -> None:
    workload = WORKLOADS["mlp"](0)
    first, *others = workload.model.parameters()
    first.grad = torch.full_like(first, 3.0)
    held = first.grad
    measure(workload)
    assert first.grad is held
    assert torch.equal(held, torch.full_like(first, 3.0))
    assert all(parameter.grad is None for parameter in others)


def test_parameters_beside_the_model_are_restored_too() -> None:
    workload = WORKLOADS["mlp"](0)
    scale = nn.Parameter(torch.ones(3))
    workload.optimizer.add_param_group({"params": [scale], "lr": 1e-3})

    def step(batch: Any) -> Tensor:
        workload.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(workload.model(batch[0]) * scale, batch[1])
        loss.backward()
        workload.optimizer.step()
        return loss

    measure(workload, step, scheduler=None)
    assert torch.equal(scale.detach(), torch.ones(3))
    assert scale.grad is None


@pytest.mark.parametrize("generator", [None, 5])
def test_a_plain_loader_gives_the_same_batches_afterwards(generator: int | None) -> None:
    def batches(with_calibration: bool) -> list[list[float]]:
        workload = WORKLOADS["mlp"](2)
        own = None if generator is None else torch.Generator().manual_seed(generator)
        data = TensorDataset(torch.randn(48, 12), torch.randint(0, 3, (48,)))
        loader: DataLoader[Any] = DataLoader(data, batch_size=16, shuffle=True, generator=own)
        if with_calibration:
            measure(workload, loader=loader)
        return [inputs.flatten().tolist() for inputs, _ in loader]

    assert batches(True) == batches(False)


def test_groups_keep_their_ratios_and_the_schedule_its_rate() -> None:
    workload = WORKLOADS["batch_norm"](0)
    inner, used, between = step_of(workload), list[tuple[float, ...]](), list[tuple[float, ...]]()
    rates = lambda: tuple(group["lr"] for group in workload.optimizer.param_groups)  # noqa: E731 - read again at every call
    workload.optimizer.register_step_pre_hook(lambda *_: None)

    def step(batch: Any) -> Tensor:
        seen = workload.optimizer.register_step_pre_hook(lambda *_: used.append(rates()))
        loss = inner(batch)
        seen.remove()
        between.append(rates())
        return loss

    measure(workload, step, low=1e-6, high=1e-3)
    assert set(between) == {(0.01, 0.05)}
    assert [second / first for first, second in used] == pytest.approx([5.0] * len(used))
    tops = [second for _, second in used]
    assert (tops[0], tops[39]) == (pytest.approx(1e-6), pytest.approx(1e-3))
    assert tops[:40] == tops[40:80] == tops[80:]


def test_every_sweep_has_batches_of_its_own_and_starts_from_the_same_weights() -> None:
    workload = WORKLOADS["mlp"](0)
    seen, weights, inner = list[float](), list[Tensor](), step_of(workload)

    def step(batch: Any) -> Tensor:
        seen.append(float(batch[0].sum()))
        weights.append(next(workload.model.parameters()).detach().clone())
        return inner(batch)

    measure(workload, step, low=1e-6, high=1e-3, num_steps=30)
    first, second, third = seen[:30], seen[30:60], seen[60:]
    assert first != second != third
    assert torch.equal(weights[0], weights[30])
    assert torch.equal(weights[0], weights[60])
    assert not torch.equal(weights[0], weights[29])


def test_it_finds_rates_that_train_and_rates_that_do_not() -> None:
    for seed in range(3):
        found = measure(WORKLOADS["batch_norm"](seed), num_steps=100)
        assert found.is_conclusive
        assert found.low is not None
        assert found.high is not None
        assert found.steepest is not None
        assert found.low < found.steepest < found.breaks[0]
        start, inside, beyond = trained(seed, 1e-9), trained(seed, found.high), trained(seed, 30 * found.breaks[0])
        assert inside < 0.8 * start
        assert not beyond < 0.8 * start


def trained(seed: int, rate: float) -> float:
    """Train at a constant rate and return the mean of the last losses."""
    workload = WORKLOADS["batch_norm"](seed)
    for group in workload.optimizer.param_groups:
        group["lr"] = group["initial_lr"] = rate * group["lr"] / 0.05
    workload.scheduler = None
    workload.train(80)
    return sum(workload.losses[-10:]) / 10


def test_a_run_that_cannot_learn_gives_no_bounds() -> None:
    workload = WORKLOADS["mlp"](0)
    noise = torch.Generator().manual_seed(0)
    inner = step_of(workload)

    def step(batch: Any) -> float:
        inner(batch)
        return float(torch.randn((), generator=noise))

    found = measure(workload, step, low=1e-9, high=1e-8)
    assert not found.is_conclusive
    assert (found.low, found.high, found.suggested) == (None, None, None)
    assert "nothing found" in found.describe()
    assert found.narrow(ENVELOPE) == ENVELOPE
    assert found.notes(ENVELOPE) == ("the bounds stay as they are",)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_steps": 10}, "num_steps"),
        ({"num_steps": True}, "num_steps"),
        ({"num_sweeps": 2}, "num_sweeps"),
        ({"low": 0.0}, "0 < low < high"),
        ({"low": 1.0, "high": 0.5}, "0 < low < high"),
        ({"high": float("nan")}, "0 < low < high"),
        ({"loader": iter([1])}, "pass the loader itself"),
        ({"loader": []}, "the loader has no batch"),
        ({"step": lambda _: 1.0}, "takes no optimizer step"),
        ({"step": lambda _: None}, "returns no loss"),
        ({"step": lambda _: torch.ones(2)}, "returns no loss"),
        ({"extra_state": {"ema": 3}}, "no state that could be saved"),
    ],
)
def test_what_cannot_be_measured_is_refused_and_nothing_is_changed(options: dict[str, Any], says: str) -> None:
    workload = WORKLOADS["mlp"](0)
    was = everything(workload)
    with pytest.raises(UsageError, match=says):
        measure(workload, **options)
    assert everything(workload) == was


def test_persistent_workers_are_refused() -> None:
    data = TensorDataset(torch.randn(8, 12))
    loader: Iterable[Any] = DataLoader(data, batch_size=4, num_workers=1, persistent_workers=True)
    with pytest.raises(UsageError, match="persistent"):
        measure(WORKLOADS["mlp"](0), loader=loader)


def test_a_supervised_learning_rate_is_not_touched(tmp_path: Path) -> None:
    workload = WORKLOADS["mlp"](0)
    with supervise(workload, tmp_path / "run") as supervisor:
        was = everything(workload)
        with pytest.raises(OwnershipError, match="already supervised"):
            measure(workload)
        assert everything(workload) == was
        assert supervisor.recipe["learning_rate"] == 1e-2


ENVELOPE = Envelope(Objective("val/loss", "minimize"), (learning_rate(1e-5, 3e-2), dropout(0.0, 0.5)))


def a_calibration(*breaks: float | None, reference: float = 1e-3, falls_from: float = 1e-4) -> Calibration:
    readings = tuple(Reading(falls_from, 1e-3, 5e-3, at) for at in breaks)
    return Calibration(reference, (1e-6, 1.0), (Sweep((1.0,), (1.0,), "finished"),) * len(breaks), readings)


def bounds_after(found: Calibration, envelope: Envelope = ENVELOPE) -> tuple[float, float]:
    bounds = found.narrow(envelope).control("learning_rate").bounds
    return bounds.low, bounds.high


def test_the_lowest_break_decides_with_a_margin() -> None:
    found = a_calibration(0.06, 0.02, 0.03)
    assert (found.low, found.high, found.suggested) == (1e-6, 4e-3, 1e-3)
    assert bounds_after(found) == (1e-5, 4e-3)
    assert found.describe() == "the loss falls from 0.0001, fastest at 0.001, breaks at 0.02 to 0.06 over 3 sweeps"
    assert found.notes(ENVELOPE) == ("narrowed high 0.03 -> 0.004",)
    assert found.narrow(ENVELOPE).control("dropout") == ENVELOPE.control("dropout")


def test_bounds_are_never_widened() -> None:
    assert bounds_after(a_calibration(0.9, 0.9, 0.9)) == (1e-5, 3e-2)
    assert bounds_after(a_calibration(None, None, None)) == (1e-5, 3e-2)
    assert bounds_after(a_calibration(0.02, 0.02, 0.02, falls_from=0.04)) == (4e-4, 4e-3)


def test_the_starting_rate_stays_inside_and_the_conflict_is_said() -> None:
    above = a_calibration(0.02, 0.02, 0.02, reference=1e-2)
    assert bounds_after(above) == (1e-5, 1e-2)
    assert "the run starts at 0.01, above the 0.004 found: start lower, such as 0.001" in above.notes(ENVELOPE)
    below = a_calibration(0.02, 0.02, 0.02, reference=2e-5, falls_from=0.04)
    assert bounds_after(below) == (2e-5, 4e-3)
    assert any("it will hardly learn" in note for note in below.notes(ENVELOPE))
    outside = a_calibration(0.02, 0.02, 0.02, reference=0.5)
    assert bounds_after(outside) == (1e-5, 4e-3)
    assert any("attaching will be refused" in note for note in outside.notes(ENVELOPE))


def test_found_bounds_that_miss_the_envelope_leave_it_alone() -> None:
    assert bounds_after(a_calibration(1e-5, 1e-5, 1e-5, reference=1.0)) == (1e-5, 3e-2)


def test_sweeps_that_disagree_or_show_nothing_are_said() -> None:
    assert any("disagree" in note for note in a_calibration(0.01, 0.02, 0.04).notes(ENVELOPE))
    assert not any("disagree" in note for note in a_calibration(0.01, 0.02, 0.03).notes(ENVELOPE))
    two = a_calibration(0.01, 0.02, 0.03)
    lost = Calibration(two.reference, two.tried, two.sweeps, (*two.readings[:2], None))
    assert lost.high == 2e-3
    assert any("in 1 of 3 sweeps no rate lowered the loss" in note for note in lost.notes(ENVELOPE))
    assert not Calibration(two.reference, two.tried, two.sweeps, (two.readings[0], None, None)).is_conclusive


def test_an_envelope_without_the_learning_rate_is_refused() -> None:
    with pytest.raises(ControlError, match="no such control"):
        a_calibration(0.01, 0.01, 0.01).narrow(Envelope(ENVELOPE.objective, (dropout(0.0, 0.5),)))


def test_the_narrowed_envelope_can_be_attached(tmp_path: Path) -> None:
    workload = WORKLOADS["mlp"](0)
    found = measure(workload, num_steps=60)
    envelope = found.narrow(Envelope(ENVELOPE.objective, (learning_rate(1e-7, 10.0),)))
    bounds = envelope.control("learning_rate").bounds
    assert bounds != Bounds(1e-7, 10.0)
    assert bounds.contain(found.reference)
    with supervise(workload, tmp_path / "run", envelope=envelope) as supervisor:
        assert supervisor.recipe["learning_rate"] == found.reference
    assert isinstance(workload.loader, trimtab.ResumableLoader)
