"""Momentum and the second beta: how much of an optimizer's running averages is kept per step.

Where they are found:
- momentum: ``momentum`` (SGD, RMSprop, Muon), else the first of ``betas`` (Adam and its kin), else ``beta1``.
- beta2: the second of two ``betas``, else ``beta2``, else ``alpha`` of an RMSprop, which also averages squares. ASGD's
  ``alpha`` is an exponent, and of three betas nobody can say which one averages squares: neither counts.

Groups with different values keep the ratio of 1 - beta, the share of news in an average: from 0.9 and 0.99 to 0.95 and
0.995. A beta that would fall below 0 is 0.
"""

from __future__ import annotations

from typing import cast

from torch.optim import SGD, Optimizer

from trimtab.controls.entries import BETA2, MOMENTUM
from trimtab.errors import ControlError
from trimtab.integrations.pytorch.bindings.group_numbers import GroupNumbersBinding, Slot
from trimtab.integrations.pytorch.bindings.groups import Group, Selection, share_of_rest, unwrap


class MomentumBinding(GroupNumbersBinding):
    """Binds momentum, or the first beta, to an optimizer; the value is the largest among its groups.

    Args:
        optimizer: The run's optimizer; wrappers that keep it as ``.optimizer`` are unwrapped.
        group: Name of one parameter group (``param_groups[i]["name"]``); by default all groups.

    Raises:
        ControlError: A group has no momentum, or the optimizer has no buffers for one.
        OwnershipError: Another supervisor has this optimizer's momentum.
    """

    def __init__(self, optimizer: Optimizer, group: str | None = None) -> None:
        _require_buffers(unwrap(optimizer), group)
        super().__init__(MOMENTUM, optimizer, group, momentum_slot, ratio=share_of_rest, below=1.0)


class Beta2Binding(GroupNumbersBinding):
    """Binds the second beta to an optimizer; the value is the largest among its groups.

    Args:
        optimizer: The run's optimizer; wrappers that keep it as ``.optimizer`` are unwrapped.
        group: Name of one parameter group (``param_groups[i]["name"]``); by default all groups.

    Raises:
        ControlError: A group has no second beta.
        OwnershipError: Another supervisor has this optimizer's second beta.
    """

    def __init__(self, optimizer: Optimizer, group: str | None = None) -> None:
        super().__init__(BETA2, optimizer, group, beta2_slot, ratio=share_of_rest, below=1.0)


def momentum_slot(group: Group) -> Slot | None:
    """Return where a group keeps its momentum, or None."""
    if group.get("momentum") is not None:
        return Slot("momentum")
    if _betas(group):
        return Slot("betas", 0)
    return None if group.get("beta1") is None else Slot("beta1")


def beta2_slot(group: Group) -> Slot | None:
    """Return where a group keeps the decay rate of its average of squares, or None."""
    if _betas(group) == 2:
        return Slot("betas", 1)
    if group.get("beta2") is not None:
        return Slot("beta2")
    return Slot("alpha") if "alpha" in group and "centered" in group else None


def _betas(group: Group) -> int:
    betas = group.get("betas")
    return len(cast("tuple[object, ...]", betas)) if isinstance(betas, (tuple, list)) else 0


def _require_buffers(optimizer: Optimizer, group: str | None) -> None:
    """Refuse a momentum of 0 where the buffer is made at the first step or not at all: RMSprop fails in a later step."""
    if isinstance(optimizer, SGD):  # makes its buffers when they are first needed
        return
    groups = Selection.of(optimizer, MOMENTUM, group).groups(optimizer)
    if groups and all(momentum_slot(one) == Slot("momentum") and float(one["momentum"]) == 0 for one in groups):
        raise ControlError(
            f"this {type(optimizer).__name__} keeps no momentum buffers",
            received="momentum=0",
            allowed="a momentum > 0 from the start",
            next_step="construct the optimizer with a momentum, or leave momentum out of the controls",
        )
