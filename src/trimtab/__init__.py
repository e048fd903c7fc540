"""trimtab supervises live training runs: bounded, verified, recorded, undoable changes to the recipe.

`import trimtab` imports neither torch nor any provider's package; what needs them is imported when
it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from trimtab.controls.bounds import Bounds
from trimtab.controls.catalogue import (
    batch_size,
    beta2,
    declare,
    dropout,
    entropy_coefficient,
    gradient_accumulation,
    gradient_clip_norm,
    label_smoothing,
    learning_rate,
    loss_weight,
    mixture_weight,
    momentum,
    weight_decay,
)
from trimtab.controls.control import Control
from trimtab.controls.envelope import Envelope, Objective
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.controls.moves import Add, Multiply, SetTo
from trimtab.errors import MissingExtraError, TrimtabError

if TYPE_CHECKING:
    from trimtab.controls.envelope_file import load_envelope
    from trimtab.integrations.pytorch.attach import supervise
    from trimtab.integrations.pytorch.bindings.attribute import attribute, custom, handle
    from trimtab.integrations.pytorch.calibration import CalibrationSetup, calibrate
    from trimtab.integrations.pytorch.data.accumulation import GradientAccumulation
    from trimtab.integrations.pytorch.data.loader import ResumableLoader
    from trimtab.integrations.pytorch.data.mixture import MixtureLoader
    from trimtab.integrations.pytorch.data.sampler import ResumableBatchSampler
    from trimtab.integrations.pytorch.data.workers import ResumableDataLoader
    from trimtab.integrations.pytorch.parts.gradient_clip import GradientClip
    from trimtab.integrations.pytorch.parts.loss_weights import LossWeights
    from trimtab.integrations.pytorch.preflight import preflight
    from trimtab.runtime.supervisor import Supervisor

__version__: Final = "0.1.0"

__all__ = [
    "Add",
    "Bounds",
    "CalibrationSetup",
    "Control",
    "Envelope",
    "GradientAccumulation",
    "GradientClip",
    "LossWeights",
    "ManagerSettings",
    "MixtureLoader",
    "Multiply",
    "Objective",
    "ResumableBatchSampler",
    "ResumableDataLoader",
    "ResumableLoader",
    "SetTo",
    "Supervisor",
    "TrimtabError",
    "__version__",
    "attribute",
    "batch_size",
    "beta2",
    "calibrate",
    "custom",
    "declare",
    "dropout",
    "entropy_coefficient",
    "gradient_accumulation",
    "gradient_clip_norm",
    "handle",
    "label_smoothing",
    "learning_rate",
    "load_envelope",
    "loss_weight",
    "mixture_weight",
    "momentum",
    "preflight",
    "supervise",
    "weight_decay",
]

_PYTORCH: Final = "trimtab.integrations.pytorch"
_LAZY: Final = {
    "CalibrationSetup": f"{_PYTORCH}.calibration",
    "GradientAccumulation": f"{_PYTORCH}.data.accumulation",
    "GradientClip": f"{_PYTORCH}.parts.gradient_clip",
    "LossWeights": f"{_PYTORCH}.parts.loss_weights",
    "MixtureLoader": f"{_PYTORCH}.data.mixture",
    "ResumableBatchSampler": f"{_PYTORCH}.data.sampler",
    "ResumableDataLoader": f"{_PYTORCH}.data.workers",
    "ResumableLoader": f"{_PYTORCH}.data.loader",
    "Supervisor": "trimtab.runtime.supervisor",
    "attribute": f"{_PYTORCH}.bindings.attribute",
    "calibrate": f"{_PYTORCH}.calibration",
    "custom": f"{_PYTORCH}.bindings.attribute",
    "handle": f"{_PYTORCH}.bindings.attribute",
    "load_envelope": "trimtab.controls.envelope_file",
    "preflight": f"{_PYTORCH}.preflight",
    "supervise": f"{_PYTORCH}.attach",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'trimtab' has no attribute {name!r}")
    try:
        return getattr(import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        raise MissingExtraError(
            f"trimtab.{name} needs {error.name}, which is not installed", next_step="pip install 'trimtab[torch]'"
        ) from error


def __dir__() -> list[str]:
    return sorted(__all__)
