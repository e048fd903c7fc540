from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from tests.unit.integrations.pytorch.small_runs import SCHEDULERS, Net, Run, digest
from trimtab.actuation.checkpoint_files import list_checkpoints, write_checkpoint
from trimtab.errors import ActuationError, CheckpointError, UsageError
from trimtab.integrations.pytorch.bindings.learning_rate import LearningRateBinding
from trimtab.integrations.pytorch.bindings.weight_decay import WeightDecayBinding
from trimtab.integrations.pytorch.state import STATE, TENSORS, TorchStateStore

OPTIMIZERS: dict[str, Callable[[list[Any]], Optimizer]] = {
    "AdamW": lambda groups: torch.optim.AdamW(groups, lr=0.05, weight_decay=0.1),
    "SGD": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
    "Adam amsgrad": lambda groups: torch.optim.Adam(groups, lr=0.05, amsgrad=True),
}


def store_of(run: Run, root: Path, **more: Any) -> TorchStateStore:
    return TorchStateStore(root, run.model, run.optimizer, run.scheduler, run.loader, **more)


def is_finite(store: TorchStateStore) -> bool:
    return all(map(math.isfinite, store.scales().values()))


@pytest.mark.parametrize("schedule", [None, "CosineAnnealingLR", "OneCycleLR", "MultiStepLR", "SequentialLR"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_after_a_rollback_every_step_is_as_it_was(name: str, schedule: str | None, tmp_path: Path) -> None:
    run = Run(OPTIMIZERS[name], None if schedule is None else SCHEDULERS[schedule])
    store = store_of(run, tmp_path)
    for _ in range(6):
        run.step()
    at_save = run.hash()
    store.save("here", {"step": 6})
    assert run.hash() == at_save
    expected = [run.step() for _ in range(9)]
    assert store.restore("here") == {"step": 6}
    assert run.hash() == at_save
    assert all(parameter.grad is None for parameter in run.model.parameters())
    assert [run.step() for _ in range(9)] == expected


def test_saving_at_every_step_leaves_the_run_bit_identical(tmp_path: Path) -> None:
    plain = Run(make_scheduler=SCHEDULERS["StepLR"])
    expected = [plain.step() for _ in range(8)]
    run = Run(make_scheduler=SCHEDULERS["StepLR"])
    store = store_of(run, tmp_path)
    for index, step in enumerate(expected):
        store.save(f"s{index}", {})
        assert is_finite(store)
        assert run.step() == step


def test_a_new_process_goes_on_as_the_old_one(tmp_path: Path) -> None:
    run = Run(make_scheduler=SCHEDULERS["CosineAnnealingLR"])
    for _ in range(6):
        run.step()
    store_of(run, tmp_path).save("here", {})
    expected = [run.step() for _ in range(5)]
    resumed = Run(make_scheduler=SCHEDULERS["CosineAnnealingLR"])
    store_of(resumed, tmp_path).restore("here")
    assert [resumed.step() for _ in range(5)] == expected


def test_a_checkpoint_from_before_the_first_step_clears_the_optimizer(tmp_path: Path) -> None:
    run = Run()
    store = store_of(run, tmp_path)
    store.save("start", {})
    expected = [run.step() for _ in range(5)]
    store.restore("start")
    assert len(run.optimizer.state) == 0
    assert [run.step() for _ in range(5)] == expected


def test_the_factor_is_no_part_of_a_checkpoint_and_survives_a_restore(tmp_path: Path) -> None:
    run = Run()
    binding = LearningRateBinding(run.optimizer)
    decay = WeightDecayBinding(run.optimizer)
    store = store_of(run, tmp_path)
    run.step()
    store.save("here", {})
    binding.write(binding.read() / 2)
    decay.write(0.2)
    expected = [run.step() for _ in range(3)]
    store.restore("here")
    assert run.optimizer.param_groups[0]["lr"] == 0.05
    assert (binding.read(), decay.read()) == (0.025, 0.2)
    assert [run.step() for _ in range(3)] == expected
    for read_back in (binding.took_effect(), decay.took_effect()):
        assert read_back is not None
        assert read_back.holds


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    run = Run()
    store = store_of(run, tmp_path)
    run.step()
    store.save("here", {})
    run.step()
    parameters = list(run.model.parameters())
    store.restore("here")
    assert run.model.tied.weight is run.model.first.weight
    assert all(now is then for now, then in zip(run.model.parameters(), parameters, strict=True))


def test_optimizer_state_keeps_its_dtype_and_a_tensor_rate_its_identity(tmp_path: Path) -> None:
    model = nn.Linear(3, 2).to(torch.bfloat16)
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.01), foreach=False)
    store = TorchStateStore(tmp_path, model, optimizer)
    model(torch.ones(1, 3, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    for entry in optimizer.state.values():
        entry["exp_avg"] = torch.full_like(entry["exp_avg"], 0.1, dtype=torch.float32)
    rate = optimizer.param_groups[0]["lr"]
    saved = digest(optimizer.state_dict())
    store.save("here", {})
    rate.fill_(0.5)
    for entry in optimizer.state.values():
        entry["exp_avg"].zero_()
    store.restore("here")
    assert digest(optimizer.state_dict()) == saved
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.01)


def test_an_optimizer_with_nested_state_and_a_closure_is_exact(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    store = TorchStateStore(tmp_path, model, optimizer)
    x = torch.randn(8, 3)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True).tanh()).pow(2).mean()
        loss.backward()
        return loss

    def step() -> str:
        optimizer.step(closure)
        return digest([dict(model.named_parameters()), optimizer.state_dict()])

    for _ in range(2):
        step()
    store.save("here", {})
    expected = [step() for _ in range(3)]
    store.restore("here")
    assert [step() for _ in range(3)] == expected


def test_further_objects_are_saved_too(tmp_path: Path) -> None:
    run = Run()
    generator = torch.Generator().manual_seed(1)
    ema = torch.optim.swa_utils.AveragedModel(run.model)
    second = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    extra = {"noise": generator, "ema": ema, "second": second, "scaler": scaler}
    store = store_of(run, tmp_path, extra_state=extra)
    run.step()
    ema.update_parameters(run.model)
    before = digest([dict(ema.state_dict()), scaler.state_dict(), second.state_dict()])
    store.save("here", {"nested": [1, {"x": None}]})
    expected = torch.rand(3, generator=generator)
    run.step()
    ema.update_parameters(run.model)
    second.param_groups[0]["lr"] = 0.7
    scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0})
    assert store.restore("here") == {"nested": [1, {"x": None}]}
    assert digest([dict(ema.state_dict()), scaler.state_dict(), second.state_dict()]) == before
    assert torch.equal(torch.rand(3, generator=generator), expected)
    with pytest.raises(UsageError, match="bare has no state"):
        store_of(run, tmp_path, extra_state={"bare": object()})


def test_a_grown_cache_outside_the_state_dict_goes_back(tmp_path: Path) -> None:
    run = Run()
    store = store_of(run, tmp_path)
    store.save("here", {})
    run.model.register_buffer("seen", torch.ones(5), persistent=False)
    store.restore("here")
    assert torch.equal(run.model.get_buffer("seen"), torch.zeros(2))


@pytest.mark.parametrize("place", [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
@pytest.mark.parametrize("file", [STATE, TENSORS, "manifest.json"])
def test_a_damaged_checkpoint_is_refused_and_nothing_changes(file: str, place: float, tmp_path: Path) -> None:
    run = Run()
    store = store_of(run, tmp_path)
    run.step()
    store.save("here", {})
    path = tmp_path / "here" / file
    raw = bytearray(path.read_bytes())
    raw[int(place * (len(raw) - 1))] ^= 4
    path.write_bytes(raw)
    run.step()
    before = run.hash()
    with pytest.raises(CheckpointError):
        store.restore("here")
    assert run.hash() == before


class Wider(Net):
    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: setattr(run, "model", Wider()), "weights of the checkpoint"),
        (lambda run: setattr(run, "model", Net().double()), "has another form"),
        (lambda run: run.model.register_buffer("other", torch.ones(1), persistent=False), "buffers are not the model's"),
        (lambda run: run.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]}), "other parameter groups"),
        (lambda run: setattr(run, "scheduler", None), "scheduler"),
        (lambda run: setattr(run, "loader", [1]), "loader"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_before_anything_changes(
    change: Callable[[Run], None], message: str, tmp_path: Path
) -> None:
    run = Run(make_scheduler=SCHEDULERS["StepLR"])
    store_of(run, tmp_path).save("here", {})
    run.step()
    change(run)
    state = digest([dict(run.model.state_dict()), run.optimizer.state_dict(), torch.get_rng_state()])
    with pytest.raises(CheckpointError, match=message):
        store_of(run, tmp_path).restore("here")
    assert digest([dict(run.model.state_dict()), run.optimizer.state_dict(), torch.get_rng_state()]) == state


class Refusing:
    """Loads everything but the state it is told to refuse."""

    def __init__(self) -> None:
        self.value = 1

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if state["value"] == 1:
            torch.rand(1)
            raise RuntimeError("no")
        self.value = state["value"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_object_that_refuses_its_state_leaves_all_as_before(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(make_scheduler=SCHEDULERS["StepLR"])
    refusing = Refusing()
    store = store_of(run, tmp_path, extra_state={"refusing": refusing})
    run.step()
    store.save("here", {})
    refusing.value = 2
    run.step()
    before = run.hash()
    if error is KeyboardInterrupt:
        monkeypatch.setattr(refusing, "load_state_dict", _interrupted_once(refusing.load_state_dict))
    with pytest.raises(CheckpointError if error is RuntimeError else KeyboardInterrupt):
        store.restore("here")
    assert run.hash() == before
    assert all(parameter.grad is not None for parameter in run.model.parameters())


def _interrupted_once(load: Callable[[Any], None]) -> Callable[[Any], None]:
    calls: list[int] = []

    def interrupted(state: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        load(state)

    return interrupted


def test_a_state_that_cannot_be_put_back_says_so(tmp_path: Path) -> None:
    run = Run()
    refusing = Refusing()
    store = store_of(run, tmp_path, extra_state={"refusing": refusing})
    store.save("here", {})
    with pytest.raises(CheckpointError, match="not wholly put back"):
        store.restore("here")


@pytest.mark.parametrize("extra", [{"x": object()}, {"x": {1j}}])
def test_what_cannot_be_saved_leaves_nothing_visible(extra: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"state\.extra\.x"):
        store_of(Run(), tmp_path).save("here", extra)
    assert list_checkpoints(tmp_path) == ()


def test_a_state_dict_that_raises_is_a_checkpoint_error(tmp_path: Path) -> None:
    class Broken(Refusing):
        def state_dict(self) -> dict[str, int]:
            raise RuntimeError("not now")

    with pytest.raises(CheckpointError, match="not now"):
        store_of(Run(), tmp_path, extra_state={"broken": Broken()}).save("here", {})


@pytest.mark.parametrize("state", [b"{}", b"[", json.dumps({"schema": 2, "state": {}}).encode()])
def test_a_checkpoint_of_something_else_is_refused(state: bytes, tmp_path: Path) -> None:
    store = store_of(Run(), tmp_path)
    write_checkpoint(tmp_path, "other", {STATE: state})
    for id in ("other", "missing"):
        with pytest.raises(CheckpointError):
            store.restore(id)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_non_finite_weight_or_buffer_is_unhealthy(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    model = Net()
    model.register_buffer("mask", torch.full((2, 2), float("-inf")))
    model.register_buffer("nothing", torch.ones(0))
    model = model.to(dtype)
    with torch.no_grad():
        model.first.weight.fill_(torch.finfo(dtype).max)
    store = TorchStateStore(tmp_path, model, torch.optim.SGD(model.parameters(), lr=0.1))
    rng = torch.get_rng_state()
    assert is_finite(store)
    model.norm.get_buffer("running_var")[2] = value
    assert not is_finite(store)
    model.norm.get_buffer("running_var")[2] = 1.0
    with torch.no_grad():
        model.first.bias[1] = value
    assert not is_finite(store)
    assert torch.equal(torch.get_rng_state(), rng)


def test_averages_that_began_at_zero_are_measured_without_that_bias(tmp_path: Path) -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), amsgrad=True)
    store = TorchStateStore(tmp_path, model, optimizer)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-7.0, 3.0]]))
    assert store.scales() == {"weights": 7.0}
    for _ in range(3):
        model.weight.grad = torch.tensor([[-4.0, 0.5]])
        optimizer.step()
        scales = store.scales()
        averages = [scales[f"optimizer/{key}"] for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")]
        assert averages == pytest.approx([4.0, 16.0, 16.0], rel=1e-4), "that of a gradient which never changed"


def test_what_no_decay_is_known_of_is_measured_as_it_is(tmp_path: Path) -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    for _ in range(2):
        model.weight.grad = torch.tensor([[-4.0, 0.5]])
        optimizer.step()
    assert TorchStateStore(tmp_path, model, optimizer).scales()["optimizer/momentum_buffer"] == pytest.approx(7.6)


def test_skip_moves_the_loader_and_is_refused_without_one(tmp_path: Path) -> None:
    run = Run()
    store = store_of(run, tmp_path)
    assert store.can_skip
    run.step()
    store.skip(2)
    assert run.loader.state_dict()["item"] == 12
    without = TorchStateStore(tmp_path, run.model, run.optimizer, loader=[1, 2])
    assert not without.can_skip
    with pytest.raises(ActuationError, match="cannot skip"):
        without.skip(1)


def test_delete_removes_and_may_be_repeated(tmp_path: Path) -> None:
    store = store_of(Run(), tmp_path)
    store.save("here", {})
    assert list_checkpoints(tmp_path) == ("here",)
    store.delete("here")
    store.delete("here")
    assert list(tmp_path.iterdir()) == []


def test_no_generator_is_drawn_from_by_save_or_restore(tmp_path: Path) -> None:
    run = Run()
    store = store_of(run, tmp_path)
    states = digest([torch.get_rng_state(), random.getstate(), np.random.get_state()])
    store.save("here", {})
    assert digest([torch.get_rng_state(), random.getstate(), np.random.get_state()]) == states
    store.restore("here")
    assert digest([torch.get_rng_state(), random.getstate(), np.random.get_state()]) == states
