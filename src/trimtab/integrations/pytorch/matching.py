"""Whether what a user hands over are the right kinds of things, and belong together.

Sharing a part is enough: a frozen half, an optimizer for one of two networks and a clip for a few layers are common. What
shares nothing is another run's, and supervising it would show nothing of this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from trimtab.controls.control import Control
from trimtab.errors import UsageError
from trimtab.integrations.pytorch.bindings.attribute import Handle, OwnControl
from trimtab.integrations.pytorch.bindings.groups import unwrap
from trimtab.integrations.pytorch.bindings.ownership import schedulers_within
from trimtab.integrations.pytorch.data.accumulation import GradientAccumulation
from trimtab.integrations.pytorch.data.loader import ResumableLoader
from trimtab.integrations.pytorch.data.mixture import MixtureLoader
from trimtab.integrations.pytorch.data.sampler import ResumableBatchSampler
from trimtab.integrations.pytorch.data.workers import ResumableDataLoader
from trimtab.integrations.pytorch.parts.gradient_clip import GradientClip
from trimtab.integrations.pytorch.parts.loss_weights import LossWeights
from trimtab.integrations.pytorch.training import Training

_PARTS: Final = (
    nn.Module,
    GradientClip,
    LossWeights,
    GradientAccumulation,
    Handle,
    MixtureLoader,
    ResumableLoader,
    ResumableDataLoader,
    ResumableBatchSampler,
    DataLoader,
)


def declared(controls: Sequence[Control | OwnControl]) -> tuple[Control, ...]:
    """Return the controls without their handles.

    Raises:
        UsageError: Pass a list of controls.
    """
    return tuple(own.control if isinstance(own, OwnControl) else own for own in _controls(controls))


def gathered(parts: Sequence[object], controls: Sequence[Control | OwnControl] | None) -> tuple[object, ...]:
    """Return the parts, and the handles that come with controls.

    Raises:
        UsageError: Pass lists of what the message names.
    """
    if not isinstance(parts, (list, tuple)):
        raise UsageError("parts is not a list", received=type(parts).__name__, next_step="write parts=[...], also for one part")
    for part in parts:
        if isinstance(part, OwnControl):
            raise UsageError(
                "a control is among the parts", received=part.control.name, next_step="pass it in controls=[...] instead"
            )
        if not isinstance(part, _PARTS):
            raise UsageError(
                "a part is nothing that a control acts on",
                received=f"{type(part).__name__}: {part!r}"[:120],
                allowed="loss modules, GradientClip, LossWeights, GradientAccumulation, loaders, trimtab.handle(...)",
                next_step="leave it out, or say where its value is with trimtab.handle or trimtab.attribute",
            )
    return (*parts, *(own.handle for own in _controls(controls or ()) if isinstance(own, OwnControl)))


def refuse_mismatched(training: Training) -> None:
    """Refuse objects of which none belongs to the run of the others.

    Raises:
        UsageError: Pass the model, optimizer, scheduler and clip of one run.
    """
    if not isinstance(training.model, nn.Module):
        raise UsageError(
            "the model is no torch.nn.Module",
            received=type(training.model).__name__,
            next_step="the model comes first, the optimizer second" if isinstance(training.model, Optimizer) else None,
        )
    inner = unwrap(training.optimizer)
    trained = {id(one): one for one in _parameters_of(inner)}
    modules = [training.model, *(part for part in training.parts if isinstance(part, nn.Module))]
    known = {id(one): one for module in modules for one in module.parameters()}
    # A wrapper, or parameters of another type: the optimizer may step copies in a higher precision.
    may_be_copies = inner is not training.optimizer or not _types(trained.values()) & _types(known.values())
    if known and not may_be_copies and not trained.keys() & known.keys():
        raise UsageError(
            "the optimizer has no parameter of the model",
            received=f"{type(inner).__name__} over {len(trained)} tensors, none of the {len(known)} of the model",
            next_step="pass the optimizer that was made with this model's parameters",
        )
    _refuse_other_scheduler(training.scheduler, inner)
    for clip in training.find(GradientClip):
        if not may_be_copies and not {id(one) for one in clip.parameters} & (trained.keys() | known.keys()):
            raise UsageError(
                "a GradientClip has no parameter of the model or the optimizer",
                received=f"{len(clip.parameters)} tensors of another model",
                next_step="make it with this model's parameters",
            )


def _controls(controls: Sequence[Control | OwnControl]) -> Sequence[Control | OwnControl]:
    if not isinstance(controls, (list, tuple)):
        raise UsageError(
            "controls is not a list",
            received=type(controls).__name__,
            next_step="write for example controls=[trimtab.learning_rate(low=1e-6, high=1e-2)]",
        )
    for one in controls:
        if not isinstance(one, (Control, OwnControl)):
            raise UsageError(
                "not a control",
                received=f"{one!r}"[:120],
                allowed="what trimtab.learning_rate(...), trimtab.attribute(...) and the like return",
                next_step=f"write trimtab.{one}(low=..., high=...)" if isinstance(one, str) and one.isidentifier() else None,
            )
    return controls


def _refuse_other_scheduler(scheduler: object, inner: Optimizer) -> None:
    held = [one for _, found in schedulers_within(scheduler) if isinstance(one := getattr(found, "optimizer", None), Optimizer)]
    if held and all(unwrap(one) is not inner for one in held):
        raise UsageError(
            "the scheduler is of another optimizer",
            received=f"{type(scheduler).__name__} of another {type(unwrap(held[0])).__name__}",
            next_step="pass the scheduler that was made with this optimizer",
        )


def _parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [cast("Tensor", parameter) for group in optimizer.param_groups for parameter in group["params"]]


def _types(parameters: Iterable[Tensor]) -> set[Any]:
    return {parameter.dtype for parameter in parameters}
