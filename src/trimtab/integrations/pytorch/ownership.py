"""One owner per control: who supervises which object, and schedulers that would fight over the rate.

A scheduler that computes the rate from the step count is no owner: trimtab multiplies whatever it sets. One
that watches a metric and cuts the rate by itself is a second controller, and the two would add up.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trimtab.errors import OwnershipError

Owned = Optimizer | nn.Module

_CLAIMS: Final[WeakKeyDictionary[Owned, set[str]]] = WeakKeyDictionary()


def claim(target: Owned, control_name: str) -> None:
    """Take a control of an optimizer or model; the claim ends with `release` or with the object.

    A control of one parameter group (``learning_rate/head``) and the same control of all groups exclude each other.

    Raises:
        OwnershipError: Close the other supervisor, or leave the control out of one of the two.
    """
    held = _CLAIMS.setdefault(target, set())
    base, _, group = control_name.partition("/")
    if any(name in {control_name, base} or (not group and name.startswith(f"{base}/")) for name in held):
        raise OwnershipError(
            f"{control_name} of this {type(target).__name__} is already supervised",
            allowed="one supervisor per control and object",
            received=f"held: {', '.join(sorted(held))}",
            next_step=f"close the other supervisor, or leave {control_name} out of the controls of one of them; "
            f"a closed one keeps a recipe it has changed in force: then make a new {type(target).__name__}",
        )
    held.add(control_name)


def release(target: Owned, control_name: str) -> None:
    """Give a control back; without effect if it was not taken."""
    _CLAIMS.get(target, set[str]()).discard(control_name)


def refuse_adaptive(scheduler: object) -> None:
    """Refuse a scheduler that steers the learning rate by a metric, also inside wrappers and chains.

    Call it when learning_rate is among the controls.

    Raises:
        OwnershipError: Remove the scheduler, or leave learning_rate out of the controls.
    """
    if isinstance(scheduler, ReduceLROnPlateau):
        raise OwnershipError(
            "ReduceLROnPlateau already steers the learning rate by a metric",
            received=type(scheduler).__name__,
            allowed="one owner of learning_rate; schedules that depend on the step alone are fine",
            next_step="remove the scheduler, or leave learning_rate out of the controls",
        )
    if isinstance(scheduler, (list, tuple)):
        inner: tuple[object, ...] = tuple(scheduler)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # items are looked at one by one
    else:
        # ChainedScheduler and SequentialLR keep their children in `_schedulers`, accelerate in `scheduler`.
        inner = (*getattr(scheduler, "_schedulers", ()), getattr(scheduler, "scheduler", None))
    for child in inner:
        if child is not None:
            refuse_adaptive(child)
