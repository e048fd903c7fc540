"""One owner per control: who supervises which object, and schedulers that would fight over a control.

A scheduler that computes the rate from the step count is no owner: trimtab multiplies whatever it sets. One
that watches a metric and cuts the rate by itself is a second controller, and the two would add up. One that
cycles the momentum writes it at every step, so a value of trimtab's would not last one.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trimtab.controls.catalogue import base_name
from trimtab.controls.entries import LEARNING_RATE, MOMENTUM
from trimtab.errors import OwnershipError


@dataclass(frozen=True, slots=True)
class _Claims:
    """What is held of one object.

    Args:
        target: A weak reference to it; the object itself where none can be made (a dict, an object with slots), so
            that its id is not given to another.
        held: Who holds what of it.
    """

    target: object
    held: dict[str, str]


# By id: objects that compare equal are still two, and some have no hash.
_CLAIMS: Final[dict[int, _Claims]] = {}


def claim(target: object, what: str, *, by: str | None = None) -> None:
    """Take a control, or an attribute, of an object; the claim ends with `release` or with the object.

    A control of one parameter group (``learning_rate/head``) and the same control of all groups exclude each other.
    The claim on an object that cannot be weakly referenced ends with `release` alone.

    Args:
        target: The object.
        what: A control's name, or the name of an attribute that the control is kept in.
        by: The control that takes it, where that is not ``what``.

    Raises:
        OwnershipError: Close the other supervisor, or leave the control out of one of the two.
    """
    held = _claims_on(target).held
    base, _, part = what.partition("/")
    taken = [name for name in held if name in {what, base} or (not part and name.startswith(f"{base}/"))]
    if taken:
        kind = type(target).__name__
        raise OwnershipError(
            f"{what} of this {kind} is already supervised",
            allowed="one supervisor per control and object",
            received=f"{by or what}; held by {', '.join(sorted({held[name] for name in taken}))}",
            next_step=f"close the other supervisor, or leave one of these controls out; a closed supervisor keeps a recipe "
            f"it has changed in force: then make a new {kind}",
        )
    held[what] = by or what


def release(target: object, what: str) -> None:
    """Give a control back; without effect if it was not taken."""
    claims = _CLAIMS.get(id(target))
    if claims is None:
        return
    claims.held.pop(what, None)
    if not claims.held:
        del _CLAIMS[id(target)]


def refuse_adaptive(scheduler: object) -> None:
    """Refuse a scheduler that steers the learning rate by a metric, also inside wrappers and chains.

    Call it when learning_rate is among the controls.

    Raises:
        OwnershipError: Remove the scheduler, or leave learning_rate out of the controls.
    """
    for path, found in schedulers_within(scheduler):
        if isinstance(found, ReduceLROnPlateau) or _watches_a_metric(found):
            raise OwnershipError(
                f"{type(found).__name__} already steers the learning rate by a metric",
                received=path,
                allowed="one owner of learning_rate; schedules that depend on the step alone are fine",
                next_step="remove it, or leave learning_rate out of the controls",
            )


def refuse_momentum_cycling(scheduler: object) -> None:
    """Refuse a scheduler that writes the momentum at every step, also inside wrappers and chains.

    Call it when momentum is among the controls.

    Raises:
        OwnershipError: Construct the scheduler with ``cycle_momentum=False``, or leave momentum out of the controls.
    """
    for path, found in schedulers_within(scheduler):
        if getattr(found, "cycle_momentum", False) is True:
            raise OwnershipError(
                f"{type(found).__name__} already writes the momentum at every step",
                received=f"{path} with cycle_momentum=True",
                allowed="one owner of momentum",
                next_step="construct it with cycle_momentum=False, or leave momentum out of the controls",
            )


def refuse_owner(control: str, scheduler: object) -> None:
    """Refuse a scheduler that steers or writes what a control of that name is about.

    Raises:
        OwnershipError: Remove the scheduler, or leave the control out.
    """
    if base_name(control) == LEARNING_RATE:
        refuse_adaptive(scheduler)
    elif base_name(control) == MOMENTUM:
        refuse_momentum_cycling(scheduler)


def _claims_on(target: object) -> _Claims:
    key = id(target)
    if key not in _CLAIMS:
        try:
            kept: object = weakref.ref(target, lambda _: _CLAIMS.pop(key, None))
        except TypeError:
            kept = target
        _CLAIMS[key] = _Claims(kept, {})
    return _CLAIMS[key]


def schedulers_within(root: object) -> Iterator[tuple[str, object]]:
    """Yield a scheduler and all it contains, each with the way to it; cycles end where they close.

    Wrappers keep their schedulers under many names (``_schedulers``, ``scheduler``, ``after_scheduler``...), so every
    attribute counts that has "scheduler" in its name or a ``step`` of its own, but for optimizers and modules.
    """
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [(type(root).__name__, root)]
    while waiting:
        path, found = waiting.pop(0)
        if found is None or id(found) in seen or isinstance(found, (Optimizer, nn.Module, str, int, float)):
            continue
        seen.add(id(found))
        if isinstance(found, (list, tuple)):
            items = cast("list[object]", found)
            waiting += [(f"{path}[{index}]: {type(item).__name__}", item) for index, item in enumerate(items)]
            continue
        if isinstance(found, Mapping):
            entries = cast("Mapping[object, object]", found)
            waiting += [(f"{path}[{key!r}]: {type(item).__name__}", item) for key, item in entries.items()]
            continue
        yield path, found
        for name, item in getattr(found, "__dict__", {}).items():
            if "scheduler" in name or callable(getattr(item, "step", None)) or _holds_steps(item):
                waiting.append((f"{path}.{name}: {type(item).__name__}", item))


def _holds_steps(item: object) -> bool:
    return isinstance(item, (list, tuple)) and any(callable(getattr(one, "step", None)) for one in cast("list[object]", item))


def _watches_a_metric(scheduler: object) -> bool:
    """Return whether its ``step`` cannot be called without a metric."""
    step = cast("Callable[..., Any] | None", getattr(scheduler, "step", None))
    if not callable(step):
        return False
    try:
        parameters = inspect.signature(step).parameters.values()
    except (TypeError, ValueError):  # a callable without a signature
        return False
    required = [one.name for one in parameters if one.default is inspect.Parameter.empty]
    return any(name in ("metric", "metrics", "loss", "val_loss") for name in required)
