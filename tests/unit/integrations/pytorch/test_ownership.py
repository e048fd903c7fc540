from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.unit.integrations.pytorch.small_runs import SCHEDULERS
from trimtab.errors import OwnershipError
from trimtab.integrations.pytorch import ownership
from trimtab.integrations.pytorch.ownership import claim, refuse_adaptive, release


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)


def test_a_control_of_an_object_has_one_owner() -> None:
    one, other = optimizer(), optimizer()
    claim(one, "learning_rate")
    claim(one, "weight_decay")
    claim(other, "learning_rate")
    with pytest.raises(OwnershipError, match="learning_rate of this SGD is already supervised"):
        claim(one, "learning_rate")
    release(one, "learning_rate")
    release(one, "learning_rate")
    release(optimizer(), "learning_rate")
    claim(one, "learning_rate")


def test_a_claim_ends_with_its_object() -> None:
    gc.collect()
    before = len(ownership._CLAIMS)
    short_lived = optimizer()
    claim(short_lived, "learning_rate")
    assert len(ownership._CLAIMS) == before + 1
    del short_lived
    gc.collect()
    assert len(ownership._CLAIMS) == before


@pytest.mark.parametrize("name", SCHEDULERS)
def test_only_a_scheduler_that_watches_a_metric_is_refused(name: str) -> None:
    scheduler = SCHEDULERS[name](optimizer())
    wrapped = SimpleNamespace(scheduler=scheduler)
    if name == "ReduceLROnPlateau":
        for found in (scheduler, wrapped, [None, scheduler], SimpleNamespace(_schedulers=[scheduler])):
            with pytest.raises(OwnershipError, match="leave learning_rate out of the controls"):
                refuse_adaptive(found)
    else:
        refuse_adaptive(scheduler)
        refuse_adaptive(wrapped)
    refuse_adaptive(None)
