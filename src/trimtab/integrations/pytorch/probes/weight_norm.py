"""The norm of all weights."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.optim import Optimizer

from trimtab.integrations.pytorch.probes.probe import Guard, Measured, StepHooks, norm_of, weights_of
from trimtab.integrations.pytorch.training import Training
from trimtab.telemetry.roles import WEIGHT_NORM


class WeightNormProbe:
    """Measures ``weight_norm``: the norm of all weights of the optimizer, after a step.

    Args:
        every_steps: Steps from one measurement to the next, >= 1.
    """

    name: ClassVar[str] = WEIGHT_NORM

    def __init__(self, every_steps: int = 10) -> None:
        self._hooks = StepHooks(every_steps)
        self._measured: Tensor | None = None

    def attach(self, training: Training, guard: Guard) -> None:
        """Begin to measure."""
        self._hooks.register(training, guard, after=self._measure)

    def collect(self, step: int) -> Measured:
        """Return the norm after the last step, if it was measured."""
        measured, self._measured = self._measured, None
        return {} if measured is None else {self.name: measured}

    def close(self) -> None:
        """Remove the hooks."""
        self._hooks.remove()
        self._measured = None

    def _measure(self, optimizer: Optimizer) -> None:
        self._measured = norm_of(weights_of(optimizer))
