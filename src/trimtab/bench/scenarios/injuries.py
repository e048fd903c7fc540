"""Injuries: sudden faults of one step, of a few, or of a stretch of the data, done to a training that is well.

An injury acts at up to four places of a step: on the state before it (`Injury.state`), on the loss, on the gradients, or on a
stretch of the data, which is met again after a rollback. It acts by the count of steps made, which never goes back: after a
rollback it is over, unless it lies in the data or lasts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from trimtab.bench.scenarios.loop import Batch
from trimtab.bench.scenarios.patients import PATIENTS, Patient, Spoil

Change = Callable[[Patient], None]
_ALL: Final = tuple(PATIENTS)
_ADAM: Final = ("perceptron", "text")


@dataclass(frozen=True, slots=True)
class Injury:
    """Something that is done to a training.

    Args:
        name: Of the injury.
        steps: Steps in a row for which it lasts; 0 for ever.
        state: Done before the step.
        loss: Done to the loss, before it is differentiated.
        gradients: Done to the gradients, before they are clipped.
        data: Done to a stretch of as many batches as ``steps``; to the rest of the data where that is 0.
        patients: Trainings it can be done to.
    """

    name: str
    steps: int = 1
    state: Change | None = None
    loss: Callable[[Tensor], Tensor] | None = None
    gradients: Change | None = None
    data: Spoil | None = None
    patients: tuple[str, ...] = _ALL

    def lasts(self, since: int) -> bool:
        """Return whether it still acts ``since`` steps after its first."""
        return since >= 0 and (self.steps == 0 or since < self.steps)


def _to_gradients(change: Callable[[Tensor], object], *, first_only: bool = False) -> Change:
    def done(patient: Patient) -> None:
        for parameter in patient.model.parameters():
            if parameter.grad is not None:
                change(parameter.grad)
                if first_only:
                    return

    return done


def _to_weights(change: Callable[[Tensor], object], *, middle_only: bool = False) -> Change:
    def done(patient: Patient) -> None:
        weights = [parameter for parameter in patient.model.parameters() if parameter.dim() > 1]
        with torch.no_grad():
            for weight in weights[len(weights) // 2 : len(weights) // 2 + 1] if middle_only else weights:
                change(weight)

    return done


def _to_moments(change: Callable[[Tensor], object], *keys: str) -> Change:
    def done(patient: Patient) -> None:
        for state in patient.optimizer.state.values():
            for key, value in state.items():
                if isinstance(value, Tensor) and value.dim() and (not keys or key in keys):
                    change(value)

    return done


def _to_rate(change: Callable[[float], float]) -> Change:
    def done(patient: Patient) -> None:
        for group in patient.optimizer.param_groups:
            group["lr"] = change(group["lr"])
            group["initial_lr"] = change(group["initial_lr"]) if "initial_lr" in group else group["lr"]
        scheduler = patient.scheduler
        if scheduler is not None:  # whoever sets a rate has to tell the schedule, or the next step undoes it
            scheduler.base_lrs[:] = [change(float(rate)) for rate in scheduler.base_lrs]

    return done


def _poison_norms(patient: Patient) -> None:
    for module in patient.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.add_(1e6)
            module.running_var.mul_(1e6)


def _element(value: float) -> Callable[[Tensor], object]:
    return lambda tensor: tensor.view(-1)[tensor.numel() // 2].fill_(value)


def _random_gradients(patient: Patient) -> None:
    """Let the gradients be noise a million times as long as they are."""
    for parameter in patient.model.parameters():
        if parameter.grad is not None:
            length = 1e6 * float(nn.utils.get_total_norm([parameter.grad])) / math.sqrt(parameter.grad.numel())
            draw = torch.Generator().manual_seed(parameter.numel())
            parameter.grad.copy_(length * torch.randn(parameter.shape, generator=draw))


def _garbage_labels(batch: Batch) -> Batch:
    draw = torch.Generator().manual_seed(int(batch[1].sum()))
    return batch[0], torch.randint(0, 10, batch[1].shape, generator=draw)


def _one_label(batch: Batch) -> Batch:
    return torch.zeros_like(batch[0]), torch.zeros_like(batch[1])


TRANSIENT: Final[tuple[Injury, ...]] = (
    Injury("NaN loss", loss=lambda loss: loss * math.nan),
    Injury("infinite loss", loss=lambda loss: loss * math.inf),
    Injury("loss x1e10", loss=lambda loss: loss * 1e10),
    Injury("loss x-1e4", loss=lambda loss: loss * -1e4),
    Injury("five NaN losses in a row", 5, loss=lambda loss: loss * math.nan),
    Injury("three losses x1e6 in a row", 3, loss=lambda loss: loss * 1e6),
    Injury("NaN gradient", gradients=_to_gradients(lambda g: g.fill_(math.nan))),
    Injury("infinite gradient", gradients=_to_gradients(lambda g: g.fill_(math.inf))),
    Injury("one NaN in the gradient", gradients=_to_gradients(_element(math.nan), first_only=True)),
    Injury("gradient x-1e3", gradients=_to_gradients(lambda g: g.mul_(-1e3))),
    Injury("gradient x-1e4", gradients=_to_gradients(lambda g: g.mul_(-1e4))),
    Injury("gradient of noise x1e6 for 10 steps", 10, gradients=_random_gradients),
    Injury("NaN weights", state=_to_weights(lambda w: w.fill_(math.nan))),
    Injury("infinite weights", state=_to_weights(lambda w: w.fill_(math.inf))),
    Injury("one NaN weight", state=_to_weights(_element(math.nan), middle_only=True)),
    Injury("weights x1000", state=_to_weights(lambda w: w.mul_(1000.0))),
    Injury("one layer x1000", state=_to_weights(lambda w: w.mul_(1000.0), middle_only=True)),
    Injury("weights zeroed", state=_to_weights(lambda w: w.zero_())),
    Injury("weights negated", state=_to_weights(lambda w: w.neg_())),
    Injury("running statistics x1e6", state=_poison_norms, patients=("normed",)),
    Injury("NaN in the optimizer", state=_to_moments(lambda m: m.fill_(math.nan))),
    Injury("infinity in the optimizer", state=_to_moments(lambda m: m.fill_(math.inf))),
    Injury("moments x1e6", state=_to_moments(lambda m: m.mul_(1e6), "exp_avg", "momentum_buffer")),
    Injury("all moments x1e6", state=_to_moments(lambda m: m.mul_(1e6)), patients=_ADAM),
    Injury("second moment zeroed", state=_to_moments(lambda m: m.zero_(), "exp_avg_sq"), patients=_ADAM),
    Injury("rate set to 1e6", state=_to_rate(lambda _: 1e6)),
    Injury("rate x1000", state=_to_rate(lambda rate: 1000.0 * rate)),
    Injury("three batches of NaN", 3, data=lambda b: (b[0] * math.nan, b[1]), patients=("perceptron", "normed")),
    Injury("six batches x1e4", 6, data=lambda b: (b[0] * 1e4, b[1]), patients=("perceptron", "normed")),
    Injury("eight batches with garbage labels", 8, data=_garbage_labels),
    Injury("eight batches of nothing but zeros", 8, data=_one_label),
)

# One spike that Adam takes for what it is: its step is no longer than others, so nothing has to be undone.
ABSORBED: Final[tuple[Injury, ...]] = (
    Injury("loss x10", loss=lambda loss: loss * 10, patients=_ADAM),
    Injury("loss x30", loss=lambda loss: loss * 30, patients=_ADAM),
    Injury("loss x100", loss=lambda loss: loss * 100, patients=_ADAM),
)

PERSISTENT: Final[tuple[Injury, ...]] = (
    Injury("every loss is NaN", 0, loss=lambda loss: loss * math.nan),
    Injury("the data is NaN from here on", 0, data=lambda b: (b[0] * math.nan, b[1]), patients=("perceptron", "normed")),
    Injury("every gradient is infinite", 0, gradients=_to_gradients(lambda g: g.fill_(math.inf))),
    Injury("the rate is set to 1e6 again and again", 0, state=_to_rate(lambda _: 1e6)),
)
