"""Hashes of a run's state: the same for the same state, another for any other, down to one bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.integrations.pytorch.small_runs import SCHEDULERS, Run
from trimtab.integrations.pytorch.state import TorchStateStore


class Kept:
    """A run of a few steps with everything that its state can have, and its store."""

    def __init__(self, root: Path) -> None:
        self.run = Run(make_scheduler=SCHEDULERS["CosineAnnealingLR"])
        self.noise = torch.Generator().manual_seed(1)
        extra = {"noise": self.noise}
        run = self.run
        self.store = TorchStateStore(root, run.model, run.optimizer, run.scheduler, run.loader, extra)
        for _ in range(5):
            run.step()

    @property
    def moments(self) -> dict[str, torch.Tensor]:
        return self.run.optimizer.state[self.run.model.first.weight]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "one")


def _ulp(tensor: torch.Tensor, index: tuple[int, ...] = (0, 0)) -> None:
    with torch.no_grad():
        tensor[index] = torch.nextafter(tensor[index], torch.tensor(torch.inf))


def _flip_zero(kept: Kept) -> None:
    with torch.no_grad():
        kept.run.model.first.bias[0] = -0.0


def _set_numpy(_: Kept) -> None:
    np.random.random()


CHANGES: dict[str, tuple[str, Callable[[Kept], Any]]] = {
    "one ulp of one weight": ("model", lambda kept: _ulp(kept.run.model.first.weight)),
    "one ulp of a running mean": ("model", lambda kept: _ulp(kept.run.model.norm.get_buffer("running_mean"), (2,))),
    "a buffer outside the state_dict": ("buffers", lambda kept: _ulp(kept.run.model.get_buffer("seen"), (1,))),
    "one ulp of a first moment": ("optimizer", lambda kept: _ulp(kept.moments["exp_avg"])),
    "one ulp of a second moment": ("optimizer", lambda kept: _ulp(kept.moments["exp_avg_sq"], (3, 3))),
    "the optimizer's count": ("optimizer", lambda kept: kept.moments["step"].add_(1)),
    "a rate": ("optimizer", lambda kept: kept.run.optimizer.param_groups[1].update(lr=0.011)),
    "the scheduler": ("scheduler", lambda kept: setattr(kept.run.scheduler, "last_epoch", 99)),
    "the data position": ("loader", lambda kept: kept.run.loader.skip(1)),
    "the data order": ("loader", lambda kept: kept.run.loader.reseed(1)),
    "Python's generator": ("rng/python", lambda _: random.random()),
    "numpy's generator": ("rng/numpy", _set_numpy),
    "torch's generator": ("rng/torch", lambda _: torch.rand(1)),
    "a generator of the user's": ("extra_state/noise", lambda kept: torch.rand(1, generator=kept.noise)),
}


@pytest.mark.parametrize(("part", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_any_change_of_a_part_changes_its_hash_and_that_of_the_whole_and_no_other(
    kept: Kept, part: str, change: Callable[[Kept], Any]
) -> None:
    before, whole = kept.store.hashes(), kept.store.save("before", {})
    change(kept)
    after = kept.store.hashes()
    assert {name for name in before if before[name] != after[name]} == {part}
    assert kept.store.save("after", {}) != whole


def test_minus_zero_is_not_zero(kept: Kept) -> None:
    with torch.no_grad():
        kept.run.model.first.bias[0] = 0.0
    before, whole = kept.store.hashes(), kept.store.save("before", {})
    _flip_zero(kept)
    assert kept.store.hashes()["model"] != before["model"]
    assert kept.store.save("after", {}) != whole


def test_the_parts_have_names_that_a_replay_can_tell(kept: Kept) -> None:
    further = {"scheduler", "loader", "extra_state/noise"}
    generators = {f"rng/{name}" for name in ("python", "numpy", "torch", "cuda")}
    assert kept.store.hashes().keys() == {"model", "buffers", "optimizer"} | further | generators


def test_equal_states_have_equal_hashes_wherever_they_were_reached(kept: Kept, tmp_path: Path) -> None:
    here, saved = kept.store.hashes(), kept.store.save("one", {})
    other = Kept(tmp_path / "two")
    assert other.store.hashes() == here
    assert other.store.save("one", {}) == saved


def test_a_restored_state_has_the_hash_of_the_saved_one(kept: Kept, tmp_path: Path) -> None:
    saved, here = kept.store.save("here", {"step": 5}), kept.store.hashes()
    for _ in range(3):
        kept.run.step()
    assert kept.store.hashes() != here
    kept.store.restore("here")
    assert kept.store.hashes() == here
    assert kept.store.save("again", {"step": 8}) == saved, "what is kept beside the state is no part of it"
    fresh = Run(make_scheduler=SCHEDULERS["CosineAnnealingLR"])
    generator = torch.Generator()
    store = TorchStateStore(tmp_path / "one", fresh.model, fresh.optimizer, fresh.scheduler, fresh.loader, {"noise": generator})
    store.restore("here")
    assert store.hashes() == here
    assert store.save("third", {}) == saved


def test_hashing_changes_nothing(kept: Kept) -> None:
    kept.store.save("here", {})
    expected = [kept.run.step() for _ in range(3)]
    kept.store.restore("here")
    kept.store.hashes()
    first = kept.run.step()
    kept.store.hashes()
    assert [first, kept.run.step(), kept.run.step()] == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.bool, torch.int8])
def test_weights_of_any_type_and_form_have_a_hash(dtype: torch.dtype, tmp_path: Path) -> None:
    model = torch.nn.Module()
    forms = {"scalar": torch.ones(()), "nothing": torch.ones(0, 3), "strided": torch.arange(12.0).reshape(3, 4).T}
    for name, tensor in forms.items():
        model.register_buffer(name, tensor.to(dtype))
    weight = torch.nn.Parameter(torch.ones(1))
    store = TorchStateStore(tmp_path, model, torch.optim.SGD([weight], lr=0.1))
    before = store.hashes()
    model.get_buffer("scalar").zero_()
    assert store.hashes()["model"] != before["model"]


def test_a_new_seed_moves_every_generator_and_the_loaders_order(kept: Kept) -> None:
    before = kept.store.hashes()
    kept.store.reseed(2**55 + 1)
    after = kept.store.hashes()
    moved = {name for name in before if before[name] != after[name]}
    assert moved == {"rng/python", "rng/numpy", "rng/torch", "extra_state/noise", "loader"}
    kept.store.reseed(2**55 + 1)
    assert kept.store.hashes() == after


def test_a_loader_that_cannot_be_reseeded_is_left_alone(tmp_path: Path) -> None:
    run = Run()
    store = TorchStateStore(tmp_path, run.model, run.optimizer, loader=[1, 2])
    before = store.hashes()
    store.reseed(3)
    assert store.hashes()["rng/torch"] != before["rng/torch"]
