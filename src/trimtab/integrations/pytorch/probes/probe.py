"""What a probe is: it measures one signal of a run by itself.

Rules:
1. A probe changes nothing: no weight, no gradient, no random state. Training stays bit-identical.
2. It never waits for a device: what it measures there it returns as a tensor with one element.
3. Whatever it does inside the optimizer's step or a forward pass goes through its `Guard`, so that a fault there
   never reaches training; the probe is switched off instead.

Gradients are seen as the optimizer uses them: after the user's own clipping, so a norm before it is not visible here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.optim import Optimizer

from trimtab.errors import UsageError
from trimtab.integrations.pytorch.bindings.groups import unwrap
from trimtab.integrations.pytorch.bindings.uncompiled import uncompiled
from trimtab.integrations.pytorch.training import Training

Measured = Mapping[str, "Tensor | float"]
Guard = Callable[[Callable[..., None]], Callable[..., None]]

_TORCH: Final[Any] = torch  # untyped in part
_LOW_PRECISION: Final = (torch.float16, torch.bfloat16)


@runtime_checkable
class Probe(Protocol):
    """Measures one signal, or one for each part of the run."""

    name: ClassVar[str]

    def attach(self, training: Training, guard: Guard) -> None:
        """Begin to measure; every hook that is registered goes through ``guard``.

        Raises:
            UsageError: This run has nothing to measure; the message says what to do.
        """
        ...

    def collect(self, step: int) -> Measured:
        """Return what was measured since the last call; empty if nothing was."""
        ...

    def close(self) -> None:
        """Remove all hooks."""
        ...


class StepHooks:
    """Hooks around the optimizer's step, on every so many of its steps.

    Args:
        every_steps: Steps from one measurement to the next, >= 1.

    Raises:
        UsageError: Give a whole number >= 1.
    """

    def __init__(self, every_steps: int) -> None:
        self.every_steps = check_count("every_steps", every_steps)
        self._num_steps = 0
        self._handles: list[Any] = []

    def register(
        self,
        training: Training,
        guard: Guard,
        before: Callable[[Optimizer], None] | None = None,
        with_gradients: Callable[[Optimizer], None] | None = None,
        after: Callable[[Optimizer], None] | None = None,
    ) -> None:
        """Call functions around the first of every ``every_steps`` steps of the optimizer.

        Args:
            training: The run.
            guard: Goes around every hook.
            before: Called before the step.
            with_gradients: Called when the gradients are there: before the step, for a fused optimizer unscales them
                inside it; after a step that is given a closure, which computes them.
            after: Called after the step.
        """
        optimizer = unwrap(training.optimizer)

        def on_begin(running: Optimizer, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
            if self._num_steps % self.every_steps == 0:
                if before is not None:
                    before(running)
                if with_gradients is not None and not _has_closure(args, kwargs):
                    with_gradients(running)

        def on_end(running: Optimizer, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
            is_due = self._num_steps % self.every_steps == 0
            self._num_steps += 1
            if is_due:
                if with_gradients is not None and _has_closure(args, kwargs):
                    with_gradients(running)
                if after is not None:
                    after(running)

        self._handles = [
            optimizer.register_step_pre_hook(uncompiled(guard(on_begin))),
            optimizer.register_step_post_hook(uncompiled(guard(on_end))),
        ]

    def remove(self) -> None:
        """Remove them."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _has_closure(args: tuple[object, ...], kwargs: Mapping[str, object]) -> bool:
    return kwargs.get("closure") is not None or any(callable(given) for given in args[1:])  # the first is the optimizer


def check_count(what: str, value: int) -> int:
    """Return ``value`` if it is a whole number >= 1.

    Raises:
        UsageError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{what} of a probe is out of range", received=value, allowed="a whole number >= 1")
    return value


def weights_of(optimizer: Optimizer) -> list[Tensor]:
    """Return the weights that the optimizer changes, without their history."""
    return [weight.detach() for group in optimizer.param_groups for weight in group["params"]]


def norm_of(tensors: list[Tensor]) -> Tensor:
    """Return the norm of all elements together, of shape (), on the first tensor's device.

    Low precisions are summed in 32 bits: 16 would overflow at 65,504.
    """
    norms: list[Tensor] = []
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        same = [tensor.coalesce().values() if tensor.is_sparse else tensor for tensor in tensors if tensor.dtype == dtype]
        if dtype in _LOW_PRECISION:
            norms += [_TORCH.linalg.vector_norm(tensor, dtype=torch.float32) for tensor in same]
        else:
            norms += _TORCH._foreach_norm(same)  # noqa: SLF001 - as torch's own clipping does: one kernel for many tensors
    return together(norms)


def together(norms: list[Tensor]) -> Tensor:
    """Return the norm of the whole of which ``norms`` are those of the parts, of shape (), on the first one's device."""
    if len(norms) == 1:
        return norms[0]
    first = norms[0].device
    near = [norm if norm.device == first else norm.to(first, non_blocking=True) for norm in norms]
    return _TORCH.linalg.vector_norm(torch.stack(near))


def subtract_(tensors: list[Tensor], others: list[Tensor]) -> None:
    """Subtract ``others`` from ``tensors`` in place."""
    _TORCH._foreach_sub_(tensors, others)
