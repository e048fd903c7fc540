"""The three trainings of the gain table, each with what may be changed in it.

1. ``text``: the demonstration's character model, which overfits; envelope, sizes and evaluations are the demonstration's, the
   length is half of it.
2. ``digits``: a wide perceptron on handwritten digits of which 40% of the training labels are wrong; it learns these, too. What
   is held out has true labels.
3. ``autoencoder``: reconstruction, with a second term of the loss that is ten thousand times as heavy as where it does no harm.
   It gets better until its end; what counts is the reconstruction alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import trimtab
from trimtab.bench.scenarios.autoencoder import CODE_WEIGHT, Autoencoder
from trimtab.bench.scenarios.digits import load_digits, perceptron, split
from trimtab.bench.scenarios.loop import Settings, measured
from trimtab.bench.scenarios.text_model import CharacterGPT, TextTask, loss_of, prepare, standard_library_prose, validation_loss
from trimtab.controls.control import Control
from trimtab.controls.envelope import Envelope, Objective
from trimtab.controls.preset import load_preset
from trimtab.integrations.pytorch.untyped import seed_torch

OBJECTIVE: Final = "val/loss"
WRONG_LABELS: Final = 0.4
HEAVY_CODE_WEIGHT: Final = 10_000 * CODE_WEIGHT
_BATCH_SIZE: Final = 32
_DIGITS: Final = Settings(learning_rate=3e-3, width=256, weight_decay=0.01, dropout=0.0)
_AUTOENCODER: Final = Settings(learning_rate=1e-3, width=64, weight_decay=0.01)


@dataclass(frozen=True, slots=True)
class GainTask:
    """A training that has not begun.

    Args:
        model: What is trained.
        optimizer: With the rate of the fixed recipe.
        loader: Its batches are pairs.
        loss: Maps a batch to the loss.
        evaluate: Returns the objective, on what is held out.
        envelope: What may be changed.
        parts: What else the controls act on.
        signals: Returns what a step reports beside its loss.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loader: trimtab.ResumableLoader
    loss: Callable[[Tensor, Tensor], Tensor]
    evaluate: Callable[[], float]
    envelope: Envelope
    parts: tuple[object, ...] = ()
    signals: Callable[[], Mapping[str, object]] = dict[str, object]


@dataclass(frozen=True, slots=True)
class GainKind:
    """How one of the three trainings is made, and how long it is.

    Args:
        build: Maps a seed to a training.
        num_steps: Its length.
        evaluate_every_steps: Steps between two evaluations.
        canary_steps: Steps of a trial's arm: half of the default, as the trainings are half as long as the demonstration.
        decay_steps: Steps of its decay.
    """

    build: Callable[[int], GainTask]
    num_steps: int
    evaluate_every_steps: int
    canary_steps: int = 30
    decay_steps: int = 10


def settled(envelope: Envelope) -> Envelope:
    """Return the envelope with a manager that is waited for and may not end the run, so that all runs are as long."""
    patient = replace(envelope.deliberation, mode="boundary", deadline_seconds=60.0)
    return replace(envelope, authority=replace(envelope.authority, may_stop=False), deliberation=patient)


def text(seed: int) -> GainTask:
    """Return the demonstration's training."""
    sizes = TextTask()
    data = prepare(standard_library_prose(), sizes)
    seed_torch(seed)
    model = CharacterGPT(data.num_characters, sizes)
    return GainTask(
        model,
        torch.optim.AdamW(model.parameters(), lr=sizes.learning_rate),
        trimtab.ResumableLoader(data.train, batch_size=sizes.batch_size, seed=seed),
        lambda inputs, targets: loss_of(model, inputs, targets),
        lambda: validation_loss(model, data.validation),
        settled(load_preset("small_transformer").envelope()),
    )


def mislabelled(labels: Tensor, share: float, seed: int) -> Tensor:
    """Return labels ``[rows]`` of 0 to 9 of which a share is another one, drawn evenly."""
    draws = torch.Generator().manual_seed(seed)
    wrong = torch.randperm(len(labels), generator=draws)[: round(share * len(labels))]
    spoiled = labels.clone()
    spoiled[wrong] = (labels[wrong] + torch.randint(1, 10, (len(wrong),), generator=draws)) % 10
    return spoiled


def digits(seed: int) -> GainTask:
    """Return a classifier that is trained on wrong labels, too."""
    (images, labels), held = split(*load_digits(), seed)
    seed_torch(seed)
    model = perceptron(_DIGITS)
    criterion = nn.CrossEntropyLoss()
    controls = (
        trimtab.learning_rate(1e-5, 1e-2, dwell_steps=25),
        trimtab.weight_decay(0.0, 1.0),
        trimtab.dropout(0.0, 0.5, dwell_steps=25),
        trimtab.label_smoothing(0.0, 0.3, dwell_steps=25),
    )

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        smoothed: Tensor = criterion(model(inputs), targets)
        return smoothed

    return GainTask(
        model,
        _adamw(model, _DIGITS),
        _loader(images, mislabelled(labels, WRONG_LABELS, seed), seed),
        loss,
        lambda: measured(model, lambda: F.cross_entropy(model(held[0]), held[1])),
        _envelope(controls),
        parts=(criterion,),
    )


def autoencoder(seed: int) -> GainTask:
    """Return a training whose second term is far too heavy."""
    images, labels = load_digits()
    (train, _), (held, _) = split(images.flatten(1), labels, seed)
    seed_torch(seed)
    model = Autoencoder(_AUTOENCODER.width)
    weights = trimtab.LossWeights(reconstruction=1.0, code=HEAVY_CODE_WEIGHT)
    controls = (
        trimtab.learning_rate(1e-5, 1e-2, dwell_steps=25),
        trimtab.loss_weight("code", 1e-4, 20.0, dwell_steps=25, cumulative_drift=1e5),
    )

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        image, code = model(inputs)
        return weights(reconstruction=F.mse_loss(image, targets), code=code.square().mean())

    return GainTask(
        model,
        _adamw(model, _AUTOENCODER),
        _loader(train, train, seed),
        loss,
        lambda: measured(model, lambda: F.mse_loss(model(held)[0], held)),
        _envelope(controls),
        parts=(weights,),
        signals=weights.signals,
    )


KINDS: Final[Mapping[str, GainKind]] = {
    "text": GainKind(text, 1500, 100),
    "digits": GainKind(digits, 1500, 50),
    "autoencoder": GainKind(autoencoder, 1500, 50),
}


def _envelope(controls: tuple[Control, ...]) -> Envelope:
    return settled(Envelope(Objective(OBJECTIVE, "minimize"), controls))


def _adamw(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _loader(inputs: Tensor, targets: Tensor, seed: int) -> trimtab.ResumableLoader:
    dataset: Any = TensorDataset(inputs, targets)
    return trimtab.ResumableLoader(dataset, batch_size=_BATCH_SIZE, seed=seed)
