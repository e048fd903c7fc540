"""The gradient's norm: of all weights, and of each parameter group that has a name."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.optim import Optimizer

from trimtab.errors import UsageError
from trimtab.integrations.pytorch.bindings.groups import unwrap
from trimtab.integrations.pytorch.probes.probe import Guard, Measured, StepHooks, norm_of, together
from trimtab.integrations.pytorch.training import Training
from trimtab.telemetry.roles import GRAD_NORM_OF_GROUP
from trimtab.telemetry.signal import GRAD_NORM, check_signal_name


class GradNormProbe:
    """Measures ``grad_norm``, and ``grad_norm/NAME`` of each group whose ``name`` can be part of a signal's name.

    It is the norm that the optimizer acts on: after clipping by the training loop. Under a `GradScaler` it is the
    norm of the unscaled gradients; a fused optimizer, which unscales inside its kernel, has its norm divided by the scale.

    Args:
        every_steps: Steps from one measurement to the next, >= 1; the reflex needs every step.
    """

    name: ClassVar[str] = GRAD_NORM

    def __init__(self, every_steps: int = 1) -> None:
        self._hooks = StepHooks(every_steps)
        self._signals: list[str | None] = []
        self._measured: dict[str, Tensor] = {}

    def attach(self, training: Training, guard: Guard) -> None:
        """Begin to measure."""
        # By position: a load may drop the groups' names.
        self._signals = [_signal(group.get("name")) for group in unwrap(training.optimizer).param_groups]
        self._hooks.register(training, guard, with_gradients=self._measure)

    def collect(self, step: int) -> Measured:
        """Return the norms of the last step, if they were measured."""
        measured, self._measured = self._measured, {}
        return measured

    def close(self) -> None:
        """Remove the hooks."""
        self._hooks.remove()
        self._measured = {}

    def _measure(self, optimizer: Optimizer) -> None:
        scale = getattr(optimizer, "grad_scale", None)
        norms: dict[str | None, list[Tensor]] = {}
        for index, group in enumerate(optimizer.param_groups):
            gradients = [weight.grad.detach() for weight in group["params"] if weight.grad is not None]
            if gradients:
                norm = norm_of(gradients)
                signal = self._signals[index] if index < len(self._signals) else None
                norms.setdefault(signal, []).append((norm / scale).reshape(()) if isinstance(scale, Tensor) else norm)
        if norms:
            self._measured = {signal: together(parts) for signal, parts in norms.items() if signal is not None}
            self._measured[self.name] = together([norm for parts in norms.values() for norm in parts])


def _signal(name: object) -> str | None:
    signal = f"{GRAD_NORM_OF_GROUP}{name}"
    try:
        return None if name is None else check_signal_name(signal)
    except UsageError:
        return None  # such a group counts in the norm of all
