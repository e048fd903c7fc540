"""Trace every operation of one step, so that two repetitions that part there can be compared operation by operation.

A trace is a file of JSON lines: ``{"op": NAME, "at": "FILE:LINE", "inputs": HASH, "random": HASH, "outputs": HASH}``. The
inputs are hashed before the operation runs; random operations have the state of the generators beside them. Memory that an
operation hands out uninitialised is zeroed while tracing: what happens to lie there is no difference.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # the documented way to see every operation

from trimtab.runtime.probe import Probes

_UNINITIALISED: Final = ("aten.empty", "aten.new_empty")
_OURS: Final = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))


class StepTrace(TorchDispatchMode):
    """Writes down the operations that run while it is entered."""

    def __init__(self) -> None:
        cast("Any", super()).__init__()
        self.lines: list[str] = []

    def __torch_dispatch__(  # torch's name
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation between two hashes."""
        inputs = _hash((args, dict(kwargs or {})))
        generator = (kwargs or {}).get("generator") or torch.default_generator
        random = _hash(generator.get_state()) if torch.Tag.nondeterministic_seeded in func.tags else ""
        result = func(*args, **(kwargs or {}))
        if str(func).startswith(_UNINITIALISED) and isinstance(result, Tensor) and not result.is_meta:
            result.zero_()
        # The arguments once more: an operation may write into them.
        traced = {"op": str(func), "at": _where(), "inputs": inputs, "random": random, "outputs": _hash((result, args))}
        self.lines.append(json.dumps(traced))
        return result


class TracingProbes:
    """Probes that beside measuring trace the step that is in question, then write the trace and trace no more.

    Args:
        inner: The run's probes.
        step: The step, >= 1.
        path: File of the trace.
    """

    def __init__(self, inner: Probes, step: int, path: Path) -> None:
        self._inner = inner
        self._step = step
        self._path = path
        self._trace: StepTrace | None = None
        self._entered = ExitStack()

    def begin(self, num_steps: int) -> None:
        """Begin at once if the step in question is the next one."""
        if num_steps == self._step - 1:
            self._trace = StepTrace()
            self._entered.enter_context(cast("AbstractContextManager[object]", self._trace))

    def collect(self, step: int) -> Mapping[str, object]:
        """Return what the probes measured; at the ends of the step in question, begin or end the trace."""
        if step == self._step and self._trace is not None:
            trace, self._trace = self._trace, None
            self._entered.close()
            self._path.write_text("".join(f"{line}\n" for line in trace.lines), encoding="utf-8")
        measured = self._inner.collect(step)
        self.begin(step)
        return measured

    def faults(self) -> Sequence[str]:
        """Return which probes were switched off."""
        return self._inner.faults()

    def close(self) -> None:
        """Let go of the run; a trace that was not ended is given up."""
        self._entered.close()
        self._inner.close()


def _hash(value: Any) -> str:
    digest = hashlib.sha256()
    _add(digest, value)
    return digest.hexdigest()[:16]


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        # Sparse, quantized and fake tensors have no plain bytes: their form alone is told.
        if value.layout == torch.strided and not value.is_quantized and not value.is_meta and value.numel():
            plain = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(plain.numpy().tobytes())
    elif isinstance(value, Mapping):
        for name, item in sorted(cast("Mapping[str, Any]", value).items()):
            digest.update(name.encode())
            _add(digest, item)
    elif isinstance(value, (tuple, list)):
        digest.update(b"[")
        for item in cast("Sequence[Any]", value):
            _add(digest, item)
        digest.update(b"]")
    elif isinstance(value, (bool, int, float, str, type(None))):
        digest.update(repr(value).encode())


def _where() -> str:
    """Return the innermost line that belongs neither to torch nor to trimtab; empty inside the backward pass."""
    frame = inspect.currentframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_OURS) and not file.startswith("<"):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
