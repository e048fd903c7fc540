"""Small trainings that injuries are done to: a perceptron, a network with batch norm and momentum, a language model.

Their batches come in an order that is fixed beforehand, so that a fault of the data has a place, where it is met again after
a rollback.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.bench.scenarios.digits import load_digits, split
from trimtab.bench.scenarios.loop import Batch, measured
from trimtab.bench.scenarios.text_model import CharacterGPT, TextTask, loss_of, prepare, standard_library_prose, validation_loss
from trimtab.integrations.pytorch.data.loader import ResumableLoader
from trimtab.integrations.pytorch.untyped import seed_torch

_SPARE: Final = 2  # times the batches that a run needs: as many may be passed over
Spoil = Callable[[Batch], Batch]


@dataclass
class Patient:
    """One training with all its parts.

    Args:
        model: What is trained.
        optimizer: Of the model.
        scheduler: Stepped after the optimizer; None for a constant rate.
        loader: Gives the batches in their order.
        data: What the loader reads; a part of it may be spoiled.
        loss_of: Maps the model and a batch to the training loss.
        held_out_loss: Maps the model to its loss on what is held out; draws no random number.
        clip_norm: Largest gradient norm let through; infinite for none.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    loader: ResumableLoader
    data: Ordered
    loss_of: Callable[[nn.Module, Batch], Tensor]
    held_out_loss: Callable[[nn.Module], float]
    clip_norm: float = math.inf


@dataclass
class Ordered:
    """Rows of a training set in a fixed order, epoch after epoch without an end in sight; item ``i`` is its number.

    Args:
        inputs: ``[rows, ...]``.
        targets: ``[rows, ...]``.
        order: Row of each item.
        spoiled: First and last item of a stretch, inclusive, and what is done to it; None for sound data.
    """

    inputs: Tensor
    targets: Tensor
    order: Tensor
    spoiled: tuple[int, int, Spoil] | None = field(default=None)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> int:
        return index

    def batch(self, items: list[int]) -> Batch:
        """Return the batch of these items."""
        rows = self.order[items]
        found = self.inputs[rows], self.targets[rows]
        if self.spoiled is not None and self.spoiled[0] <= items[0] <= self.spoiled[1]:
            return self.spoiled[2](found)
        return found


def _ordered(inputs: Tensor, targets: Tensor, num_items: int, seed: int) -> Ordered:
    generator = torch.Generator().manual_seed(seed)
    epochs = [torch.randperm(len(inputs), generator=generator) for _ in range(math.ceil(num_items / len(inputs)))]
    return Ordered(inputs, targets, torch.cat(epochs)[:num_items])


def _loader(data: Ordered, batch_size: int, seed: int) -> ResumableLoader:
    collate: Callable[[list[Any]], Any] = data.batch
    return ResumableLoader(data, batch_size=batch_size, seed=seed, shuffle=False, collate_fn=collate)


def _class_loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def _digits(seed: int, num_steps: int, batch_size: int) -> tuple[Ordered, Callable[[nn.Module], float]]:
    train, held = split(*load_digits(), seed)
    data = _ordered(*train, _SPARE * num_steps * batch_size, seed)
    return data, lambda model: measured(model, lambda: _class_loss(model, held))


def perceptron(seed: int, num_steps: int) -> Patient:
    """Digits, dropout, AdamW at a constant rate, gradients not clipped."""
    data, held_out_loss = _digits(seed, num_steps, 32)
    seed_torch(seed)
    lower = [nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1)]
    model = nn.Sequential(*lower, nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    return Patient(model, optimizer, None, _loader(data, 32, seed), data, _class_loss, held_out_loss)


def normed(seed: int, num_steps: int) -> Patient:
    """Digits, convolutions with batch norm, SGD with momentum and a cosine schedule, gradients not clipped."""
    data, held_out_loss = _digits(seed, num_steps, 32)
    seed_torch(seed)
    first = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    second = [nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    model = nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    return Patient(model, optimizer, scheduler, _loader(data, 32, seed), data, _class_loss, held_out_loss)


def text(seed: int, num_steps: int) -> Patient:
    """A character-level transformer on prose, AdamW with a warm-up, gradients clipped at 1."""
    task = TextTask(
        num_train_characters=200_000, num_validation_characters=4_000, context=32, width=32, num_layers=1, num_heads=2
    )
    prepared = prepare(standard_library_prose(), task)
    starts = range(0, len(prepared.train), 7)
    inputs, targets = zip(*(prepared.train[start] for start in starts), strict=True)
    data = _ordered(torch.stack(inputs), torch.stack(targets), _SPARE * num_steps * 16, seed)
    seed_torch(seed)
    model = CharacterGPT(prepared.num_characters, task)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 40))

    return Patient(
        model,
        optimizer,
        scheduler,
        _loader(data, 16, seed),
        data,
        lambda model, batch: loss_of(model, *batch),
        lambda model: validation_loss(model, prepared.validation),
        clip_norm=1.0,
    )


PATIENTS: Final[dict[str, Callable[[int, int], Patient]]] = {"perceptron": perceptron, "normed": normed, "text": text}
