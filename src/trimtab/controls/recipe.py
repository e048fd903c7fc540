"""The recipe: the values of all controls at a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """An immutable assignment of values to control names.

    Args:
        values: Pairs of control name and value, sorted by name.
    """

    values: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, values: Mapping[str, float]) -> Recipe:
        """Build a recipe from a mapping; a negative zero becomes zero."""
        return cls(tuple(sorted((name, float(value) + 0.0) for name, value in values.items())))

    def __getitem__(self, name: str) -> float:
        for known, value in self.values:
            if known == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.values)

    def keys(self) -> tuple[str, ...]:
        """Return the names, sorted: with them ``dict(recipe)`` is the recipe as a dict."""
        return tuple(name for name, _ in self.values)

    def __contains__(self, name: str) -> bool:
        return any(known == name for known, _ in self.values)

    def replace(self, changes: Iterable[tuple[str, float]]) -> Recipe:
        """Return a recipe in which each named control has its new value.

        Raises:
            KeyError: Only controls of this recipe can be replaced.
        """
        merged = dict(self.values)
        for name, value in changes:
            if name not in merged:
                raise KeyError(name)
            merged[name] = value
        return Recipe.of(merged)

    def difference(self, other: Recipe) -> tuple[tuple[str, float], ...]:
        """Return the pairs of this recipe whose value is not the same in ``other``."""
        known = dict(other.values)
        return tuple((name, value) for name, value in self.values if known.get(name) != value)
