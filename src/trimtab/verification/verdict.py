"""Verdicts, and the only thing that actuation takes.

Only this package can make a `VerifiedAction`: its constructor asks for a key that never leaves it.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Final, Literal, final

from trimtab.controls.recipe import Recipe
from trimtab.decision.action import Action
from trimtab.errors import UsageError

Source = Literal["manager", "reflex", "schedule", "guard"]

_KEY: Final = object()


@final
@dataclass(frozen=True, slots=True)
class VerifiedAction:
    """An action that the verifier has passed.

    Args:
        action: What will be done.
        recipe: The whole recipe that will be in force afterwards.
        source: Who proposed it.
        version: The count of applied actions it was verified against.

    Raises:
        UsageError: Obtain one from `trimtab.verification.verifier.verify`.
    """

    action: Action
    recipe: Recipe
    source: Source
    version: int
    key: InitVar[object] = None

    def __post_init__(self, key: object) -> None:
        # Not kept: a key that can be read from one action would open the way to another.
        if key is not _KEY:
            raise UsageError("only the verifier makes a VerifiedAction", next_step="call trimtab.verification.verify")


def seal(action: Action, recipe: Recipe, source: Source, version: int) -> VerifiedAction:
    """Make a verified action; for the verifier alone (import-linter keeps others out)."""
    return VerifiedAction(action, recipe, source, version, _KEY)


@dataclass(frozen=True, slots=True)
class Rejection:
    """One reason against an action.

    Args:
        constraint: Name of the constraint.
        detail: What was wrong, the value received and what is allowed.
    """

    constraint: str
    detail: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The action may happen."""

    verified: VerifiedAction


@dataclass(frozen=True, slots=True)
class Rejected:
    """The action may not happen, for one or more reasons."""

    reasons: tuple[Rejection, ...]


Verdict = Accepted | Rejected
