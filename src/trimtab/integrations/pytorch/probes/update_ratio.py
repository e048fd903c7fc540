"""How far a step moves the weights, against how large they are."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from trimtab.integrations.pytorch.probes.probe import Guard, Measured, StepHooks, norm_of, subtract_, weights_of
from trimtab.integrations.pytorch.training import Training
from trimtab.telemetry.roles import UPDATE_RATIO


class UpdateRatioProbe:
    """Measures ``update_ratio``: the norm of a step's change of the weights, weight decay included, over their norm.

    It copies the weights, so while a measured step runs it takes as much memory as they do; no copy is kept between
    steps.

    Args:
        every_steps: Steps from one measurement to the next, >= 1.
    """

    name: ClassVar[str] = UPDATE_RATIO

    def __init__(self, every_steps: int = 10) -> None:
        self._hooks = StepHooks(every_steps)
        self._before: list[Tensor] = []
        self._measured: Tensor | None = None

    def attach(self, training: Training, guard: Guard) -> None:
        """Begin to measure."""
        self._hooks.register(training, guard, before=self._copy, after=self._compare)

    def collect(self, step: int) -> Measured:
        """Return the ratio of the last step, if it was measured."""
        measured, self._measured = self._measured, None
        return {} if measured is None else {self.name: measured}

    def close(self) -> None:
        """Remove the hooks and let go of a copy."""
        self._hooks.remove()
        self._before, self._measured = [], None

    def _copy(self, optimizer: Optimizer) -> None:
        self._before = [weight.clone() for weight in weights_of(optimizer)]

    def _compare(self, optimizer: Optimizer) -> None:
        change, self._before = self._before, []
        weights = weights_of(optimizer)
        subtract_(change, weights)  # the copy becomes the change
        size = norm_of(weights)
        # Weights that are all 0 have no ratio to tell; 0 / 0 would read as a fault.
        self._measured = norm_of(change) / size.clamp_min(torch.finfo(size.dtype).tiny)
