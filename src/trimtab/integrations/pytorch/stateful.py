"""Reading and loading the state of training objects so that it comes back bit for bit.

`load_state_dict` alone does not do that: an optimizer casts its state to the dtype of the parameters and replaces
tensors (a capturable optimizer's rate among them) that compiled code and CUDA graphs hold on to.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable
from itertools import chain
from typing import Any, Final, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trimtab.errors import CheckpointError

# Code is not state: a scheduler is constructed with its functions, and load_state_dict leaves them alone.
_CODE: Final = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial, weakref.ref)


@runtime_checkable
class Stateful(Protocol):
    """Whatever has a state_dict that can be loaded back."""

    def state_dict(self) -> Any:
        """Return the state."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Go back to a state."""
        ...


def state_of(target: Stateful | torch.Generator) -> Any:
    """Return an object's state without functions; its tensors may be the live ones, so encode it at once."""
    return target.get_state() if isinstance(target, torch.Generator) else without_code(target.state_dict())


def load_state(target: Stateful | torch.Generator, saved: Any) -> None:
    """Load a state; its tensors may be taken over, so use it once."""
    if isinstance(target, torch.Generator):
        target.set_state(saved)
    elif isinstance(target, Optimizer):
        _load_optimizer(target, saved)
    elif isinstance(target, nn.Module):
        _load_module(target, saved)
    else:
        target.load_state_dict(into(state_of(target), saved))


def without_code(state: Any) -> Any:
    """Return a state without the functions a scheduler or optimizer keeps beside its numbers."""
    if type(state) in (dict, OrderedDict):
        entries = cast("dict[Any, Any]", state).items()
        return type(state)((key, without_code(value)) for key, value in entries if not isinstance(value, _CODE))
    if type(state) is list:
        return [without_code(item) for item in cast("list[Any]", state)]
    return state


def into(live: Any, saved: Any) -> Any:
    """Return ``saved`` with every tensor written into the live tensor at its place, where dtype and shape agree."""
    return _beside(live, saved, _into_tensor)


def check_module(live: dict[str, Any], saved: dict[str, Any], what: str) -> None:
    """Check that a saved module state has the keys, shapes and dtypes of the live one.

    Raises:
        CheckpointError: The message names the first entry that differs.
    """
    if differing := sorted(live.keys() ^ saved.keys()):
        raise CheckpointError(
            f"the {what} of the checkpoint are not the model's",
            received=f"only in one of the two: {', '.join(differing[:5])}",
            next_step="restore into the model it was saved from",
        )
    for name, value in live.items():
        if isinstance(value, Tensor) and form(value) != form(saved[name]):
            raise CheckpointError(f"{name} of the checkpoint has another form", received=form(saved[name]), allowed=form(value))


def check_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Check that a saved optimizer state has the groups of the live one.

    Raises:
        CheckpointError: The number of groups, or of parameters in one, differs.
    """
    ours = [len(group["params"]) for group in optimizer.param_groups]
    theirs = [len(group["params"]) for group in saved["param_groups"]]
    if ours != theirs:
        raise CheckpointError(
            "the checkpoint's optimizer has other parameter groups",
            received=f"groups of {theirs} parameters",
            allowed=f"groups of {ours}",
            next_step="restore into the optimizer it was saved from",
        )


def form(value: Any) -> str:
    """Return a tensor's dtype and shape in words, another value's type."""
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _load_module(module: nn.Module, saved: dict[str, Any]) -> None:
    # The versions of the modules, which a few of them consult when loading, are those of the live model.
    state: Any = OrderedDict(saved)
    state._metadata = getattr(module.state_dict(), "_metadata", None)  # noqa: SLF001 - load_state_dict reads the versions there, and torch offers no other way
    module.load_state_dict(state, strict=True)


def _load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    before = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    for held, group in zip(before, optimizer.param_groups, strict=True):
        # From the group, not from `saved`: a binding's hook may have written the recipe's value into it.
        group.update({key: into(held.get(key), value) for key, value in group.items() if key != "params"})
    ids = chain.from_iterable(group["params"] for group in saved["param_groups"])
    live = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    for id, parameter in zip(ids, live, strict=True):
        entries = optimizer.state.get(parameter)
        if entries is not None and id in saved["state"]:
            entries.update({key: _beside(entries.get(key), value, _exact) for key, value in saved["state"][id].items()})


def _beside(other: Any, saved: Any, leaf: Callable[[Any, Any], Any]) -> Any:
    """Return ``saved`` with ``leaf(entry of other, entry of saved)`` for all that is not a container."""
    entries: Any = saved
    if isinstance(saved, dict):
        held = cast("dict[Any, Any]", other) if isinstance(other, dict) else {}
        rebuilt = entries.__class__()  # filled one by one: Counter(pairs) would count the pairs
        for key, value in entries.items():
            rebuilt[key] = _beside(held.get(key), value, leaf)
        return rebuilt
    if type(saved) in (list, tuple):
        others: Any = other if type(other) is type(saved) and len(other) == len(entries) else [None] * len(entries)
        return entries.__class__(_beside(*pair, leaf) for pair in zip(others, entries, strict=True))
    return leaf(other, saved)


def _into_tensor(live: Any, saved: Any) -> Any:
    if isinstance(live, Tensor) and isinstance(saved, Tensor):
        if form(live) != form(saved):
            return saved.to(live.device)
        with torch.no_grad():
            return live.copy_(saved)
    if isinstance(live, Tensor) and live.ndim == 0 and isinstance(saved, (int, float)):
        with torch.no_grad():
            return live.fill_(saved)  # a rate that has since become a tensor stays one
    return saved


def _exact(loaded: Any, saved: Any) -> Any:
    """Return ``loaded``, on its device, but where loading has cast or rebuilt a value, the saved one."""
    if isinstance(loaded, Tensor) and isinstance(saved, Tensor):
        return loaded if loaded.dtype == saved.dtype else saved.to(loaded.device)
    return saved
