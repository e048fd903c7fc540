"""Loaders that go on in another order: whose, from where, and back again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import CheckpointError, UsageError
from trimtab.integrations.pytorch.data.loader import ResumableLoader
from trimtab.integrations.pytorch.data.mixture import MixtureLoader
from trimtab.integrations.pytorch.data.order import stream_key
from trimtab.integrations.pytorch.data.sampler import ResumableBatchSampler
from trimtab.integrations.pytorch.data.workers import ResumableDataLoader

SOURCES = {"a": range(50), "b": range(100, 150)}

LOADERS: dict[str, Callable[[int], Any]] = {
    "sampler": lambda seed: ResumableBatchSampler(50, batch_size=4, seed=seed),
    "loader": lambda seed: ResumableLoader(range(50), batch_size=4, seed=seed, collate_fn=list),
    "mixture": lambda seed: MixtureLoader(SOURCES, {"a": 1.0, "b": 2.0}, batch_size=4, seed=seed, collate_fn=list),
    "workers": lambda seed: ResumableDataLoader(range(50), batch_size=4, seed=seed, collate_fn=list),
}
every_loader = pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS.keys())


def forever(target: Any) -> Iterator[list[int]]:
    while True:
        yield from target


def take(target: Any, count: int) -> list[list[int]]:
    return list(islice(forever(target), count))


@every_loader
def test_stream_0_is_the_order_of_the_seed_and_any_other_is_another(make: Callable[[int], Any]) -> None:
    plain = take(make(0), 20)
    same = make(0)
    same.reseed(0)
    assert take(same, 20) == plain
    orders = [plain, take(make(1), 20)]
    for stream in (1, 2, 2**56 - 1):
        other, again = make(0), make(0)
        other.reseed(stream)
        again.reseed(stream)
        drawn = take(other, 20)
        assert drawn == take(again, 20)
        assert all(drawn != known for known in orders)
        orders.append(drawn)


@every_loader
def test_it_counts_from_the_next_batch_on_also_in_a_running_loop(make: Callable[[int], Any]) -> None:
    plain, other = take(make(0), 8), make(0)
    batches = forever(other)
    assert [next(batches) for _ in range(3)] == plain[:3]
    other.reseed(7)
    whole = make(0)
    whole.reseed(7)
    whole.skip(3)
    if not isinstance(whole, MixtureLoader):  # whose position depends on what was drawn before
        assert [next(batches) for _ in range(5)] == take(whole, 5)
    else:
        assert [next(batches) for _ in range(5)] != plain[3:]


@every_loader
def test_another_order_has_every_item_of_an_epoch_once_too(make: Callable[[int], Any]) -> None:
    target = make(0)
    target.reseed(3)
    drawn = [item for batch in take(target, 12) for item in batch]
    assert len(set(drawn)) == len(drawn) == 48


@every_loader
def test_going_back_across_a_reseed_goes_back_to_the_order_of_then(make: Callable[[int], Any]) -> None:
    target = make(0)
    batches = forever(target)
    first = [next(batches) for _ in range(2)]
    before = json.loads(json.dumps(target.state_dict()))
    plain = [next(batches) for _ in range(4)]
    target.reseed(7)
    after = json.loads(json.dumps(target.state_dict()))
    reseeded = [next(batches) for _ in range(4)]
    target.load_state_dict(before)
    assert [next(batches) for _ in range(4)] == plain
    target.load_state_dict(after)
    assert [next(batches) for _ in range(4)] == reseeded
    resumed = make(0)
    resumed.load_state_dict(after)
    assert take(resumed, 4) == reseeded
    assert first + plain == take(make(0), 6)


@every_loader
def test_a_state_from_before_there_were_other_orders_is_that_of_the_seed(make: Callable[[int], Any]) -> None:
    target = make(0)
    take(target, 2)
    state = target.state_dict()
    assert state.pop("stream") == 0
    expected = take(target, 3)
    other = make(0)
    other.reseed(7)
    other.load_state_dict(state)
    assert other.state_dict() == {**state, "stream": 0}
    assert take(other, 3) == expected


@every_loader
@pytest.mark.parametrize("stream", [-1, 1.0, True, "1", None])
def test_what_is_no_order_is_refused_and_changes_nothing(make: Callable[[int], Any], stream: Any) -> None:
    target = make(0)
    target.reseed(5)
    take(target, 2)
    state = target.state_dict()
    with pytest.raises(UsageError, match="the order is malformed"):
        target.reseed(stream)
    other = make(0)
    take(other, 3)
    elsewhere = other.state_dict()
    with pytest.raises(CheckpointError):
        other.load_state_dict({**state, "stream": stream})
    assert target.state_dict() == state
    assert other.state_dict() == elsewhere


def test_the_sources_of_a_mixture_are_drawn_otherwise_too() -> None:
    def sources(stream: int) -> list[bool]:
        target = LOADERS["mixture"](0)
        target.reseed(stream)
        return [item >= 100 for batch in take(target, 12) for item in batch]

    assert sources(0) == sources(0) != sources(1) != sources(2)


def test_a_dataset_in_its_own_order_stays_in_it() -> None:
    target = ResumableBatchSampler(8, batch_size=4, seed=0, shuffle=False)
    target.reseed(9)
    assert list(target) == [[0, 1, 2, 3], [4, 5, 6, 7]]


@given(
    st.text("0123456789:stream", max_size=12), st.text("0123456789:stream", max_size=12), st.integers(0, 99), st.integers(0, 99)
)
def test_no_two_streams_of_one_key_share_an_order(key: str, other: str, one: int, two: int) -> None:
    assert (stream_key(key, one) == stream_key(key, two)) == (one == two)
    assert stream_key(other, 0) == other


class Augmented:
    """A dataset that draws a random number for each item, as augmentation does."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> float:
        return float(torch.rand(()))


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning", "ignore:.*fork.*:DeprecationWarning")
def test_what_workers_draw_is_other_in_another_stream_too() -> None:
    def drawn(stream: int) -> list[float]:
        target = ResumableDataLoader(Augmented(), batch_size=4, seed=0, shuffle=False, num_workers=1)
        target.reseed(stream)
        return next(iter(target)).tolist()

    assert drawn(0) == drawn(0)
    assert drawn(5) == drawn(5)
    assert drawn(0) != drawn(5)
