"""The learning rate as a factor on whatever schedule the run has.

Rules:
- The factor acts inside `optimizer.step()` only: a pre hook scales every group, a post hook puts the
  schedule's own values back. Between steps ``group["lr"]`` is the schedule's, so schedulers and
  checkpoints never see the factor.
- With the factor at 1 nothing is written: training is bit-identical to training without trimtab.
- A change of which the bounds let nothing through did not take effect, and is read back so: under a schedule that
  is below the lower bound by itself, a smaller factor changes nothing.
- A rate kept as a tensor stays that tensor. If all rates live on an accelerator the arithmetic happens
  there, and no step waits for the device; the read-back does.

Limits: if `optimizer.step()` raises, the schedule's values are put back at the next contact (the next step, a
read, a write, a `state_dict()`). A rate that was moved in between is left as found. A replayed CUDA graph runs
no hooks, so the factor has no effect there, and `LearningRateBinding.took_effect` stays None.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trimtab.actuation.binding import ReadBack
from trimtab.controls.bounds import Bounds
from trimtab.controls.entries import LEARNING_RATE
from trimtab.errors import ControlError
from trimtab.integrations.pytorch.bindings.groups import Group, Selection, agree, check_written, number, put, unwrap
from trimtab.integrations.pytorch.bindings.ownership import claim, release
from trimtab.integrations.pytorch.bindings.uncompiled import uncompiled


@dataclass(frozen=True, slots=True)
class _Scaled:
    """One group's rate before and while a step runs.

    Args:
        group: The group as it was when the step began.
        kept: What ``group["lr"]`` held: the float itself, or a copy of the tensor.
        scaled: What was written in its place.
    """

    group: Group
    kept: Any
    scaled: float | Tensor


@dataclass(frozen=True, slots=True)
class _Rates:
    """The rates of all groups at one step: numbers, or one vector on the accelerator."""

    values: tuple[float, ...] | Tensor

    def numbers(self) -> tuple[float, ...]:
        """Return them as floats; waits for the device if they are on one."""
        return tuple(map(float, self.values.cpu())) if isinstance(self.values, Tensor) else self.values


class LearningRateBinding:
    """Binds learning_rate to an optimizer, with or without a scheduler.

    The value is a reference rate, fixed when bound: the largest over the groups of ``max_lr``, else
    ``initial_lr``, else ``lr``. A value of half the reference halves every group's scheduled rate, so the ratios
    between groups and the shape of the schedule are kept.

    Args:
        optimizer: The run's optimizer; wrappers that keep it as ``.optimizer`` are unwrapped.
        bounds: The control's bounds. The factor never takes the largest group's rate out of them, nor
            farther out than the schedule does alone (a warm-up from 0 stays a warm-up from 0).
        group: Name of one parameter group (``param_groups[i]["name"]``); by default all groups.

    Raises:
        ControlError: The optimizer has no usable rate; the message says which group.
        OwnershipError: Another supervisor has this optimizer's learning rate.
    """

    def __init__(self, optimizer: Optimizer, bounds: Bounds | None = None, group: str | None = None) -> None:
        self._optimizer = unwrap(optimizer)
        self._selection = Selection.of(self._optimizer, LEARNING_RATE, group)
        self._bounds = bounds
        self._reference = max(group_references(self._selection.groups(self._optimizer)))
        self._value = self._reference
        self._used = self._reference  # the value at the last step
        self._base = self._reference  # the value that the last write took the place of
        self._running: list[_Scaled] | None = None
        self._scheduled: _Rates | None = None
        self._expected: _Rates | None = None
        self._unchanged: _Rates | None = None  # what the step would have used without that write
        self._observed: _Rates | None = None
        self._found_inf: object = None
        self._steps = 0
        self._steps_at_write = 0
        claim(self._optimizer, self.name)
        self._hooks = (
            self._optimizer.register_step_pre_hook(uncompiled(self._before_step)),
            self._optimizer.register_step_post_hook(uncompiled(self._after_step)),
            self._optimizer.register_state_dict_pre_hook(lambda _: self._put_back()),
        )

    @property
    def name(self) -> str:
        """The control's name."""
        return self._selection.control

    @property
    def reference(self) -> float:
        """The value at which the schedule is left alone."""
        return self._reference

    @property
    def factor(self) -> float:
        """What the schedule is multiplied by, before the bounds are looked at; exactly 1 at the reference."""
        return self._factor_at(self._value)

    @property
    def effective_rate(self) -> float | None:
        """The largest rate the last step used; None before the first step."""
        return None if self._observed is None else max(self._observed.numbers(), default=0.0)

    @property
    def steps_run(self) -> int:
        """Count of optimizer steps executed since bound."""
        return self._steps

    def read(self) -> float:
        """Return the reference rate in force."""
        self._put_back()
        return self._value

    def write(self, value: float) -> None:
        """Set the reference rate; the next step uses it.

        Raises:
            ControlError: Give a finite value >= 0.
        """
        checked = check_written(self.name, value)
        self._put_back()
        self._base, self._value = self._used, checked
        self._steps_at_write = self._steps

    def took_effect(self) -> ReadBack | None:
        """Return the largest rate the last step was to use and used; None if no step ran since `write` that shows it.

        A fused optimizer steps even when a gradient scaler found infinities, and changes nothing: that is no step. A
        changed factor on a scheduled rate of 0 shows nothing either. Where the bounds cut a change short, what they left
        of it is expected; where they left nothing, the change without them is, and it does not hold.
        """
        if self._scheduled is None or self._expected is None or self._observed is None or self._steps == self._steps_at_write:
            return None
        if isinstance(self._found_inf, Tensor) and bool(self._found_inf.any()):
            return None
        top = max(self._scheduled.numbers(), default=0.0)
        expected, observed = self._expected.numbers(), self._observed.numbers()
        if (
            self._unchanged is not None
            and self._unchanged.numbers() == expected
            and not agree(top * self.factor, max(expected))
        ):
            return self._swallowed(top, max(observed))
        if top == 0 and self._base != self._value:
            return None
        holds = len(expected) == len(observed) and all(map(agree, expected, observed))
        return ReadBack(self.name, max(expected, default=0.0), max(observed, default=0.0), holds)

    def _swallowed(self, top: float, observed: float) -> ReadBack:
        """Return that the bounds let nothing of a change through; ``top`` is the largest scheduled rate."""
        bounds = "its bounds" if self._bounds is None else f"{self._bounds.low!r} to {self._bounds.high!r}"
        detail = f"the schedule's own rate is {top:.6g}, and nothing of the change fits into {bounds}"
        return ReadBack(self.name, top * self.factor, observed, holds=False, detail=detail)

    def close(self) -> None:
        """Remove the hooks and give the control back; the schedule is left alone from now on."""
        self._put_back()
        for hook in self._hooks:
            hook.remove()
        release(self._optimizer, self.name)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._put_back()
        groups = self._selection.groups(optimizer)
        scheduled = _rates(groups)
        targets = self._targets(scheduled, self.factor)
        self._running = []
        self._scheduled, self._expected = _Rates(scheduled), _Rates(scheduled if targets is None else targets)
        self._unchanged = None
        if self._base != self._value:
            unchanged = self._targets(scheduled, self._factor_at(self._base))
            self._unchanged = _Rates(scheduled if unchanged is None else unchanged)
        if targets is None:
            return
        # All originals are taken before the first is scaled: groups may share one tensor.
        kept = [group["lr"].detach().clone() if isinstance(group["lr"], Tensor) else group["lr"] for group in groups]
        for group, original, target in zip(groups, kept, targets, strict=True):
            _set_rate(group, target)
            scaled = group["lr"].detach().clone() if isinstance(group["lr"], Tensor) else group["lr"]
            self._running.append(_Scaled(group, original, scaled))

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._running is None:  # a subclass whose step calls super().step() runs the hooks twice
            return
        self._observed = _Rates(_rates(self._selection.groups(optimizer)))
        self._found_inf = getattr(optimizer, "found_inf", None)  # looked at only when asked: it may be on a device
        self._steps += 1
        self._used = self._value
        for done in self._running:
            _restore(done)
        self._running = None

    def _put_back(self) -> None:
        """Undo the scaling of a step that raised."""
        for left in self._running or ():
            if _same(left.group["lr"], left.scaled):
                _restore(left)
        self._running = None

    def _factor_at(self, value: float) -> float:
        return 1.0 if value == self._reference else value / self._reference

    def _targets(self, scheduled: tuple[float, ...] | Tensor, factor: float) -> tuple[float, ...] | Tensor | None:
        """Return the rates to use in a step; None if they are the scheduled ones."""
        if factor == 1.0:
            return None
        if isinstance(scheduled, Tensor):
            return _targets_on_device(scheduled, factor, self._bounds)
        top = max(scheduled, default=0.0)
        if not math.isfinite(top) or top <= 0:
            return None
        allowed = top * factor
        if self._bounds is not None:
            allowed = min(max(allowed, min(self._bounds.low, top)), max(self._bounds.high, top))
        if allowed == top:
            return None
        # The largest rate is set, not computed again: (high / top) * top may be one ulp above high.
        return tuple(allowed if rate == top else min(rate * (allowed / top), allowed) for rate in scheduled)


def group_references(groups: list[Group]) -> list[float]:
    """Return each group's reference rate: its ``max_lr``, else ``initial_lr``, else ``lr``.

    Raises:
        ControlError: A group has no usable rate, or all are 0.
    """
    candidates: list[float] = []
    for index, group in enumerate(groups):
        number(group, "lr", index)
        key = next((key for key in ("max_lr", "initial_lr") if group.get(key)), "lr")
        candidates.append(number(group, key, index))
    if max(candidates) <= 0:
        raise ControlError(
            "every learning rate is 0, so a factor on it has no effect",
            received=candidates,
            allowed="at least one group with a rate > 0",
            next_step="construct the optimizer with its peak rate and let a scheduler do the warm-up",
        )
    return candidates


def _rates(groups: list[Group]) -> tuple[float, ...] | Tensor:
    """Return the groups' rates; as one vector, without waiting, if all are tensors on one accelerator."""
    rates = [group["lr"] for group in groups]
    if all(type(rate) is float for rate in rates):
        return tuple(rates)
    devices = {rate.device if isinstance(rate, Tensor) else torch.device("cpu") for rate in rates}
    if len(devices) == 1 and devices.pop().type != "cpu":
        return torch.stack([rate.detach().reshape(()) for rate in rates])
    return tuple(float(rate) for rate in rates)


def _targets_on_device(scheduled: Tensor, factor: float, bounds: Bounds | None) -> Tensor:
    top = scheduled.max()
    allowed = top * factor
    if bounds is not None:
        allowed = torch.minimum(torch.maximum(allowed, top.clamp(max=bounds.low)), top.clamp(min=bounds.high))
    scaled = torch.where(scheduled == top, allowed, torch.minimum(scheduled * (allowed / top), allowed))
    return torch.where(torch.isfinite(top) & (top > 0), scaled, scheduled)


def _set_rate(group: Group, target: float | Tensor) -> None:
    if isinstance(target, Tensor):
        with torch.no_grad():
            group["lr"].fill_(target)
    else:
        put(group, "lr", target)


def _restore(done: _Scaled) -> None:
    held = done.group["lr"]
    if isinstance(held, Tensor) and isinstance(done.kept, Tensor):
        with torch.no_grad():
            held.copy_(done.kept)
    else:
        done.group["lr"] = done.kept


def _same(held: Any, written: float | Tensor) -> bool:
    return bool((held == written).all()) if isinstance(held, Tensor) else bool(held == written)
