"""A supervised training loop made of parts, each of which a fault may exchange between two steps.

It does what a user's loop does, reports what a user would report, and knows nothing of supervision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from trimtab.integrations.pytorch.untyped import backward

Batch = tuple[Tensor, Tensor]
Report = Callable[[int, Mapping[str, float]], None]

_LARGEST_NORM: Final = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The recipe and the size of one training.

    Args:
        optimizer: ``adamw``, ``adam`` or ``sgd`` (with momentum 0.9).
        learning_rate: At its highest, > 0.
        schedule: ``constant``, ``warmup`` (a tenth of the steps, then constant) or ``cosine`` (down to a tenth).
        batch_size: Samples per step.
        width: Units of a layer.
        weight_decay: Of the optimizer.
        dropout: Where the model has it.
        architecture: Which of the scenario's models.
    """

    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    batch_size: int = 32
    width: int = 64
    weight_decay: float = 0.01
    dropout: float = 0.0
    architecture: str = ""


class Samples:
    """Draws batches of random rows, evenly.

    Args:
        inputs: ``[rows, ...]``.
        targets: ``[rows, ...]``.
        batch_size: Rows per batch.
        seed: Of the draws.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, batch_size: int, seed: int) -> None:
        self.inputs, self.targets, self.batch_size = inputs, targets, batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self) -> Batch:
        """Return a batch."""
        rows = torch.randint(len(self.inputs), (self.batch_size,), generator=self.generator)
        return self.inputs[rows], self.targets[rows]

    def keep(self, fraction: float) -> None:
        """Forget all but the first rows."""
        kept = max(1, round(fraction * len(self.inputs)))
        self.inputs, self.targets = self.inputs[:kept], self.targets[:kept]


@dataclass(slots=True)
class Loop:
    """A run and its parts.

    Args:
        model: What is trained.
        samples: Draws the batches.
        held: Inputs and targets that are evaluated on.
        terms: Maps a batch to the terms of the loss, by name.
        weights: Weight of each term.
        evaluate: Maps the model and what is held out to metrics.
        settings: What it trains with.
        num_steps: Steps in all; the schedule knows them.
        optimizer: Made from the settings.
        rate_factor: Times the scheduled learning rate.
        clip_norm: Largest gradient norm let through.
        skips_non_finite: Whether a step with a non-finite gradient is skipped.
        on_batch: May spoil a batch.
        on_loss: May spoil the loss.
        on_gradients: May spoil the gradients of the model, before they are measured and clipped.
        on_report: May spoil what is reported of a step.
        on_evaluation: May spoil what is reported of an evaluation; None is no report.
        parts: Groups of parameters whose gradient norms are reported apart.
        recipe: Values of the controls.
    """

    model: nn.Module
    samples: Samples
    held: Batch
    terms: Callable[[nn.Module, Batch], dict[str, Tensor]]
    weights: dict[str, float]
    evaluate: Callable[[nn.Module, Batch], dict[str, float]]
    settings: Settings
    num_steps: int
    optimizer: torch.optim.Optimizer = field(init=False)
    rate_factor: float = 1.0
    clip_norm: float = _LARGEST_NORM
    skips_non_finite: bool = False
    on_batch: Callable[[Batch], Batch] | None = None
    on_loss: Callable[[Tensor], Tensor] | None = None
    on_gradients: Callable[[nn.Module], None] | None = None
    on_report: Callable[[dict[str, float]], dict[str, float]] | None = None
    on_evaluation: Callable[[dict[str, float]], dict[str, float] | None] | None = None
    parts: dict[str, list[nn.Parameter]] = field(default_factory=dict[str, list[nn.Parameter]])
    recipe: dict[str, float] = field(default_factory=dict[str, float])
    _dead: list[Tensor] = field(default_factory=list[Tensor])

    def __post_init__(self) -> None:
        self.optimizer = make_optimizer(self.model, self.settings)
        self.recipe = {
            "learning_rate": self.settings.learning_rate,
            "weight_decay": self.settings.weight_decay,
            "dropout": self.settings.dropout,
            "gradient_clip_norm": self.clip_norm,
        }
        for module in self.model.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(self._see_units)

    def _see_units(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if module.training:
            # Units are the second axis; one is dead in a batch if nothing in the batch moves it.
            self._dead.append((output.detach().amax([axis for axis in range(output.dim()) if axis != 1]) <= 0).float())

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: the schedule times the factor."""
        settings, done = self.settings, step / self.num_steps
        scale = 1.0
        if settings.schedule == "warmup":
            scale = min(1.0, 10 * done)
        elif settings.schedule == "cosine":
            scale = 0.55 + 0.45 * math.cos(math.pi * done)
        return settings.learning_rate * scale * self.rate_factor

    def take_step(self, step: int) -> dict[str, float]:
        """Take one optimizer step and return its signals."""
        batch = self.samples.draw()
        batch = batch if self.on_batch is None else self.on_batch(batch)
        self._dead.clear()
        terms = self.terms(self.model, batch)
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        loss = loss if self.on_loss is None else self.on_loss(loss)
        self.optimizer.zero_grad()
        backward(loss)
        if self.on_gradients is not None:
            self.on_gradients(self.model)
        signals = {"loss": float(loss.detach()), "learning_rate": self.rate(step)}
        if len(terms) > 1:
            signals |= {f"loss_term/{name}": self.weights[name] * float(term.detach()) for name, term in terms.items()}
        for name, parameters in self.parts.items():
            signals[f"grad_norm/{name}"] = float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        signals["grad_norm"] = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm))
        if self._dead:
            signals["dead_units"] = float(torch.cat(self._dead).mean())
        signals |= self._update(signals)
        return signals if self.on_report is None else self.on_report(signals)

    def _update(self, signals: dict[str, float]) -> dict[str, float]:
        """Let the optimizer step; return how far it went, beside how large the weights are."""
        for group in self.optimizer.param_groups:
            group["lr"] = signals["learning_rate"]
        before = nn.utils.parameters_to_vector(self.model.parameters()).detach()
        if math.isfinite(signals["grad_norm"]) or not self.skips_non_finite:
            self.optimizer.step()
        after = nn.utils.parameters_to_vector(self.model.parameters()).detach()
        norm, moved = float(nn.utils.get_total_norm([before])), float(nn.utils.get_total_norm([after - before]))
        return {"update_ratio": moved / norm if norm else math.nan, "weight_norm": float(nn.utils.get_total_norm([after]))}

    def take_evaluation(self) -> dict[str, float] | None:
        """Evaluate in evaluation mode; return the metrics, or None if nothing is reported."""
        self.model.eval()
        with torch.no_grad():
            metrics = self.evaluate(self.model, self.held)
        self.model.train()
        return metrics if self.on_evaluation is None else self.on_evaluation(metrics)


@torch.no_grad()
def measured(model: nn.Module, loss: Callable[[], Tensor]) -> float:
    """Return a loss of ``model`` in evaluation mode; it trains on afterwards."""
    model.eval()
    value = float(loss())
    model.train()
    return value


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Return the optimizer that the settings name."""
    parameters, rate, decay = model.parameters(), settings.learning_rate, settings.weight_decay
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=decay)
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        case _:
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
