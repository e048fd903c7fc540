"""Actions: the closed union of what can be done to a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Change:
    """Give a control a new value."""

    control: str
    value: float


@dataclass(frozen=True, slots=True)
class NoAction:
    """Leave the run as it is."""

    kind: Literal["no_action"] = "no_action"


@dataclass(frozen=True, slots=True)
class Adjust:
    """Change one to three distinct controls together."""

    changes: tuple[Change, ...]
    kind: Literal["adjust"] = "adjust"


@dataclass(frozen=True, slots=True)
class Rollback:
    """Go back to a checkpoint: its weights, optimizer, scheduler, RNG, data position and recipe."""

    checkpoint: str
    kind: Literal["rollback"] = "rollback"


@dataclass(frozen=True, slots=True)
class RollbackAndAdjust:
    """Go back to a checkpoint, then change one to three controls from its recipe."""

    checkpoint: str
    changes: tuple[Change, ...]
    kind: Literal["rollback_and_adjust"] = "rollback_and_adjust"


@dataclass(frozen=True, slots=True)
class SkipBatches:
    """Pass over the next ``count`` batches without training on them."""

    count: int
    kind: Literal["skip_batches"] = "skip_batches"


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the training loop to end."""

    kind: Literal["stop"] = "stop"


Action = NoAction | Adjust | Rollback | RollbackAndAdjust | SkipBatches | Stop


def changes_of(action: Action) -> tuple[Change, ...]:
    """Return the control changes an action asks for; empty for actions without any."""
    return action.changes if isinstance(action, (Adjust, RollbackAndAdjust)) else ()


def checkpoint_of(action: Action) -> str | None:
    """Return the checkpoint an action goes back to, or None."""
    return action.checkpoint if isinstance(action, (Rollback, RollbackAndAdjust)) else None


def describe(action: Action) -> str:
    """Say an action in a few words, such as ``rollback to step-00000400, dropout=0.1``."""
    parts: list[str] = []
    checkpoint = checkpoint_of(action)
    if checkpoint is not None:
        parts.append(f"rollback to {checkpoint}")
    parts.extend(f"{change.control}={change.value:.6g}" for change in changes_of(action))
    if isinstance(action, SkipBatches):
        parts.append(f"skip {action.count} batches")
    return ", ".join(parts) or action.kind
