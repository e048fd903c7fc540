"""The functions of torch whose own annotations leave parameters open, each with its type said once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.utils import data

_TORCH: Final[Any] = cast("Any", torch)

default_collate: Final[Callable[[list[Any]], Any]] = cast("Any", data).default_collate


def seed_torch(seed: int) -> None:
    """Seed torch's own generators, on every device."""
    _TORCH.manual_seed(seed)


def backward(loss: Tensor) -> None:
    """Let the gradients of a loss of one element flow into the parameters."""
    cast("Any", loss).backward()


def listed(tensor: Tensor) -> list[Any]:
    """Return a tensor's numbers as nested lists; waits for its device."""
    return cast("list[Any]", cast("Any", tensor).tolist())


def largest_magnitude(tensor: Tensor) -> Tensor:
    """Return the largest absolute value, shape (); NaN if there is a NaN among them."""
    return cast("Tensor", _TORCH.linalg.vector_norm(tensor, ord=torch.inf))
