"""The demonstration's language model on all of its text, so that it learns for as long as it is trained here."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trimtab.bench.scenarios.loop import Batch, Loop, Samples, Settings
from trimtab.bench.scenarios.text_model import (
    CharacterGPT,
    TextTask,
    loss_of,
    prepare,
    standard_library_prose,
    validation_loss,
)
from trimtab.integrations.pytorch.untyped import seed_torch

_STRIDE = 11  # characters between the beginnings of windows


def build(settings: Settings, seed: int, num_steps: int) -> Loop:
    """Return a training that has not begun."""
    task = TextTask(
        num_train_characters=400_000,
        num_validation_characters=8_000,
        context=48,
        width=settings.width,
        batch_size=settings.batch_size,
    )
    data = prepare(standard_library_prose(), task)
    inputs, targets = zip(*(data.train[start] for start in range(0, len(data.train), _STRIDE)), strict=True)
    samples = Samples(torch.stack(inputs), torch.stack(targets), settings.batch_size, seed)
    seed_torch(seed)
    model = CharacterGPT(data.num_characters, task)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = settings.dropout

    def terms(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"text": loss_of(model, *batch)}

    def evaluate(model: nn.Module, held: Batch) -> dict[str, float]:
        return {"val/loss": validation_loss(model, held[0])}

    loop = Loop(model, samples, (data.validation, data.validation), terms, {"text": 1.0}, evaluate, settings, num_steps)
    loop.parts = {"lower": list(model.token.parameters()), "upper": list(model.head.parameters())}
    return loop
