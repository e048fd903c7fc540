"""The learning rate in effect inside a step: the schedule's, times the factor of the control."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from trimtab.integrations.pytorch.probes.probe import Guard, Measured, StepHooks
from trimtab.integrations.pytorch.training import Training
from trimtab.telemetry.roles import EFFECTIVE_RATE


class LearningRateProbe:
    """Measures ``learning_rate``: the largest over the parameter groups, as the step uses it.

    Attach it after the control of the learning rate: the control's factor is in the groups only inside the step, from
    its own hook before the step on, and hooks run in the order in which they were registered.

    Args:
        every_steps: Steps from one measurement to the next, >= 1.
    """

    name: ClassVar[str] = EFFECTIVE_RATE

    def __init__(self, every_steps: int = 1) -> None:
        self._hooks = StepHooks(every_steps)
        self._measured: Tensor | float | None = None

    def attach(self, training: Training, guard: Guard) -> None:
        """Begin to measure."""
        self._hooks.register(training, guard, before=self._measure)

    def collect(self, step: int) -> Measured:
        """Return the rate of the last step, if it was measured."""
        measured, self._measured = self._measured, None
        return {} if measured is None else {self.name: measured}

    def close(self) -> None:
        """Remove the hooks."""
        self._hooks.remove()
        self._measured = None

    def _measure(self, optimizer: Optimizer) -> None:
        rates = [group["lr"] for group in optimizer.param_groups]
        tensors = [rate.detach().reshape(()) for rate in rates if isinstance(rate, Tensor)]
        largest = max((float(rate) for rate in rates if not isinstance(rate, Tensor)), default=None)
        if not tensors:
            self._measured = largest
            return
        # A copy: the control's hook after the step writes the schedule's rate into the same tensor.
        highest = torch.stack([rate.to(tensors[0].device, non_blocking=True) for rate in tensors]).max()
        self._measured = highest if largest is None else highest.clamp_min(largest)
