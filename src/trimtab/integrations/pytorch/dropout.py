"""Dropout: the probability of every dropout module of a model.

Functional dropout whose probability is an argument in the model's code cannot be reached. Under torch.compile
each new probability recompiles once, so the control's moves should be a short list of fixed values.
"""

from __future__ import annotations

from typing import Any, Final

from torch import nn
from torch.optim import Optimizer

from trimtab.actuation.binding import ReadBack
from trimtab.controls.catalogue import DROPOUT
from trimtab.errors import ControlError
from trimtab.integrations.pytorch.groups import agree, check_written, share, unwrap
from trimtab.integrations.pytorch.ownership import claim, release

_MODULES: Final = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class DropoutBinding:
    """Binds dropout to a model; the value is the largest probability, the others keep their ratio to it.

    Reached are the dropout modules of `torch.nn`, `nn.MultiheadAttention` and recurrent modules of more than one layer.

    Args:
        model: The model in training.
        optimizer: Its optimizer; what is in effect is read when it steps.

    Raises:
        ControlError: The model has no dropout that can be reached, or a probability outside ``[0, 1)``.
        OwnershipError: Another supervisor has this model's dropout.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._model = model
        self._places = _places(model)
        self._initial = self._probabilities()
        self._expected = self._initial
        self._observed: tuple[float, ...] | None = None
        counted = unwrap(optimizer)
        claim(model, DROPOUT)
        self._hook = counted.register_step_post_hook(self._after_step)

    @property
    def name(self) -> str:
        """The control's name."""
        return DROPOUT

    def read(self) -> float:
        """Return the largest probability now."""
        return max(self._probabilities())

    def write(self, value: float) -> None:
        """Set the largest probability and, by their ratios, the others.

        Raises:
            ControlError: Give a value with ``0 <= value < 1``.
        """
        checked = check_written(DROPOUT, value, below=1.0)
        largest = max(self._initial)
        for (module, attribute), initial in zip(self._places, self._initial, strict=True):
            setattr(module, attribute, share(checked, initial, largest) if largest > 0 else checked)
        self._expected = self._probabilities()
        self._observed = None

    def took_effect(self) -> ReadBack | None:
        """Return the probability the last step was to use and used; None if no step ran since `write`."""
        if self._observed is None:
            return None
        holds = all(map(agree, self._expected, self._observed))
        return ReadBack(DROPOUT, max(self._expected), max(self._observed), holds)

    def close(self) -> None:
        """Remove the hook and give the control back; the modules keep the probability they have."""
        self._hook.remove()
        release(self._model, DROPOUT)

    def _probabilities(self) -> tuple[float, ...]:
        return tuple(float(getattr(module, attribute)) for module, attribute in self._places)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._observed = self._probabilities()


def _places(model: nn.Module) -> tuple[tuple[nn.Module, str], ...]:
    """Return where the model keeps its probabilities, as pairs of module and attribute."""
    places: list[tuple[nn.Module, str]] = []
    for module in model.modules():
        if isinstance(module, _MODULES):
            places.append((module, "p"))
        elif isinstance(module, nn.MultiheadAttention) or (isinstance(module, nn.RNNBase) and module.num_layers > 1):
            places.append((module, "dropout"))
    if not places:
        raise ControlError(
            "the model has no dropout that can be reached",
            received=type(model).__name__,
            allowed="torch.nn dropout modules, MultiheadAttention, or recurrent modules of more than one layer",
            next_step="give the model nn.Dropout modules, functional dropout cannot be reached; or leave dropout out",
        )
    for module, attribute in places:
        probability = float(getattr(module, attribute))
        if not 0 <= probability < 1:
            raise ControlError(
                f"the {attribute} of a {type(module).__name__} cannot be supervised",
                received=probability,
                allowed="0 <= probability < 1",
            )
    return tuple(places)
