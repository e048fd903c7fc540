"""Which binding reaches which control: one row per control of the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from trimtab.actuation.binding import Binding
from trimtab.controls.catalogue import base_name, part_name
from trimtab.controls.control import Control
from trimtab.controls.entries import (
    BATCH_SIZE,
    BETA2,
    DROPOUT,
    ENTRIES,
    GRADIENT_ACCUMULATION,
    GRADIENT_CLIP_NORM,
    LABEL_SMOOTHING,
    LEARNING_RATE,
    LOSS_WEIGHT,
    MIXTURE_WEIGHT,
    MOMENTUM,
    WEIGHT_DECAY,
)
from trimtab.errors import ControlError, nearest
from trimtab.integrations.pytorch.bindings.attribute import Handle, HandleBinding
from trimtab.integrations.pytorch.bindings.data import bind_batch_size, bind_gradient_accumulation, bind_mixture_weight
from trimtab.integrations.pytorch.bindings.dropout import DropoutBinding
from trimtab.integrations.pytorch.bindings.gradient_clip import bind_gradient_clip_norm
from trimtab.integrations.pytorch.bindings.learning_rate import LearningRateBinding
from trimtab.integrations.pytorch.bindings.loss import LossWeightBinding, bind_label_smoothing
from trimtab.integrations.pytorch.bindings.momentum import Beta2Binding, MomentumBinding
from trimtab.integrations.pytorch.bindings.observed import listed
from trimtab.integrations.pytorch.bindings.ownership import refuse_adaptive, refuse_momentum_cycling
from trimtab.integrations.pytorch.bindings.weight_decay import WeightDecayBinding
from trimtab.integrations.pytorch.training import Training

Binder = Callable[[Control, Training], Binding]


def _learning_rate(control: Control, training: Training) -> Binding:
    refuse_adaptive(training.scheduler)
    return LearningRateBinding(training.optimizer, control.bounds, part_name(control.name))


def _momentum(control: Control, training: Training) -> Binding:
    refuse_momentum_cycling(training.scheduler)
    return MomentumBinding(training.optimizer, part_name(control.name))


BINDERS: Final[dict[str, Binder]] = {
    # Numbers of the optimizer.
    LEARNING_RATE: _learning_rate,
    WEIGHT_DECAY: lambda control, training: WeightDecayBinding(training.optimizer, part_name(control.name)),
    MOMENTUM: _momentum,
    BETA2: lambda control, training: Beta2Binding(training.optimizer, part_name(control.name)),
    # Numbers of the model and of the loss.
    DROPOUT: lambda control, training: DropoutBinding(training.model, training.optimizer, control.name, control.modules),
    LABEL_SMOOTHING: lambda _, training: bind_label_smoothing(training),
    LOSS_WEIGHT: lambda control, training: LossWeightBinding(training, part_name(control.name)),
    GRADIENT_CLIP_NORM: lambda _, training: bind_gradient_clip_norm(training),
    # Numbers of the loader.
    BATCH_SIZE: bind_batch_size,
    GRADIENT_ACCUMULATION: bind_gradient_accumulation,
    MIXTURE_WEIGHT: bind_mixture_weight,
}


def bind(control: Control, training: Training) -> Binding:
    """Bind a control to the live objects of a run: through the user's handle of its name, else as the catalogue knows it.

    Raises:
        ControlError: The control cannot be bound to this run; the message says why and what to do.
        OwnershipError: Something else owns it.
    """
    handles = [handle for handle in training.find(Handle) if handle.name == control.name]
    if len(handles) > 1:
        raise ControlError(f"{control.name} has more than one handle", received=len(handles), next_step="pass one of them")
    if handles:
        return HandleBinding(control, training, handles[0])
    if binder := BINDERS.get(base_name(control.name)):
        return binder(control, training)
    base = base_name(control.name)
    hint = "" if base in ENTRIES else f"; in the catalogue, {nearest(base, ENTRIES)}"
    raise ControlError(
        f"nothing says where {control.name} is found",
        received=f"parts: {listed([type(part).__name__ for part in training.parts])}",
        next_step=f'pass parts=[trimtab.handle("{control.name}", object, "attribute")]{hint}',
    )
