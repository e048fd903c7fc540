"""The values of controls as a step really uses them, read without trimtab's bindings.

The rate, the decay and the momentum are read inside `optimizer.step`, since that is where a factor on the rate acts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from torch import nn
from torch.optim import Optimizer

READABLE: Final = (
    "batch_size", "beta2", "dropout", "gradient_clip_norm", "label_smoothing", "learning_rate", "momentum", "weight_decay",
)  # fmt: skip
"""The controls whose value in effect can be read here: of a whole model, not of a part of it."""


class LiveValues:
    """Reads what the newest step used.

    Attach it after `trimtab.supervise`, so that it comes after trimtab in each optimizer step.

    Args:
        model: Its dropout modules.
        optimizer: Its groups.
        others: By name what reads any other control, such as ``{"batch_size": lambda: loader.batch_size}``.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, **others: Callable[[], float]) -> None:
        self._model, self._others = model, others
        self._of_groups: dict[str, float] = {}
        self._handle = optimizer.register_step_pre_hook(self._look)

    def _look(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        groups: list[dict[str, Any]] = optimizer.param_groups
        found = {
            "learning_rate": max(float(group["lr"]) for group in groups),
            "weight_decay": max(float(group["weight_decay"]) for group in groups),
        }
        if "betas" in groups[0]:
            found["momentum"], found["beta2"] = map(float, groups[0]["betas"])
        elif "momentum" in groups[0]:
            found["momentum"] = float(groups[0]["momentum"])
        self._of_groups = found

    def read(self) -> dict[str, float]:
        """Return the values in effect; those of the optimizer are of its newest step."""
        layers = [module.p for module in self._model.modules() if isinstance(module, nn.Dropout)]
        found = dict(self._of_groups)
        if layers:
            found["dropout"] = max(layers)
        return found | {name: float(read()) for name, read in self._others.items()}

    def close(self) -> None:
        """Let go of the optimizer."""
        self._handle.remove()
