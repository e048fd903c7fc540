"""Controls of the loss: label smoothing, and the weights of its terms."""

from __future__ import annotations

from torch import nn

from trimtab.controls.entries import LABEL_SMOOTHING, LOSS_WEIGHT
from trimtab.errors import ControlError
from trimtab.integrations.pytorch.bindings.groups import Held
from trimtab.integrations.pytorch.bindings.observed import ObservedBinding, Place, PlacesBinding, listed
from trimtab.integrations.pytorch.parts.loss_weights import LossWeights
from trimtab.integrations.pytorch.training import Training


def bind_label_smoothing(training: Training) -> PlacesBinding:
    """Bind label_smoothing to every module of the run that has a number of that name, as `nn.CrossEntropyLoss` has.

    The value is the largest; the others keep their ratio to it, and those without smoothing keep none unless none has any.

    Raises:
        ControlError: Pass the loss module among the parts.
        OwnershipError: Another supervisor has the label smoothing of one of the modules.
    """
    places = [
        Place(module, LABEL_SMOOTHING, f"{type(module).__name__}.{LABEL_SMOOTHING}")
        for module in training.find(nn.Module)
        if type(getattr(module, LABEL_SMOOTHING, None)) in (int, float)
    ]
    if not places:
        parts = listed([type(part).__name__ for part in training.parts])
        raise ControlError(
            "no module of this run smooths labels",
            received=f"model {type(training.model).__name__}, parts: {parts}",
            allowed="torch.nn.CrossEntropyLoss, or any module with a number label_smoothing",
            next_step="pass the loss module in parts=[criterion]; F.cross_entropy called with a number cannot be reached",
        )
    return PlacesBinding(LABEL_SMOOTHING, training.optimizer, places, below=1.0)


class LossWeightBinding(ObservedBinding):
    """Binds the weight of one term of the loss.

    Args:
        training: The run; one `LossWeights` among its parts has the term.
        term: The term's name.

    Raises:
        ControlError: No part has the term, or several have.
        OwnershipError: Another supervisor has the term's weight.
    """

    def __init__(self, training: Training, term: str | None) -> None:
        self._weights, self._term = _find_term(training, term)
        name = f"{LOSS_WEIGHT}/{self._term}"
        super().__init__(name, training.optimizer, [(self._weights, name)])

    def _held(self) -> tuple[Held, ...]:
        return (self._weights.weights[self._term],)

    def _put(self, targets: tuple[float, ...]) -> None:
        self._weights.set_weight(self._term, targets[0])


def _find_term(training: Training, term: str | None) -> tuple[LossWeights, str]:
    parts = training.find(LossWeights)
    terms = sorted({name for part in parts for name in part.weights})
    having = [part for part in parts if term in part.weights]
    if term is None or len(having) != 1:
        raise ControlError(
            f"{LOSS_WEIGHT}/{term or 'TERM'} needs one LossWeights that has the term",
            received=f"{len(having)} of {len(parts)} LossWeights in parts; terms: {', '.join(terms) or 'none'}",
            next_step=f"make weights = trimtab.LossWeights({term or 'task'}=1.0, ...), use it for the loss, parts=[weights]",
        )
    return having[0], term
