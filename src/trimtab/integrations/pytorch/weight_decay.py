"""Weight decay: the number in every parameter group that decays.

Groups without decay (biases, norms) keep none, unless no group has any. The ratios of the groups to the
largest are those found when bound. The value survives `load_state_dict`, which would undo it: what was written
last is written again. A compiled optimizer recompiles once per new value.
"""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from trimtab.actuation.binding import ReadBack
from trimtab.controls.catalogue import WEIGHT_DECAY
from trimtab.integrations.pytorch.groups import Group, Selection, agree, check_written, number, put, share, unwrap
from trimtab.integrations.pytorch.ownership import claim, release


class WeightDecayBinding:
    """Binds weight_decay to an optimizer; the value is the largest decay among its groups.

    Args:
        optimizer: The run's optimizer; wrappers that keep it as ``.optimizer`` are unwrapped.
        group: Name of one parameter group (``param_groups[i]["name"]``); by default all groups.

    Raises:
        ControlError: A group has no weight_decay, or a negative or non-finite one.
        OwnershipError: Another supervisor has this optimizer's weight decay.
    """

    def __init__(self, optimizer: Optimizer, group: str | None = None) -> None:
        self._optimizer = unwrap(optimizer)
        self._selection = Selection.of(self._optimizer, WEIGHT_DECAY, group)
        self._initial = self._decays()
        self._written: float | None = None
        self._expected = self._initial
        self._observed: tuple[float, ...] | None = None
        claim(self._optimizer, self.name)
        self._hooks = (
            self._optimizer.register_step_post_hook(self._after_step),
            self._optimizer.register_load_state_dict_post_hook(self._after_load),
        )

    @property
    def name(self) -> str:
        """The control's name."""
        return self._selection.control

    def read(self) -> float:
        """Return the largest decay among the groups now."""
        return max(self._decays())

    def write(self, value: float) -> None:
        """Set the largest decay and, by their ratios, the others.

        Raises:
            ControlError: Give a finite value >= 0.
        """
        checked = check_written(self.name, value)
        for index, group in enumerate(self._selection.groups(self._optimizer)):
            put(group, "weight_decay", self._share(checked, index, group))
        self._written = checked
        self._expected = self._decays()
        self._observed = None

    def took_effect(self) -> ReadBack | None:
        """Return the decay the last step was to use and used; None if no step ran since `write`."""
        if self._observed is None:
            return None
        holds = len(self._expected) == len(self._observed) and all(map(agree, self._expected, self._observed))
        return ReadBack(self.name, max(self._expected), max(self._observed, default=0.0), holds)

    def close(self) -> None:
        """Remove the hooks and give the control back; the groups keep the value they have."""
        for hook in self._hooks:
            hook.remove()
        release(self._optimizer, self.name)

    def _decays(self) -> tuple[float, ...]:
        return tuple(
            number(group, "weight_decay", index) for index, group in enumerate(self._selection.groups(self._optimizer))
        )

    def _share(self, value: float, index: int, group: Group) -> float:
        largest = max(self._initial)
        if largest == 0:
            return value
        if index < len(self._initial):
            return share(value, self._initial[index], largest)
        return value if float(group["weight_decay"]) > 0 else 0.0  # a group added after binding has no ratio yet

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._observed = tuple(float(group["weight_decay"]) for group in self._selection.groups(optimizer))

    def _after_load(self, optimizer: Optimizer) -> None:
        if self._written is None:  # never changed by trimtab: what was loaded stands
            self._expected = self._decays()
            self._observed = None
        else:
            self.write(self._written)
