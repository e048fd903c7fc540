"""Every symptom of supervised training is provoked in a real small training, and found; without the fault it is silent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.controls.envelope import Objective
from trimtab.controls.recipe import Recipe
from trimtab.diagnosis.base import Symptom, SymptomName, View
from trimtab.diagnosis.examine import EVALUATION_DETECTORS, STEP_DETECTORS, examine
from trimtab.telemetry.signal import LOSS_AT_EVALUATION
from trimtab.telemetry.telemetry import Telemetry

EVERY = 50
OBJECTIVE = Objective("val/loss", "minimize")
NUM_CLASSES, NUM_INPUTS = 10, 32


@dataclass(frozen=True, slots=True)
class Training:
    """A training of a small classifier of clusters, and what is wrong with it.

    Args:
        layers: Hidden layers of 48 units.
        activation: Between them.
        optimizer: Which.
        rate: Learning rate.
        rate_factor: By which the rate is multiplied at step 200.
        dropout: After each hidden layer.
        weight_decay: Decoupled with AdamW.
        label_smoothing: Of the training loss.
        clip_norm: Largest gradient norm; None for no clipping.
        reconstruction: Weight of a second term that reconstructs the input; None for no such term.
        num_held_out: Examples of an evaluation; fewer than 400 are drawn anew each time.
        freeze_from: Step from which the loss that is reported is a stale one.
        spread: Standard deviation of a cluster.
        steps: Length.
    """

    layers: int = 2
    activation: Callable[[], nn.Module] = nn.ReLU
    optimizer: Literal["adam", "momentum"] = "adam"
    rate: float = 1e-3
    rate_factor: float = 1.0
    dropout: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    reconstruction: float | None = None
    num_held_out: int = 400
    freeze_from: int | None = None
    spread: float = 1.2
    steps: int = 500

    def recipe(self) -> Recipe:
        known = {
            "learning_rate": self.rate,
            "dropout": self.dropout,
            "weight_decay": self.weight_decay,
            "label_smoothing": self.label_smoothing,
        }
        return Recipe.of(known | ({"loss_weight/class": 1.0} if self.reconstruction else {}))


class Classifier(nn.Module):
    """Hidden layers, a head, and a decoder for the second term."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        sizes = [NUM_INPUTS] + [48] * training.layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.activation = training.activation()
        self.dropout = nn.Dropout(training.dropout)
        self.head = nn.Linear(48, NUM_CLASSES)
        self.decoder = nn.Linear(48, NUM_INPUTS)
        self.dead_fraction = 0.0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[batch, inputs]`` to logits ``[batch, classes]`` and a reconstruction ``[batch, inputs]``."""
        dead = list[Tensor]()
        for layer in self.hidden:
            active = self.activation(layer(x))
            dead.append((active.detach() <= 0).all(dim=0))
            x = self.dropout(active)
        self.dead_fraction = torch.cat(dead).float().mean().item()
        return self.head(x), self.decoder(x)


def clusters(seed: int, spread: float) -> tuple[Tensor, Tensor]:
    """Return 2,000 examples ``[2000, inputs]`` and their classes ``[2000]``."""
    draw = torch.Generator().manual_seed(seed)
    centers = torch.randn(NUM_CLASSES, NUM_INPUTS, generator=draw)
    classes = torch.randint(0, NUM_CLASSES, (2000,), generator=draw)
    return centers[classes] + spread * torch.randn(2000, NUM_INPUTS, generator=draw), classes


def norm(parameters: list[nn.Parameter]) -> float:
    gradients = [parameter.grad.norm() for parameter in parameters if parameter.grad is not None]
    return torch.stack(gradients).norm().item() if gradients else 0.0


def watch(training: Training, seed: int = 0) -> list[Symptom]:
    """Train, and let all detectors look when a supervisor lets them."""
    torch.manual_seed(seed)
    x, y = clusters(seed, training.spread)
    model = Classifier(training)
    if training.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            model.parameters(), training.rate, weight_decay=training.weight_decay
        )
    else:
        optimizer = torch.optim.SGD(model.parameters(), training.rate, momentum=0.9)
    telemetry, found, recipe = Telemetry(), list[Symptom](), training.recipe()
    reported = 0.0
    for step in range(1, training.steps + 1):
        if step == 200:
            optimizer.param_groups[0]["lr"] *= training.rate_factor
        batch = torch.randint(0, 1600, (64,))
        logits, decoded = model(x[batch])
        loss = F.cross_entropy(logits, y[batch], label_smoothing=training.label_smoothing)
        terms = dict[str, float]()
        if training.reconstruction:
            second = training.reconstruction * F.mse_loss(decoded, x[batch])
            terms = {"loss_term/class": loss.item(), "loss_term/reconstruction": second.item()}
            loss = loss + second
        optimizer.zero_grad()
        loss.backward()
        groups = {f"grad_norm/{number}": norm(list(layer.parameters())) for number, layer in enumerate(model.hidden)}
        values = {"grad_norm": norm(list(model.parameters())), "dead_units": model.dead_fraction, **groups, **terms}
        if training.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        optimizer.step()
        reported = reported if training.freeze_from is not None and step >= training.freeze_from else loss.item()
        telemetry.observe(step, {"loss": reported, "learning_rate": optimizer.param_groups[0]["lr"], **values})
        view = View(step, telemetry, OBJECTIVE, recipe=recipe, evaluate_every_steps=EVERY)
        found.extend(examine(view, STEP_DETECTORS))
        if step % EVERY == 0:
            window = telemetry.window("loss")
            assert window is not None
            held_out = evaluate(model, training, x[1600:], y[1600:])
            telemetry.observe(step, {"val/loss": held_out, LOSS_AT_EVALUATION: window.slow}, "evaluation")
            found.extend(examine(view, EVALUATION_DETECTORS))
    return found


@torch.no_grad()
def evaluate(model: Classifier, training: Training, x: Tensor, y: Tensor) -> float:
    chosen = torch.randperm(len(x))[: training.num_held_out]
    model.eval()
    logits, decoded = model(x[chosen])
    model.train()
    loss = F.cross_entropy(logits, y[chosen])
    return (loss + training.reconstruction * F.mse_loss(decoded, x[chosen]) if training.reconstruction else loss).item()


HEALTHY = Training()
MOMENTUM = Training(optimizer="momentum", rate=0.01, clip_norm=1.0)
TWO_TERMS = replace(MOMENTUM, reconstruction=1.0)
HARDER = Training(spread=2.0, rate=2e-3, dropout=0.3, steps=1100)

# Name, the fault, the same training without it, and the step by which it has to be found.
PROVOKED: list[tuple[SymptomName, Training, Training, int]] = [
    ("underfitting", replace(HEALTHY, rate=2e-6), HEALTHY, 300),
    ("over_regularization", replace(HEALTHY, dropout=0.9, steps=900), replace(HEALTHY, dropout=0.1), 900),
    ("over_regularization", replace(HEALTHY, label_smoothing=0.8), replace(HEALTHY, label_smoothing=0.1), 500),
    ("over_regularization", replace(HEALTHY, weight_decay=30.0), replace(HEALTHY, weight_decay=0.1), 500),
    ("gradient_explosion", replace(MOMENTUM, rate_factor=300.0), MOMENTUM, 220),
    ("gradient_vanishing", replace(HEALTHY, layers=8, activation=nn.Sigmoid, rate=1e-4), HEALTHY, 300),
    ("dead_units", replace(MOMENTUM, rate_factor=300.0), MOMENTUM, 400),
    ("oscillation", replace(HEALTHY, rate=0.1, steps=700), HEALTHY, 700),
    ("loss_imbalance", replace(TWO_TERMS, reconstruction=1e4), TWO_TERMS, 300),
    ("noisy_metrics", replace(HARDER, num_held_out=4), HARDER, 1100),
    ("metric_stale", replace(HEALTHY, freeze_from=200), HEALTHY, 250),
]
IDS = [f"{name}-{number}" for number, (name, *_) in enumerate(PROVOKED)]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("name", "fault", "healthy", "by_step"), PROVOKED, ids=IDS)
def test_a_provoked_symptom_is_found_in_time(name: SymptomName, fault: Training, healthy: Training, by_step: int) -> None:
    assert fault != healthy
    found = [symptom for symptom in watch(fault) if symptom.name == name]
    assert found
    assert found[0].step <= by_step
    assert found[0].evidence


SUPERVISED = {name for name, *_ in PROVOKED}
SOUND = {"adam": HEALTHY, "dropout": replace(HEALTHY, dropout=0.1), "weight decay": replace(HEALTHY, weight_decay=0.1)} | {
    "label smoothing": replace(HEALTHY, label_smoothing=0.1),
    "momentum": MOMENTUM,
    "two terms": TWO_TERMS,
    "harder": HARDER,
}


@pytest.mark.parametrize("name", SOUND)
def test_the_same_training_without_the_fault_is_silent(name: str) -> None:
    assert {healthy for _, _, healthy, _ in PROVOKED} <= set(SOUND.values())
    assert [symptom for symptom in watch(SOUND[name]) if symptom.name in SUPERVISED] == []
