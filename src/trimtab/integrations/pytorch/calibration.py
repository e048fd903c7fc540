"""Narrow the bounds of the learning rate by measurement, on the user's own model and data.

A learning rate range test: from a very low to a very high rate, a real training step at each; several times from the
same state on different batches, so that one noisy sweep does not decide. Afterwards the run is exactly where it was.

References:
    Smith (2017), "Cyclical Learning Rates for Training Neural Networks", section 3.3, for the test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

import torch
from torch import nn
from torch.optim import Optimizer

from trimtab.controls.bounds import Bounds, is_finite_number
from trimtab.controls.entries import LEARNING_RATE
from trimtab.controls.envelope import Envelope
from trimtab.errors import UsageError
from trimtab.integrations.pytorch.bindings.groups import unwrap
from trimtab.integrations.pytorch.bindings.learning_rate import group_references
from trimtab.integrations.pytorch.kept_state import kept_state
from trimtab.integrations.pytorch.rate_curve import Reading, Sweep, read_sweep
from trimtab.integrations.pytorch.rate_sweep import TrainStep, endless, held_rate, sweep

# A sweep passes a rate in a step or two; a run stays there. On two models, with SGD and Adam, a fifth of the rate at
# which sweeps broke trained in every case, a third did not (docs/envelopes.md).
SAFETY: Final = 5.0
# A rate too low to show in a sweep still counts over a run that is a hundred times as long.
PATIENCE: Final = 100.0

_HALF_WINDOW: Final = 3
_SPAN: Final = 1000.0
_LEAST_STEPS: Final = 30
_AGREES: Final = 3.0  # sweeps whose breaks differ by more than this factor are said to disagree


@dataclass(frozen=True, slots=True)
class CalibrationSetup:
    """What `calibrate` measures on: returned by the function that ``trimtab calibrate MODULE:FUNCTION`` calls.

    Args:
        model: The model.
        optimizer: Its optimizer.
        train_step: As in `calibrate`.
        loader: As in `calibrate`.
        scheduler: The scheduler, if ``train_step`` steps one.
        extra_state: More that a step changes, by name, as in `trimtab.supervise`.
    """

    model: nn.Module
    optimizer: Optimizer
    train_step: TrainStep
    loader: Iterable[Any]
    scheduler: Any = None
    extra_state: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the sweeps found. Rates are those of the group with the largest reference rate.

    Args:
        reference: The rate the run starts with, as the control ``learning_rate`` has it.
        tried: Lowest and highest rate of a sweep.
        sweeps: The measured curves.
        readings: What each sweep shows; None where no rate lowered the loss.
    """

    reference: float
    tried: tuple[float, float]
    sweeps: tuple[Sweep, ...]
    readings: tuple[Reading | None, ...]

    @property
    def is_conclusive(self) -> bool:
        """Whether the loss fell in most of the sweeps; otherwise no bound was found."""
        return 2 * len(self._found) > len(self.readings)

    @property
    def falls_from(self) -> float | None:
        """Where the loss begins to fall: the median over the sweeps."""
        return median(one.falls_from for one in self._found) if self.is_conclusive else None

    @property
    def steepest(self) -> float | None:
        """Where the loss falls fastest: the median over the sweeps."""
        return median(one.steepest for one in self._found) if self.is_conclusive else None

    @property
    def breaks(self) -> tuple[float, ...]:
        """Where the sweeps broke, rising; empty if none did."""
        return tuple(sorted(one.breaks_at for one in self._found if one.breaks_at is not None)) if self.is_conclusive else ()

    @property
    def low(self) -> float | None:
        """The lowest rate worth allowing: a hundredth of where the loss begins to fall."""
        return None if self.falls_from is None else _floored(self.falls_from / PATIENCE)

    @property
    def high(self) -> float | None:
        """The highest rate worth allowing: a fifth of the lowest rate at which a sweep broke; None if none did."""
        return _floored(self.breaks[0] / SAFETY) if self.breaks else None

    @property
    def suggested(self) -> float | None:
        """A rate to start with: where the loss falls fastest, or the highest worth allowing if that is less."""
        return None if self.steepest is None else _floored(min(self.steepest, self.high or math.inf))

    def start_within(self, envelope: Envelope) -> float | None:
        """Return the rate to start with as near to `suggested` as the narrowed envelope allows; None if there is none.

        Raises:
            ControlError: The envelope has no control ``learning_rate``.
        """
        bounds = self._narrowed(envelope.control(LEARNING_RATE).bounds)
        return None if self.suggested is None else min(max(self.suggested, bounds.low), bounds.high)

    @property
    def _found(self) -> list[Reading]:
        return [reading for reading in self.readings if reading is not None]

    def narrow(self, envelope: Envelope) -> Envelope:
        """Return the envelope with the bounds of learning_rate narrowed, never widened, around the starting rate.

        Raises:
            ControlError: The envelope has no control ``learning_rate``.
        """
        bounds = self._narrowed(envelope.control(LEARNING_RATE).bounds)
        controls = (replace(one, bounds=bounds) if one.name == LEARNING_RATE else one for one in envelope.controls)
        return replace(envelope, controls=tuple(controls))

    def describe(self) -> str:
        """Return what was found, in words."""
        if not self.is_conclusive:
            where = f"between {self.tried[0]:.3g} and {self.tried[1]:.3g}"
            return f"no rate {where} lowered the loss in most of the {len(self.sweeps)} sweeps: nothing found"
        words = f"the loss falls from {self.falls_from:.3g}, fastest at {self.steepest:.3g}"
        if not self.breaks:
            return f"{words}, and does not break up to {self.tried[1]:.3g}"
        spread = f"{self.breaks[0]:.3g}"
        if self.breaks[-1] > self.breaks[0]:
            spread += f" to {self.breaks[-1]:.3g} over {len(self.breaks)} sweeps"
        return f"{words}, breaks at {spread}"

    def notes(self, envelope: Envelope) -> tuple[str, ...]:
        """Return what `narrow` does to an envelope and what speaks against trusting it, one sentence each.

        Raises:
            ControlError: The envelope has no control ``learning_rate``.
        """
        before = envelope.control(LEARNING_RATE).bounds
        after = self._narrowed(before)
        sides = (("low", before.low, after.low), ("high", before.high, after.high))
        said = [f"narrowed {side} {old:g} -> {new:g}" for side, old, new in sides if old != new]
        said = said or ["the bounds stay as they are"]
        if self.high is not None and self.reference > self.high:
            said.append(
                f"the run starts at {self.reference:g}, above the {self.high:g} found: start lower, such as "
                f"{self.start_within(envelope):g}"
            )
        if self.low is not None and self.reference < self.low:
            said.append(f"the run starts at {self.reference:g}, below the {self.low:g} found: it will hardly learn")
        if not before.contain(self.reference):
            said.append(f"the run starts at {self.reference:g}, outside the envelope's bounds: attaching will be refused")
        if self.is_conclusive and (missing := len(self.readings) - len(self._found)):
            said.append(f"in {missing} of {len(self.readings)} sweeps no rate lowered the loss")
        if self.breaks and self.breaks[-1] > _AGREES * self.breaks[0]:
            said.append("the sweeps disagree about where it breaks: repeat with more of them")
        return tuple(said)

    def _narrowed(self, bounds: Bounds) -> Bounds:
        low = bounds.low if self.low is None else max(bounds.low, self.low)
        high = bounds.high if self.high is None else min(bounds.high, self.high)
        if bounds.contain(self.reference):
            low, high = min(low, self.reference), max(high, self.reference)
        return Bounds(low, high) if low < high else bounds


def calibrate(
    model: nn.Module,
    optimizer: Optimizer,
    train_step: TrainStep,
    *,
    loader: Iterable[Any],
    scheduler: Any = None,
    extra_state: Mapping[str, object] | None = None,
    low: float | None = None,
    high: float | None = None,
    num_steps: int = 100,
    num_sweeps: int = 3,
    on_step: Callable[[], None] | None = None,
) -> Calibration:
    """Find between which learning rates a run learns; afterwards it is exactly where it was.

    Args:
        model: The model.
        optimizer: The optimizer, or a wrapper that keeps one as ``.optimizer``. Groups keep their ratios.
        train_step: Takes a batch, does one whole training step as the run does (zero_grad, forward, backward,
            clipping, ``optimizer.step()``) and returns the loss. If it steps a scheduler, pass that.
        loader: Batches, again and again if they do not last; an iterable that can be iterated again, or one with
            ``state_dict`` and ``load_state_dict``.
        scheduler: Restored if given; the rates tried do not depend on it.
        extra_state: More that a step changes, by name, as in `trimtab.supervise`; restored.
        low: Lowest rate tried, > 0; by default a thousandth of the run's rate.
        high: Highest rate tried, > low; by default a thousand times the run's rate.
        num_steps: Steps of a sweep, >= 30.
        num_sweeps: Sweeps, each from the same state on the batches that follow, >= 3.
        on_step: Called after every step, for progress.

    Raises:
        UsageError: Correct what the message names; nothing was changed.
        Exception: Whatever ``train_step`` raises; the run is where it was.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        raise UsageError("ranks would leave a sweep at different rates", next_step="calibrate in one process, without ranks")
    for name, count, least in (("num_steps", num_steps, _LEAST_STEPS), ("num_sweeps", num_sweeps, 3)):
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise UsageError(f"{name} is out of range", received=repr(count), allowed=f"a whole number >= {least}")
    inner = unwrap(optimizer)
    reference = max(group_references(inner.param_groups))
    tried = (reference / _SPAN if low is None else low, reference * _SPAN if high is None else high)
    if not all(map(is_finite_number, tried)) or not 0 < tried[0] < tried[1]:
        raise UsageError(
            "the rates to try are out of range", received=f"low={tried[0]!r}, high={tried[1]!r}", allowed="0 < low < high"
        )
    rates = _spaced(*tried, num_steps)
    done: list[Sweep] = []
    step = _counted(train_step, on_step)
    with (
        kept_state(model, inner, loader, scheduler, extra_state) as go_back,
        held_rate(inner) as hook,
        closing(endless(loader)) as batches,
    ):
        for _ in range(num_sweeps):
            done.append(sweep(hook, step, batches, rates, _HALF_WINDOW))
            if hook.num_steps == 0:
                raise UsageError(
                    "train_step takes no optimizer step", next_step="call optimizer.step() in it, as the training loop does"
                )
            go_back()
    return Calibration(reference, tried, tuple(done), tuple(read_sweep(one, _HALF_WINDOW) for one in done))


def _counted(train_step: TrainStep, on_step: Callable[[], None] | None) -> TrainStep:
    if on_step is None:
        return train_step

    def step(batch: Any) -> Any:
        loss = train_step(batch)
        on_step()
        return loss

    return step


def _spaced(low: float, high: float, count: int) -> list[float]:
    """Return ``count`` rates from low to high, each the same ratio above the one before."""
    return [low * (high / low) ** (at / (count - 1)) for at in range(count)]


def _floored(value: float) -> float:
    """Return a value cut to two significant digits."""
    exponent = math.floor(math.log10(value)) - 1
    digits = math.floor(value / 10.0**exponent * (1 + 1e-12))
    return float(f"{digits}e{exponent}")
