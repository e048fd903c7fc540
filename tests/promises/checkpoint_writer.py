"""A process that writes checkpoints, and nothing else, until it is killed."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Final

import torch
from torch import nn

from tests.promises.killing import READY, say, serve
from trimtab.integrations.pytorch.state import TorchStateStore

KEPT: Final = 2


def store_at(root: Path) -> tuple[TorchStateStore, nn.Module]:
    """Return a store and the model whose state it saves, with an optimizer that has a state too."""
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return TorchStateStore(root, model, optimizer), model


def fill(model: nn.Module, number: int) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float(number))


def write_checkpoints(root: str, first: int) -> None:
    """Save state after state, each filled with its number, and delete the old ones as a run does."""
    torch.set_num_threads(1)
    store, model = store_at(Path(root))
    saved: deque[int] = deque()
    say(READY)
    for number in range(first, first + 10_000):
        fill(model, number)
        store.save(f"step-{number:08d}", {"number": number})
        saved.append(number)
        say("saved", number)
        if len(saved) > KEPT:
            say("deleting", saved[0])
            store.delete(f"step-{saved.popleft():08d}")


if __name__ == "__main__":
    store_at(Path())  # torch imports more at the first step: once, and not in every copy
    serve(write_checkpoints)
