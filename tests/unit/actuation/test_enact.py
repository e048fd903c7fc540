"""A recipe is written whole or not at all, and a value that did not stand counts as not written."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trimtab.actuation.binding import ReadBack
from trimtab.actuation.enact import write_recipe
from trimtab.controls.recipe import Recipe
from trimtab.errors import ActuationError


class Held:
    """A binding over a number; ``keep`` says what becomes of a written value."""

    def __init__(self, name: str, value: float, keep: Callable[[float], float] = lambda value: value) -> None:
        self.name, self.value, self._keep = name, value, keep
        self.writes: list[float] = []

    def read(self) -> float:
        return self.value

    def write(self, value: float) -> None:
        self.writes.append(value)
        self.value = self._keep(value)

    def took_effect(self) -> ReadBack | None:
        return None

    def close(self) -> None:
        pass


def held(*bindings: Held) -> dict[str, Held]:
    return {binding.name: binding for binding in bindings}


def refuse(value: float) -> float:
    raise RuntimeError(f"no {value}")


def test_only_what_differs_is_written_unless_the_state_was_restored() -> None:
    bindings = held(Held("a", 1.0), Held("b", 2.0))
    write_recipe(Recipe.of({"a": 1.0, "b": 3.0}), bindings)
    assert (bindings["a"].writes, bindings["b"].writes) == ([], [3.0])
    write_recipe(Recipe.of({"a": 1.0, "b": 3.0}), bindings, after_restore=True)
    assert (bindings["a"].writes, bindings["b"].writes) == ([1.0], [3.0, 3.0])


@pytest.mark.parametrize("keep", [refuse, lambda _: 2.0, lambda value: min(value, 2.5), lambda _: float("nan")])
def test_a_value_that_did_not_stand_puts_the_whole_recipe_back(keep: Callable[[float], float]) -> None:
    first, second = Held("a", 1.0), Held("b", 2.0, keep)
    with pytest.raises(ActuationError, match="b could not be set"):
        write_recipe(Recipe.of({"a": 5.0, "b": 3.0}), held(first, second))
    assert first.value == 1.0


def test_the_rounding_of_a_32_bit_float_stands() -> None:
    rounded = Held("a", 1.0, lambda value: value * (1 + 6e-8))
    write_recipe(Recipe.of({"a": 0.3}), held(rounded))
    assert rounded.writes == [0.3]
