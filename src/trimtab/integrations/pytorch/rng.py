"""The state of every random number generator that a training step may draw from."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import torch

from trimtab.errors import CheckpointError
from trimtab.integrations.pytorch.tree import decode_tree, encode_tree
from trimtab.integrations.pytorch.untyped import listed, seed_torch


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


def write_rng(path: Path) -> None:
    """Keep the states of the generators in a file: an unseeded one starts otherwise in every process.

    Raises:
        OSError: It cannot be written.
    """
    tree, tensors = encode_tree(capture_rng(), "rng")
    texts = {name: bytes(listed(tensor)).hex() for name, tensor in tensors.items()}
    kept = {"states": tree, "bytes": texts}
    path.write_text(json.dumps({**kept, "sha256": _hash(kept)}), encoding="ascii")


def read_rng(path: Path) -> None:
    """Put the generators into the states that a file keeps.

    Raises:
        CheckpointError: The file is damaged, or of another number of CUDA devices.
    """
    try:
        kept = json.loads(path.read_bytes())
        if kept.pop("sha256") != _hash(kept):
            raise ValueError("its content is not as it was written")  # noqa: TRY301 - told as any other damage
        tensors = {name: torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8) for name, text in kept["bytes"].items()}
        states = decode_tree(kept["states"], tensors)
        check_rng(states)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "the random numbers that the run began with cannot be read", received=f"{path}: {error!r}"
        ) from error
    restore_rng(states)


def _hash(kept: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


def reseed_rng(seed: int) -> None:
    """Seed all of these generators anew; numpy's only if the process has imported it."""
    random.seed(seed)
    seed_torch(seed)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)


def restore_rng(saved: dict[str, Any]) -> None:
    """Put the generators back to states from `capture_rng`; those not captured go on as they are."""
    random.setstate(saved["python"])
    if saved["numpy"] is not None:
        import numpy as np

        np.random.set_state(saved["numpy"])
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] is not None:
        torch.cuda.set_rng_state_all(saved["cuda"])
