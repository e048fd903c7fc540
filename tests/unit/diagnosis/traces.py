"""Made-up runs for detectors: every series is a function of the step."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

from hypothesis import strategies as st

from trimtab.controls.envelope import Objective
from trimtab.controls.recipe import Recipe
from trimtab.diagnosis.base import Detector, Symptom, View
from trimtab.telemetry.signal import LOSS_AT_EVALUATION
from trimtab.telemetry.telemetry import Telemetry

Series = Callable[[int], float]

EVERY = 25
MINIMIZE, MAXIMIZE = Objective("val/loss", "minimize"), Objective("val/score", "maximize")
NO_RECIPE = Recipe(())

scales = st.floats(-8, 8).map(lambda power: 10.0**power)
seeds = st.integers(0, 10_000)


def watch(
    detector: Detector,
    series: Mapping[str, Series],
    steps: int = 400,
    *,
    objective: Objective = MINIMIZE,
    recipe: Recipe = NO_RECIPE,
    each_step: bool = False,
    change_at: int | None = None,
) -> list[Symptom]:
    """Report every series after each step, but the objective at evaluations; the detector looks after those, or always.

    The recipe is changed before the step ``change_at``.
    """
    telemetry, found = Telemetry(), list[Symptom]()
    for step in range(1, steps + 1):
        if step == change_at:
            telemetry.rebase()
        telemetry.observe(step, {name: at(step) for name, at in series.items() if name != objective.signal})
        view = View(step, telemetry, objective, recipe=recipe, evaluate_every_steps=EVERY)
        if step % EVERY == 0:
            loss = telemetry.window("loss")
            values = {objective.signal: series[objective.signal](step)} if objective.signal in series else {}
            if loss is not None and loss.count:
                values[LOSS_AT_EVALUATION] = loss.slow
            telemetry.observe(step, values, "evaluation")
        if each_step or step % EVERY == 0:
            symptom = detector.detect(view)
            found += [symptom] if symptom is not None else []
    return found


def noisy(series: Series, sigma: float, seed: int) -> Series:
    """Add normal noise; the same at a step however often it is asked for."""
    draw, drawn = random.Random(seed), list[float]()

    def at(step: int) -> float:
        while len(drawn) <= step:
            drawn.append(draw.gauss(0, sigma))
        return series(step) + drawn[step]

    return at


def learning(start: float, floor: float, over: float) -> Series:
    """Fall from ``start`` to ``floor`` exponentially."""
    return lambda step: floor + (start - floor) * math.exp(-step / over)


def constant(value: float) -> Series:
    return lambda step: value


def scaled(series: Mapping[str, Series], scale: float, only: tuple[str, ...]) -> dict[str, Series]:
    """Multiply the series named in ``only``."""
    return {name: (lambda step, at=at: scale * at(step)) if name in only else at for name, at in series.items()}


def evidence_of(symptom: Symptom) -> dict[str, float]:
    return {item.name: item.value for item in symptom.evidence}
