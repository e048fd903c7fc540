"""Small deterministic runs, every torch scheduler, and hashes of all that a step depends on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim import lr_scheduler as schedules

from trimtab.integrations.pytorch.data.loader import ResumableLoader

torch.set_num_threads(1)

SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "LambdaLR": lambda o: schedules.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: schedules.MultiplicativeLR(o, lambda _: 0.95),
    "StepLR": lambda o: schedules.StepLR(o, 3),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [2, 5, 5]),
    "ConstantLR": lambda o: schedules.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda o: schedules.LinearLR(o, 0.1, total_iters=6),
    "ExponentialLR": lambda o: schedules.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: schedules.PolynomialLR(o, 20, 2.0),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, 20),
    "ChainedScheduler": lambda o: schedules.ChainedScheduler(
        [schedules.ConstantLR(o, 0.5, 4), schedules.ExponentialLR(o, 0.9)], optimizer=o
    ),
    "SequentialLR": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, 0.1, total_iters=4), schedules.CosineAnnealingLR(o, 20)], [4]
    ),
    "ReduceLROnPlateau": lambda o: schedules.ReduceLROnPlateau(o, patience=1),
    "CyclicLR": lambda o: schedules.CyclicLR(o, 0.01, 0.1, 4, cycle_momentum=False),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 5),
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 0.2, total_steps=60, cycle_momentum=False),
}


def advance(scheduler: Any) -> None:
    """Step any scheduler; the one that watches a metric sees one that never improves."""
    if isinstance(scheduler, schedules.ReduceLROnPlateau):
        scheduler.step(1.0)
    else:
        scheduler.step()


class Net(nn.Module):
    """Dropout, batch statistics, tied weights and a buffer outside the state_dict, all of which change in training."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.2)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.first.weight
        self.register_buffer("seen", torch.zeros(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("seen").add_(x.detach().sum())
        return self.tied(self.drop(torch.relu(self.norm(self.first(x)))))


class Run:
    """A training loop of the user's: model, optimizer, scheduler, loader."""

    def __init__(
        self,
        make_optimizer: Callable[[list[Any]], Optimizer] = lambda groups: torch.optim.AdamW(groups, lr=0.05),
        make_scheduler: Callable[[Optimizer], Any] | None = None,
    ) -> None:
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        self.model = Net()
        biases = [p for name, p in self.model.named_parameters() if name.endswith("bias")]
        weights = [p for name, p in self.model.named_parameters() if not name.endswith("bias")]
        self.optimizer = make_optimizer([{"params": weights}, {"params": biases, "lr": 0.01, "weight_decay": 0.0}])
        self.scheduler = None if make_scheduler is None else make_scheduler(self.optimizer)
        self.loader = ResumableLoader(_Pairs(), batch_size=4, seed=5)
        self.batches: Iterator[Any] = self._forever()

    def _forever(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def step(self) -> str:
        """Train one step and return the hash of everything, the batch included."""
        x, y = next(self.batches)
        noise = random.random() + np.random.random()
        loss = ((self.model(x) - y) ** 2).mean() * (1 + 0.1 * noise)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.scheduler is not None:
            advance(self.scheduler)
        return self.hash(x)

    def hash(self, *more: Tensor) -> str:
        """Return the hash of weights, buffers, optimizer, scheduler and RNG, and of ``more``."""
        parts: list[Any] = [dict(self.model.named_parameters()), dict(self.model.named_buffers())]
        parts += [self.optimizer.state_dict(), None if self.scheduler is None else self.scheduler.state_dict()]
        parts += [self.loader.state_dict(), torch.get_rng_state(), random.getstate(), np.random.get_state()]
        return digest([*parts, list(more)])


class _Pairs:
    def __init__(self) -> None:
        self._x = torch.randn(18, 4, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._x[index], self._x[index].flip(0)


def digest(value: Any) -> str:
    """Return a hash of a nested value: dtypes and bits of tensors, the repr of everything else."""
    sha = hashlib.sha256()
    _feed(sha, value)
    return sha.hexdigest()


def _feed(sha: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        sha.update(f"{value.dtype}{tuple(value.shape)}".encode())
        sha.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    elif isinstance(value, np.ndarray):
        sha.update(value.tobytes())
    elif isinstance(value, dict):
        for key, item in value.items():
            sha.update(repr(key).encode())
            _feed(sha, item)
    elif isinstance(value, (list, tuple)):
        sha.update(type(value).__name__.encode())
        for item in value:
            _feed(sha, item)
    elif isinstance(value, (set, frozenset)):
        sha.update(f"{type(value).__name__}{sorted(map(repr, value))}".encode())
    else:
        sha.update(f"{type(value).__name__}{value!r}".encode())
