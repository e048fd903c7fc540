"""Small training loops that the integration tests share."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trimtab
from trimtab.runtime.supervisor import Supervisor


def digest(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """Hash weights, buffers, optimizer state, groups and all random states."""
    sha = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        sha.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    for index, state in sorted(optimizer.state_dict()["state"].items()):
        for key, value in sorted(state.items()):
            data = value.numpy().tobytes() if torch.is_tensor(value) else repr(value).encode()
            sha.update(f"{index}/{key}".encode() + data)
    sha.update(repr(optimizer.state_dict()["param_groups"]).encode())
    sha.update(torch.get_rng_state().numpy().tobytes() + repr(random.getstate()).encode())
    return sha.hexdigest()


@dataclass
class Workload:
    """A model, its optimizer and scheduler, and a stream of batches, all from one seed."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any
    loader: trimtab.ResumableLoader
    hashes: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def dropout(self) -> nn.Dropout:
        """The layer that the control "dropout" sets in an ``mlp``."""
        return next(layer for layer in self.model.modules() if isinstance(layer, nn.Dropout))

    def train(
        self,
        steps: int,
        supervisor: Supervisor | None = None,
        evaluate: Callable[[], float] | None = None,
        every: int = 10,
        before_step: Callable[[int], None] | None = None,
        loss_hook: Callable[[int, torch.Tensor], torch.Tensor] | None = None,
        after_step: Callable[[int], None] | None = None,
        *,
        goes_on: bool = False,
    ) -> None:
        """Train as a user would, and hash the whole state after every step.

        With ``goes_on``, ``steps`` is the length of the whole run, and a resumed one goes on where it was.
        """
        step = supervisor.num_steps if goes_on and supervisor is not None else 0
        if goes_on and supervisor is not None and supervisor.evaluation_due and evaluate is not None:
            supervisor.evaluated({"val/loss": evaluate()})
        while step < steps:
            for inputs, targets in self.loader:
                loss = nn.functional.cross_entropy(self.model(inputs), targets)
                step += 1
                if loss_hook is not None:
                    loss = loss_hook(step, loss)
                self.optimizer.zero_grad()
                loss.backward()
                if before_step is not None:
                    before_step(step)
                self.optimizer.step()
                if self.scheduler is not None:
                    self.scheduler.step()
                self.losses.append(float(loss.detach()))
                if supervisor is not None:
                    supervisor.step(loss=loss)
                due = step % every == 0 if supervisor is None else supervisor.evaluation_due
                if due and evaluate is not None:
                    value = evaluate()
                    if supervisor is not None:
                        supervisor.evaluated({"val/loss": value})
                self.hashes.append(digest(self.model, self.optimizer))
                if after_step is not None:
                    after_step(step)
                if step == steps or (supervisor is not None and supervisor.should_stop):
                    return


def _data(seed: int) -> torch.utils.data.TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(256, 12, generator=generator)
    targets = (inputs[:, :3].sum(1) > 0).long() + (inputs[:, 3] > 1).long()
    return torch.utils.data.TensorDataset(inputs, targets)


def mlp(seed: int) -> Workload:
    """Dropout, AdamW, cosine schedule."""
    random.seed(seed)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    return Workload(model, optimizer, scheduler, trimtab.ResumableLoader(_data(seed), batch_size=16, seed=seed))


def batch_norm(seed: int) -> Workload:
    """Buffers, SGD with momentum, two groups, step schedule."""
    random.seed(seed)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3))
    first, second = list(model[0].parameters()), [p for layer in list(model)[1:] for p in layer.parameters()]
    groups = [{"params": first, "lr": 0.01, "weight_decay": 0.0, "name": "stem"}, {"params": second, "name": "head"}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 30)
    return Workload(model, optimizer, scheduler, trimtab.ResumableLoader(_data(seed), batch_size=16, seed=seed))


def attention(seed: int) -> Workload:
    """A transformer layer with several dropouts, Adam, no schedule."""
    random.seed(seed)
    torch.manual_seed(seed)

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.1, batch_first=True)
            self.head = nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.layer(x.unsqueeze(1)).squeeze(1))

    model = Tiny()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-4)
    return Workload(model, optimizer, None, trimtab.ResumableLoader(_data(seed), batch_size=16, seed=seed))


WORKLOADS = {"mlp": mlp, "batch_norm": batch_norm, "attention": attention}


def supervise(workload: Workload, run_dir: Path, manager: Any = "no_action", every: int = 10, **options: Any) -> Supervisor:
    """Attach with wide bounds."""
    defaults: dict[str, Any] = {
        "controls": [
            trimtab.learning_rate(1e-6, 1.0, dwell_steps=0),
            trimtab.weight_decay(0.0, 1.0, dwell_steps=0),
            trimtab.dropout(0.0, 0.9, dwell_steps=0, largest_change=0.9),
        ],
        "objective": "minimize val/loss",
    }
    if "envelope" in options:
        defaults = {}
    return trimtab.supervise(
        workload.model,
        workload.optimizer,
        scheduler=workload.scheduler,
        loader=workload.loader,
        manager=manager,
        run_dir=run_dir,
        evaluate_every_steps=every,
        **(defaults | options),
    )


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
