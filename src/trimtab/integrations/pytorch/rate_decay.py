"""The decay of the rate at the end of a trial's arm: beside the controls and the schedule, inside `optimizer.step` alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trimtab.integrations.pytorch.bindings.groups import Group
from trimtab.integrations.pytorch.bindings.uncompiled import uncompiled


class OptimizerRateDecay:
    """Multiplies the rate of all groups during a step.

    The bindings of controls scale the rates in the same hooks. So the rate is multiplied before they look at it, and put
    back after they have put back their own.

    Limits: if `optimizer.step()` raises, the rates stay multiplied until the state is brought back, as it is behind each decay.

    Args:
        optimizer: A plain `torch.optim.Optimizer`. Make this before anything else gets hooks on it, and call `come_last` after.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._factor = 1.0
        self._rates: list[float | Tensor] | None = None
        self._hooks = [optimizer.register_step_pre_hook(uncompiled(self._before_step))]

    def come_last(self) -> None:
        """Put the rates back after every step from now on, behind all hooks that are there by now."""
        self._hooks.append(self._optimizer.register_step_post_hook(uncompiled(self._after_step)))

    def set(self, factor: float) -> None:
        """Multiply the rate of the steps from now on; 1 leaves them alone."""
        self._factor = factor

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._rates = None
        if self._factor == 1.0:
            return
        groups = optimizer.param_groups
        # All are taken before the first is multiplied: groups may share one tensor.
        self._rates = [rate.detach().clone() if isinstance(rate := group["lr"], Tensor) else rate for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            _set_rate(group, rate * self._factor)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._rates is None:
            return
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            _set_rate(group, rate)
        self._rates = None


def _set_rate(group: Group, rate: float | Tensor) -> None:
    if isinstance(group["lr"], Tensor) and isinstance(rate, Tensor):
        with torch.no_grad():
            group["lr"].copy_(rate)
    else:
        group["lr"] = rate
