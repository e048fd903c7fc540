"""The decay of the rate at the end of a trial's arm: beside the controls and the schedule, inside `optimizer.step` alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from trimtab.integrations.pytorch.bindings.uncompiled import uncompiled


class OptimizerRateDecay:
    """Multiplies the rate of all groups during a step.

    The bindings of controls scale the rates in the same hooks. So the rate is multiplied before they look at it, and put
    back after they have put back their own.

    Args:
        optimizer: A plain `torch.optim.Optimizer`. Make this before anything else gets hooks on it, and call `arm` after.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._factor = 1.0
        self._rates: list[float | Tensor] | None = None
        self._hooks = [optimizer.register_step_pre_hook(uncompiled(self._before_step))]

    def arm(self) -> None:
        """Put the rates back after every step from now on."""
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
        self._rates = [rate.detach().clone() if isinstance(rate := group["lr"], Tensor) else rate for group in groups]
        seen: set[int] = set()
        for group in groups:
            rate = group["lr"]
            if not isinstance(rate, Tensor):
                group["lr"] = rate * self._factor
            elif id(rate) not in seen:  # groups may share one tensor
                seen.add(id(rate))
                rate.mul_(self._factor)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._rates is None:
            return
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            if isinstance(group["lr"], Tensor) and isinstance(rate, Tensor):
                group["lr"].copy_(rate)
            else:
                group["lr"] = rate
        self._rates = None
