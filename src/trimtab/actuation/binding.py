"""What an integration provides so that trimtab can act on a run: bindings and a state store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Binding(Protocol):
    """One control, bound to the live training objects.

    Args:
        name: The control's name.
    """

    @property
    def name(self) -> str:
        """The control's name."""
        ...

    def read(self) -> float:
        """Return the control's value as the training objects have it now."""
        ...

    def write(self, value: float) -> None:
        """Set the value; it takes effect from the next step on. Called between steps only."""
        ...

    def took_effect(self) -> ReadBack | None:
        """Return what the last optimizer step really used; None if none since ``write`` can show it."""
        ...

    def close(self) -> None:
        """Give the control back to the training objects; the value they have of their own is in force."""
        ...


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What a step really used.

    Args:
        control: The control's name.
        expected: The value that should have been in effect, in the unit of ``observed``.
        observed: The value that was in effect; for the learning rate, the largest effective rate.
        holds: Whether the two agree.
        detail: Why they do not, where that is known; empty otherwise.
    """

    control: str
    expected: float
    observed: float
    holds: bool
    detail: str = ""


class RateDecay(Protocol):
    """Multiplies the rate of every step beside all controls, for the end of a trial's arm."""

    def set(self, factor: float) -> None:
        """Multiply the rate of the steps from now on; 1 leaves them alone."""
        ...


class StateStore(Protocol):
    """Saves and restores the run's state: weights, optimizer, scheduler, RNG, data position, extras.

    Both are called between steps, at the same point of the training loop.
    """

    @property
    def can_skip(self) -> bool:
        """Whether the loader can pass over batches."""
        ...

    def save(self, id: str, extra: dict[str, Any]) -> str:
        """Save the state under ``id``, with JSON-ready ``extra``; visible only once complete.

        Returns:
            SHA-256 over the state without ``extra``: two states with the same hash are the same, bit for bit.

        Raises:
            CheckpointError: Nothing is visible under ``id``; go on without this checkpoint.
        """
        ...

    def scales(self) -> Mapping[str, float]:
        """Return the largest magnitude of each part: ``weights``, ``buffers``, ``optimizer/KEY``...

        Not finite if anything of the part is not.
        """
        ...

    def restore(self, id: str) -> dict[str, Any]:
        """Restore the state saved under ``id`` and return its ``extra``; all or nothing.

        Raises:
            CheckpointError: The state is as before; use another checkpoint.
        """
        ...

    def keep(self) -> object:
        """Return a copy of the present state, in memory.

        Raises:
            CheckpointError: The state cannot be read.
        """
        ...

    def bring_back(self, kept: object) -> None:
        """Restore a state that `keep` returned; all or nothing, and as often as wanted.

        Raises:
            CheckpointError: The state is as before.
        """
        ...

    def skip(self, count: int) -> None:
        """Pass over the loader's next ``count`` batches."""
        ...

    def hashes(self) -> Mapping[str, str]:
        """Return a hash of each part of the present state: the model, the optimizer, the RNG...; waits for the device.

        Raises:
            CheckpointError: The state cannot be read.
        """
        ...

    def reseed(self, seed: int) -> None:
        """Let the random numbers, and the order of the data where the loader can, go on from another seed."""
        ...

    def ids(self) -> tuple[str, ...]:
        """Return the names of all complete checkpoints."""
        ...

    def delete(self, id: str) -> None:
        """Remove a checkpoint that is no longer needed."""
        ...
