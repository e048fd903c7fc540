"""What every loader here starts from: a dataset found by index, and an order that depends on its key alone."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import torch
from torch import Tensor

from trimtab.errors import UsageError


class IndexedDataset(Protocol):
    """A dataset of known length whose items are found by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def draw_order(num_items: int, key: str) -> Tensor:
    """Return a random order of ``num_items`` items, shape (items,); neither uses nor needs the global RNG.

    On the CPU, also where another device is the default.
    """
    # A hash, not a sum of the numbers in the key: epoch 1 of seed 0 must not be epoch 0 of seed 1.
    generator = torch.Generator(device="cpu").manual_seed(draw_bits(key) >> 1)
    return torch.randperm(num_items, generator=generator, device="cpu")


def draw_bits(key: str) -> int:
    """Return 64 random bits that depend on ``key`` alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def check_stream(value: object) -> int:
    """Return which of a loader's orders is meant, 0 for that of its seed alone.

    Raises:
        UsageError: Give a whole number >= 0.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError("the order is malformed", received=repr(value), allowed="a whole number >= 0")
    return value


def stream_key(key: str, stream: int) -> str:
    """Return the key of an order in another stream."""
    return f"{key}:stream:{stream}" if stream else key


def check_whole(what: str, value: object) -> int:
    """Return ``value`` if it is a whole number >= 1.

    Raises:
        UsageError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{what} is malformed", received=repr(value), allowed="an integer >= 1")
    return value
