"""How a plain attribute is reached: found by its path, checked, read, and written in the kind in which it is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from numbers import Integral, Real
from typing import Any, Final, cast

import torch
from torch import Tensor

from trimtab.controls.bounds import is_finite_number
from trimtab.errors import ControlError, nearest
from trimtab.integrations.pytorch.bindings.groups import Held, written_as

_LONGEST_HINT: Final = 200

_CUSTOM: Final = "use trimtab.custom(name, get, set, low, high, moves=...) with functions that reach the number"

# Attributes that an object with the second attribute reads once, at its start (Stable-Baselines3 issues 735 and 1403).
_READ_ONCE: Final = {
    "learning_rate": ("lr_schedule", "use the control learning_rate on the policy's optimizer"),
    "ent_coef": ("ent_coef_tensor", 'use "ent_coef_tensor" if it is a tensor, else trimtab.custom on exp of log_ent_coef'),
}


def owner_of(target: object, path: list[str]) -> object:
    """Return the object that holds the last part of a path.

    Raises:
        ControlError: Correct the part that the message names.
    """
    owner = target
    for part in path[:-1]:
        owner = get_part(owner, part)
    return owner


def get_part(owner: object, part: str) -> Any:
    """Return what an object holds under an attribute, or a mapping under a key.

    Raises:
        ControlError: Correct the name.
    """
    kind = type(owner).__name__
    if isinstance(owner, Mapping):
        entries = cast("Mapping[str, Any]", owner)
        if part in entries:
            return entries[part]
        names = [str(key) for key in entries]
    else:
        try:
            return getattr(owner, part)
        except AttributeError:
            names = [name for name in dir(owner) if not name.startswith("_")]
    hint = nearest(part, names)
    raise ControlError(
        f"{kind} has no attribute or key of that name",
        received=part,
        next_step="correct the name" if len(hint) > _LONGEST_HINT else f"correct the name; {hint}",
    )


def set_part(owner: object, part: str, value: Any) -> None:
    """Set an attribute of an object, or an entry of a mapping."""
    if isinstance(owner, MutableMapping):
        owner[part] = value
    else:
        setattr(owner, part, value)


def check_settable(owner: object, part: str) -> None:
    """Check, without writing, that an attribute or entry can be set, and that something reads it after the start.

    Raises:
        ControlError: Reach the number another way, as the message says.
    """
    if isinstance(get_part(owner, part), Tensor):
        return  # filled in place, so that nothing has to be set
    kind = cast("type[Any]", type(owner))
    if isinstance(owner, Mapping):
        is_fixed = not isinstance(owner, MutableMapping)
    elif isinstance(descriptor := getattr(kind, part, None), property):
        is_fixed = descriptor.fset is None
    else:
        parameters = getattr(kind, "__dataclass_params__", None)
        is_fixed = isinstance(owner, tuple) or bool(getattr(parameters, "frozen", False))
    if is_fixed:
        raise ControlError(
            f"{part} of a {kind.__name__} cannot be set", received="a value that can only be read", next_step=_CUSTOM
        )
    sibling, advice = _READ_ONCE.get(part, ("", ""))
    if sibling and hasattr(cast("Any", owner), sibling):
        raise ControlError(
            f"{part} of a {kind.__name__} is read once, at its start", received=f"it also has {sibling}", next_step=advice
        )


def checked_number(held: Any, what: str) -> Held:
    """Return what an attribute or a function holds if it is a finite number, or a tensor of one.

    Raises:
        ControlError: It holds something else; the message says what it is and what to do.
    """
    if isinstance(held, Tensor):
        held = held.detach()  # the same memory
        is_number = held.numel() == 1 and not held.is_complex() and held.dtype is not torch.bool
        received = f"a tensor of shape {tuple(held.shape)}, {held.dtype}"
    else:
        is_number = isinstance(held, Real)  # a bool is one, yet no finite number to `is_finite_number`
        received = f"a {type(held).__name__}, {held!r}"[:200]
    if is_number and (is_finite_number(held) if isinstance(held, int) else math.isfinite(held)):
        return held if isinstance(held, Tensor) else cast("float", held)
    if callable(held):
        raise ControlError(
            f"{what} is a function, not a number",
            received=received,
            next_step="it is a schedule that is called at every update (as clip_range of Stable-Baselines3): "
            "use trimtab.custom with a set that puts a new function in its place",
        )
    raise ControlError(
        f"{what} is not a number",
        received=received,
        allowed="a finite int or float, or a tensor of one element",
        next_step=_CUSTOM,
    )


def as_kept(held: Any, value: float, keeps_int: bool, name: str) -> Any:
    """Return the value in the kind in which the attribute keeps it; of a tensor the tensor itself, filled with it.

    Raises:
        ControlError: Give a whole number.
    """
    is_tensor = isinstance(held, Tensor)
    if (not held.is_floating_point() if is_tensor else keeps_int) and not value.is_integer():
        raise ControlError(f"{name} takes whole numbers only", received=value, allowed="a whole number")
    if is_tensor:
        return written_as(held, value)
    kind = cast("Callable[[Any], Any]", type(held))  # an int, a float, or a number of numpy's
    if isinstance(held, Integral):
        # One that need not stay whole, such as ent_coef=0, is a float written short.
        return kind(int(value)) if keeps_int else value
    return kind(value) if isinstance(held, Real) else value
