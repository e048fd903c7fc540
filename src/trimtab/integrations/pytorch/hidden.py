"""What belongs to a run although nobody passed it: schedulers of its optimizer, compiled wrappers of its modules.

Neither an optimizer nor a module knows who holds it, so the objects that are alive are asked. Only torch's own
schedulers and what derives from them are found, and only what still exists: a scheduler that was dropped is gone.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trimtab.integrations.pytorch.bindings.ownership import schedulers_within


def schedulers_not_passed(optimizers: Sequence[Optimizer], passed: object) -> list[LRScheduler]:
    """Return the schedulers of ``optimizers`` that are neither ``passed`` nor a part of what is, outermost only."""
    known = {id(found) for _, found in schedulers_within(passed)}
    found = [one for one in _holders(optimizers) if id(one) not in known]
    inner = {id(child) for one in found for _, child in schedulers_within(one) if child is not one}
    return [one for one in found if id(one) not in inner]


def has_compiled_wrapper(module: nn.Module) -> bool:
    """Return whether ``torch.compile(module)`` was called and its result is alive."""
    # An OptimizedModule keeps the original in its dict of submodules, under this name.
    return any(
        isinstance(one, dict) and cast("dict[str, Any]", one).get("_orig_mod") is module for one in gc.get_referrers(module)
    )


def _holders(optimizers: Sequence[Optimizer]) -> list[LRScheduler]:
    held: list[LRScheduler] = []
    for referrer in cast("list[object]", gc.get_referrers(*optimizers)):
        # What an attribute holds is referred to by the object, or by its __dict__ once somebody has looked at that.
        owners = [referrer]
        if isinstance(referrer, dict) and "optimizer" in referrer:
            owners = cast("list[object]", gc.get_referrers(cast("object", referrer)))
        for owner in owners:
            if isinstance(owner, LRScheduler) and any(owner.optimizer is one for one in optimizers):
                held += [] if any(owner is known for known in held) else [owner]
    return held
