"""Batch size, gradient accumulation and mixture weights: bound to the loaders of `trimtab.integrations.pytorch.data`.

A plain DataLoader is reached through its batch sampler only, which lives in the training process: attributes of a
dataset, or of the DataLoader itself, do not reach its workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar, cast

from torch.optim import Optimizer
from torch.utils.data import BatchSampler, DataLoader

from trimtab.controls.catalogue import part_name
from trimtab.controls.control import Control
from trimtab.controls.entries import BATCH_SIZE, GRADIENT_ACCUMULATION
from trimtab.errors import ControlError, nearest
from trimtab.integrations.pytorch.bindings.groups import Held
from trimtab.integrations.pytorch.bindings.observed import ObservedBinding
from trimtab.integrations.pytorch.data.accumulation import GradientAccumulation
from trimtab.integrations.pytorch.data.loader import ResumableLoader
from trimtab.integrations.pytorch.data.mixture import MixtureLoader
from trimtab.integrations.pytorch.data.sampler import ResumableBatchSampler
from trimtab.integrations.pytorch.data.workers import ResumableDataLoader
from trimtab.integrations.pytorch.training import Training

_T = TypeVar("_T")

# The engine waits 50 steps for a value to be read back.
_LARGEST_LAG_BATCHES: Final = 40
_LOADERS: Final = "ResumableLoader, ResumableDataLoader or MixtureLoader, or a DataLoader with a ResumableBatchSampler"
_SIZED: Final = (ResumableLoader, ResumableDataLoader, ResumableBatchSampler, MixtureLoader)


class DataBinding(ObservedBinding):
    """Binds one number of a loader: set for the next batch that is drawn.

    Args:
        name: The control's name.
        optimizer: The run's optimizer; the value is read when it steps.
        claim: What the number belongs to, and what of it.
        get: Returns the number.
        put: Sets it.
        least: Lowest value, inclusive.
        lag_batches: Batches already drawn when it is set: the value counts as in effect once as many steps have run.

    Raises:
        OwnershipError: Another supervisor has this control of this object.
    """

    def __init__(
        self,
        name: str,
        optimizer: Optimizer,
        claim: tuple[object, str],
        get: Callable[[], float],
        put: Callable[[float], None],
        *,
        least: float = 0.0,
        lag_batches: int = 0,
    ) -> None:
        self._get = get
        self._set = put
        self._lag = lag_batches
        self._steps = 0
        super().__init__(name, optimizer, (claim,), least=least)

    @property
    def detail(self) -> str:
        """How late a change takes effect, in words; empty if with the next batch."""
        return f"takes effect {self._lag} batches later, as the workers draw ahead" if self._lag else ""

    def write(self, value: float) -> None:
        """Set the value for the next batch that is drawn.

        Raises:
            UsageError: The loader refuses it; the message says why.
        """
        super().write(value)
        self._steps = 0

    def _held(self) -> tuple[Held, ...]:
        return (self._get(),)

    def _put(self, targets: tuple[float, ...]) -> None:
        if targets != self._numbers():
            self._set(targets[0])

    def _targets(self, value: float) -> tuple[float, ...]:
        return (value,)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._steps += 1
        if self._steps > self._lag:
            super()._after_step(optimizer, args, kwargs)


def bind_batch_size(control: Control, training: Training) -> DataBinding:
    """Bind batch_size to the loader, or to the batch sampler of a DataLoader.

    Raises:
        ControlError: The batch size of this loader cannot be changed, or not as far as the bounds go.
    """
    holder, lag = _sized(training)
    largest = getattr(holder, "largest_batch_size", None)
    if largest is not None and math.floor(control.bounds.high) > largest:
        raise ControlError(
            "the dataset does not fill a batch of the largest size",
            received=f"high={control.bounds.high:g}, {largest} items",
            next_step=f"lower the bound to {largest} or less, or use drop_last=False",
        )

    def set_size(value: float) -> None:
        holder.batch_size = _whole(BATCH_SIZE, value)

    return DataBinding(
        BATCH_SIZE,
        training.optimizer,
        (holder, "batch_size"),
        lambda: holder.batch_size,
        set_size,
        least=1.0,
        lag_batches=lag,
    )


def bind_gradient_accumulation(control: Control, training: Training) -> DataBinding:
    """Bind gradient_accumulation to the run's `GradientAccumulation`.

    Raises:
        ControlError: There is none, or more than one.
    """
    target = _only(GradientAccumulation, control, training)

    def set_number(value: float) -> None:
        target.num_batches = _whole(GRADIENT_ACCUMULATION, value)

    claim = (target, "num_batches")
    return DataBinding(GRADIENT_ACCUMULATION, training.optimizer, claim, lambda: target.num_batches, set_number, least=1.0)


def bind_mixture_weight(control: Control, training: Training) -> DataBinding:
    """Bind ``mixture_weight/SOURCE`` to the run's `MixtureLoader`.

    Raises:
        ControlError: There is none, or it has no such source.
    """
    target = _only(MixtureLoader, control, training)
    source = part_name(control.name)
    if source is None or source not in target.weights:
        raise ControlError(
            "the mixture has no such source", received=control.name, next_step=nearest(source or "", target.weights)
        )
    return DataBinding(
        control.name,
        training.optimizer,
        (target, control.name),
        lambda: target.weights[source],
        lambda value: target.set_weight(source, value),
    )


def _chain(training: Training) -> Iterator[Any]:
    """Yield the loader and the parts, each followed by the loader inside it."""
    for candidate in (training.loader, *training.parts):
        yield candidate
        if isinstance(candidate, GradientAccumulation):
            yield candidate.loader


def _only(kind: type[_T], control: Control, training: Training) -> _T:
    """Return the run's one object of that type."""
    found = {id(candidate): candidate for candidate in _chain(training) if isinstance(candidate, kind)}
    if len(found) != 1:
        raise ControlError(
            f"{control.name} needs one {kind.__name__}",
            received=f"{len(found)} among loader and parts",
            next_step=f"pass the run's {kind.__name__} as loader=, or in parts=[...]",
        )
    return next(iter(found.values()))


def _sized(training: Training) -> tuple[Any, int]:
    """Return the object whose ``batch_size`` decides, and the batches that are drawn ahead of it."""
    named = (training.loader, *training.parts)
    loaders = [training.loader, *(given.loader for given in named if isinstance(given, GradientAccumulation))]
    for candidate in _chain(training):
        if isinstance(candidate, DataLoader):
            loader = cast("DataLoader[Any]", candidate)
            sampler = cast("Any", candidate).batch_sampler
            return _settable(sampler, loader), _lag(loader)
        # Among the parts any object may have an attribute of that name; a loader means it.
        is_loader = isinstance(candidate, _SIZED) or any(candidate is loader for loader in loaders)
        if is_loader and hasattr(candidate, "batch_size"):
            return _settable(candidate, candidate), 0
    raise ControlError(
        "nothing that was passed has a batch size",
        received=f"loader: {type(training.loader).__name__}",
        allowed=_LOADERS,
        next_step="pass the run's loader as loader=",
    )


def _settable(holder: Any, loader: object) -> Any:
    # torch's own batch sampler looks at its batch_size once per epoch, and has no position that could be restored.
    looks_once = isinstance(holder, BatchSampler) and type(holder).__iter__ is BatchSampler.__iter__
    size = getattr(holder, "batch_size", None)
    if isinstance(size, bool) or not isinstance(size, int) or looks_once or _is_read_only(holder):
        raise ControlError(
            f"the batch size of this {type(loader).__name__} cannot be changed while it runs",
            received=f"batches from {type(holder).__name__}",
            allowed=f"{_LOADERS}: attributes of a DataLoader do not reach its workers",
            next_step="use trimtab.ResumableLoader, or DataLoader(dataset, "
            "batch_sampler=trimtab.ResumableBatchSampler(len(dataset), batch_size=..., seed=...))",
        )
    return holder


def _is_read_only(holder: object) -> bool:
    declared = getattr(type(holder), "batch_size", None)
    return isinstance(declared, property) and declared.fset is None


def _lag(loader: DataLoader[Any]) -> int:
    lag = loader.num_workers * (loader.prefetch_factor or 0)
    if lag > _LARGEST_LAG_BATCHES:
        raise ControlError(
            "the workers draw too far ahead for a change of batch size to be followed",
            received=f"{lag} batches: num_workers={loader.num_workers}, prefetch_factor={loader.prefetch_factor}",
            allowed=f"{_LARGEST_LAG_BATCHES} batches",
            next_step="use trimtab.ResumableDataLoader, or a smaller prefetch_factor",
        )
    return lag


def _whole(name: str, value: float) -> int:
    if not value.is_integer():
        raise ControlError(f"{name} is a whole number", received=value)
    return int(value)
