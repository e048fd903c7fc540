"""trimtab supervises live training runs: bounded, verified, recorded, undoable changes to the recipe.

`import trimtab` imports neither torch nor any provider's package; what needs them is imported when
it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from trimtab.controls.bounds import Bounds
from trimtab.controls.catalogue import dropout, learning_rate, weight_decay
from trimtab.controls.control import Control
from trimtab.controls.envelope import Envelope, Objective
from trimtab.controls.moves import Add, Multiply, SetTo
from trimtab.errors import MissingExtraError, TrimtabError

if TYPE_CHECKING:
    from trimtab.controls.envelope_file import load_envelope
    from trimtab.integrations.pytorch.attach import supervise
    from trimtab.integrations.pytorch.loader import ResumableLoader
    from trimtab.runtime.supervisor import Supervisor

__version__: Final = "0.1.0"

__all__ = [
    "Add",
    "Bounds",
    "Control",
    "Envelope",
    "Multiply",
    "Objective",
    "ResumableLoader",
    "SetTo",
    "Supervisor",
    "TrimtabError",
    "__version__",
    "dropout",
    "learning_rate",
    "load_envelope",
    "supervise",
    "weight_decay",
]

_LAZY: Final = {
    "supervise": "trimtab.integrations.pytorch.attach",
    "ResumableLoader": "trimtab.integrations.pytorch.loader",
    "Supervisor": "trimtab.runtime.supervisor",
    "load_envelope": "trimtab.controls.envelope_file",
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
