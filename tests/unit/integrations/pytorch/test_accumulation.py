from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trimtab.errors import CheckpointError, UsageError
from trimtab.integrations.pytorch.data.accumulation import GradientAccumulation
from trimtab.integrations.pytorch.data.loader import ResumableLoader
from trimtab.integrations.pytorch.stateful import Stateful

torch.set_num_threads(1)


class Pairs:
    def __init__(self, count: int) -> None:
        self._x = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._x[index], self._x[index].flip(0)


def loader(**changed: Any) -> ResumableLoader:
    settings: dict[str, Any] = {"batch_size": 2, "seed": 0, "shuffle": False, "collate_fn": list, **changed}
    return ResumableLoader(range(14), **settings)


def train(loader: Any, num_steps: int, change: dict[int, int] | None = None) -> tuple[Tensor, list[int]]:
    """Train the way the class shows; return the weights and the number of batches of each step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    lengths: list[int] = []
    while len(lengths) < num_steps:
        for batches in loader:
            for x, y in batches:
                (((model(x.double()) - y.double()) ** 2).mean() / len(batches)).backward()
            optimizer.step()
            optimizer.zero_grad()
            lengths.append(len(batches))
            loader.num_batches = (change or {}).get(len(lengths), loader.num_batches)
            if len(lengths) == num_steps:
                break
    return nn.utils.parameters_to_vector(model.parameters()).detach(), lengths


def test_four_batches_of_8_make_the_step_of_one_batch_of_32() -> None:
    small = GradientAccumulation(ResumableLoader(Pairs(96), batch_size=8, seed=3), 4)
    large = GradientAccumulation(ResumableLoader(Pairs(96), batch_size=32, seed=3), 1)
    accumulated, lengths = train(small, 9)
    whole, _ = train(large, 9)
    assert lengths == [4] * 9
    torch.testing.assert_close(accumulated, whole, rtol=1e-12, atol=1e-14)
    other, _ = train(GradientAccumulation(ResumableLoader(Pairs(96), batch_size=8, seed=3), 3), 9)
    assert not torch.allclose(other, whole, rtol=1e-3)


def test_a_change_in_the_middle_of_a_run_leaves_no_half_filled_step() -> None:
    inner = ResumableLoader(Pairs(40), batch_size=1, seed=3)
    _, lengths = train(GradientAccumulation(inner, 1), 20, change={6: 4, 12: 2})
    # 6 steps of 1, 6 of 4, then 2 each to the end of the epoch: 30 batches are used, 10 are left.
    assert lengths == [1] * 6 + [4] * 6 + [2] * 8
    assert sum(lengths) == 46


def test_the_list_at_the_end_of_an_epoch_is_shorter() -> None:
    target = GradientAccumulation(loader(), 3)
    assert [[item for batch in batches for item in batch] for batches in target] == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10, 11],
        [12, 13],
    ]
    assert len(target) == 3
    target.num_batches = 7
    assert len(target) == 1


def test_a_state_brings_back_number_and_position_while_it_runs() -> None:
    target = GradientAccumulation(loader(), 2)
    lists = iter(target)
    assert next(lists) == [[0, 1], [2, 3]]
    state = json.loads(json.dumps(target.state_dict()))
    target.num_batches = 3
    assert next(lists) == [[4, 5], [6, 7], [8, 9]]
    target.load_state_dict(state)
    assert target.num_batches == 2
    assert next(lists) == [[4, 5], [6, 7]]
    for wrong in ({**state, "num_batches": 0}, {**state, "loader": loader(seed=1).state_dict()}):
        before = target.state_dict()
        with pytest.raises(CheckpointError):
            target.load_state_dict(wrong)
        assert target.state_dict() == before


def test_a_list_that_is_skipped_is_as_long_as_the_others() -> None:
    target = GradientAccumulation(loader(), 2)
    lists = iter(target)
    next(lists)
    target.skip(1)
    assert next(lists) == [[8, 9], [10, 11]]
    with pytest.raises(UsageError):
        target.skip(-1)


def test_it_can_do_what_its_loader_can_do_and_does_not_claim_more() -> None:
    able, unable = GradientAccumulation(loader(), 2), GradientAccumulation([1, 2, 3], 2)
    assert isinstance(able, Stateful)
    assert hasattr(able, "skip")
    assert not isinstance(unable, Stateful)
    assert not hasattr(unable, "skip")
    assert list(unable) == [[1, 2], [3]]


def test_numbers_that_are_no_count_are_refused() -> None:
    target = GradientAccumulation([1], 2)
    wrong: Any
    for wrong in (0, 1.0, True):
        with pytest.raises(UsageError):
            target.num_batches = wrong
        with pytest.raises(UsageError):
            GradientAccumulation([1], wrong)
    assert target.num_batches == 2
