"""One sweep of the learning rate over a live run: from low to high, a step of training at each rate.

The rate is written in the optimizer's step hooks and taken back in them, like a control, so whatever schedule the
run has neither sees it nor matters. The ratios between parameter groups are those of their reference rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any, Final

from torch import Tensor
from torch.optim import Optimizer

from trimtab.controls.entries import LEARNING_RATE
from trimtab.errors import UsageError
from trimtab.integrations.pytorch.bindings.groups import Group, put, unwrap
from trimtab.integrations.pytorch.bindings.learning_rate import group_references
from trimtab.integrations.pytorch.bindings.ownership import claim, release
from trimtab.integrations.pytorch.bindings.uncompiled import uncompiled
from trimtab.integrations.pytorch.rate_curve import Ending, Sweep

TrainStep = Callable[[Any], Tensor | float]

_LOST: Final = 2.0  # the sweep ends when the loss has risen by so many times what it fell


class RateHook:
    """Writes a rate into every `optimizer.step()`, and puts back what was there.

    Args:
        optimizer: The run's optimizer.

    Attributes:
        rate: What the group with the largest reference rate uses; the others keep their ratio to it.
        num_steps: Optimizer steps so far.
        reference: The largest reference rate.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        references = group_references(optimizer.param_groups)
        self.reference = max(references)
        self.rate = self.reference
        self.num_steps = 0
        self._ratios = [reference / self.reference for reference in references]
        self._kept: list[tuple[Group, Any]] = []
        self._handles = (
            optimizer.register_step_pre_hook(uncompiled(self._before)),
            optimizer.register_step_post_hook(uncompiled(self._after)),
        )

    def close(self) -> None:
        """Remove the hooks."""
        self._put_back()
        for handle in self._handles:
            handle.remove()

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._put_back()
        groups = optimizer.param_groups
        self._kept = [(group, group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"]) for group in groups]
        for group, ratio in zip(groups, self._ratios, strict=True):
            put(group, "lr", self.rate * ratio)

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.num_steps += bool(self._kept)
        self._put_back()

    def _put_back(self) -> None:
        for group, kept in self._kept:
            put(group, "lr", kept)
        self._kept = []


@contextmanager
def held_rate(optimizer: Optimizer) -> Generator[RateHook, None, None]:
    """Hold the learning rate of an optimizer for the time of a block.

    Raises:
        OwnershipError: A supervisor has it; calibrate before attaching one.
        ControlError: The optimizer has no usable rate.
    """
    inner = unwrap(optimizer)
    claim(inner, LEARNING_RATE)
    try:
        hook = RateHook(inner)
        try:
            yield hook
        finally:
            hook.close()
    finally:
        release(inner, LEARNING_RATE)


def sweep(hook: RateHook, train_step: TrainStep, batches: Iterator[Any], rates: Iterable[float], half_window: int) -> Sweep:
    """Take a step at each rate until the loss has clearly risen or is not finite.

    Raises:
        UsageError: ``train_step`` does not return a loss.
    """
    used: list[float] = []
    losses: list[float] = []
    ending: Ending = "finished"
    width = 2 * half_window + 1
    start = best = scatter = math.inf
    for rate in rates:
        hook.rate = rate
        used.append(rate)
        losses.append(_number(train_step(next(batches))))
        if not math.isfinite(losses[-1]):
            ending = "not_finite"
            break
        if len(losses) >= width:
            recent = fmean(losses[-width:])
            if len(losses) == width:
                start, scatter = recent, max(losses) - min(losses)
            best = min(best, recent)
            if recent > best + _LOST * (start - best) + _LOST * scatter:
                ending = "rose"
                break
    return Sweep(tuple(used), tuple(losses), ending)


def endless(loader: Iterable[Any]) -> Generator[Any, None, None]:
    """Yield a loader's batches again and again.

    Raises:
        UsageError: The loader has no batch.
    """
    while True:
        is_empty = True
        for batch in loader:
            is_empty = False
            yield batch
        if is_empty:
            raise UsageError("the loader has no batch", received=type(loader).__name__)


def _number(loss: Tensor | float) -> float:
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return float(loss.detach())
    if isinstance(loss, (int, float)) and not isinstance(loss, bool):
        return float(loss)
    received = f"tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
    raise UsageError("train_step returns no loss", received=received, allowed="a tensor with one element, or a number")
