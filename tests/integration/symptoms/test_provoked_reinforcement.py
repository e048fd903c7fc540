"""Every symptom of reinforcement learning is provoked in a real small training, and found; healthy ones raise none."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch

from trimtab.bench.scenarios.ppo import EVALUATE_EVERY_UPDATES, PpoRecipe, train
from trimtab.controls.envelope import Objective
from trimtab.diagnosis.base import Detector, Symptom, SymptomName, View
from trimtab.diagnosis.cautious_exploration import CautiousExploration
from trimtab.diagnosis.entropy_collapse import EntropyCollapse
from trimtab.diagnosis.entropy_runaway import EntropyRunaway
from trimtab.diagnosis.examine import examine
from trimtab.diagnosis.kl_blowup import KlBlowup
from trimtab.diagnosis.unsafe_exploration import UnsafeExploration
from trimtab.diagnosis.value_fit_poor import ValueFitPoor
from trimtab.telemetry.telemetry import Telemetry

OBJECTIVE = Objective("eval/return", "maximize")
DETECTORS: tuple[Detector, ...] = (
    EntropyCollapse(),
    EntropyRunaway(),
    KlBlowup(),
    ValueFitPoor(),
    CautiousExploration(),
    UnsafeExploration(),
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def watch(task: str, recipe: PpoRecipe, num_updates: int, seed: int = 0) -> tuple[list[Symptom], list[Mapping[str, float]]]:
    """Train, and let the detectors look after every evaluation; return what they found, and the evaluations."""
    telemetry, found, evaluations = Telemetry(), list[Symptom](), list[Mapping[str, float]]()

    def report(update: int, values: Mapping[str, float]) -> None:
        telemetry.observe(update, values)

    def evaluate(update: int, values: Mapping[str, float]) -> None:
        evaluations.append(values)
        telemetry.observe(update, values, "evaluation")
        view = View(update, telemetry, OBJECTIVE, evaluate_every_steps=EVALUATE_EVERY_UPDATES)
        found.extend(examine(view, DETECTORS))

    train(seed, num_updates, report, evaluate, recipe, task=task)
    return found, evaluations


def is_healthy(task: str, evaluations: list[Mapping[str, float]]) -> bool:
    """Return whether a run with nothing wrong in its recipe went well: which course a seed takes, rounding decides."""
    if task == "cart_pole":
        return evaluations[-1]["eval/return"] > 400
    is_safe = max(values["unsafe_rate"] for values in evaluations) < 0.2
    return is_safe and evaluations[-1]["eval/return"] > 8


# Name, task, recipe, updates by which it has to be found.
PROVOKED: list[tuple[SymptomName, str, PpoRecipe, int]] = [
    ("entropy_collapse", "cart_pole", PpoRecipe(entropy_coefficient=0.0, learning_rate=0.1, target_kl=math.inf), 30),
    ("entropy_runaway", "point_mass", PpoRecipe(entropy_coefficient=0.3, learning_rate=3e-3), 40),
    ("kl_blowup", "cart_pole", PpoRecipe(learning_rate=0.05, num_epochs=10, target_kl=math.inf), 20),
    ("value_fit_poor", "point_mass", PpoRecipe(value_learning_rate=1e-7), 60),
    (
        "cautious_exploration",
        "point_mass",
        PpoRecipe(collision_penalty=100.0, progress_scale=0.3, success_bonus=0.5),
        50,
    ),
    ("unsafe_exploration", "point_mass", PpoRecipe(collision_penalty=0.0), 50),
]


@pytest.mark.parametrize(("name", "task", "recipe", "num_updates"), PROVOKED, ids=[case[0] for case in PROVOKED])
def test_it_is_found(name: SymptomName, task: str, recipe: PpoRecipe, num_updates: int) -> None:
    found = [symptom for symptom in watch(task, recipe, num_updates)[0] if symptom.name == name]
    assert found
    assert {symptom.severity for symptom in found} == {"warning"}
    assert all(math.isfinite(item.value) for symptom in found for item in symptom.evidence)


@pytest.mark.parametrize("task", ["cart_pole", "point_mass"])
def test_healthy_runs_raise_nothing(task: str) -> None:
    runs = [watch(task, PpoRecipe(), 60, seed) for seed in range(5)]
    healthy = [found for found, evaluations in runs if is_healthy(task, evaluations)]
    assert len(healthy) >= 3
    assert healthy == [[]] * len(healthy)
