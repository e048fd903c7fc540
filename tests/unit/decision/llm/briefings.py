"""Briefings as runs give them: a small one, one with many controls, one with many signals."""

from __future__ import annotations

import math
from dataclasses import replace

from tests.builders import RECIPE, a_briefing, a_standing, an_envelope, an_intervention
from trimtab.controls.catalogue import base_name, declare, part_name
from trimtab.controls.control import Control
from trimtab.controls.envelope import Envelope
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Checkpoint
from trimtab.decision.action import Adjust, Change, RollbackAndAdjust
from trimtab.decision.briefing import Briefing, ControlLimits, Timing
from trimtab.decision.proposal import Expectation
from trimtab.diagnosis.base import Evidence, Symptom
from trimtab.telemetry.snapshot import Snapshot
from trimtab.telemetry.telemetry import Telemetry

OVERFITTING = Symptom(
    "overfitting",
    "warning",
    400,
    "val/loss",
    (Evidence("objective", 2.5), Evidence("best_objective", 2.0), Evidence("rises", 2.0)),
)
EARLIER = (
    an_intervention(Adjust((Change("dropout", 0.15),)), met=False, number=1, step=210, expectation=Expectation(0.02, 2)),
    an_intervention(
        RollbackAndAdjust("step-00000200", (Change("learning_rate", 5e-4),)),
        number=2,
        step=310,
        is_complete=False,
        gain=0.0123,
        evaluations_measured=1,
    ),
)


def telemetry(num_more: int = 0, until: int = 400) -> Telemetry:
    """A run's signals: a falling loss, a rising objective, and as many more as wanted."""
    seen = Telemetry()
    for step in range(1, until + 1):
        noise = math.sin(step * 12.9898) * 0.1
        values = {"loss": 3.0 * math.exp(-step / 300) + noise, "grad_norm": 1.1 + noise, "learning_rate": 1e-3}
        if step == 50:
            values["grad_norm"] = math.nan
        more = {f"layer_{n}/activation_mean": 0.731 * n + noise * (n % 7) for n in range(num_more)}
        seen.observe(step, values | more)
        if step % 100 == 0:
            seen.observe(step, {"val/loss": (2.9, 2.0, 2.2, 2.5)[step // 100 - 1]}, "evaluation")
    return seen


def snapshot(num_more: int = 0) -> Snapshot:
    return telemetry(num_more).snapshot(400)


def limits(envelope: Envelope) -> tuple[ControlLimits, ...]:
    ordered: list[Control] = sorted(envelope.controls, key=lambda control: control.name)
    return tuple(ControlLimits(c.name, c.unit, c.bounds.low, c.bounds.high, c.effect_lag_steps, None, 0) for c in ordered)


def demo_briefing(num_more: int = 0) -> Briefing:
    """Three controls, four signals and more if wanted, a symptom, two earlier interventions."""
    envelope = an_envelope()
    best = Recipe.of({"learning_rate": 2e-3, "weight_decay": 0.01, "dropout": 0.1})
    checkpoints = (Checkpoint("step-00000200", 200, 2.0, best), Checkpoint("step-00000400", 400, 2.5, RECIPE))
    standing = a_standing(step=410, checkpoints=checkpoints, changed_at=(("dropout", 405),), can_skip=True)
    known = limits(envelope)
    return a_briefing(
        envelope,
        standing,
        timing=Timing(400, 410, 600, 3000, 100),
        snapshot=snapshot(num_more),
        symptoms=(OVERFITTING,),
        interventions=EARLIER,
        limits=(replace(known[0], changed_step=405, free_from_step=455), *known[1:]),
        interventions_left=14,
        rollbacks_left=9,
    )


WIDE = (
    "learning_rate", "weight_decay", "dropout", "label_smoothing", "gradient_clip_norm", "momentum", "beta2",
    "entropy_coefficient", "clip_range", "value_coefficient", "ema_decay", "loss_weight/aux",
)  # fmt: skip
_VALUES = (1e-3, 0.01, 0.1, 0.1, 1.0, 0.9, 0.999, 0.01, 0.2, 0.5, 0.999, 1.0)


def wide_envelope() -> Envelope:
    ends = {"learning_rate": (1e-6, 1e-2), "momentum": (0.0, 0.98), "beta2": (0.9, 0.999), "ema_decay": (0.9, 0.9999)}
    controls = (
        declare(base_name(name), *ends.get(name, (1e-3, 0.99 if value < 1 else 10.0)), part=part_name(name))
        for name, value in zip(WIDE, _VALUES, strict=True)
    )
    return an_envelope(controls=tuple(controls))


def wide_briefing(num_more: int = 16) -> Briefing:
    """Twelve controls, two checkpoints with other recipes, twenty signals."""
    envelope, recipe = wide_envelope(), Recipe.of(dict(zip(WIDE, _VALUES, strict=True)))
    other = Recipe.of(dict(recipe.values) | {"learning_rate": 2e-3, "dropout": 0.2, "loss_weight/aux": 0.5})
    checkpoints = (Checkpoint("step-00000200", 200, 2.0, other), Checkpoint("step-00000400", 400, 2.5, recipe))
    standing = a_standing(step=410, recipe=recipe, initial=recipe, checkpoints=checkpoints)
    return replace(
        a_briefing(envelope, standing, timing=Timing(400, 410, 600, 3000, 100), snapshot=snapshot(num_more)),
        symptoms=(OVERFITTING,),
        limits=limits(envelope),
        interventions_left=14,
        rollbacks_left=9,
    )
