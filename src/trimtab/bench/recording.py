"""Recording: train once, without a supervisor, and keep what a supervisor would have been told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch

from trimtab.bench.scenarios import autoencoder, digits, language
from trimtab.bench.scenarios.loop import Loop, Settings
from trimtab.bench.traces import Course, Moment, Trace

Build = Callable[[Settings, int, int], Loop]
Inject = Callable[[Any, int], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of training and how long it is watched.

    Args:
        name: Of the scenario.
        kind: What it is called in tables.
        num_steps: Steps of a run.
        evaluate_every_steps: Steps between evaluations.
        inject_step: The first step that a fault changes.
        settings: What a run with a fault trains with, as does its twin without one; for PPO changes to its recipe.
        build: Makes the run; None for PPO, which has a loop of its own.
        objective: What it is about.
        task: The task of PPO.
    """

    name: str
    kind: str
    num_steps: int
    evaluate_every_steps: int
    inject_step: int
    settings: Mapping[str, Any]
    build: Build | None
    objective: str = "minimize val/loss"
    task: str = ""


_DIGITS: Final = {"learning_rate": 5e-4, "width": 64}
_MLP: Final = _DIGITS | {"architecture": "perceptron"}
_CNN: Final = _DIGITS | {"architecture": "convolutions", "optimizer": "sgd", "learning_rate": 0.01, "weight_decay": 0.0}
_TEXT: Final = {"learning_rate": 2e-3, "width": 48, "batch_size": 16}
_CODE: Final = {"learning_rate": 5e-4, "width": 64}
_RETURN: Final = "maximize eval/return"

SCENARIOS: Final[dict[str, Scenario]] = {
    each.name: each
    for each in (
        Scenario("text", "language model", 600, 25, 300, _TEXT, language.build),
        Scenario("digits_mlp", "digits classifier", 800, 20, 400, _MLP, digits.build),
        Scenario("digits_cnn", "digits classifier", 800, 20, 400, _CNN, digits.build),
        Scenario("autoencoder", "autoencoder", 1000, 20, 400, _CODE, autoencoder.build),
        Scenario("cart_pole", "PPO CartPole", 80, 5, 30, {"learning_rate": 3e-4}, None, _RETURN, "cart_pole"),
        Scenario("point_mass", "PPO point mass", 80, 5, 30, {}, None, _RETURN, "point_mass"),
    )
}


def record(
    scenario: Scenario,
    seed: int,
    *,
    variant: str = "base",
    settings: Mapping[str, Any] | None = None,
    fault: str | None = None,
    inject: Inject | None = None,
) -> Trace:
    """Train one run and return its trace.

    Args:
        scenario: Which training.
        seed: Of everything drawn.
        variant: Name of the settings.
        settings: Changes to the scenario's settings.
        fault: Name of the fault.
        inject: Called before each step from the scenario's ``inject_step`` on, with the run and the steps since then.
    """
    torch.set_num_threads(1)
    changed = {**scenario.settings, **(settings or {})}
    begin = scenario.inject_step
    moments: list[Moment] = []
    if scenario.build is None:
        _record_ppo(scenario, seed, changed, inject, moments)
    else:
        _record_loop(scenario.build(Settings(**changed), seed, scenario.num_steps), scenario, inject, moments)
    course = Course(
        scenario.name,
        variant,
        seed,
        fault,
        None if inject is None else begin,
        scenario.objective,
        scenario.evaluate_every_steps,
        scenario.num_steps,
    )
    return Trace(course, tuple(moments))


def _record_loop(loop: Loop, scenario: Scenario, inject: Inject | None, moments: list[Moment]) -> None:
    recipe: dict[str, float] = {}
    for step in range(1, scenario.num_steps + 1):
        if inject is not None and step >= scenario.inject_step:
            inject(loop, step - scenario.inject_step)
        if loop.recipe != recipe:
            recipe = dict(loop.recipe)
            moments.append(Moment(step - 1, "recipe", recipe))
        moments.append(Moment(step, "step", loop.take_step(step)))
        if step % scenario.evaluate_every_steps == 0:
            metrics = loop.take_evaluation()
            if metrics is not None:
                moments.append(Moment(step, "evaluation", metrics))


def _record_ppo(
    scenario: Scenario, seed: int, settings: Mapping[str, Any], inject: Inject | None, moments: list[Moment]
) -> None:
    from trimtab.bench.scenarios.ppo import Ppo, PpoRecipe, train

    known: list[dict[str, float]] = [{}]

    def before(update: int, run: Ppo) -> None:
        if inject is not None and update >= scenario.inject_step:
            inject(run, update - scenario.inject_step)
        recipe = {name: float(value) for name, value in asdict(run.recipe).items() if name in _CONTROLS}
        if recipe != known[-1]:
            known.append(recipe)
            moments.append(Moment(update - 1, "recipe", recipe))

    train(
        seed,
        scenario.num_steps,
        lambda update, values: moments.append(Moment(update, "step", dict(values))),
        lambda update, values: moments.append(Moment(update, "evaluation", dict(values))),
        PpoRecipe(**settings),
        before,
        scenario.task,
    )


_CONTROLS: Final = ("learning_rate", "entropy_coefficient", "clip_range", "gradient_clip_norm")
