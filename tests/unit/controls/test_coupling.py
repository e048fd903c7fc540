from __future__ import annotations

import math
from typing import Any

import pytest

from tests.builders import an_envelope
from trimtab.controls.catalogue import batch_size, gradient_accumulation, learning_rate
from trimtab.controls.coupling import coupled_rate, keeps_rate
from trimtab.controls.recipe import Recipe
from trimtab.errors import ControlError

BASE = Recipe.of({"learning_rate": 1e-3, "batch_size": 16, "gradient_accumulation": 2})


def envelope(batch: Any = "none", accumulation: Any = "none", high: float = 1.0) -> Any:
    return an_envelope(
        controls=(
            learning_rate(1e-6, high),
            batch_size(1, 256, rate_scaling=batch),
            gradient_accumulation(1, 64, rate_scaling=accumulation),
        )
    )


@pytest.mark.parametrize(("scaling", "rate"), [("linear", 4e-3), ("sqrt", 2e-3), ("none", None)])
def test_a_larger_batch_takes_the_rate_along_as_declared(scaling: str, rate: float | None) -> None:
    found = coupled_rate(envelope(batch=scaling), BASE, (("batch_size", 64.0),))
    assert found is None if rate is None else found == pytest.approx(rate)


def test_only_one_control_may_take_the_rate_along() -> None:
    with pytest.raises(ControlError, match="two controls take learning_rate along"):
        envelope("linear", "sqrt")


def test_a_change_beside_the_coupled_one_does_not_matter() -> None:
    changes = (("batch_size", 32.0), ("gradient_accumulation", 8.0))
    assert coupled_rate(envelope("linear"), BASE, changes) == pytest.approx(2e-3)


def test_a_rate_that_is_changed_by_name_is_not_changed_twice() -> None:
    assert coupled_rate(envelope("linear"), BASE, (("batch_size", 32.0), ("learning_rate", 5e-4))) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -4.0])
def test_a_value_that_is_no_size_gives_no_rate(value: float) -> None:
    assert coupled_rate(envelope("linear"), BASE, (("batch_size", value),)) is None


def test_the_rate_must_keep_its_own_limits() -> None:
    for high, keeps in ((2e-3, True), (1.9e-3, False)):
        narrow = envelope("linear", high=high)
        assert keeps_rate(narrow, narrow.control("batch_size"), BASE, 32.0, BASE) is keeps
    wide = envelope("linear")
    assert not keeps_rate(wide, wide.control("batch_size"), BASE, 128.0, BASE)  # 8 times, the rate's largest change is 4
    assert keeps_rate(envelope(), envelope().control("batch_size"), BASE, 128.0, BASE)
