"""Compiled, fused, foreach and capturable optimizers, rates kept as tensors, and steps that a gradient scaler skips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

import trimtab
from tests.integration.pytorch.conftest import Workload, mlp, supervise
from tests.integration.pytorch.managed import a_value, adjust, boundary, free, records, script
from trimtab.ledger.record import ActionApplied, ReadBackRecorded, RunStarted, SymptomObserved

# Torch's own, while it compiles.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:Profiler record function")

AdamW, SGD = torch.optim.AdamW, torch.optim.SGD
RATES = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.11)
RATE = free("learning_rate", 1e-6, 1.0, *RATES)

# The groups' rates are 0.1 and 0.025, and stay in that ratio.
OPTIMIZERS: dict[str, Callable[[list[Any]], torch.optim.Optimizer]] = {
    "plain": lambda groups: AdamW(groups, lr=0.1),
    "fused": lambda groups: AdamW(groups, lr=0.1, fused=True),
    "foreach": lambda groups: AdamW(groups, lr=0.1, foreach=True),
    "tensor": lambda groups: AdamW(_as_tensors(groups), lr=torch.tensor(0.1)),
    "tensor, fused": lambda groups: AdamW(_as_tensors(groups), lr=torch.tensor(0.1), fused=True),
    "tensor of doubles": lambda groups: SGD(_as_tensors(groups, torch.float64), lr=torch.tensor(0.1, dtype=torch.float64)),
}


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def ran_uncompiled() -> bool:
    """Whether torch gave up on compiling something, because it had too many graphs."""
    return any("recompile limit" in problem.lower() for problem in counters["unimplemented"])


def _as_tensors(groups: list[Any], dtype: torch.dtype = torch.float32) -> list[Any]:
    return [group | ({"lr": torch.tensor(group["lr"], dtype=dtype)} if "lr" in group else {}) for group in groups]


def workload_of(make: Callable[[list[Any]], torch.optim.Optimizer]) -> Workload:
    """Return a run without a schedule, of two groups."""
    workload = mlp(0)
    first, second = workload.model[0], workload.model[3]  # type: ignore[index] - it is a Sequential
    workload.optimizer = make([{"params": list(first.parameters())}, {"params": list(second.parameters()), "lr": 0.025}])
    workload.scheduler = None
    return workload


def used(optimizer: torch.optim.Optimizer) -> list[tuple[float, ...]]:
    """Return a list that grows by the rates of each step."""
    rates: list[tuple[float, ...]] = []
    optimizer.register_step_pre_hook(lambda own, *_: rates.append(tuple(float(group["lr"]) for group in own.param_groups)))
    return rates


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_change_scales_every_group_inside_the_step_and_leaves_what_holds_the_rate(name: str, tmp_path: Path) -> None:
    workload = workload_of(OPTIMIZERS[name])
    held = [group["lr"] for group in workload.optimizer.param_groups]
    values = [float(rate) for rate in held]
    plan = script((10, adjust(learning_rate=0.05)))
    with supervise(workload, tmp_path / "run", plan, envelope=boundary((RATE,))) as supervisor:
        rates = used(workload.optimizer)
        workload.train(20, supervisor, a_value())
        found = [group["lr"] for group in workload.optimizer.param_groups]
    assert rates[0] == pytest.approx((0.1, 0.025))
    assert rates[-1] == pytest.approx((0.05, 0.0125))
    assert [float(rate) for rate in found] == values
    assert all(after is before for before, after in zip(held, found, strict=True) if isinstance(before, Tensor))
    (read_back,) = records(tmp_path / "run", ReadBackRecorded)
    assert [result.holds for result in read_back.results] == [True]
    assert read_back.results[0].observed == pytest.approx(0.05)


def test_torch_itself_refuses_a_tensor_rate_with_foreach() -> None:
    # So a float must never become a tensor, nor foreach be set, on the way to a new rate.
    with pytest.raises(ValueError, match="lr as a Tensor is not supported for capturable=False and foreach=True"):
        AdamW([nn.Parameter(torch.ones(1))], lr=torch.tensor(0.1), foreach=True)


def test_a_capturable_optimizer_keeps_its_tensor_and_is_told_about_graphs(tmp_path: Path) -> None:
    class Capturable(SGD):  # torch's own run on accelerators only
        def __init__(self, groups: list[Any]) -> None:
            super().__init__(groups, lr=torch.tensor(0.1))
            for group in self.param_groups:
                group["capturable"] = True

    workload = workload_of(lambda groups: Capturable(_as_tensors(groups)))
    held = workload.optimizer.param_groups[0]["lr"]
    plan = script((10, adjust(learning_rate=0.05)))
    with supervise(workload, tmp_path / "run", plan, envelope=boundary((RATE,))) as supervisor:
        rates = used(workload.optimizer)
        workload.train(20, supervisor, a_value())
    assert workload.optimizer.param_groups[0]["lr"] is held
    assert rates[-1] == pytest.approx((0.05, 0.0125))
    (started,) = records(tmp_path / "run", RunStarted)
    assert started.notes[-1].startswith("learning_rate: live: a step replayed from a CUDA graph runs no hooks")


@pytest.mark.parametrize(
    ("how", "is_scheduled"), [("in place", False), ("in place", True), ("a function", False), ("under another name", False)]
)
def test_a_compiled_step_with_a_tensor_rate_is_compiled_once(how: str, is_scheduled: bool, tmp_path: Path) -> None:
    workload = workload_of(OPTIMIZERS["tensor"])
    if is_scheduled:
        workload.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(workload.optimizer, 1000)
    counter = CompileCounterWithBackend("aot_eager")
    step: Any = workload.optimizer.step
    if how == "in place":
        step = workload.optimizer.step = torch.compile(step, backend=counter)
    plan = script(*((10 * (at + 1), adjust(learning_rate=rate)) for at, rate in enumerate(RATES)))
    with supervise(workload, tmp_path / "run", plan, envelope=boundary((RATE,))) as supervisor:
        if how == "under another name":
            step = torch.compile(step, backend=counter)
        elif how == "a function":
            step = torch.compile(_calls(workload.optimizer), backend=counter)
        moved = _train_with(workload, step, supervisor, 115)
    values = [record.recipe["learning_rate"] for record in records(tmp_path / "run", ActionApplied)]
    assert values == list(RATES)
    assert counter.frame_count == 1
    assert not ran_uncompiled()
    assert all(result.holds for record in records(tmp_path / "run", ReadBackRecorded) for result in record.results)
    # Adam's steps are as large as the rate, so the weights themselves say that the compiled step took it.
    assert moved[-1] == pytest.approx(RATES[-1], rel=0.3)
    assert moved[12] == pytest.approx(RATES[0], rel=0.3)


def _calls(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    def function() -> None:
        optimizer.step()

    return function


def _train_with(workload: Workload, step: Callable[[], Any], supervisor: trimtab.Supervisor, steps: int) -> list[float]:
    """Train on one constant gradient with a step of its own; return by how much the first weight moved in each."""
    weight = next(workload.model.parameters())
    moved: list[float] = []
    for _ in range(steps):
        for parameter in workload.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        before = weight.detach().clone()
        step()
        if workload.scheduler is not None:
            workload.scheduler.step()
        moved.append(float((before - weight.detach()).abs().max()))
        supervisor.step(loss=1.0)
        if supervisor.evaluation_due:
            supervisor.evaluated({"val/loss": 1.0})
    return moved


@pytest.mark.parametrize(
    ("name", "is_bounded"),
    [("learning_rate", True), ("weight_decay", True), ("momentum", True), ("weight_decay", False)],
)
def test_numbers_of_a_compiled_step_stay_within_what_torch_compiles(
    name: str, is_bounded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_bounded:  # the counterproof: without the budget, torch gives up where each value is a constant
        monkeypatch.setattr("trimtab.integrations.pytorch.compilation._limit", lambda: 100)
    control = {
        "learning_rate": RATE,
        "weight_decay": free("weight_decay", 0.0, 1.0, *RATES),
        "momentum": trimtab.momentum(0.0, 0.9, moves=trimtab.SetTo(RATES), largest_change=0.9, dwell_steps=0),
    }[name]
    workload = workload_of(lambda groups: SGD(groups, lr=0.1, momentum=0.5, weight_decay=0.001, foreach=True))
    counter = CompileCounterWithBackend("aot_eager")
    workload.optimizer.step = torch.compile(workload.optimizer.step, backend=counter)
    plan = script(*((10 * (at + 1), adjust(**{name: value})) for at, value in enumerate(RATES)))
    with supervise(workload, tmp_path / "run", plan, envelope=boundary((control,))) as supervisor:
        _train_with(workload, workload.optimizer.step, supervisor, 115)
    values = [record.recipe[name] for record in records(tmp_path / "run", ActionApplied)]
    (started,) = records(tmp_path / "run", RunStarted)
    if is_bounded:
        assert values == list(RATES[:6])
        assert not ran_uncompiled()
        assert started.envelope.control(name).max_values == 7
        assert started.notes[-1] == (
            f"{name}: recompiles: each new value recompiles the optimizer step: at most 7 in this run, the first included "
            "(torch._dynamo.config.recompile_limit=8)"
        )
    else:
        assert values == list(RATES)
        assert ran_uncompiled()


def test_a_compiled_step_is_told_of_its_schedule_and_a_compiled_model_of_what_cannot_be_seen() -> None:
    workload = mlp(0)
    controls = [RATE, trimtab.weight_decay(0.0, 1.0)]

    def said() -> dict[str, str]:
        found = trimtab.preflight(workload.model, workload.optimizer, scheduler=workload.scheduler, controls=controls)
        return {finding.control.name: f"{finding.answer}: {finding.reason}" for finding in found.findings}

    assert said() == {"learning_rate": "live: ", "weight_decay": "live: "}
    compiled = torch.compile(workload.model, backend="eager")
    unseen = "live: if a compiled function calls optimizer.step(), each new value recompiles it: that cannot be seen here"
    assert said() == {"learning_rate": unseen, "weight_decay": unseen}
    del compiled
    workload.optimizer.step = torch.compile(workload.optimizer.step, backend="eager")
    assert said()["learning_rate"].startswith("live: each new rate of the schedule recompiles the optimizer step anyway")
    assert said()["weight_decay"].startswith("recompiles: each new value recompiles the optimizer step: at most 7 ")


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_gradient_scaler_skips_is_no_fault_and_no_proof(fused: bool, tmp_path: Path) -> None:
    workload = workload_of(lambda groups: AdamW(groups, lr=0.1, fused=fused))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1000)
    plan = script((10, adjust(learning_rate=0.05)))
    weight = next(workload.model.parameters())
    skipped = {11, 12, 13}  # the steps right after the change
    with supervise(workload, tmp_path / "run", plan, envelope=boundary((RATE,)), extra_state={"scaler": scaler}) as supervisor:
        for step, (inputs, targets) in enumerate(workload.loader, start=1):
            loss = nn.functional.cross_entropy(workload.model(inputs), targets)
            workload.optimizer.zero_grad()
            scaler.scale(loss * (float("inf") if step in skipped else 1.0)).backward()
            before, scale = weight.detach().clone(), scaler.get_scale()
            scaler.step(workload.optimizer)
            scaler.update()
            assert (scaler.get_scale() < scale) == (step in skipped)
            assert torch.equal(before, weight) == (step in skipped)
            assert [group["lr"] for group in workload.optimizer.param_groups] == [0.1, 0.025]
            supervisor.step(loss=loss * (float("nan") if step in skipped else 1.0))
            if supervisor.evaluation_due:
                supervisor.evaluated({"val/loss": 1.0})
            if step == 16:
                break
    assert records(tmp_path / "run", SymptomObserved) == []
    (read_back,) = records(tmp_path / "run", ReadBackRecorded)
    assert read_back.step == 14, "the first step that ran"
    assert [(result.observed, result.holds) for result in read_back.results] == [(0.05, True)]
