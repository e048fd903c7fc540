from __future__ import annotations

import json
import random
from collections import Counter
from itertools import islice, product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import CheckpointError, UsageError
from trimtab.integrations.pytorch.data.mixture import MixtureLoader

DATA: dict[str, range] = {"a": range(10), "b": range(100, 107), "c": range(200, 400)}
NAMES = {0: "a", 1: "b", 2: "c", 3: "c"}


def mixture(**changed: Any) -> MixtureLoader:
    settings: dict[str, Any] = {
        "datasets": DATA,
        "weights": {"a": 1.0, "b": 2.0, "c": 1.0},
        "batch_size": 4,
        "seed": 0,
        "collate_fn": list,
        **changed,
    }
    return MixtureLoader(**settings)


def items(target: MixtureLoader, num_batches: int) -> list[int]:
    return [item for batch in islice(target, num_batches) for item in batch]


def sources(drawn: list[int]) -> list[str]:
    return [NAMES[item // 100] for item in drawn]


def test_sources_are_drawn_by_the_normalised_weights() -> None:
    counts = Counter(sources(items(mixture(weights={"a": 10.0, "b": 25.0, "c": 65.0}), 5000)))
    for name, share in (("a", 0.10), ("b", 0.25), ("c", 0.65)):
        deviation = (share * (1 - share) / 20_000) ** 0.5
        assert counts[name] / 20_000 == pytest.approx(share, abs=4 * deviation)


def test_the_draws_follow_no_pattern() -> None:
    drawn = sources(items(mixture(weights={"a": 1.0, "b": 1.0, "c": 2.0}), 2500))
    pairs = Counter(zip(drawn[::2], drawn[1::2], strict=True))
    shares = {"a": 0.25, "b": 0.25, "c": 0.5}
    for (one, first), (other, second) in product(shares.items(), repeat=2):
        assert pairs[one, other] / 5000 == pytest.approx(first * second, abs=0.025)


def test_within_a_source_every_item_comes_once_per_pass_in_another_order() -> None:
    drawn = [item for item in items(mixture(), 200) if item < 10]
    passes = [drawn[start : start + 10] for start in range(0, len(drawn) - 9, 10)]
    assert len(passes) > 10
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len({tuple(one) for one in passes}) == len(passes)


def test_everything_depends_on_the_seed_and_nothing_on_the_global_rng() -> None:
    before = torch.get_rng_state(), random.getstate()
    drawn = items(mixture(), 50)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    torch.manual_seed(9)
    assert items(mixture(), 50) == drawn
    assert sources(items(mixture(seed=1), 50)) != sources(drawn)


@given(st.integers(0, 30), st.integers(1, 6), st.integers(1, 20))
def test_a_state_brings_everything_back_exactly(taken: int, size: int, more: int) -> None:
    original = mixture()
    items(original, taken)
    original.batch_size = size
    original.set_weight("a", 7.5)
    state = json.loads(json.dumps(original.state_dict()))
    resumed = mixture()
    resumed.load_state_dict(state)
    assert resumed.state_dict() == original.state_dict()
    assert items(resumed, more) == items(original, more)


def test_a_load_moves_the_running_iteration() -> None:
    target = mixture()
    running = iter(target)
    next(running)
    state = target.state_dict()
    expected = [next(running), next(running)]
    target.set_weight("b", 50.0)
    target.load_state_dict(state)
    assert target.weights["b"] == 2.0
    assert [next(running), next(running)] == expected


def test_a_changed_weight_changes_later_draws_only_and_by_as_much_as_it_should() -> None:
    plain, changed = mixture(), mixture()
    assert items(plain, 25) == items(changed, 25)
    assert changed.items_seen == 100
    changed.set_weight("c", 9.0)
    before, after = sources(items(plain, 2500)), sources(items(changed, 2500))
    assert Counter(before)["c"] / 10_000 == pytest.approx(0.25, abs=0.02)
    assert Counter(after)["c"] / 10_000 == pytest.approx(0.75, abs=0.02)
    # The same random numbers: with the last source's weight raised, what was c stays c.
    assert all(now == "c" for was, now in zip(before, after, strict=True) if was == "c")


def test_another_batch_size_gives_the_same_items() -> None:
    small, large = mixture(), mixture()
    large.batch_size = 10
    assert items(small, 25) == items(large, 10)


@given(st.integers(0, 20), st.integers(0, 20))
def test_to_skip_batches_is_to_draw_and_drop_them(taken: int, skipped: int) -> None:
    skips, draws = mixture(), mixture()
    items(skips, taken)
    skips.skip(skipped)
    items(draws, taken + skipped)
    assert skips.state_dict() == draws.state_dict()
    assert items(skips, 3) == items(draws, 3)


def test_it_counts_what_came_from_where() -> None:
    target = mixture()
    assert target.items_seen == 0
    drawn = items(target, 30)
    assert target.items_seen == 120
    assert target.items_seen_by_source == Counter(sources(drawn))


def test_a_batch_that_cannot_be_fetched_comes_again() -> None:
    broken = {"is": True}

    def collate(batch: list[int]) -> list[int]:
        if broken["is"]:
            raise OSError("the disk is away")
        return batch

    target = mixture(collate_fn=collate)
    with pytest.raises(OSError, match="away"):
        next(iter(target))
    broken["is"] = False
    assert items(target, 5) == items(mixture(), 5)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"sources": [["a", 10]]},
        {"taken": {"a": 1, "b": 1}},
        {"taken": {"a": -1, "b": 1, "c": 1}},
        {"taken": {"a": 1.0, "b": 1, "c": 1}},
        {"taken": None},
        {"weights": {"a": 1.0}},
        {"weights": {"a": 0.0, "b": 1.0, "c": 1.0}},
        {"batch_size": 0},
    ],
)
def test_a_state_of_another_mixture_is_refused_and_changes_nothing(change: dict[str, Any]) -> None:
    target = mixture()
    items(target, 3)
    before = target.state_dict()
    with pytest.raises(CheckpointError):
        target.load_state_dict({**before, **change})
    assert target.state_dict() == before


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {"a": 1.0}},
        {"datasets": {}, "weights": {}},
        {"weights": {"a": 0.0, "b": 1.0, "c": 1.0}},
        {"weights": {"a": float("nan"), "b": 1.0, "c": 1.0}},
        {"datasets": {**DATA, "b": range(0)}},
        {"batch_size": 0},
    ],
)
def test_arguments_that_make_no_mixture_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        mixture(**change)


def test_weights_that_make_no_sense_are_refused_and_change_nothing() -> None:
    target = mixture()
    wrong: Any
    for wrong in (0.0, -1.0, float("inf"), float("nan"), True, "1"):
        with pytest.raises(UsageError, match="weight of a"):
            target.set_weight("a", wrong)
    with pytest.raises(UsageError, match="no such source"):
        target.set_weight("d", 1.0)
    with pytest.raises(UsageError):
        target.skip(-1)
    assert target.weights == {"a": 1.0, "b": 2.0, "c": 1.0}
