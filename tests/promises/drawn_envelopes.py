"""Envelopes and standings drawn at random, made so that each limit is now and then the only one in the way."""

from __future__ import annotations

import random
from typing import Any

from trimtab.controls.bounds import Bounds
from trimtab.controls.control import Control
from trimtab.controls.envelope import Authority, Deliberation, Envelope, Objective
from trimtab.controls.moves import Add, Moves, Multiply, SetTo
from trimtab.controls.recipe import Recipe
from trimtab.controls.safeguards import Guard, Reflex
from trimtab.controls.standing import Checkpoint, Standing

NAMES = ("learning_rate", "weight_decay", "dropout", "batch_size", "clip_range")
FACTORS = (0.1, 0.25, 0.5, 0.9, 1.1, 1.5, 2.0, 10.0)


def an_envelope(draw: random.Random) -> Envelope:
    """Return an envelope with one to four controls."""
    names = draw.sample(NAMES, draw.randint(1, 4))
    controls = tuple(_control(name, draw, can_couple="learning_rate" in names) for name in names)
    return Envelope(
        Objective("val/loss", draw.choice(("minimize", "maximize"))),
        controls,
        Authority(
            interventions=draw.choice((0, 3, 16, 1000)),
            rollbacks=draw.choice((0, 2, 1000)),
            reflex_rollbacks=draw.choice((0, 2, 6)),
            controls_per_intervention=draw.randint(1, 3),
            may_stop=draw.random() < 0.3,
            shadow=draw.random() < 0.02,
        ),
        Deliberation(
            apply_after_steps=draw.randint(1, 4),
            stale_after_steps=draw.randint(4, 20),
            boundary_every_steps=draw.choice((1, 3, 7)),
        ),
        Reflex(attempts=3, same_fault_within_steps=20, skip_batches=draw.choice((0, 7))),
        guard=Guard(armed=draw.random() < 0.5, failures=draw.choice((2, 1000)), hold_evaluations=draw.choice((0, 1))),
    )


def _control(name: str, draw: random.Random, *, can_couple: bool) -> Control:
    is_whole = name == "batch_size"
    is_ratio = is_whole or name == "learning_rate" or draw.random() < 0.3
    low = (
        float(draw.randint(1, 8))
        if is_whole
        else draw.choice((1e-5, 1e-3, 0.01))
        if is_ratio
        else draw.choice((0.0, -1.0, 0.1))
    )
    high = low * draw.choice((4, 64, 1000)) if is_ratio else low + draw.choice((0.1, 0.5, 10.0))
    spread = high / low if is_ratio else high - low
    share = draw.choice((0.3, 0.6, 1.0))
    return Control(
        name=name,
        bounds=Bounds(low, high),
        moves=_moves(low, high, draw, is_whole=is_whole),
        scale="ratio" if is_ratio else "difference",
        largest_change=max(1.05, spread**share) if is_ratio else spread * share,
        cumulative_drift=max(1.1, spread ** draw.choice((0.4, 1.0))) if is_ratio else spread * draw.choice((0.4, 1.0)),
        dwell_steps=draw.choice((0, 0, 1, 12)),
        when=draw.choice(("live", "live", "boundary")),
        max_values=draw.choice((None, None, 2, 4)),
        is_whole=is_whole,
        rate_scaling=draw.choice(("none", "linear", "sqrt")) if is_whole and can_couple else "none",
    )


def _moves(low: float, high: float, draw: random.Random, *, is_whole: bool) -> Moves:
    inside = [low, high, *(draw.uniform(low, high) for _ in range(3))]
    if is_whole:
        return draw.choice((Multiply((0.5, 2.0, 4.0)), SetTo(tuple({float(round(value)) for value in inside}))))
    beyond = [low - 1.0, high * 1.5 + 1.0, -0.0]
    amounts = tuple(draw.choice((-1, 1)) * (high - low) * draw.choice((0.1, 0.5, 0.9)) for _ in range(3))
    return draw.choice((Multiply(tuple(draw.sample(FACTORS, 4))), SetTo((*inside, *beyond)), Add(amounts)))


def a_recipe(envelope: Envelope, draw: random.Random, initial: Recipe | None = None) -> Recipe:
    """Return values within the bounds; within the drift of ``initial`` where that is given."""
    values: dict[str, float] = {}
    for control in envelope.controls:
        low, high = control.bounds.low, control.bounds.high
        value = draw.choice((low, high, low * (high / low) ** draw.random() if low > 0 else draw.uniform(low, high)))
        value = min(high, max(low, float(round(value)) if control.is_whole else value))
        if initial is not None and draw.random() < 0.6:
            value = initial[control.name]
        if initial is not None and control.distance(initial[control.name], value) > control.cumulative_drift:
            value = initial[control.name]
        values[control.name] = value
    return Recipe.of(values)


def a_standing(envelope: Envelope, draw: random.Random) -> Standing:
    """Return where a run may stand within ``envelope``: mostly with something left to do."""
    step, initial = draw.randint(50, 400), a_recipe(envelope, draw)
    recipe, authority = a_recipe(envelope, draw, initial), envelope.authority
    checkpoints = tuple(
        Checkpoint(f"step-{at:08d}", at, draw.choice((1.0, 2.0)), a_recipe(envelope, draw, initial)) for at in (10, 20)
    )
    known: dict[str, Any] = {
        "changed_at": tuple((c.name, step - draw.choice((0, 1, 11, 12, 40))) for c in envelope.controls if draw.random() < 0.5),
        "interventions_used": draw.choice((0, 1, min(2, authority.interventions), authority.interventions)),
        "rollbacks_used": draw.choice((0, min(1, authority.rollbacks), authority.rollbacks)),
        "values_seen": tuple(
            (c.name, tuple(dict.fromkeys((initial[c.name], recipe[c.name]))))
            for c in envelope.controls
            if c.max_values is not None
        ),
    }
    return Standing(
        step=step,
        recipe=recipe,
        initial=initial,
        reflex_rollbacks_used=0,
        version=3,
        checkpoints=checkpoints,
        can_skip=True,
        **known,
    )
