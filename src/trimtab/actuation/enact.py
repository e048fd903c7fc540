"""Carry out a verified action: state first, then controls, then skipped batches.

The order matters: restoring a state overwrites what was written before it, so the recipe is applied
after every restore. If a control cannot be written, those written before it are put back. Whatever
happens is returned, not raised: the outcome of an action belongs in the record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.actuation.binding import Binding, StateStore
from trimtab.controls.recipe import Recipe
from trimtab.decision.action import SkipBatches, changes_of, checkpoint_of
from trimtab.errors import ActuationError, CheckpointError
from trimtab.verification.verdict import VerifiedAction


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done.

    Args:
        recipe: The values read from the live objects afterwards.
        restored: The ``extra`` of the checkpoint gone back to; None if the state was not restored.
        problem: What went wrong; None if everything was carried out.
        checkpoint_is_unusable: Whether the checkpoint itself was at fault.
    """

    recipe: Recipe
    restored: dict[str, Any] | None
    problem: str | None = None
    checkpoint_is_unusable: bool = False


def enact(
    verified: VerifiedAction,
    present: Recipe,
    bindings: Mapping[str, Binding],
    store: StateStore,
    adopted: Callable[[], dict[str, Any]] | None = None,
) -> Outcome:
    """Carry out ``verified`` between two steps.

    Args:
        verified: From the verifier; nothing else is accepted.
        present: The recipe that should be in force; if the live one is another, somebody else has a
            hand on a control, and nothing is done.
        bindings: By control name; every control of the recipe has one.
        store: The run's state.
        adopted: Brings back a state in which the action was carried out already, and returns what was kept beside it.
    """
    live = read_recipe(bindings)
    if live != present and verified.source != "reflex":
        found = ", ".join(f"{name}={value!r}, expected {present[name]!r}" for name, value in live.difference(present))
        return Outcome(live, None, f"something else changed a control: {found}")
    restored: dict[str, Any] | None = None
    try:
        checkpoint = checkpoint_of(verified.action)
        if adopted is not None:
            restored = adopted()
        elif checkpoint is not None:
            restored = store.restore(checkpoint)
        if restored is not None or changes_of(verified.action):
            write_recipe(verified.recipe, bindings, after_restore=restored is not None)
        if isinstance(verified.action, SkipBatches) and adopted is None:
            store.skip(verified.action.count)
    except Exception as error:  # noqa: BLE001 - optimizers and loaders are the user's and may raise any type; it is recorded as why the action failed
        is_unusable = isinstance(error, CheckpointError) and restored is None
        return Outcome(read_recipe(bindings), restored, f"{type(error).__name__}: {error}"[:500], is_unusable)
    return Outcome(read_recipe(bindings), restored)


def read_recipe(bindings: Mapping[str, Binding]) -> Recipe:
    """Read the recipe from the live training objects."""
    return Recipe.of({name: binding.read() for name, binding in bindings.items()})


def write_recipe(recipe: Recipe, bindings: Mapping[str, Binding], *, after_restore: bool = False) -> None:
    """Write every value that differs from the live one, or after a restore every value; all or none.

    A restore may have brought back a value behind its binding's back, which would then expect the one it wrote last.

    Raises:
        ActuationError: A control refused its value; those written before it were put back.
    """
    written: list[tuple[Binding, float]] = []
    for name, value in recipe.values:
        binding = bindings[name]
        before = binding.read()
        if before == value and not after_restore:
            continue
        written.append((binding, before))
        try:
            binding.write(value)
            _require_value(binding, value)
        except Exception as error:  # a user's setter may raise any type; half a recipe must not stay: put back, raised as ours
            _put_back(written)
            raise ActuationError(
                f"{name} could not be set", received=f"{value!r}: {error!r}", next_step="the recipe was put back"
            ) from error


def _require_value(binding: Binding, value: float) -> None:
    """Refuse a value that did not stand; a value kept as a 32-bit float is rounded to about 6e-8 of itself."""
    found = binding.read()
    if not math.isclose(found, value, rel_tol=1e-6):
        raise ActuationError("the value did not stand", received=f"{found!r} after {value!r} was written")


def _put_back(written: list[tuple[Binding, float]]) -> None:
    for binding, before in reversed(written):
        try:
            binding.write(before)
        except Exception:  # noqa: BLE001, S112 - a setter that refuses its old value too: the others must still be put back; what holds is then read and recorded
            continue
