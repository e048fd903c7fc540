"""Hypothesis strategies for envelopes, standings and the values around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from trimtab.controls.bounds import Bounds
from trimtab.controls.control import Control
from trimtab.controls.envelope import Authority, Deliberation, Envelope, Objective
from trimtab.controls.moves import Add, Moves, Multiply, SetTo
from trimtab.controls.recipe import Recipe
from trimtab.controls.safeguards import Reflex
from trimtab.controls.standing import Checkpoint, Standing

COUPLED = "loss_weight/aux"
NAMES = ("learning_rate", "weight_decay", "dropout", COUPLED, "clip_range")
STEP = 1000

_numbers = st.floats(-1e6, 1e6, allow_nan=False)
_factors = st.sampled_from((0.1, 0.25, 0.5, 0.9, 1.1, 1.5, 2.0, 3, 10.0))


def _moves(low: float, high: float) -> st.SearchStrategy[Moves]:
    inside = st.one_of(st.floats(low, high), st.sampled_from((low, high, 0.0, -0.0, 1, 2**53 + 1)), _numbers)
    amounts = st.one_of(st.floats(-1e3, 1e3), st.sampled_from((1, -1, 0.1, 5e-324))).filter(lambda a: a != 0)
    return st.one_of(
        st.lists(_factors, min_size=1, max_size=6).map(lambda f: Multiply(tuple(f))),
        st.lists(inside, min_size=1, max_size=6).map(lambda v: SetTo(tuple(v))),
        st.lists(amounts, min_size=1, max_size=6).map(lambda a: Add(tuple(a))),
    )


@st.composite
def controls(draw: st.DrawFn, name: str) -> Control:
    is_ratio = draw(st.booleans())
    low = draw(st.floats(1e-9, 10.0)) if is_ratio else draw(st.one_of(st.just(0.0), st.floats(-100, 100)))
    high = low * draw(st.floats(1.0, 1e6)) if is_ratio else low + draw(st.floats(0.0, 100.0))
    limits = st.floats(1.0, 1e6, exclude_min=True) if is_ratio else st.floats(1e-6, 200.0)
    return Control(
        name=name,
        bounds=Bounds(low, high),
        moves=draw(_moves(low, high)),
        scale="ratio" if is_ratio else "difference",
        largest_change=draw(limits),
        cumulative_drift=draw(limits),
        dwell_steps=draw(st.sampled_from((0, 1, 50))),
        when=draw(st.sampled_from(("live", "live", "boundary"))),
        max_values=draw(st.sampled_from((None, None, 1, 2))),
    )


def _coupled(control: Control, names: Sequence[str]) -> Control:
    """Return the control so that it takes the learning rate along, if it can be the one that does."""
    can = control.name == COUPLED and control.scale == "ratio" and "learning_rate" in names
    return replace(control, rate_scaling="sqrt") if can else control


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    declared = tuple(_coupled(draw(controls(name)), names) if draw(st.booleans()) else draw(controls(name)) for name in names)
    return Envelope(
        objective=Objective("val/loss", draw(st.sampled_from(("minimize", "maximize")))),
        controls=declared,
        authority=Authority(
            interventions=draw(st.sampled_from((0, 1, 16, 16, 16))),
            rollbacks=draw(st.sampled_from((0, 3, 10))),
            reflex_rollbacks=draw(st.sampled_from((0, 6))),
            controls_per_intervention=draw(st.integers(1, 3)),
            may_stop=draw(st.booleans()),
        ),
        deliberation=Deliberation(
            stale_after_steps=draw(st.sampled_from((10, 200))), boundary_every_steps=draw(st.sampled_from((1, 8, 7)))
        ),
        reflex=Reflex(skip_batches=draw(st.sampled_from((0, 7)))),
    )


@st.composite
def recipes(draw: st.DrawFn, envelope: Envelope, initial: Recipe | None = None) -> Recipe:
    """A recipe within the bounds, and within the drift of ``initial`` where that is given."""
    values: dict[str, Any] = {}
    for control in envelope.controls:
        low, high = control.bounds.low, control.bounds.high
        value = draw(st.one_of(st.sampled_from((low, high)), st.floats(low, high)))
        if initial is not None and not control.within(control.distance(initial[control.name], value), control.cumulative_drift):
            value = initial[control.name]
        values[control.name] = value
    return Recipe.of(values)


@st.composite
def standings(draw: st.DrawFn, envelope: Envelope) -> Standing:
    initial = draw(recipes(envelope))
    objectives = st.sampled_from((None, 1.0, 2.0, -3.5, math.nan, math.inf, -math.inf))
    checkpoints = tuple(
        Checkpoint(f"step-{step:08d}", step, draw(objectives), draw(recipes(envelope, initial)))
        for step in draw(st.lists(st.sampled_from((100, 200, 300)), unique=True).map(sorted))
    )
    changed = [c.name for c in envelope.controls if draw(st.booleans())]
    return Standing(
        step=STEP,
        recipe=draw(recipes(envelope, initial)),
        initial=initial,
        changed_at=tuple((name, draw(st.sampled_from((STEP, STEP - 1, STEP - 49, STEP - 50, 10)))) for name in changed),
        interventions_used=draw(st.sampled_from((0, 0, 1, 15, 16))),
        rollbacks_used=draw(st.sampled_from((0, 0, 3, 9))),
        reflex_rollbacks_used=draw(st.sampled_from((0, 5, 6))),
        version=draw(st.sampled_from((0, 7))),
        checkpoints=checkpoints,
        can_skip=draw(st.booleans()),
        values_seen=tuple((c.name, draw(_seen(c, initial[c.name]))) for c in envelope.controls if draw(st.booleans())),
    )


def _seen(control: Control, initial: float) -> st.SearchStrategy[tuple[float, ...]]:
    reached = st.sampled_from((*control.moves.targets(initial), control.bounds.high))
    return st.lists(reached, max_size=2, unique=True).map(lambda more: (initial, *(v for v in more if v != initial)))


@st.composite
def situations(draw: st.DrawFn) -> tuple[Envelope, Standing]:
    envelope = draw(envelopes())
    return envelope, draw(standings(envelope))
