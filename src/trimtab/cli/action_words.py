"""An action in a person's words, such as ``adjust learning_rate=x0.5``, and the exact action that is meant.

A value may be given as it was shown: in six digits, or as a factor on the present value. What is meant has to be executable;
the verifier judges it again when it is applied.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from trimtab.decision.action import Action, Adjust, Change, NoAction, Rollback, RollbackAndAdjust, SkipBatches, Stop
from trimtab.decision.briefing import Briefing
from trimtab.decision.surface import Options, Surface
from trimtab.errors import UsageError, nearest

FORMS: Final = (
    "no_action, adjust NAME=VALUE..., rollback CHECKPOINT, rollback_and_adjust CHECKPOINT NAME=VALUE..., skip_batches N, stop"
)
_SEE: Final = "see what is executable: trimtab pending RUN"
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_CLOSE: Final = 1e-9


def shown(value: float) -> str:
    """Return a value as a person sees and types it, in six digits."""
    return f"{value:.6g}"


def factor(value: float, present: float) -> str:
    """Return a value as a factor on the present one, such as ``x0.5``; empty if there is none."""
    return f"x{value / present:.4g}" if present else ""


def read_action(words: Sequence[str], briefing: Briefing) -> Action:
    """Read an action from the words of a command line.

    Raises:
        UsageError: Say it in one of the forms, with what is executable.
    """
    match list(words):
        case ["no_action"]:
            return NoAction()
        case ["stop"]:
            return exact(Stop(), briefing.surface)
        case ["skip_batches", count] if re.fullmatch(r"\d{1,7}", count, re.ASCII):
            return exact(SkipBatches(int(count)), briefing.surface)
        case ["adjust", *pairs] if pairs:
            present = dict(briefing.recipe.values)
            return exact(Adjust(_changes(pairs, briefing.surface.adjustable, present)), briefing.surface)
        case ["rollback", checkpoint]:
            return exact(Rollback(checkpoint), briefing.surface)
        case ["rollback_and_adjust", checkpoint, *pairs] if pairs:
            # No factors here: the value they would be factors on is the checkpoint's, which is not shown.
            options = _after(briefing.surface, checkpoint)
            return exact(RollbackAndAdjust(checkpoint, _changes(pairs, options, {})), briefing.surface)
        case _:
            raise UsageError("this is no action", received=" ".join(words) or "nothing", allowed=FORMS)


def exact(action: Action, surface: Surface) -> Action:
    """Return the executable action that is meant: its values are those of the surface, bit for bit.

    Raises:
        UsageError: The action is not executable; the message says what is.
    """
    match action:
        case NoAction():
            return action
        case Adjust():
            return replace(action, changes=_exact_changes(action.changes, surface.adjustable, surface))
        case Rollback():
            _after(surface, action.checkpoint)
            return action
        case RollbackAndAdjust():
            options = _after(surface, action.checkpoint)
            return replace(action, changes=_exact_changes(action.changes, options, surface))
        case SkipBatches():
            if not 1 <= action.count <= surface.max_skip:
                allowed = f"1 to {surface.max_skip}" if surface.max_skip else "none in this run"
                raise UsageError("so many batches cannot be skipped", received=action.count, allowed=allowed)
            return action
        case Stop():
            if not surface.may_stop:
                raise UsageError("the run may not be stopped", received="stop", next_step=_SEE)
            return action


def _after(surface: Surface, checkpoint: str) -> tuple[Options, ...]:
    options = {option.checkpoint: option.adjustable for option in surface.rollbacks}
    if checkpoint not in options:
        hint = nearest(checkpoint, options) if options else _SEE
        raise UsageError("there is no rollback to this checkpoint", received=checkpoint, next_step=hint)
    return options[checkpoint]


def _changes(pairs: Sequence[str], options: tuple[Options, ...], present: dict[str, float]) -> tuple[Change, ...]:
    changes: list[Change] = []
    for pair in pairs:
        name, equals, word = pair.partition("=")
        if not equals:
            raise UsageError("a change is malformed", received=pair, allowed="NAME=VALUE, such as learning_rate=x0.5")
        values = _values(name, options)
        changes.append(Change(name, _value(name, word, values, present.get(name))))
    return tuple(changes)


def _values(name: str, options: tuple[Options, ...]) -> tuple[float, ...]:
    found = {option.control: option.values for option in options}
    if name not in found:
        hint = nearest(name, found) if found else _SEE
        raise UsageError("this control cannot be changed now", received=name, next_step=hint)
    return found[name]


def _value(name: str, word: str, values: tuple[float, ...], present: float | None) -> float:
    if word.startswith("x") and _NUMBER.fullmatch(word[1:]):
        if not present:
            raise UsageError("a factor has no meaning here", received=f"{name}={word}", allowed=_listed(values))
        label = f"x{float(word[1:]):.4g}"
        meant = [value for value in values if factor(value, present) == label]
        return meant[0] if len(meant) == 1 else _closest(name, float(word[1:]) * present, word, values)
    if not _NUMBER.fullmatch(word):
        raise UsageError("a value is not a number", received=f"{name}={word}", allowed=_listed(values))
    return _closest(name, float(word), word, values)


def _closest(name: str, number: float, word: str, values: tuple[float, ...]) -> float:
    for meant in (
        [value for value in values if value == number],
        [value for value in values if math.isclose(value, number, rel_tol=_CLOSE)],
        [value for value in values if shown(value) == shown(number)],
    ):
        if len(meant) == 1:
            return meant[0]
    raise UsageError("this value is not executable now", received=f"{name}={word}", allowed=_listed(values), next_step=_SEE)


def _exact_changes(changes: tuple[Change, ...], options: tuple[Options, ...], surface: Surface) -> tuple[Change, ...]:
    names = [change.control for change in changes]
    if len(set(names)) < len(names):
        raise UsageError("a control is changed twice", received=", ".join(names))
    if len(names) > surface.max_controls:
        allowed = f"at most {surface.max_controls}"
        raise UsageError("too many controls are changed at once", received=len(names), allowed=allowed)
    return tuple(
        Change(change.control, _closest(change.control, change.value, shown(change.value), _values(change.control, options)))
        for change in changes
    )


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(map(shown, values))
