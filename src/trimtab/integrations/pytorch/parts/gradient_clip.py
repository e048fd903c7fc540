"""Gradient clipping whose largest norm is a control."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from trimtab.errors import UsageError


class GradientClip:
    """Clips gradients by their global norm; ``max_norm`` is the control ``gradient_clip_norm``.

    Call it between ``backward()`` and ``optimizer.step()``. With a GradScaler call ``scaler.unscale_(optimizer)``
    first: otherwise the scaled gradients are clipped, about 65,536 times too large. It computes bit for bit what
    `torch.nn.utils.clip_grad_norm_` does.

    Args:
        parameters: The parameters whose gradients are clipped together.
        max_norm: The largest norm that is let through, > 0.
        norm_type: Of the norm: 2.0, or any p > 0, infinity included.

    Raises:
        UsageError: There is no parameter, or a number is out of range.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> clip = GradientClip([weight], max_norm=1.0)
        >>> (weight * torch.tensor([3.0, 4.0])).sum().backward()
        >>> clip()  # for supervisor.step(loss=loss, grad_norm=norm)
        tensor(5.)
    """

    def __init__(self, parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> None:
        self._parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        if not self._parameters:
            raise UsageError(
                "there is nothing to clip", received="no parameters", next_step="pass model.parameters(), not yet used"
            )
        for what, number in (("max_norm", max_norm), ("norm_type", norm_type)):
            if isinstance(number, bool) or not isinstance(number, (int, float)) or math.isnan(number) or number <= 0:
                raise UsageError(f"{what} is out of range", received=repr(number), allowed="a number > 0")
        self.max_norm = float(max_norm)
        self.norm_type = float(norm_type)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The parameters whose gradients are clipped."""
        return tuple(self._parameters)

    def __call__(self) -> Tensor:
        """Clip the gradients in place and return their norm before; a tensor on their device, which nothing waits for."""
        return torch.nn.utils.clip_grad_norm_(self._parameters, self.max_norm, norm_type=self.norm_type)
