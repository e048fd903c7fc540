"""Schedulers that were made after trimtab attached: the preflight could not see them.

Nothing tells an optimizer who steps its rate, so the objects that are alive are asked (`trimtab.integrations.pytorch.
hidden`). That takes about 30 ms, so it is done at the first checkpoint of a run, the second, the fourth, the eighth...
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trimtab.errors import OwnershipError
from trimtab.integrations.pytorch.bindings.ownership import refuse_owner
from trimtab.integrations.pytorch.hidden import schedulers_not_passed

PROBLEM = "a scheduler was made after trimtab attached"


class Latecomers:
    """Finds schedulers that are made later than this object.

    Args:
        optimizers: The run's optimizer, also under its wrapper.
        passed: The scheduler that was passed, or None.
        controls: Names of the run's controls.
    """

    def __init__(self, optimizers: Sequence[Optimizer], passed: object, controls: Iterable[str]) -> None:
        self._optimizers = tuple(optimizers)
        self._passed = passed
        self._controls = tuple(controls)
        self._known: weakref.WeakSet[LRScheduler] = weakref.WeakSet(schedulers_not_passed(optimizers, passed))
        self._num_looks = 0

    def look(self) -> tuple[tuple[str, str], ...]:
        """Return a problem and its detail for each scheduler that is new; looks at every power of two calls only."""
        self._num_looks += 1
        if self._num_looks & (self._num_looks - 1):
            return ()
        found = [one for one in schedulers_not_passed(self._optimizers, self._passed) if one not in self._known]
        self._known.update(found)
        return tuple((PROBLEM, self._said(one)) for one in found)

    def _said(self, scheduler: LRScheduler) -> str:
        try:
            for control in self._controls:
                refuse_owner(control, scheduler)
        except OwnershipError as error:
            return f"{error.what}; {error.next_step}"
        kind = type(scheduler).__name__
        return f"a rollback does not restore this {kind}: make it before trimtab.supervise, and pass it as scheduler="
