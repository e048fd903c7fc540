"""Numbers of an optimizer's parameter groups other than the rate: what weight_decay, momentum and beta2 share.

Rules:
- A group whose number is 0 keeps 0, unless all groups start at 0. The ratios are those found when bound.
- The value survives `load_state_dict`, which would undo it: what was written last is written again.
- A number kept as a tensor is filled in place; the container of a pair of betas keeps its type.
- A compiled optimizer recompiles once per new value of a plain number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from trimtab.errors import ControlError
from trimtab.integrations.pytorch.bindings.groups import Group, Held, Selection, as_number, put, share, unwrap, written_as
from trimtab.integrations.pytorch.bindings.observed import ObservedBinding


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a group keeps a number.

    Args:
        key: The group's key.
        position: Its place in the tuple or list under that key; None if the number stands there itself.
    """

    key: str
    position: int | None = None

    def held(self, group: Group) -> Held:
        """Return the number as it is kept."""
        return group[self.key] if self.position is None else group[self.key][self.position]

    def put(self, group: Group, value: float) -> None:
        """Set the number unless it already is the value."""
        if as_number(self.held(group)) == value:
            return
        if self.position is None:
            put(group, self.key, value)
            return
        betas = list(group[self.key])
        betas[self.position] = written_as(betas[self.position], value)
        # A new one of the same type: groups may share a list.
        group[self.key] = betas if isinstance(group[self.key], list) else tuple(betas)


class GroupNumbersBinding(ObservedBinding):
    """A control kept in an optimizer's parameter groups.

    Args:
        base: The control's name in the catalogue.
        optimizer: The run's optimizer; wrappers that keep it as ``.optimizer`` are unwrapped.
        group: Name of one parameter group (``param_groups[i]["name"]``); None for all groups.
        find: Returns where a group keeps the number, or None if it has none.
        ratio: From a new value, a group's number and the largest when bound to the group's new number.
        below: Every value is below this, exclusive.

    Raises:
        ControlError: A group has no such number, or one that cannot be supervised.
        OwnershipError: Another supervisor has this number of this optimizer.
    """

    def __init__(
        self,
        base: str,
        optimizer: Optimizer,
        group: str | None,
        find: Callable[[Group], Slot | None],
        *,
        ratio: Callable[[float, float, float], float] = share,
        below: float = math.inf,
    ) -> None:
        inner = unwrap(optimizer)
        self._selection = Selection.of(inner, base, group)
        self._find = find
        self._ratio = ratio
        groups = self._selection.groups(inner)
        for index, one in enumerate(groups):
            _check_number(base, one, index, find(one), below)
        _refuse_shared_tensors(self._selection.control, inner.param_groups, groups, find)
        super().__init__(self._selection.control, inner, [(inner, self._selection.control)], below=below)
        self._hooks.append(inner.register_load_state_dict_post_hook(self._after_load))

    def _slots(self) -> list[tuple[Group, Slot]]:
        groups = self._selection.groups(self._optimizer)
        return [(group, slot) for group in groups if (slot := self._find(group)) is not None]

    def _held(self) -> tuple[Held, ...]:
        return tuple(slot.held(group) for group, slot in self._slots())

    def _put(self, targets: tuple[float, ...]) -> None:
        for (group, slot), target in zip(self._slots(), targets, strict=True):
            slot.put(group, target)

    def _targets(self, value: float) -> tuple[float, ...]:
        return tuple(self._share(value, index, as_number(held)) for index, held in enumerate(self._held()))

    def _share(self, value: float, index: int, now: float) -> float:
        largest = max(self._initial)
        if largest == 0:
            return value
        if index < len(self._initial):
            return self._ratio(value, self._initial[index], largest) if self._initial[index] > 0 else 0.0
        return value if now > 0 else 0.0  # a group added after binding has no ratio yet

    def _after_load(self, optimizer: Optimizer) -> None:
        if self._written is None:  # never changed by trimtab: what was loaded stands
            self._expected = self._numbers()
            self._observed = None
        else:
            self.write(self._written.value)


def _check_number(base: str, group: Group, index: int, slot: Slot | None, below: float) -> None:
    if slot is None:
        raise ControlError(
            f"parameter group {index} has no {base}",
            received=f"keys {', '.join(sorted(group))}",
            next_step=f"leave {base} out of the controls",
        )
    held: Any = slot.held(group)
    if isinstance(held, bool) or not isinstance(held, (int, float, Tensor)) or not math.isfinite(held) or not 0 <= held < below:
        allowed = "finite and >= 0" if below == math.inf else f"0 <= {base} < {below:g}"
        raise ControlError(f"{base} of parameter group {index} cannot be supervised", received=repr(held), allowed=allowed)


def _refuse_shared_tensors(
    control: str, all_: list[Group], selected: list[Group], find: Callable[[Group], Slot | None]
) -> None:
    """Refuse to fill in place a tensor that also is the number of a group which is not selected."""
    ours = {id(held) for group in selected if (slot := find(group)) and isinstance(held := slot.held(group), Tensor)}
    for group in all_:
        if all(group is not one for one in selected) and (slot := find(group)) and id(slot.held(group)) in ours:
            raise ControlError(
                f"{control} cannot be changed alone",
                received="one tensor shared with another parameter group",
                next_step="give every parameter group a tensor of its own, or control all groups together",
            )
