from __future__ import annotations

import json
import random
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import CheckpointError, UsageError
from trimtab.integrations.pytorch.data.loader import ResumableLoader


def loader(**changed: Any) -> ResumableLoader:
    settings: dict[str, Any] = {"batch_size": 3, "seed": 0, "collate_fn": list, **changed}
    return ResumableLoader(range(10), **settings)


def epochs(target: ResumableLoader, count: int) -> list[list[list[int]]]:
    return [list(target) for _ in range(count)]


def test_every_epoch_has_each_item_once_in_an_order_of_its_own() -> None:
    target = loader(drop_last=False)
    first, second = epochs(target, 2)
    assert [len(batch) for batch in first] == [3, 3, 3, 1]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
    assert first != second
    assert len(target) == 4
    assert len(loader()) == 3
    assert epochs(loader(shuffle=False), 1) == [[[0, 1, 2], [3, 4, 5], [6, 7, 8]]]


def test_the_order_depends_on_seed_and_epoch_and_uses_no_global_rng() -> None:
    torch.manual_seed(1)
    random.seed(1)
    before = torch.get_rng_state(), random.getstate()
    expected = epochs(loader(), 3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    torch.manual_seed(2)
    assert epochs(loader(), 3) == expected
    assert epochs(loader(seed=1), 3) != expected
    assert epochs(loader(seed=1), 1)[0] != expected[1]


@given(st.integers(0, 12), st.integers(1, 12))
def test_a_new_loader_goes_on_where_the_saved_one_was(taken: int, more: int) -> None:
    def stream(target: ResumableLoader, count: int) -> list[list[int]]:
        batches: list[list[int]] = []
        while len(batches) < count:
            for batch in target:
                batches.append(batch)
                if len(batches) == count:
                    break
        return batches

    original = loader()
    stream(original, taken)
    state = json.loads(json.dumps(original.state_dict()))
    resumed = loader()
    resumed.load_state_dict(state)
    assert stream(resumed, more) == stream(original, more)


def test_a_load_moves_the_running_iteration_within_its_epoch() -> None:
    target = loader()
    reference = epochs(loader(), 1)[0]
    iteration = iter(target)
    next(iteration)
    state = target.state_dict()
    next(iteration)
    target.load_state_dict(state)
    assert list(iteration) == reference[1:]


def test_a_load_across_epochs_moves_the_running_iteration_which_then_ends_with_that_epoch() -> None:
    reference = epochs(loader(), 3)
    target = loader()
    iteration = iter(target)
    next(iteration)
    state = target.state_dict()
    list(iteration)
    running = iter(target)
    assert next(running) == reference[1][0]
    target.load_state_dict(state)
    assert list(running) == reference[0][1:]
    assert target.epoch == 1
    assert list(target) == reference[1]


def test_a_state_saved_at_the_last_batch_ends_the_running_iteration_as_it_did_then() -> None:
    target = loader()
    reference = epochs(loader(), 2)
    states = [(batch, target.state_dict()) for batch in target]
    last, state = states[-1]
    assert last == reference[0][-1]
    running = iter(target)
    next(running)
    target.load_state_dict(state)
    assert list(running) == []
    assert list(target) == reference[1]


@given(st.integers(0, 7), st.integers(0, 7))
def test_skip_passes_over_batches_across_epochs(taken: int, skipped: int) -> None:
    flat = list(chain(*epochs(loader(), 6)))
    target = loader()
    rest: list[list[int]] = []
    iteration = iter(target)
    for _ in range(taken):
        try:
            next(iteration)
        except StopIteration:
            iteration = iter(target)
            next(iteration)
    target.skip(skipped)
    rest = [*iteration, *target]
    assert rest == flat[taken + skipped : taken + skipped + len(rest)]
    assert len(rest) >= len(target)


def test_an_iteration_left_by_break_is_continued() -> None:
    target = loader()
    reference = epochs(loader(), 1)[0]
    for _ in target:
        break
    assert list(target) == reference[1:]


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"epoch": None},
        {"item": 11},
        {"item": 1.0},
        {"item": True},
        {"seed": 1},
        {"num_items": 9},
        {"batch_size": 0},
        {"batch_size": 11},
        {"batch_size": None},
    ],
)
def test_a_state_of_another_loader_is_refused_and_changes_nothing(change: dict[str, Any]) -> None:
    target = loader()
    next(iter(target))
    before = target.state_dict()
    with pytest.raises(CheckpointError):
        target.load_state_dict({**before, **change})
    assert target.state_dict() == before


def test_arguments_that_make_no_loader_are_refused() -> None:
    for wrong in (0, -1, 2.0, True):
        with pytest.raises(UsageError):
            loader(batch_size=wrong)
    with pytest.raises(UsageError, match="too small"):
        loader(batch_size=11)
    with pytest.raises(UsageError):
        loader().skip(-1)


def test_batches_are_collated_as_torch_does_by_default() -> None:
    batch = next(iter(ResumableLoader(range(4), batch_size=2, seed=0, shuffle=False)))
    assert torch.equal(batch, torch.tensor([0, 1]))


def test_the_batch_size_changes_with_the_next_batch_and_comes_back_with_the_state() -> None:
    target = loader(shuffle=False)
    iteration = iter(target)
    assert next(iteration) == [0, 1, 2]
    state = json.loads(json.dumps(target.state_dict()))
    target.batch_size = 2
    assert len(target) == 5
    assert [next(iteration), next(iteration)] == [[3, 4], [5, 6]]
    target.load_state_dict(state)
    assert target.batch_size == 3
    assert list(iteration) == [[3, 4, 5], [6, 7, 8]]


def test_a_batch_whose_items_cannot_be_fetched_comes_again() -> None:
    broken = {"is": True}

    def collate(items: list[int]) -> list[int]:
        if broken["is"]:
            raise OSError("the disk is away")
        return items

    target = loader(shuffle=False, collate_fn=collate)
    with pytest.raises(OSError, match="away"):
        next(iter(target))
    broken["is"] = False
    assert next(iter(target)) == [0, 1, 2]


def test_another_default_device_does_not_matter() -> None:
    expected = epochs(loader(), 1), epochs(loader(shuffle=False), 1)
    torch.set_default_device("meta")
    try:
        assert (epochs(loader(), 1), epochs(loader(shuffle=False), 1)) == expected
    finally:
        torch.set_default_device(None)
