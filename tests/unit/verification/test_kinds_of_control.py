"""Whole numbers, budgets of values, boundaries, and a learning rate that is taken along."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import a_case, a_standing, accepted_recipe, an_envelope, objections
from trimtab.controls.catalogue import batch_size, dropout, learning_rate
from trimtab.controls.control import RateScaling
from trimtab.controls.envelope import Deliberation, Envelope
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Standing
from trimtab.decision.action import Adjust, Change
from trimtab.decision.surface import build_surface
from trimtab.verification.verdict import Verdict
from trimtab.verification.verifier import verify

RECIPE = Recipe.of({"batch_size": 32, "learning_rate": 1e-3})


def a_run(scaling: RateScaling = "none", rate: Any = None, **standing: Any) -> tuple[Envelope, Standing]:
    controls = (rate or learning_rate(1e-6, 1e-2), batch_size(4, 256, rate_scaling=scaling))
    return an_envelope(controls=controls), a_standing(**({"recipe": RECIPE, "initial": RECIPE, "checkpoints": ()} | standing))


def judge(run: tuple[Envelope, Standing], **values: float) -> Verdict:
    action = Adjust(tuple(Change(name, value) for name, value in values.items()))
    return verify(a_case(action, envelope=run[0], standing=run[1]))


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1.0), ("linear", 4.0), ("sqrt", 2.0)])
def test_a_larger_batch_takes_the_rate_along(scaling: RateScaling, factor: float) -> None:
    recipe = accepted_recipe(judge(a_run(scaling), batch_size=128.0))
    assert recipe == Recipe.of({"batch_size": 128, "learning_rate": 1e-3 * factor})


def test_a_rate_that_is_changed_by_name_is_not_changed_twice() -> None:
    recipe = accepted_recipe(judge(a_run("linear"), batch_size=64.0, learning_rate=5e-4))
    assert recipe == Recipe.of({"batch_size": 64, "learning_rate": 5e-4})


@pytest.mark.parametrize(
    "rate",
    [
        learning_rate(1e-6, 1.5e-3),
        learning_rate(1e-6, 1e-2, largest_change=1.9),
        learning_rate(1e-6, 1e-2, cumulative_drift=1.9),
    ],
    ids=["bounds", "largest_change", "cumulative_drift"],
)
def test_the_rate_that_is_taken_along_keeps_its_own_limits(rate: Any) -> None:
    run = a_run("linear", rate)
    assert objections(judge(run, batch_size=64.0)) == {"coupled_rate"}
    assert objections(judge(run, batch_size=64.0, learning_rate=7.5e-4)) == {"coupled_rate"}
    offered = {options.control: options.values for options in build_surface(*run).adjustable}
    assert offered.get("batch_size", ()) == ((8.0, 16.0) if rate.bounds.high < 1e-2 else ())
    assert 64.0 not in offered.get("batch_size", ())
    assert not objections(judge(a_run("none", rate), batch_size=64.0))


def test_only_whole_numbers_where_only_such_make_sense() -> None:
    start = Recipe.of({"batch_size": 6, "learning_rate": 1e-3})
    run = a_run(recipe=start, initial=start)
    offered = {options.control: options.values for options in build_surface(*run).adjustable}
    assert offered["batch_size"] == (12.0, 24.0)  # 1.5 and 3 are out: not whole, and below 4
    low = (an_envelope(controls=(learning_rate(1e-6, 1e-2), batch_size(1, 256))), run[1])
    assert objections(judge(low, batch_size=1.5)) == {"bounds"}
    assert not objections(judge(low, batch_size=3.0))


def test_a_boundary_control_changes_at_a_boundary() -> None:
    deliberation = Deliberation(boundary_every_steps=300)
    envelope = an_envelope(controls=(dropout(0.0, 0.5, when="boundary"),), deliberation=deliberation)
    recipe = Recipe.of({"dropout": 0.1})
    for step, found in ((400, {"boundary"}), (600, set())):
        standing = a_standing(step=step, recipe=recipe, initial=recipe, checkpoints=())
        case = a_case(Adjust((Change("dropout", 0.2),)), envelope=envelope, standing=standing)
        assert objections(verify(case)) == found
        assert bool(build_surface(envelope, standing).adjustable) == (not found)
        by_reflex = a_case(case.action, envelope=envelope, standing=standing, source="reflex")
        assert not objections(verify(by_reflex))
