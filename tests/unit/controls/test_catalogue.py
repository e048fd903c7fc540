from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.controls.catalogue import (
    base_name,
    batch_size,
    declare,
    dropout,
    learning_rate,
    loss_weight,
    own_control,
    part_name,
    weight_decay,
)
from trimtab.controls.entries import ENTRIES
from trimtab.controls.moves import Add, Multiply, SetTo
from trimtab.controls.reach import middle
from trimtab.errors import ControlError


def usual_bounds(name: str) -> tuple[float, float]:
    """Bounds that make sense for a control of the catalogue."""
    entry = ENTRIES[name]
    if entry.is_whole:
        return 1.0, 16.0
    return (-8.0, -1.0) if entry.least < 0 else (0.01, 0.99 if entry.below <= 1 else 1.0)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_row_makes_a_control_whose_moves_lead_somewhere(name: str) -> None:
    control = declare(name, *usual_bounds(name))
    entry = ENTRIES[name]
    assert (control.name, control.unit, control.cost, control.is_whole) == (name, entry.unit, entry.cost, entry.is_whole)
    assert control.effect_lag_steps == entry.effect_lag_steps
    assert entry.meaning
    start = middle(control)
    assert control.reachable(start, start)


@pytest.mark.parametrize("name", ENTRIES)
def test_bounds_outside_of_what_makes_sense_are_refused(name: str) -> None:
    entry = ENTRIES[name]
    low, high = usual_bounds(name)
    if entry.least > float("-inf"):
        with pytest.raises(ControlError, match="make no sense"):
            declare(name, entry.least - 1, high)
    if entry.below < float("inf"):
        with pytest.raises(ControlError, match="make no sense"):
            declare(name, low, entry.below)
    if entry.is_whole:
        with pytest.raises(ControlError, match="whole numbers"):
            declare(name, low, high + 0.5)


@pytest.mark.parametrize("name", ENTRIES)
def test_a_part_belongs_to_controls_that_have_parts(name: str) -> None:
    modules = "encoder.*" if name == "dropout" else None
    if ENTRIES[name].takes_name:
        control = declare(name, *usual_bounds(name), part="x", modules=modules)
        assert (base_name(control.name), part_name(control.name)) == (name, "x")
    else:
        with pytest.raises(ControlError, match="has no parts"):
            declare(name, *usual_bounds(name), part="x")


def test_every_limit_can_be_overridden() -> None:
    control = declare(
        "learning_rate",
        1e-5,
        1e-2,
        moves=Add((1e-3,)),
        largest_change=3.0,
        cumulative_drift=7.0,
        dwell_steps=5,
        effect_lag_steps=1,
        when="boundary",
        max_values=9,
    )
    assert (control.moves, control.largest_change, control.cumulative_drift) == (Add((1e-3,)), 3.0, 7.0)
    assert (control.dwell_steps, control.effect_lag_steps, control.when, control.max_values) == (5, 1, "boundary", 9)


def test_an_explicit_zero_is_refused_rather_than_replaced() -> None:
    makes: tuple[Any, ...] = (weight_decay, dropout)
    for make in makes:
        for what in ("largest_change", "cumulative_drift"):
            with pytest.raises(ControlError, match=what):
                make(0.0, 0.5, **{what: 0.0})


def test_modules_go_with_a_named_part_of_dropout() -> None:
    assert dropout(0.0, 0.5, name="encoder", modules="encoder.*").modules == "encoder.*"
    for wrong in (
        lambda: dropout(0.0, 0.5, name="encoder"),
        lambda: dropout(0.0, 0.5, modules="encoder.*"),
        lambda: declare("learning_rate", 0.1, 0.5, part="encoder", modules="encoder.*"),
    ):
        with pytest.raises(ControlError, match="modules"):
            wrong()


def test_an_unknown_name_is_refused_with_a_hint() -> None:
    with pytest.raises(ControlError, match="did you mean 'clip_range'"):
        declare("clip_rnge", 0.1, 0.2)


def test_named_functions_make_named_controls() -> None:
    assert learning_rate(1e-5, 1e-2, group="head").name == "learning_rate/head"
    assert loss_weight("aux", 0.1, 1.0).name == "loss_weight/aux"
    assert batch_size(8, 64, rate_scaling="linear").rate_scaling == "linear"


def test_a_control_of_ones_own_has_the_limits_of_its_scale() -> None:
    ratio = own_control("temperature", 0.5, 2.0, moves=Multiply((0.8, 1.25)), scale="ratio", unit="kelvin")
    assert (ratio.largest_change, ratio.cumulative_drift, ratio.unit) == (4.0, 1000.0, "kelvin")
    steps = own_control("top_k", 1, 9, moves=Add((-1.0, 1.0)), is_whole=True, largest_change=2.0)
    assert (steps.largest_change, steps.cumulative_drift, steps.is_whole) == (2.0, 8.0, True)
    for name in ("dropout", "learning_rate/head"):
        with pytest.raises(ControlError, match="the catalogue has this control"):
            own_control(name, 0.1, 0.5, moves=Add((0.1,)))


def test_the_default_values_are_those_within_the_bounds() -> None:
    assert weight_decay(0.0, 0.3).moves == SetTo((0.0, 0.01, 0.03, 0.1, 0.3))
    assert dropout(0.0, 0.07).moves == SetTo((0.0, 0.05))
    assert weight_decay(0.0, 2e-3, moves=SetTo((0.0, 0.01))).moves == SetTo((0.0, 0.01)), "what the user gives stands"
    assert learning_rate(1e-3, 1.1e-3).moves == ENTRIES["learning_rate"].moves


@pytest.mark.parametrize(
    ("name", "low", "high", "values"),
    [
        ("weight_decay", 0.0, 2e-3, (0.0, 0.0005, 0.001, 0.0015, 0.002)),
        ("ema_decay", 0.99995, 0.99999, (0.99995, 0.99996, 0.99997, 0.99998, 0.99999)),
        ("num_epochs", 12, 14, (12, 13, 14)),
    ],
)
def test_where_the_default_list_has_nothing_to_choose_from_values_are_spread(
    name: str, low: float, high: float, values: tuple[float, ...]
) -> None:
    assert declare(name, low, high).moves == SetTo(values)


@given(st.floats(0.0, 1.0, allow_subnormal=False), st.floats(1e-9, 1.0))
def test_by_default_a_weight_decay_can_always_move(low: float, span: float) -> None:
    control = weight_decay(low, low + span)
    assert isinstance(control.moves, SetTo)
    assert all(control.admits(value) for value in control.moves.values)
    assert control.reachable(low, low)


def test_the_default_dwell_is_not_shorter_than_the_lag() -> None:
    assert [declare(name, 0.9, 0.95).dwell_steps for name in ("dropout", "weight_decay", "beta2")] == [50, 50, 100]


@pytest.mark.parametrize(
    "make",
    [
        lambda: learning_rate(1e-5, 1e-2, dwell=5),  # type: ignore[call-arg] - a wrong value, on purpose
        lambda: own_control("x", 0.0, 1.0, moves=Add((0.1,)), dwell=5),  # type: ignore[call-arg] - a wrong value, on purpose
    ],
)
def test_an_unknown_keyword_is_refused_with_a_hint(make: Any) -> None:
    with pytest.raises(ControlError, match=r"takes no such keyword; received dwell; next: did you mean 'dwell_steps'\?"):
        make()


@pytest.mark.parametrize("moves", [[0.5, 2], (0.5, 2), "multiply", 0.5])
def test_moves_that_are_no_moves_are_refused(moves: Any) -> None:
    with pytest.raises(ControlError, match=r"the moves of learning_rate are not moves; .*trimtab.Multiply"):
        learning_rate(1e-5, 1e-2, moves=moves)
