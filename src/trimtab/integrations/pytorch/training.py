"""The live objects of a training run, as bindings find them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer

from trimtab.integrations.pytorch.bindings.groups import unwrap

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Training:
    """What a user hands over.

    Args:
        model: The model.
        optimizer: The optimizer, perhaps inside a wrapper that keeps it as ``.optimizer``.
        scheduler: The scheduler, or None.
        loader: The loader, or None.
        parts: Everything else that controls act on: loss modules, `GradientClip`, `LossWeights`, `Handle`...
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: Any = None
    loader: Any = None
    parts: tuple[Any, ...] = ()

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """The optimizer, and the wrapper around it if there is one."""
        return tuple({id(one): one for one in (unwrap(self.optimizer), self.optimizer)}.values())

    def find(self, kind: type[_T]) -> list[_T]:
        """Return every object of that type: the parts, what is inside part modules and the model, the loader; each once."""
        found = {id(candidate): candidate for candidate in self._candidates() if isinstance(candidate, kind)}
        return list(found.values())

    def _candidates(self) -> Iterator[Any]:
        for part in (*self.parts, self.model):
            yield from part.modules() if isinstance(part, nn.Module) else (part,)
        yield self.loader
