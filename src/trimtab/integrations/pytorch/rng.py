"""The state of every random number generator that a training step may draw from."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch

from trimtab.errors import CheckpointError


def capture_rng() -> dict[str, Any]:
    """Return the states of Python's, numpy's, torch's CPU and all CUDA generators; draws from none.

    numpy is left out if the process has not imported it, CUDA if it is not initialised.
    """
    numpy: Any = sys.modules.get("numpy")
    return {
        "python": random.getstate(),
        "numpy": None if numpy is None else numpy.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None,
    }


def check_rng(saved: dict[str, Any]) -> None:
    """Check that `restore_rng` can succeed.

    Raises:
        CheckpointError: The states are of another number of CUDA devices.
    """
    if saved["cuda"] is not None and len(saved["cuda"]) != torch.cuda.device_count():
        raise CheckpointError(
            "the checkpoint is of another number of CUDA devices",
            received=len(saved["cuda"]),
            allowed=f"{torch.cuda.device_count()}, as visible now",
        )


def restore_rng(saved: dict[str, Any]) -> None:
    """Put the generators back to states from `capture_rng`; those not captured go on as they are."""
    random.setstate(saved["python"])
    if saved["numpy"] is not None:
        import numpy as np

        np.random.set_state(saved["numpy"])
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] is not None:
        torch.cuda.set_rng_state_all(saved["cuda"])
