"""Classify the 8x8 handwritten digits that come with scikit-learn, by a perceptron or a small convolutional network.

Training images are made noisy, so that 1,437 of them suffice for hundreds of steps without being memorized.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.bench.scenarios.loop import Batch, Loop, Samples, Settings
from trimtab.errors import MissingExtraError
from trimtab.integrations.pytorch.untyped import seed_torch

NUM_VALIDATION = 360
_NOISE = 0.4


def load_digits() -> tuple[Tensor, Tensor]:
    """Return images ``[1797, 1, 8, 8]`` in [0, 1] and labels ``[1797]``.

    Raises:
        MissingExtraError: Install scikit-learn.
    """
    try:
        datasets: Any = import_module("sklearn.datasets")  # it has no types of its own
    except ModuleNotFoundError as error:
        raise MissingExtraError("the digits come with scikit-learn", next_step="pip install scikit-learn") from error
    images, labels = datasets.load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels, dtype=torch.int64)


def split(images: Tensor, labels: Tensor, seed: int) -> tuple[Batch, Batch]:
    """Return the training and the held-out part, drawn by ``seed``."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    held, kept = order[:NUM_VALIDATION], order[NUM_VALIDATION:]
    return (images[kept], labels[kept]), (images[held], labels[held])


class Noisy(Samples):
    """Draws images with noise added, unless that is turned off."""

    noise: float = _NOISE

    def draw(self) -> Batch:
        """Return a batch."""
        images, labels = super().draw()
        return images + self.noise * torch.randn(images.shape, generator=self.generator), labels


def perceptron(settings: Settings) -> nn.Sequential:
    """Return a perceptron with two hidden layers."""
    width = settings.width
    lower = [nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Dropout(settings.dropout)]
    return nn.Sequential(*lower, nn.Linear(width, width), nn.ReLU(), nn.Dropout(settings.dropout), nn.Linear(width, 10))


def convolutions(settings: Settings) -> nn.Sequential:
    """Return a network of two convolutions and a linear layer."""
    channels = settings.width // 4
    lower = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)]
    return nn.Sequential(*lower, nn.ReLU(), nn.Flatten(), nn.Dropout(settings.dropout), nn.Linear(32 * channels, 10))


def build(settings: Settings, seed: int, num_steps: int) -> Loop:
    """Return a training that has not begun; ``architecture`` is ``perceptron`` or ``convolutions``."""
    train, held = split(*load_digits(), seed)
    samples = Noisy(*train, settings.batch_size, seed)
    seed_torch(seed)
    model = convolutions(settings) if settings.architecture == "convolutions" else perceptron(settings)

    def terms(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"class": F.cross_entropy(model(batch[0]), batch[1])}

    def evaluate(model: nn.Module, held: Batch) -> dict[str, float]:
        logits = model(held[0])
        right = (logits.argmax(-1) == held[1]).float().mean()
        return {"val/loss": float(F.cross_entropy(logits, held[1])), "val/accuracy": float(right)}

    loop = Loop(model, samples, held, terms, {"class": 1.0}, evaluate, settings, num_steps)
    linear = [module for module in model if isinstance(module, nn.Linear | nn.Conv2d)]
    loop.parts = {"lower": list(linear[0].parameters()), "upper": list(linear[-1].parameters())}
    return loop
