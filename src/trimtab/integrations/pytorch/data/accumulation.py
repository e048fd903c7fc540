"""Gradient accumulation whose length may change, and changes only between optimizer steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from trimtab.errors import CheckpointError, UsageError
from trimtab.integrations.pytorch.data.order import check_whole


class GradientAccumulation:
    """The batches of a loader in lists, one list per optimizer step.

    Use it so, for a mean over all items of a step::

        for batches in accumulation:
            for batch in batches:
                (loss(batch) / len(batches)).backward()
            optimizer.step()
            optimizer.zero_grad()

    A new ``num_batches`` is that of the next list, so no step is half one and half the other. At the end of an epoch
    the list is shorter; divided by its own length, its mean gradient is of the same size as that of the others. The
    batches of a list are in memory together, so move them to the device one by one.

    It has ``state_dict`` and ``load_state_dict`` if the loader has them, and ``skip`` if the loader has it, so it can
    take the loader's place in `trimtab.supervise`. ``skip(count)`` passes over ``count * num_batches`` batches of the
    loader, also across epochs.

    Args:
        loader: The loader.
        num_batches: Batches per optimizer step, >= 1; may be set between steps.

    Raises:
        UsageError: num_batches is not a whole number >= 1.

    Example:
        >>> accumulation = GradientAccumulation(["a", "b", "c"], num_batches=2)
        >>> list(accumulation)
        [['a', 'b'], ['c']]
    """

    # Set only where the loader has them: who asks whether this can go back must learn what the loader can do.
    state_dict: Callable[[], dict[str, Any]]
    load_state_dict: Callable[[Mapping[str, Any]], None]
    skip: Callable[[int], None]

    def __init__(self, loader: Iterable[Any], num_batches: int) -> None:
        self._loader: Any = loader
        self._num_batches = check_whole("num_batches", num_batches)
        if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
            self.state_dict, self.load_state_dict = self._state, self._load_state
        if hasattr(loader, "skip"):
            self.skip = self._skip

    @property
    def loader(self) -> Any:
        """The loader inside."""
        return self._loader

    @property
    def num_batches(self) -> int:
        """Batches per optimizer step, from the next list on.

        Raises:
            UsageError: Set an integer >= 1.
        """
        return self._num_batches

    @num_batches.setter
    def num_batches(self, value: int) -> None:
        self._num_batches = check_whole("num_batches", value)

    def __len__(self) -> int:
        """Return the lists per whole epoch at the present number of batches and batch size."""
        whole, rest = divmod(len(self._loader), self._num_batches)
        return whole + (1 if rest else 0)

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield lists of batches to the end of the loader's epoch."""
        batches: list[Any] = []
        for batch in self._loader:
            batches.append(batch)
            if len(batches) >= self._num_batches:
                yield batches
                batches = []
        if batches:
            yield batches

    def _skip(self, count: int) -> None:
        if count < 0:
            raise UsageError("lists of batches cannot be skipped backwards", received=count, allowed=">= 0")
        self._loader.skip(count * self._num_batches)

    def _state(self) -> dict[str, Any]:
        return {"num_batches": self._num_batches, "loader": self._loader.state_dict()}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        try:
            num_batches = check_whole("num_batches", state.get("num_batches"))
        except UsageError as error:
            raise CheckpointError("the saved number of batches is malformed", received=str(error)) from error
        self._loader.load_state_dict(state.get("loader"))
        self._num_batches = num_batches
