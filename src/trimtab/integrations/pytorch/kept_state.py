"""Train for a while, then be exactly where one was: for measurements on the live run.

Kept are weights, buffers, optimizer, scheduler, further objects, generators, the data position, gradients, and the
training and requires_grad flags. What a loader's dataset remembers by itself is not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trimtab.errors import UsageError
from trimtab.integrations.pytorch.bindings.groups import unwrap
from trimtab.integrations.pytorch.rng import capture_rng, restore_rng
from trimtab.integrations.pytorch.state import TorchStateStore
from trimtab.integrations.pytorch.stateful import Stateful, load_state, state_of
from trimtab.integrations.pytorch.tree import decode_tree, encode_tree

_START: Final = "start"


@contextmanager
def kept_state(
    model: nn.Module,
    optimizer: Optimizer,
    loader: object,
    scheduler: Any = None,
    extra_state: Mapping[str, object] | None = None,
) -> Generator[Callable[[], None], None, None]:
    """Keep a run's state, and restore it when the block is left, however it is left.

    Yields:
        A function that goes back to the kept state within the block; data and random numbers go on.

    Raises:
        UsageError: The loader or another object cannot be put back; nothing was changed.
        CheckpointError: The state could not be saved; nothing was changed.
    """
    _refuse(loader)
    parameters = _parameters(model, unwrap(optimizer))
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        store = TorchStateStore(Path(folder), model, optimizer, scheduler, None, extra_state)
        store.save(_START, {})
        data = encode_tree([state_of(target) for target in _data(loader)], "data")
        rng, gradients = capture_rng(), [_kept_gradient(parameter) for parameter in parameters]
        flags = [(module, module.training) for module in model.modules()]
        grads_wanted = [parameter.requires_grad for parameter in parameters]
        inside = set(map(id, model.parameters()))
        strays = [(parameter, parameter.detach().clone()) for parameter in parameters if id(parameter) not in inside]

        def go_back() -> None:
            drawn = capture_rng()
            store.restore(_START)
            _write_back(strays)
            restore_rng(drawn)

        try:
            yield go_back
        finally:
            go_back()
            for target, state in zip(_data(loader), decode_tree(*data), strict=True):
                load_state(target, state)
            for parameter, wanted, gradient in zip(parameters, grads_wanted, gradients, strict=True):
                parameter.requires_grad_(wanted)
                _restore_gradient(parameter, gradient)
            for module, training in flags:
                module.training = training
            restore_rng(rng)


def _refuse(loader: object) -> None:
    if isinstance(loader, Iterator) and not isinstance(loader, Stateful):
        raise UsageError(
            "an iterator cannot be put back to its position",
            received=type(cast("object", loader)).__name__,
            allowed="a loader that can be iterated again, or one with state_dict and load_state_dict",
            next_step="pass the loader itself",
        )
    if getattr(loader, "persistent_workers", False):
        raise UsageError(
            "persistent workers go on with what they have prepared, so the loader cannot be put back",
            received=f"{type(loader).__name__}(persistent_workers=True)",
            next_step="pass another loader of the same dataset, without persistent workers",
        )


def _data(loader: object) -> list[Stateful | torch.Generator]:
    """Return what the order of the batches depends on, beside the global generators; each object once."""
    samplers = [getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    inner = getattr(samplers[1], "sampler", None)
    owners = [loader, *samplers, inner]
    found: dict[int, Stateful | torch.Generator] = {}
    for target in (*owners, *(getattr(owner, "generator", None) for owner in owners)):
        if isinstance(target, (Stateful, torch.Generator)):
            found[id(target)] = target
    return list(found.values())


def _parameters(model: nn.Module, optimizer: Optimizer) -> list[Tensor]:
    every = [*model.parameters(), *(parameter for group in optimizer.param_groups for parameter in group["params"])]
    return list({id(parameter): parameter for parameter in every}.values())


def _write_back(strays: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for parameter, value in strays:
            parameter.copy_(value)


def _kept_gradient(parameter: Tensor) -> tuple[Tensor, Tensor] | None:
    return None if parameter.grad is None else (parameter.grad, parameter.grad.detach().clone())


def _restore_gradient(parameter: Tensor, kept: tuple[Tensor, Tensor] | None) -> None:
    parameter.grad = None
    if kept is not None:
        gradient, value = kept
        with torch.no_grad():
            gradient.copy_(value)
        parameter.grad = gradient
