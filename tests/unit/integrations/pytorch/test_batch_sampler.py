from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from trimtab.errors import UsageError
from trimtab.integrations.pytorch.data.loader import ResumableLoader
from trimtab.integrations.pytorch.data.sampler import ResumableBatchSampler

SIZES = st.integers(1, 9)


def sampler(num_items: int = 23, **changed: Any) -> ResumableBatchSampler:
    settings: dict[str, Any] = {"batch_size": 3, "seed": 0, **changed}
    return ResumableBatchSampler(num_items, **settings)


def order(num_items: int, epoch: int) -> list[int]:
    """Return the order of an epoch: one batch of all items."""
    target = sampler(num_items, batch_size=num_items)
    target.skip(epoch)
    return next(iter(target))


@given(st.integers(1, 40), st.lists(SIZES, min_size=1, max_size=60), st.booleans())
def test_no_item_comes_twice_and_none_is_lost_however_the_batch_size_changes(
    num_items: int, sizes: list[int], drop_last: bool
) -> None:
    target = sampler(num_items, batch_size=1, drop_last=drop_last)
    seen: dict[int, list[int]] = {}
    for size in sizes:
        target.batch_size = min(size, num_items)
        epoch, left = target.epoch, num_items - target.item
        batch = next(iter(target))
        fits = left >= (target.batch_size if drop_last else 1)
        assert target.epoch == epoch + (0 if fits else 1)
        assert fits or left < target.batch_size, "more was left out than a remainder"
        assert len(batch) == min(target.batch_size, left if fits else num_items)
        seen.setdefault(target.epoch, []).extend(batch)
    for epoch, items in seen.items():
        assert items == order(num_items, epoch)[: len(items)]
        assert len(items) == num_items or drop_last or epoch == target.epoch


@given(SIZES, SIZES, st.integers(0, 30), st.integers(0, 8))
def test_a_state_brings_back_position_and_batch_size_into_another_sampler(
    first: int, second: int, taken: int, more: int
) -> None:
    original = sampler(batch_size=first)
    original.skip(taken)
    original.batch_size = second
    state = original.state_dict()
    resumed = sampler(batch_size=7)
    resumed.load_state_dict(state)

    def take(target: ResumableBatchSampler) -> list[list[int]]:
        return [next(iter(target)) for _ in range(more)]

    assert take(resumed) == take(original)
    assert resumed.state_dict() == original.state_dict()


@given(SIZES, st.integers(0, 30), st.integers(0, 30), st.booleans())
def test_to_skip_batches_is_to_draw_and_drop_them(size: int, taken: int, skipped: int, drop_last: bool) -> None:
    skips, draws = sampler(batch_size=size, drop_last=drop_last), sampler(batch_size=size, drop_last=drop_last)
    skips.skip(taken)
    skips.skip(skipped)
    for _ in range(taken + skipped):
        next(iter(draws))
    assert skips.state_dict() == draws.state_dict()


def test_the_end_of_an_epoch_is_decided_by_the_batch_size_when_the_batch_is_drawn() -> None:
    dropped = sampler(10, shuffle=False)
    batches = iter(dropped)
    assert [next(batches) for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    dropped.batch_size = 1
    assert list(batches) == [[9]]
    dropped.batch_size = 8
    assert list(dropped) == [[0, 1, 2, 3, 4, 5, 6, 7]]
    kept = sampler(10, shuffle=False, drop_last=False)
    batches = iter(kept)
    next(batches)
    kept.batch_size = 8
    assert list(batches) == [[3, 4, 5, 6, 7, 8, 9]]
    assert len(kept) == 2


@pytest.mark.parametrize("drop_last", [True, False])
def test_a_data_loader_gives_the_batches_of_the_resumable_loader(drop_last: bool) -> None:
    data = list(range(100, 123))
    loader = ResumableLoader(data, batch_size=4, seed=5, drop_last=drop_last)
    torchs = DataLoader(data, batch_sampler=sampler(batch_size=4, seed=5, drop_last=drop_last))  # type: ignore[arg-type] - torch asks for a Sampler, and takes what can be iterated
    assert len(torchs) == len(loader)
    for _ in range(2):
        assert [batch.tolist() for batch in torchs] == [batch.tolist() for batch in loader]


def test_without_workers_a_load_moves_a_running_data_loader() -> None:
    ours = sampler(shuffle=False)
    batches = iter(DataLoader(list(range(23)), batch_sampler=ours))  # type: ignore[arg-type] - torch asks for a Sampler, and takes what can be iterated
    next(batches)
    state = ours.state_dict()
    assert next(batches).tolist() == [3, 4, 5]
    ours.load_state_dict(state)
    ours.batch_size = 4
    assert next(batches).tolist() == [3, 4, 5, 6]


def test_sizes_that_cannot_be_set_are_refused_and_change_nothing() -> None:
    target = sampler(5)
    assert target.largest_batch_size == 5
    wrong: Any
    for wrong in (0, -1, 2.0, True, 6, None):
        with pytest.raises(UsageError):
            target.batch_size = wrong
    assert target.batch_size == 3
    with pytest.raises(UsageError):
        sampler(0)
    kept = sampler(5, drop_last=False)
    assert kept.largest_batch_size is None
    kept.batch_size = 6
    assert list(chain(*kept)) == order(5, 0)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning", "ignore:.*fork.*:DeprecationWarning")
def test_with_workers_a_change_takes_effect_as_many_batches_later_as_are_drawn_ahead() -> None:
    ours = sampler(60, batch_size=2, shuffle=False)
    torchs = DataLoader(list(range(60)), batch_sampler=ours, num_workers=2, prefetch_factor=3)  # type: ignore[arg-type] - torch asks for a Sampler, and takes what can be iterated
    lengths: list[int] = []
    for batch in torchs:
        lengths.append(len(batch))
        if len(lengths) == 5:
            assert ours.item == 2 * (5 + 2 * 3), "the sampler is ahead of training"
            ours.batch_size = 4
    torch.testing.assert_close(lengths, [2] * (5 + 2 * 3) + [4] * ((60 - 22) // 4))
