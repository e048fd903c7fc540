"""Plain attributes of any object, and a user's own controls: bound through two functions.

What an attribute holds keeps its kind: a tensor is filled in place, an int stays an int (but where the catalogue knows that
the control takes fractions). What is no number is refused when declared, above all functions: a schedule that is called
anew at every update would ignore what is written beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Unpack, cast

from torch import Tensor

from trimtab.controls.catalogue import Limits, base_name, declare, own_control, part_name
from trimtab.controls.control import Control, Scale
from trimtab.controls.entries import ENTRIES
from trimtab.errors import ControlError, nearest
from trimtab.integrations.pytorch.bindings.groups import Held
from trimtab.integrations.pytorch.bindings.observed import ObservedBinding
from trimtab.integrations.pytorch.bindings.reach import as_kept, check_settable, checked_number, get_part, owner_of, set_part
from trimtab.integrations.pytorch.training import Training


@dataclass(frozen=True, slots=True)
class Handle:
    """How the value of a control is reached, for a control whose limits are declared elsewhere.

    Args:
        name: The control's name, as in the envelope.
        get: Returns the value in force, a number or a tensor of one element; shows at once what ``set`` has set.
        set: Sets it; called between steps only.
        owner: The object the value belongs to: no two supervisors may hold the same control of it.
        part: The owner's attribute or key, where the value is one: also held against controls of other names.
    """

    name: str
    get: Callable[[], Held]
    set: Callable[[float], object]
    owner: object
    part: str | None = None


@dataclass(frozen=True, slots=True)
class OwnControl:
    """A control together with the way to reach its value; goes into ``controls`` as it is."""

    control: Control
    handle: Handle


class HandleBinding(ObservedBinding):
    """Binds a control to a `Handle`.

    Args:
        control: The control.
        training: The run; what is in effect is read when its optimizer steps.
        handle: The way to the value.

    Raises:
        ControlError: What the handle returns is no finite number.
        OwnershipError: Another supervisor, or another control, has the value.
    """

    def __init__(self, control: Control, training: Training, handle: Handle) -> None:
        self._handle = handle
        part = handle.part or control.name
        super().__init__(control.name, training.optimizer, [(handle.owner, part)], least=-math.inf)

    def _held(self) -> tuple[Held, ...]:
        return (checked_number(self._handle.get(), self._handle.name),)

    def _put(self, targets: tuple[float, ...]) -> None:
        if self._numbers() != targets:
            self._handle.set(targets[0])

    def _targets(self, value: float) -> tuple[float, ...]:
        return (value,)


def handle(name: str, target: object, attribute: str) -> Handle:
    """Say that a control of the envelope is an attribute of an object; goes into ``parts``.

    Args:
        name: The control's name, as in the envelope.
        target: The object, or a mapping.
        attribute: Its attribute, or its key; with dots to go deeper, as in ``policy.ent_coef``.

    Raises:
        ControlError: There is no such attribute, it cannot be set, or it holds no number.
    """
    if not isinstance(name, str) or not isinstance(attribute, str):
        raise ControlError(
            "the arguments of handle are out of order",
            received=f"handle({', '.join(type(one).__name__ for one in (name, target, attribute))})",
            allowed='handle("entropy_coefficient", agent, "ent_coef"): the control\'s name, the object, its attribute',
        )
    path = attribute.split(".")
    owner = owner_of(target, path)
    last = path[-1]
    check_settable(owner, last)
    held = checked_number(get_part(owner, last), f"{name}: {attribute} of {type(target).__name__}")
    keeps_int = _is_whole(name, held)

    def set_(value: float) -> None:
        # Found anew each time: the objects on the way may have been replaced.
        now = owner_of(target, path)
        before = get_part(now, last)
        after = as_kept(before, value, keeps_int, name)
        if after is not before:  # a tensor was filled in place
            set_part(now, last, after)

    return Handle(name, lambda: get_part(owner_of(target, path), last), set_, owner, last)


def attribute(
    target: object,
    attribute: str,
    low: float,
    high: float,
    *,
    name: str | None = None,
    scale: Scale | None = None,
    unit: str = "",
    **limits: Unpack[Limits],
) -> OwnControl:
    """Declare an attribute of an object as a control.

    Args:
        target: The object, or a mapping.
        attribute: Its attribute, or its key; with dots to go deeper, as in ``policy.ent_coef``.
        low: Lowest value, inclusive.
        high: Highest value, inclusive.
        name: The control's name; by default the attribute's last part. If the catalogue has it (such as
            ``entropy_coefficient``), what is left out here is taken from there.
        scale: How a change is measured, by default as a difference; not for a name of the catalogue.
        unit: What the value counts; not for a name of the catalogue.
        **limits: Moves, required unless the catalogue has the name, and further limits; see `trimtab.controls.catalogue`.

    Raises:
        ControlError: Change the argument that the message names.

    Example:
        >>> trimtab.attribute(agent, "ent_coef", 0.0, 0.05, name="entropy_coefficient")
    """
    known = name or attribute.rpartition(".")[2]
    reached = handle(known, target, attribute)
    control = _declared(known, low, high, scale, unit, limits)
    is_whole = control.is_whole or _is_whole(known, reached.get())
    return OwnControl(replace(control, is_whole=is_whole), reached)


def custom(
    name: str,
    get: Callable[[], Held],
    set: Callable[[float], object],
    low: float,
    high: float,
    *,
    scale: Scale | None = None,
    unit: str = "",
    owner: object = None,
    **limits: Unpack[Limits],
) -> OwnControl:
    """Declare a control of one's own through two functions.

    Args:
        name: The control's name; limits left out are taken from the catalogue if it has the name.
        get: Returns the value in force; shows at once what ``set`` has set, and changes nothing.
        set: Sets it; called between steps only.
        low: Lowest value, inclusive.
        high: Highest value, inclusive.
        scale: How a change is measured, by default as a difference; not for a name of the catalogue.
        unit: What the value counts; not for a name of the catalogue.
        owner: The object the value belongs to: no two supervisors may hold this control of it. By default ``set``.
        **limits: Moves, required unless the catalogue has the name, and further limits; see `trimtab.controls.catalogue`.

    Raises:
        ControlError: Change the argument that the message names.

    Example:
        >>> trimtab.custom("tau", lambda: agent.tau, agent.set_tau, 0.001, 0.1, moves=trimtab.Multiply((0.5, 2.0)))
    """
    for what, function in (("get", get), ("set", set)):
        if not callable(function):
            raise ControlError(f"{what} of {name} is not a function", received=type(function).__name__, allowed="a callable")
    checked_number(get(), name)
    owned = getattr(set, "__self__", set) if owner is None else owner
    return OwnControl(_declared(name, low, high, scale, unit, limits), Handle(name, get, set, owned))


def _declared(name: str, low: float, high: float, scale: Scale | None, unit: str, limits: Limits) -> Control:
    """Return a control of the catalogue, or of the user's own."""
    base = base_name(name)
    if base in ENTRIES:
        if scale not in (None, ENTRIES[base].scale) or unit:
            raise ControlError(
                f"scale and unit of {base} stand in the catalogue",
                received=f"scale={scale!r}, unit={unit!r}",
                next_step="leave them out, or give the control a name of its own",
            )
        return declare(base, low, high, part=part_name(name), **limits)
    if limits.get("moves") is None:
        raise ControlError(
            f"{name} has no moves",
            received="a name that the catalogue does not have",
            next_step=f"give moves=trimtab.SetTo((...)) or Multiply; for a name of the catalogue, {nearest(base, ENTRIES)}",
        )
    return own_control(name, low, high, scale=scale or "difference", unit=unit, **cast("Any", limits))


def _is_whole(name: str, held: object) -> bool:
    """Return whether a control takes whole numbers only: as the catalogue says, else if an int stands there."""
    entry = ENTRIES.get(base_name(name))
    if entry is not None:
        return entry.is_whole
    return isinstance(held, Integral) or (isinstance(held, Tensor) and not held.is_floating_point())
