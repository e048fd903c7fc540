from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict, defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.unit.integrations.pytorch.small_runs import SCHEDULERS, advance, digest
from trimtab.errors import CheckpointError
from trimtab.integrations.pytorch.stateful import load_state, state_of, without_code
from trimtab.integrations.pytorch.tree import decode_tree, encode_tree


def round_trip(value: Any) -> Any:
    tree, tensors = encode_tree(value)
    return decode_tree(json.loads(json.dumps(tree, allow_nan=False)), tensors)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.integers() | st.text(max_size=3) | st.tuples(st.integers()), inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict)
        | st.sets(st.integers() | st.text(max_size=3), max_size=3)
        | st.frozensets(st.integers(), max_size=3)
        | st.lists(st.integers(0, 3), max_size=4).map(Counter)
    ),
    max_leaves=12,
)


@given(TREES)
def test_nested_values_come_back_exactly_with_their_types(value: Any) -> None:
    assert digest(round_trip(value)) == digest(value)
    assert type(round_trip(value)) is type(value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1])
def test_floats_come_back_bit_for_bit(number: float) -> None:
    assert repr(round_trip({"x": number})["x"]) == repr(number)


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_tensors_come_back_with_dtype_and_shape(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape).to(dtype)
    assert digest(round_trip([tensor])[0]) == digest(tensor)


def test_views_and_shared_storage_become_tensors_of_their_own() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    tree, tensors = encode_tree(
        {"whole": whole, "again": whole, "t": whole.t(), "wide": torch.ones(1).expand(5), "p": nn.Parameter(whole)}
    )
    storages = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    assert len(storages) == 5
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in tensors.values())
    whole.zero_()
    assert torch.equal(decode_tree(tree, tensors)["t"], torch.arange(12.0).reshape(3, 4).t())


def test_memory_format_complex_numbers_and_equal_paths_survive() -> None:
    image = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    wave = torch.randn(3, dtype=torch.complex128)
    back = round_trip({"image": image, "wave": wave.conj(), 1: torch.ones(1), "1": torch.zeros(1)})
    assert back["image"].stride() == image.stride()
    assert torch.equal(back["image"], image)
    assert torch.equal(back["wave"], wave.conj())
    assert (float(back[1]), float(back["1"])) == (1.0, 0.0)


@pytest.mark.parametrize("value", [np.float32(0.1), np.float64(math.nan), np.int64(-3), np.bool_(True), np.uint64(2**64 - 1)])
def test_numpy_scalars_keep_their_type(value: Any) -> None:
    back = round_trip((value,))[0]
    assert type(back) is type(value)
    assert back.tobytes() == value.tobytes()


def test_numpy_generator_states_survive() -> None:
    state = np.random.RandomState(1).get_state(legacy=False)
    back = round_trip(state)
    assert back["state"]["key"].dtype == np.uint32
    assert np.array_equal(back["state"]["key"], state["state"]["key"])
    pcg = np.random.default_rng(1).bit_generator.state
    assert round_trip(pcg) == pcg


@pytest.mark.parametrize(
    "unknown",
    [object(), len, defaultdict(int), 1j, torch.float32, torch.Size([1]), np.array([object()]), torch.ones(2).to_sparse()],
)
def test_what_cannot_be_encoded_is_named_with_its_path(unknown: Any) -> None:
    with pytest.raises(CheckpointError, match=r"optimizer\.groups\[1\]\.rate cannot be saved"):
        encode_tree({"groups": [0, {"rate": unknown}]}, "optimizer")


@pytest.mark.parametrize("tree", [{"tensor": "gone"}, {}, {"a": 1, "b": 2}, {"code": "x"}, {"dict": [1]}, {"bytes": "x"}])
def test_a_malformed_tree_is_refused(tree: Any) -> None:
    with pytest.raises(CheckpointError, match="malformed"):
        decode_tree(tree, {})


def optimizer(tensor_rate: bool) -> torch.optim.SGD:
    rate: Any = torch.tensor(0.1) if tensor_rate else 0.1
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=rate, foreach=False)


@pytest.mark.parametrize("tensor_rate", [False, True])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_goes_on_from_its_saved_state(name: str, tensor_rate: bool) -> None:
    def rates(scheduler: Any, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
        seen: list[float] = []
        for _ in range(count):
            optimizer.step()
            advance(scheduler)
            seen.append(float(optimizer.param_groups[0]["lr"]))
        return seen

    original = optimizer(tensor_rate)
    scheduler = SCHEDULERS[name](original)
    rates(scheduler, original, 6)
    saved = round_trip({"optimizer": original.state_dict(), "scheduler": state_of(scheduler)})
    assert digest(saved["scheduler"]) == digest(without_code(scheduler.state_dict()))
    expected = rates(scheduler, original, 6)
    resumed = optimizer(tensor_rate)
    scheduler = SCHEDULERS[name](resumed)
    rate = resumed.param_groups[0]["lr"]
    rates(scheduler, resumed, 2)
    load_state(resumed, saved["optimizer"])
    load_state(scheduler, saved["scheduler"])
    assert rates(scheduler, resumed, 6) == expected
    if tensor_rate:
        assert resumed.param_groups[0]["lr"] is rate


def test_functions_are_left_out_of_a_schedule() -> None:
    state = {"step": 3, "fn": lambda: 0, "method": [].append, "inner": [{"fn": max, "base": 0.1}]}
    assert without_code(state) == {"step": 3, "inner": [{"base": 0.1}]}
