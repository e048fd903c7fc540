"""Numbers from a training loop, taken without waiting for a device.

Values on the CPU are read at once. Values on an accelerator are gathered in one tensor a step and
copied without blocking; they are handed over once the copy is complete, some steps later.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from trimtab.errors import UsageError
from trimtab.integrations.pytorch.bindings.uncompiled import uncompiled
from trimtab.integrations.pytorch.step_order import StepOrder
from trimtab.integrations.pytorch.untyped import listed
from trimtab.runtime.reading import Reading
from trimtab.telemetry.roles import GRAD_NORM_OF_GROUP
from trimtab.telemetry.signal import GRAD_NORM, LOSS

_MOST_PENDING: Final = 256
_MOST_SKIPPED: Final = 20
_FOUND_INF: Final = ""  # no signal can have this name


@dataclass(frozen=True, slots=True)
class _Pending:
    step: int
    ready: dict[str, float]
    names: tuple[str, ...]
    copied: Tensor
    event: Any  # torch.cuda.Event or its like: has query() and synchronize()
    is_excused: bool
    refused: str | None
    is_apart: bool = False


class TorchReader:
    """Reads signals given as numbers or one-element tensors.

    A gradient scaler that finds infinities skips the step and lowers its scale; a non-finite loss or
    gradient norm of such a step is no fault and is left out. After many skipped steps in a row it
    is taken in: then the scaler does not cope, or the steps run where no hook sees them.

    Args:
        optimizer: The unwrapped optimizer.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._pending: deque[_Pending] = deque()
        self._ran = False
        self._skipped_in_a_row = 0
        self._found_inf: Tensor | None = None
        self._kind = type(optimizer).__name__
        self._num_calls = 0
        self._has_run = False
        self._order = StepOrder(optimizer)
        self._hook = optimizer.register_step_post_hook(uncompiled(self._on_step))

    def take(self, step: int, signals: Mapping[str, object]) -> list[Reading]:
        """Take in one step's values and return the readings that are complete, oldest first."""
        self._num_calls += 1
        self._order.step_reported()
        self._skipped_in_a_row = 0 if self._ran else self._skipped_in_a_row + 1
        is_excused = 0 < self._skipped_in_a_row <= _MOST_SKIPPED
        self._ran = False
        ready, away, refused = _sort(signals)
        if away and self._found_inf is not None:
            away[_FOUND_INF] = self._found_inf  # known with the values, when the copy is complete
        if away:
            self._pending.append(_copy(step, ready, away, is_excused=is_excused, refused=refused))
        elif not self._pending:
            return [_excused(Reading(step, ready, refused), is_excused)]
        else:
            # Readings stay in order: this one waits for those before it.
            last = self._pending[-1]
            self._pending.append(_Pending(step, ready, (), last.copied, last.event, is_excused, refused))
        return self._completed()

    def take_apart(self, step: int, signals: Mapping[str, object]) -> Reading:
        """Return those of the values for ``step`` that are at hand; the others come with a later `take`."""
        ready, away, refused = _sort(signals)
        if away:
            self._pending.append(_copy(step, {}, away, is_excused=False, refused=None, is_apart=True))
        return Reading(step, ready, refused, is_apart=True)

    def drain(self) -> list[Reading]:
        """Return all readings that are not complete yet, oldest first; waits for the device."""
        if self._pending:
            self._pending[-1].event.synchronize()
        return self._completed()

    def discard(self) -> None:
        """Forget values that are not complete yet."""
        self._pending.clear()

    def take_now(self, step: int, signals: Mapping[str, object]) -> Reading:
        """Return values as numbers at once; waits for the device if some live on one."""
        values: dict[str, float] = {}
        refused: str | None = None
        for name, value in signals.items():
            try:
                values[name] = to_number(name, value)
            except UsageError as error:
                refused = refused or str(error)
        return Reading(step, values, refused)

    def misuse(self) -> tuple[tuple[str, str], ...]:
        """Return a problem and its detail where steps are reported at another point of the loop than they should be."""
        if not self._has_run and self._num_calls > _MOST_SKIPPED:
            detail = (
                f"supervisor.step was called more than {_MOST_SKIPPED} times without a step of the {self._kind} that was "
                f"passed: pass the optimizer that trains (a step replayed from a CUDA graph cannot be seen)"
            )
            return (("no optimizer step was seen", detail),)
        if self._order.is_wrong:
            detail = (
                "no gradient changed between supervisor.step and optimizer.step: call supervisor.step right after "
                "optimizer.step; as it is, a fault is seen before its step, which then still happens"
            )
            return (("supervisor.step is called before optimizer.step", detail),)
        return ()

    def close(self) -> None:
        """Remove the hooks."""
        self._hook.remove()
        self._order.close()

    def _on_step(self, optimizer: Optimizer, *_: object) -> None:
        # Fused optimizers run even when the scaler found infinities, and skip inside; the scaler tells them so.
        found = getattr(optimizer, "found_inf", None)
        self._found_inf = found if isinstance(found, Tensor) and found.device.type != "cpu" else None
        self._has_run = True
        self._ran = not (isinstance(found, Tensor) and found.device.type == "cpu" and bool(found.any()))

    def _completed(self) -> list[Reading]:
        if len(self._pending) > _MOST_PENDING:
            # The device is far behind; waiting once bounds the memory.
            self._pending[0].event.synchronize()
        done: list[Reading] = []
        while self._pending and self._pending[0].event.query():
            pending = self._pending.popleft()
            numbers: list[float] = listed(pending.copied) if pending.names else []
            values = dict(zip(pending.names, numbers, strict=True))
            is_excused = values.pop(_FOUND_INF, 0.0) > 0 or pending.is_excused
            reading = Reading(pending.step, pending.ready | values, pending.refused, pending.is_apart)
            done.append(_excused(reading, is_excused))
        return done


def _excused(reading: Reading, is_excused: bool) -> Reading:
    """Leave out a non-finite loss and gradient norms if the step they belong to was skipped."""
    if not is_excused:
        return reading
    kept = {name: value for name, value in reading.values.items() if math.isfinite(value) or not _is_excusable(name)}
    return replace(reading, values=kept)


def _is_excusable(name: str) -> bool:
    return name in (LOSS, GRAD_NORM) or name.startswith(GRAD_NORM_OF_GROUP)


def _sort(signals: Mapping[str, object]) -> tuple[dict[str, float], dict[str, Tensor], str | None]:
    """Return what is at hand, what is on an accelerator, and why the first of the others was refused.

    Nearly all values are floats and plain tensors on the CPU; these take the short way.
    """
    ready: dict[str, float] = {}
    away: dict[str, Tensor] = {}
    refused: str | None = None
    for name, value in signals.items():
        kind = type(value)
        if kind is float:
            ready[name] = cast("float", value)
            continue
        if kind is Tensor:
            tensor = cast("Tensor", value)
            if tensor.is_cpu and tensor.ndim == 0 and type(number := tensor.item()) is float:
                ready[name] = number
                continue
        try:
            if isinstance(value, Tensor) and value.device.type != "cpu":
                away[name] = _single(name, value)
            else:
                ready[name] = to_number(name, value)
        except UsageError as error:
            refused = refused or str(error)
    return ready, away, refused


def _copy(
    step: int,
    ready: dict[str, float],
    away: Mapping[str, Tensor],
    *,
    is_excused: bool,
    refused: str | None,
    is_apart: bool = False,
) -> _Pending:
    device = next(iter(away.values())).device
    dtype = torch.float32 if device.type == "mps" else torch.float64  # that backend has no 64-bit floats
    gathered = torch.stack([value.detach().reshape(()).to(device, dtype, non_blocking=True) for value in away.values()])
    copied = gathered.to("cpu", non_blocking=True)
    event = torch.get_device_module(gathered.device).Event()
    event.record()
    return _Pending(step, ready, tuple(away), copied, event, is_excused, refused, is_apart)


def to_number(name: str, value: object) -> float:
    """Return a signal's value as a float; waits for the device if it lives on one.

    Raises:
        UsageError: Report a number or a one-element tensor.
    """
    if not isinstance(name, str):
        raise UsageError("a signal's name is not text", received=repr(name)[:80], next_step='use text, such as "val/loss"')
    if isinstance(value, Tensor):
        value = _single(name, value).detach()
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise UsageError(
            f"the signal {name!r} is not a number",
            received=f"str: {value[:80]!r}" if isinstance(value, str) else f"{type(value).__name__}: {str(value)[:80]}",
            allowed="a number or a tensor with one element",
        )
    try:
        return float(cast("Any", value))
    except Exception as error:  # numpy, torch and a user's __float__ each raise their own types; the message names the signal
        raise UsageError(f"the signal {name!r} is not a number", received=f"{type(value).__name__}: {error}") from error


def _single(name: str, value: Tensor) -> Tensor:
    if value.is_meta:
        raise UsageError(f"the signal {name!r} has no value", received="a tensor on the device meta")
    if value.numel() != 1:
        raise UsageError(
            f"the signal {name!r} has more than one element",
            received=f"a tensor of shape {list(value.shape)}",
            allowed="a tensor with one element",
            next_step="reduce it first, for example with .mean()",
        )
    return value
