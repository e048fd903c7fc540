"""What every setting of an envelope is checked for: its kind and its range. Each message says what is allowed."""

from __future__ import annotations

from trimtab.errors import UsageError


def require_range(what: str, value: object, low: int, high: int) -> None:
    """Refuse what is no whole number within inclusive limits.

    Raises:
        UsageError: Give a number that is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{what} is not a whole number", received=repr(value), allowed=f"a whole number from {low} to {high}")
    if not low <= value <= high:
        raise UsageError(f"{what} is out of range", received=value, allowed=f"{low} to {high}")


def require_number(what: str, value: object, low: int, high: int, *, above_low: bool = False) -> None:
    """Refuse what is no number within limits; the upper one is inclusive, the lower one too unless it must lie above.

    Raises:
        UsageError: Give a number that is allowed.
    """
    allowed = f"> {low}, at most {high}" if above_low else f"{low} to {high}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{what} is not a number", received=repr(value), allowed=f"a number, {allowed}")
    if not low <= value <= high or (above_low and value == low):  # a NaN is not within
        raise UsageError(f"{what} is out of range", received=value, allowed=allowed)


def require_choice(what: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse what is none of some words.

    Raises:
        UsageError: Give one of the words.
    """
    if value not in allowed:
        raise UsageError(f"{what} is unknown", received=value, allowed=f"{', '.join(allowed[:-1])} or {allowed[-1]}")


def require_switch(what: str, value: object) -> None:
    """Refuse what is neither true nor false: the text ``"no"`` would count as true.

    Raises:
        UsageError: Give a boolean.
    """
    if not isinstance(value, bool):
        raise UsageError(f"{what} is wrong", received=repr(value), allowed="true or false")
