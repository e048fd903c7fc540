from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.integrations.pytorch.small_runs import SCHEDULERS
from trimtab.errors import OwnershipError
from trimtab.integrations.pytorch.bindings import ownership
from trimtab.integrations.pytorch.bindings.ownership import claim, refuse_adaptive, refuse_momentum_cycling, release


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


class Slotted:
    __slots__ = ("value",)


class Equal:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment] - what cannot be hashed, on purpose


@pytest.mark.parametrize("make", [dict, list, Slotted, Equal, SimpleNamespace, nn.Dropout])
def test_any_object_has_owners_of_its_own(make: type) -> None:
    one, other = make(), make()
    before = len(ownership._CLAIMS)
    claim(one, "value", by="first")
    claim(other, "value")
    with pytest.raises(OwnershipError, match="second; held by first"):
        claim(one, "value", by="second")
    release(one, "value")
    release(other, "value")
    assert len(ownership._CLAIMS) == before
    claim(one, "value", by="second")
    release(one, "value")


def test_what_cannot_be_weakly_referenced_stays_claimed_while_its_name_is_gone() -> None:
    gc.collect()  # what other tests have left would else go in between
    before = len(ownership._CLAIMS)
    claim({}, "value")
    gc.collect()
    assert len(ownership._CLAIMS) == before + 1  # kept alive: another dict cannot get its id, and with it its claim
    key = next(reversed(ownership._CLAIMS))
    release(ownership._CLAIMS[key].target, "value")
    assert len(ownership._CLAIMS) == before


class ByMetric:
    def step(self, metrics: float) -> None: ...


def test_what_steers_by_a_metric_is_found_wherever_it_hides_and_named() -> None:
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer())
    hidden: list[Any] = [
        SimpleNamespace(after_scheduler=plateau),
        {"scheduler": plateau, "interval": "epoch"},
        [SimpleNamespace(scheduler=SimpleNamespace(lr_scheduler=plateau))],
        SimpleNamespace(milestones=[plateau]),
        SimpleNamespace(inner=plateau),
    ]
    for found in hidden:
        with pytest.raises(OwnershipError, match=r"ReduceLROnPlateau already steers.*: ReduceLROnPlateau"):
            refuse_adaptive(found)
    with pytest.raises(OwnershipError, match="ByMetric already steers"):
        refuse_adaptive(SimpleNamespace(scheduler=ByMetric()))


def test_wrappers_that_contain_each_other_are_walked_once() -> None:
    one, other = SimpleNamespace(), SimpleNamespace()
    one.scheduler, other.scheduler = other, one
    refuse_adaptive(one)
    refuse_momentum_cycling(one)


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
def test_a_scheduler_that_cycles_momentum_is_refused_in_any_wrapper(name: str) -> None:
    target = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    made = torch.optim.lr_scheduler.OneCycleLR(target, 0.2, total_steps=9)
    if name == "CyclicLR":
        made = torch.optim.lr_scheduler.CyclicLR(target, 0.1, 0.2)
    for found in (made, SimpleNamespace(scheduler=made), [made]):
        with pytest.raises(OwnershipError, match=f"{name} already writes the momentum.*cycle_momentum=False"):
            refuse_momentum_cycling(found)
    refuse_adaptive(made)
    refuse_momentum_cycling(SCHEDULERS[name](optimizer()))
    refuse_momentum_cycling(None)
