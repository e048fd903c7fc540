"""Weight decay: the number in every parameter group that decays."""

from __future__ import annotations

from typing import Final

from torch.optim import Optimizer

from trimtab.controls.entries import WEIGHT_DECAY
from trimtab.integrations.pytorch.bindings.group_numbers import GroupNumbersBinding, Slot
from trimtab.integrations.pytorch.bindings.groups import Group

_SLOT: Final = Slot("weight_decay")


class WeightDecayBinding(GroupNumbersBinding):
    """Binds weight_decay to an optimizer; the value is the largest decay among its groups.

    Groups without decay (biases, norms) keep none, unless no group has any; the others keep their ratios.

    Args:
        optimizer: The run's optimizer; wrappers that keep it as ``.optimizer`` are unwrapped.
        group: Name of one parameter group (``param_groups[i]["name"]``); by default all groups.

    Raises:
        ControlError: A group has no weight_decay, or a negative or non-finite one.
        OwnershipError: Another supervisor has this optimizer's weight decay.
    """

    def __init__(self, optimizer: Optimizer, group: str | None = None) -> None:
        super().__init__(WEIGHT_DECAY, optimizer, group, _slot)


def _slot(group: Group) -> Slot | None:
    return None if group.get("weight_decay") is None else _SLOT
