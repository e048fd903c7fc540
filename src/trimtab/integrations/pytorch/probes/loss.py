"""The training loss, from the loss module's own output."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.modules.loss import _Loss  # pyright: ignore[reportPrivateUsage] - the one class that tells a loss from another module; torch has it under no public name

from trimtab.errors import UsageError
from trimtab.integrations.pytorch.probes.probe import Guard, Measured
from trimtab.integrations.pytorch.training import Training
from trimtab.telemetry.signal import LOSS


class LossProbe:
    """Measures ``loss``: the mean over the loss module's outputs in training since the last step.

    With gradient accumulation that is the mean over the step's parts. A loss that the loop divides or adds to
    afterwards is seen as it leaves the module.
    """

    name: ClassVar[str] = LOSS

    def __init__(self) -> None:
        self._model: nn.Module | None = None
        self._handle: Any = None
        self._sum: Tensor | None = None
        self._num_outputs = 0

    def attach(self, training: Training, guard: Guard) -> None:
        """Begin to measure.

        Raises:
            UsageError: Pass the one loss module among the parts.
        """
        modules = [part for part in training.parts if isinstance(part, nn.Module) and part is not training.model]
        losses = training.find(_Loss) or modules
        if len(losses) != 1:
            raise UsageError(
                "the loss cannot be measured without the one module that computes it",
                received=", ".join(type(module).__name__ for module in losses) or "no loss module",
                next_step="pass parts=[criterion], or report it yourself: supervisor.step(loss=loss)",
            )
        self._model = training.model
        self._handle = losses[0].register_forward_hook(guard(self._on_output))

    def collect(self, step: int) -> Measured:
        """Return the loss of the last step, also of one that a gradient scaler skipped: the reader tells them apart."""
        if self._sum is None:
            return {}
        measured = self._sum / self._num_outputs if self._num_outputs > 1 else self._sum
        self._sum, self._num_outputs = None, 0
        return {self.name: measured}

    def close(self) -> None:
        """Remove the hook."""
        if self._handle is not None:
            self._handle.remove()
        self._sum = None

    def _on_output(self, module: nn.Module, inputs: object, output: object) -> None:
        is_training = self._model is not None and self._model.training
        if not is_training or not isinstance(output, Tensor) or not output.requires_grad:
            return  # an evaluation
        value = output.detach().mean()
        self._sum = value if self._sum is None else self._sum + value
        self._num_outputs += 1
