"""A loss of several terms whose weights are controls."""

from __future__ import annotations

import re
from typing import Final

from torch import Tensor

from trimtab.controls.bounds import is_finite_number
from trimtab.errors import UsageError, nearest
from trimtab.telemetry.roles import LOSS_TERM

# Part of a control's name, and of a signal's.
_NAME: Final = re.compile(r"[a-z0-9_]{1,40}")


class LossWeights:
    """Adds the terms of a loss by weight; each weight is a control ``loss_weight/NAME``.

    Args:
        **weights: The weight of each term by its name, > 0.

    Raises:
        UsageError: There is no term, a name is malformed, or a weight is not > 0.

    Example:
        >>> import torch
        >>> weights = LossWeights(task=1.0, aux=0.5)
        >>> weights(task=torch.tensor(2.0), aux=torch.tensor(4.0))
        tensor(4.)
        >>> weights.signals()  # for supervisor.step(loss=loss, **weights.signals())
        {'loss_term/task': tensor(2.), 'loss_term/aux': tensor(4.)}
    """

    def __init__(self, **weights: float) -> None:
        if not weights:
            raise UsageError("a loss has at least one term", next_step="write for example LossWeights(task=1.0, aux=0.3)")
        for name, weight in weights.items():
            if not _NAME.fullmatch(name):
                raise UsageError("the term's name is malformed", received=name, allowed="1 to 40 of a-z 0-9 _")
            _check_weight(name, weight)
        self._weights = {name: float(weight) for name, weight in weights.items()}
        self._terms: dict[str, Tensor] = {}

    @property
    def weights(self) -> dict[str, float]:
        """The weights in force, by term."""
        return dict(self._weights)

    def set_weight(self, term: str, value: float) -> None:
        """Set the weight of a term.

        Raises:
            UsageError: There is no such term, or the value is not > 0.
        """
        if term not in self._weights:
            raise UsageError("the loss has no such term", received=term, next_step=nearest(term, self._weights))
        _check_weight(term, value)
        self._weights[term] = float(value)

    def __call__(self, **terms: Tensor) -> Tensor:
        """Return the weighted sum of the terms, added in the order in which the weights were given.

        Args:
            **terms: Every term of the loss by its name; scalar tensors.

        Raises:
            UsageError: A term is missing, unknown or not a scalar tensor.
        """
        if terms.keys() != self._weights.keys():
            raise UsageError(
                "the terms are not those of the loss",
                received=f"missing: {_names(self._weights.keys() - terms.keys())}; "
                f"unknown: {_names(terms.keys() - self._weights.keys())}",
                allowed=", ".join(self._weights),
                next_step="give every term at every step; pass a zero tensor for one that does not apply",
            )
        for name, term in terms.items():
            if not isinstance(term, Tensor) or term.numel() != 1:
                received = f"shape {tuple(term.shape)}" if isinstance(term, Tensor) else type(term).__name__
                raise UsageError(
                    f"the term {name} is not a scalar tensor", received=received, next_step="reduce it to its mean"
                )
        self._terms = {name: terms[name].detach() for name in self._weights}
        first, *others = (terms[name] * weight for name, weight in self._weights.items())
        for weighted in others:
            first = first + weighted
        return first

    def signals(self) -> dict[str, Tensor]:
        """Return the terms of the last call, unweighted, as signals ``loss_term/NAME``; empty before the first call."""
        return {f"{LOSS_TERM}{name}": term for name, term in self._terms.items()}


def _check_weight(name: str, weight: object) -> None:
    if not is_finite_number(weight) or not isinstance(weight, (int, float)) or weight <= 0:
        raise UsageError(f"the weight of {name} is out of range", received=repr(weight), allowed="a finite number > 0")


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
