"""How much memory the run holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Final

import torch

from trimtab.errors import UsageError
from trimtab.integrations.pytorch.bindings.groups import unwrap
from trimtab.integrations.pytorch.probes.probe import Guard, Measured, check_count, weights_of
from trimtab.integrations.pytorch.training import Training
from trimtab.telemetry.roles import MEMORY

_STATM: Final = Path("/proc/self/statm")
_MIB: Final = 2**20


class MemoryProbe:
    """Measures ``memory`` in MiB: what torch has allocated on the weights' CUDA device, else what the process holds.

    The process's own memory is read on Linux only.

    Args:
        every_steps: Steps from one measurement to the next, >= 1.
    """

    name: ClassVar[str] = MEMORY

    def __init__(self, every_steps: int = 50) -> None:
        self._every_steps = check_count("every_steps", every_steps)
        self._device: torch.device | None = None
        self._num_steps = 0

    def attach(self, training: Training, guard: Guard) -> None:
        """Begin to measure.

        Raises:
            UsageError: Leave this probe out on this system.
        """
        devices = (weight.device for weight in weights_of(unwrap(training.optimizer)))
        self._device = next((device for device in devices if device.type == "cuda"), None)
        if self._device is None and not _STATM.exists():
            raise UsageError("the process's memory can be read on Linux only", next_step='leave "memory" out of the probes')

    def collect(self, step: int) -> Measured:
        """Return the memory held now, every so many steps."""
        is_due = self._num_steps % self._every_steps == 0
        self._num_steps += 1
        if not is_due:
            return {}
        if self._device is not None:
            return {self.name: torch.cuda.memory_allocated(self._device) / _MIB}
        resident_pages = int(_STATM.read_text(encoding="ascii").split()[1])
        return {self.name: resident_pages * os.sysconf("SC_PAGE_SIZE") / _MIB}

    def close(self) -> None:
        """Do nothing: there are no hooks."""
