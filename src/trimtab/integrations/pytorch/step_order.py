"""Whether `Supervisor.step` is called after `optimizer.step`, as it should be, or before it."""

from __future__ import annotations

import weakref
from typing import Final

from torch import Tensor
from torch.optim import Optimizer

from trimtab.integrations.pytorch.bindings.uncompiled import uncompiled

_WATCHED_STEPS: Final = 50
_STALE_AT_LEAST: Final = 3


class StepOrder:
    """Finds out whether steps are reported before they are made: then each is made on gradients that were there already.

    Only a run's first steps are watched.

    Args:
        optimizer: The unwrapped optimizer.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._left = _WATCHED_STEPS
        self._marked: tuple[weakref.ref[Tensor], int] | None = None
        self._num_stale = 0
        self._num_fresh = 0
        self._hook = optimizer.register_step_pre_hook(uncompiled(self._before_step))

    @property
    def is_wrong(self) -> bool:
        """Whether most steps were made on gradients that were there when the step before was reported."""
        return self._num_stale >= max(_STALE_AT_LEAST, self._num_fresh)

    def step_reported(self) -> None:
        """Remember one gradient as it is now."""
        if not self._left:
            return
        self._left -= 1
        if not self._left:
            self.close()
            return
        parameters = (parameter for group in self._optimizer.param_groups for parameter in group["params"])
        grad = next((parameter.grad for parameter in parameters if parameter.grad is not None), None)
        # Whatever adds to a gradient raises its version; a new one is another object.
        self._marked = None if grad is None else (weakref.ref(grad), grad._version)  # noqa: SLF001 - torch has no public count of a tensor's changes

    def close(self) -> None:
        """Remove the hook."""
        self._marked = None
        self._hook.remove()

    def _before_step(self, optimizer: Optimizer, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        marked, self._marked = self._marked, None
        # A closure makes the gradients inside; torch gives the optimizer itself as the first argument.
        if marked is None or len(args) > 1 or kwargs.get("closure") is not None:
            return
        grad = marked[0]()
        if grad is not None and grad._version == marked[1]:  # noqa: SLF001 - torch has no public count of a tensor's changes
            self._num_stale += 1
        else:
            self._num_fresh += 1
