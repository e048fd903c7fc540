"""What most bindings share: one or several numbers, written between steps and looked at whenever the optimizer steps.

Rules:
- Until `ObservedBinding.write` nothing is written, and a number that already is what it should be is never written:
  training is bit-identical while the value is untouched.
- A value that does not stand after it was written is an error at once, not a success.
- Looking never ends the training: a number that cannot be read counts as NaN. A number kept as a tensor on an accelerator
  is copied there; the device is waited for only when somebody asks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from trimtab.actuation.binding import ReadBack
from trimtab.errors import ControlError
from trimtab.integrations.pytorch.bindings.groups import (
    Held,
    agree,
    as_number,
    check_written,
    rounded,
    share,
    unwrap,
    written_as,
)
from trimtab.integrations.pytorch.bindings.ownership import claim, release
from trimtab.integrations.pytorch.bindings.uncompiled import uncompiled


@dataclass(frozen=True, slots=True)
class _Written:
    """What was written last.

    Args:
        value: The control's value.
        numbers: What the numbers then were.
    """

    value: float
    numbers: tuple[float, ...]


class ObservedBinding(ABC):
    """A control whose value is the largest of the numbers that a subclass finds.

    Args:
        name: The control's name.
        optimizer: The run's optimizer; what is in effect is read when it steps.
        claims: What the binding takes: pairs of an object and what of it.
        least: Lowest value, inclusive.
        below: Every value is below this, exclusive.

    Raises:
        OwnershipError: Another supervisor, or another control, has one of the claims.
    """

    def __init__(
        self,
        name: str,
        optimizer: Optimizer,
        claims: Iterable[tuple[object, str]],
        *,
        least: float = 0.0,
        below: float = math.inf,
    ) -> None:
        self._name = name
        self._optimizer = unwrap(optimizer)
        self._range = (least, below)
        self._initial = self._numbers()
        self._expected = self._initial
        self._written: _Written | None = None
        self._observed: tuple[Held, ...] | None = None
        self._claims = _claimed(claims, name)
        self._hooks = [self._optimizer.register_step_post_hook(uncompiled(self._after_step))]

    @property
    def name(self) -> str:
        """The control's name."""
        return self._name

    @property
    def detail(self) -> str:
        """Where the value is kept, in words; empty if the control's name says it all."""
        return ""

    def read(self) -> float:
        """Return the value now."""
        now = self._numbers()
        # A float32 tensor holds 0.3 as 0.3000000119: what was written is the value while nobody else writes.
        return self._written.value if self._written is not None and now == self._written.numbers else max(now)

    def write(self, value: float) -> None:
        """Set the value: the largest of the numbers and, by their ratios, the others.

        Raises:
            ControlError: Give a value that the control can take; or the object does not keep what it is given.
        """
        checked = check_written(self._name, value, least=self._range[0], below=self._range[1])
        targets = self._targets(checked)
        self._put(targets)
        held = self._held()
        expected = tuple(rounded(target, kept) for target, kept in zip(targets, held, strict=True))
        found = tuple(map(as_number, held))
        if not all(map(agree, expected, found)):
            raise ControlError(
                f"{self._name} did not keep what was written",
                received=f"{max(found)!r} after writing {checked!r}",
                next_step="narrow the bounds to what the object accepts, or leave the control out",
            )
        self._expected, self._observed, self._written = expected, None, _Written(checked, found)

    def took_effect(self) -> ReadBack | None:
        """Return the value the last step was to use and used; None if no step ran since `write`."""
        if self._observed is None:
            return None
        observed = tuple(map(as_number, self._observed))
        holds = len(self._expected) == len(observed) and all(map(agree, self._expected, observed))
        return ReadBack(self._name, max(self._expected), max(observed, default=0.0), holds)

    def close(self) -> None:
        """Remove the hooks and give the control back; the numbers stay what they are."""
        for hook in self._hooks:
            hook.remove()
        for target, what in self._claims:
            release(target, what)

    @abstractmethod
    def _held(self) -> tuple[Held, ...]:
        """Return the numbers as they are kept now."""

    @abstractmethod
    def _put(self, targets: tuple[float, ...]) -> None:
        """Write every number that differs from its target."""

    def _targets(self, value: float) -> tuple[float, ...]:
        """Return what each number should be at that value; numbers of 0 stay 0, unless all were."""
        largest = max(self._initial)
        return tuple(share(value, initial, largest) if largest > 0 else value for initial in self._initial)

    def _numbers(self) -> tuple[float, ...]:
        return tuple(map(as_number, self._held()))

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        try:
            self._observed = tuple(_kept(held) for held in self._held())
        except Exception:  # noqa: BLE001 - a user's property, read inside optimizer.step(), which must not fail for it; NaN makes the next read-back fail
            self._observed = (math.nan,)


@dataclass(frozen=True, slots=True)
class Place:
    """A number that is an attribute of an object.

    Args:
        owner: The object.
        attribute: The attribute.
        label: The place in words, such as ``encoder.drop.p``.
    """

    owner: Any
    attribute: str
    label: str


class PlacesBinding(ObservedBinding):
    """A control kept in attributes of objects; the value is the largest, the others keep their ratio to it.

    Args:
        name: The control's name.
        optimizer: The run's optimizer; what is in effect is read when it steps.
        places: At least one.
        below: Every value is below this, exclusive.

    Raises:
        ControlError: An attribute is not a number in the range.
        OwnershipError: Another supervisor, or another control, has one of the places.
    """

    def __init__(self, name: str, optimizer: Optimizer, places: Iterable[Place], *, below: float = math.inf) -> None:
        self._places = tuple(places)
        for place in self._places:
            _check_place(place, below)
        super().__init__(name, optimizer, ((place.owner, place.attribute) for place in self._places), below=below)

    @property
    def detail(self) -> str:
        """The places, in words."""
        labels = [place.label for place in self._places]
        return listed(labels) if len(labels) <= 3 else f"{len(labels)} places: {listed(labels, 2)}"

    def _held(self) -> tuple[Held, ...]:
        return tuple(getattr(place.owner, place.attribute) for place in self._places)

    def _put(self, targets: tuple[float, ...]) -> None:
        for place, held, target in zip(self._places, self._held(), targets, strict=True):
            if as_number(held) != target:
                setattr(place.owner, place.attribute, written_as(held, target))


def listed(names: list[str], most: int = 8) -> str:
    """Return names as a text, the first ``most`` of them; "none" if there are none."""
    more = len(names) - most
    return f"{', '.join(names[:most]) or 'none'}{f' and {more} more' if more > 0 else ''}"


def _check_place(place: Place, below: float) -> None:
    held = getattr(place.owner, place.attribute)
    if isinstance(held, bool) or not isinstance(held, (int, float, Tensor)) or not 0 <= as_number(held) < below:
        upper = "a finite number >= 0" if below == math.inf else f"0 <= number < {below:g}"
        raise ControlError(
            f"{place.label} of {type(place.owner).__name__} cannot be supervised", received=repr(held), allowed=upper
        )


def _kept(held: Held) -> Held:
    return held.detach().clone() if isinstance(held, Tensor) else held


def _claimed(claims: Iterable[tuple[object, str]], name: str) -> list[tuple[object, str]]:
    """Take every claim, or none."""
    taken: list[tuple[object, str]] = []
    try:
        for target, what in claims:
            claim(target, what, by=name)
            taken.append((target, what))
    except ControlError:
        for target, what in taken:
            release(target, what)
        raise
    return taken
