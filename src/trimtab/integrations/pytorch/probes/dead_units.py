"""Units that never answer: their activation is zero for every input of some batches."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from trimtab.errors import UsageError
from trimtab.integrations.pytorch.probes.probe import Guard, Measured, check_count
from trimtab.integrations.pytorch.training import Training
from trimtab.telemetry.roles import DEAD_UNITS

# Those that answer a negative input with nothing, or nearly so.
_ACTIVATIONS: Final = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)
_ZERO: Final = 1e-6
_CHANNELS_FIRST_FROM: Final = 4
_PATIENCE_ROUNDS: Final = 3


class DeadUnitsProbe:
    """Measures ``dead_units``: the fraction of units with no output over 1e-6 in magnitude in a round of forward passes.

    The modules ReLU, GELU and their like in training mode are looked at; calls of functions, such as
    ``torch.relu``, cannot be seen. A unit is a channel of an output of shape (batch, channel, ...) with 4 or 5
    dimensions, else an entry of the last dimension. Hooks are there during a round only; an evaluation inside one may
    differ in its last digits, as torch's fused transformer layer is not used where hooks are.

    Args:
        every_steps: Steps from the begin of one round to the next, > ``num_batches``.
        num_batches: Steps of a round, >= 1.

    References:
        Lu, Shin, Su, Karniadakis (2019), "Dying ReLU and Initialization: Theory and Numerical Examples", arXiv 1903.06733.
    """

    name: ClassVar[str] = DEAD_UNITS

    def __init__(self, every_steps: int = 100, num_batches: int = 4) -> None:
        self._num_batches = check_count("num_batches", num_batches)
        self._every_steps = check_count("every_steps", every_steps)
        if every_steps <= num_batches:
            raise UsageError("a round of a probe takes too long", received=num_batches, allowed=f"num_batches < {every_steps}")
        self._modules: list[nn.Module] = []
        self._handles: list[Any] = []
        self._highest: dict[int, Tensor] = {}
        self._guard: Guard | None = None
        self._num_steps = 0
        self._num_blind_rounds = 0

    def attach(self, training: Training, guard: Guard) -> None:
        """Begin to measure, at the next step.

        Raises:
            UsageError: Use activation modules, or leave this probe out.
        """
        self._modules = [module for module in training.model.modules() if isinstance(module, _ACTIVATIONS)]
        if not self._modules:
            raise UsageError(
                "the model has no activation modules whose units could be dead",
                allowed=", ".join(kind.__name__ for kind in _ACTIVATIONS),
                next_step='use nn.ReLU() in place of torch.relu, or leave "dead_units" out of the probes',
            )
        self._guard = guard

    def collect(self, step: int) -> Measured:
        """Return the fraction at the end of a round.

        Raises:
            UsageError: No output was seen in several rounds: leave this probe out of a compiled model.
        """
        place = self._num_steps % self._every_steps
        self._num_steps += 1
        if place == 0:
            self._begin()
        elif place == self._num_batches:
            return self._end()
        return {}

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._highest.clear()

    def _begin(self) -> None:
        assert self._guard is not None
        hook = self._guard(self._on_output)
        self._handles = [module.register_forward_hook(hook) for module in self._modules]

    def _end(self) -> Measured:
        seen = list(self._highest.values())
        self.close()
        if not seen:
            self._num_blind_rounds += 1
            if self._num_blind_rounds >= _PATIENCE_ROUNDS:
                raise UsageError(
                    "no output of an activation module was seen while training",
                    received=f"{self._num_blind_rounds} rounds of {self._num_batches} steps",
                    next_step='a compiled model does not show them: leave "dead_units" out of the probes',
                )
            return {}
        self._num_blind_rounds = 0
        first = seen[0].device
        # A non-finite output is no dead unit: the comparison is false.
        dead = torch.stack([(highest <= _ZERO).sum().to(first, non_blocking=True) for highest in seen]).sum()
        return {self.name: dead.double() / sum(highest.numel() for highest in seen)}

    def _on_output(self, module: nn.Module, inputs: object, output: object) -> None:
        if not module.training or not isinstance(output, Tensor) or not output.numel():
            return
        unit = 1 if output.ndim >= _CHANNELS_FIRST_FROM else output.ndim - 1
        others = [place for place in range(output.ndim) if place != unit]
        highest = output.detach().abs()
        highest = highest.amax(others) if others else highest
        known = self._highest.get(id(module), highest)
        self._highest[id(module)] = torch.maximum(known, highest) if known.shape == highest.shape else highest
