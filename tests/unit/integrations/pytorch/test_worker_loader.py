from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from trimtab.errors import CheckpointError, UsageError
from trimtab.integrations.pytorch.data.loader import ResumableLoader
from trimtab.integrations.pytorch.data.workers import ResumableDataLoader

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning", "ignore:.*fork.*:DeprecationWarning")

WORKERS = [
    pytest.param({}, id="no workers"),
    pytest.param({"num_workers": 2}, id="workers"),
    pytest.param({"num_workers": 2, "persistent_workers": True}, id="persistent workers"),
]


def loader(**changed: Any) -> ResumableDataLoader:
    settings: dict[str, Any] = {"batch_size": 3, "seed": 0, **changed}
    return ResumableDataLoader(range(40), **settings)


def reference(**changed: Any) -> ResumableLoader:
    settings: dict[str, Any] = {"batch_size": 3, "seed": 0, **changed}
    return ResumableLoader(range(40), **settings)


def forever(target: Any) -> Iterator[list[int]]:
    while True:
        for batch in target:
            yield batch.tolist()


def take(target: Any, count: int) -> list[list[int]]:
    batches = forever(target)
    return [next(batches) for _ in range(count)]


@pytest.mark.parametrize("options", WORKERS)
def test_it_gives_what_the_resumable_loader_gives_through_every_move(options: dict[str, Any]) -> None:
    ours, theirs = loader(**options), reference()
    mine, expected = forever(ours), forever(theirs)

    def same(count: int) -> None:
        for _ in range(count):
            assert next(mine) == next(expected)
        assert ours.state_dict() == theirs.state_dict()
        assert (ours.epoch, ours.batch_size, len(ours)) == (theirs.epoch, theirs.batch_size, len(theirs))

    same(5)
    state = json.loads(json.dumps(ours.state_dict()))
    ours.batch_size = theirs.batch_size = 6  # at once, whatever the workers have drawn ahead
    same(9)
    assert ours.epoch == 1
    ours.skip(2)
    theirs.skip(2)
    same(1)
    ours.load_state_dict(state)
    theirs.load_state_dict(state)
    assert ours.batch_size == 3
    same(10)


@pytest.mark.parametrize("options", WORKERS)
def test_the_position_is_that_of_training_and_not_of_the_workers(options: dict[str, Any]) -> None:
    expected = take(reference(), 20)
    first = loader(**options)
    assert take(first, 7) == expected[:7]
    resumed = loader(**options)
    resumed.load_state_dict(first.state_dict())
    assert take(resumed, 13) == expected[7:]


def test_the_global_rng_is_not_used_also_where_workers_start_again() -> None:
    target = loader()
    before = torch.get_rng_state()
    take(target, 5)
    target.batch_size = 5
    take(target, 20)
    assert torch.equal(torch.get_rng_state(), before)


class Fails:
    def __init__(self) -> None:
        self.is_away = True

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        if self.is_away:
            raise OSError("the disk is away")
        return index


def test_a_batch_that_cannot_be_fetched_comes_again() -> None:
    data = Fails()
    target = ResumableDataLoader(data, batch_size=2, seed=0, shuffle=False)
    with pytest.raises(OSError, match="away"):
        next(iter(target))
    data.is_away = False
    assert take(target, 1) == [[0, 1]]


def test_the_same_size_again_leaves_the_workers_running() -> None:
    target = loader()
    next(iter(target))
    running = target._running
    target.batch_size = 3
    assert target._running is running
    target.batch_size = 4
    assert target._running is None


def test_options_that_are_not_the_users_and_states_of_other_loaders_are_refused() -> None:
    for name in ("batch_sampler", "sampler", "generator", "in_order"):
        with pytest.raises(UsageError, match=name):
            loader(**{name: None})
    with pytest.raises(UsageError):
        loader(batch_size=0)
    with pytest.raises(CheckpointError):
        loader().load_state_dict(loader(seed=1).state_dict())
