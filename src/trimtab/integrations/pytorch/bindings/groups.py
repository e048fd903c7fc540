"""Parameter groups: how bindings reach an optimizer's groups and the numbers in them.

`Optimizer.load_state_dict` replaces every group by a new dict, so nothing here keeps a group; ask again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from trimtab.controls.bounds import is_finite_number
from trimtab.errors import ControlError, nearest

# A rate kept as a float32 tensor is rounded to about 6e-8 of itself.
RELATIVE_TOLERANCE: Final = 1e-6

Group = dict[str, Any]

# A number as it is kept: in a capturable optimizer, and where a user wants it so, as a tensor of one element.
Held = float | Tensor


def unwrap(optimizer: object) -> Optimizer:
    """Return the torch optimizer inside wrappers that keep it as ``.optimizer``, as accelerate's does.

    Raises:
        ControlError: Pass a `torch.optim.Optimizer` that has parameter groups.
    """
    inner = optimizer
    while isinstance(below := getattr(inner, "optimizer", None), Optimizer):
        inner = below
    if not isinstance(inner, Optimizer):
        raise ControlError("not an optimizer", received=type(optimizer).__name__, allowed="a torch.optim.Optimizer")
    if not getattr(inner, "param_groups", None):
        raise ControlError("the optimizer has no parameter groups", next_step="construct it with the model's parameters first")
    return inner


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of an optimizer's groups a control acts on.

    Args:
        control: The control's whole name, such as ``learning_rate`` or ``learning_rate/head``.
        positions: Their positions, for a load may drop the groups' names; None for all, also later ones.
    """

    control: str
    positions: tuple[int, ...] | None

    @classmethod
    def of(cls, optimizer: Optimizer, base: str, group: str | None) -> Selection:
        """Select the groups whose ``name`` is ``group``, or all.

        Raises:
            ControlError: No group has that name.
        """
        if group is None:
            return cls(base, None)
        names = [held.get("name") for held in optimizer.param_groups]
        if group not in names:
            known = nearest(group, (str(name) for name in names if name))
            raise ControlError(
                f"{base}: the optimizer has no parameter group of that name",
                received=group,
                next_step=f'name the group, {{"params": ..., "name": {group!r}}}; {known}',
            )
        return cls(f"{base}/{group}", tuple(index for index, name in enumerate(names) if name == group))

    def groups(self, optimizer: Optimizer) -> list[Group]:
        """Return the groups as they are now."""
        groups = optimizer.param_groups
        return groups if self.positions is None else [groups[index] for index in self.positions if index < len(groups)]


def number(group: Group, key: str, index: int) -> float:
    """Return a group's number as a float, checked.

    Raises:
        ControlError: The group lacks it, or it is negative or not finite.
    """
    if group.get(key) is None:
        raise ControlError(
            f"parameter group {index} has no {key}",
            received=f"keys {', '.join(sorted(group))}",
            next_step=f"leave {'learning_rate' if key == 'lr' else key} out of the controls",
        )
    value = float(group[key])
    if not math.isfinite(value) or value < 0:
        raise ControlError(f"{key} of parameter group {index} cannot be supervised", received=value, allowed="finite and >= 0")
    return value


def put(group: Group, key: str, value: float) -> None:
    """Set a group's number; a tensor stays the same tensor, as compiled and capturable optimizers need."""
    group[key] = written_as(group[key], value)


def written_as(held: Any, value: float) -> Any:
    """Return what to keep in place of ``held``: the value, or the same tensor filled with it."""
    if not isinstance(held, Tensor):
        return value
    with torch.no_grad():
        return held.fill_(value)


def as_number(held: Held) -> float:
    """Return a kept number as a float: of a tensor the short decimal that it stands for, 0.1 and not 0.10000000149."""
    value = float(held.detach() if isinstance(held, Tensor) else held)
    if isinstance(held, Tensor) and math.isfinite(value):
        for digits in (4, 7):
            short = float(f"{value:.{digits}g}")
            if float(torch.tensor(short, dtype=held.dtype)) == value:
                return short
    return value


def rounded(value: float, held: Held) -> float:
    """Return what ``value`` becomes where ``held`` is kept."""
    return as_number(torch.tensor(value, dtype=held.dtype)) if isinstance(held, Tensor) else value


def agree(expected: float, observed: float) -> bool:
    """Return whether two numbers are equal up to the rounding of a float32 tensor."""
    return expected == observed or math.isclose(expected, observed, rel_tol=RELATIVE_TOLERANCE)


def check_written(control: str, value: float, *, least: float = 0.0, below: float = math.inf) -> float:
    """Return ``value`` as a float if a binding may write it.

    Raises:
        ControlError: It is not a finite number with ``least <= value < below``.
    """
    if not is_finite_number(value) or not least <= value < below:
        floor = "" if least == -math.inf else f" and >= {least:g}"
        allowed = f"finite{floor}" if below == math.inf else f"{least:g} <= value < {below:g}"
        raise ControlError(f"{control} cannot take this value", received=repr(value), allowed=allowed)
    return float(value)


def share(value: float, initial: float, largest: float) -> float:
    """Return what an entry of initially ``initial`` takes when the largest one takes ``value``.

    Raises:
        ZeroDivisionError: ``largest`` is 0: no entry has a ratio to it.
    """
    return initial if value == largest else value * (initial / largest)  # exact where nothing changes


def share_of_rest(value: float, initial: float, longest: float) -> float:
    """Return the same for decay rates: 1 - beta, the share of news in an average, keeps its ratio; never below 0."""
    if initial == longest:
        return value
    return initial if value == longest else max(0.0, 1 - (1 - value) * ((1 - initial) / (1 - longest)))
