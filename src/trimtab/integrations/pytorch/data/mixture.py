"""A loader that mixes sources of data by weights which may change while it runs.

Every item has a number, counted over the whole run. Its source is drawn by a random number that depends on seed and
that number alone, so a changed weight changes later draws only. Within a source every item comes once per pass, in an
order that depends on seed, source and pass. The position is the number of items taken from each source.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from torch import Tensor

from trimtab.errors import CheckpointError, UsageError, nearest
from trimtab.integrations.pytorch.data.order import (
    IndexedDataset,
    check_stream,
    check_whole,
    draw_bits,
    draw_order,
    stream_key,
)
from trimtab.integrations.pytorch.untyped import default_collate


class MixtureLoader:
    """Batches without end, each item from a source drawn by the normalised weights.

    A load or skip acts on the running iteration. Items are fetched in the training process.

    Args:
        datasets: By the source's name; each has ``__len__`` and ``__getitem__``.
        weights: By the source's name, finite and > 0; they need not add up to 1.
        batch_size: Items per batch, >= 1; may be set at any time.
        seed: Of the draws and the orders.
        collate_fn: Makes a batch of a list of items; by default torch's.

    Raises:
        UsageError: A source is empty, or a weight is missing or not > 0.

    Example:
        >>> loader = MixtureLoader({"a": range(9), "b": range(100, 109)}, {"a": 3.0, "b": 1.0}, batch_size=4, seed=0)
        >>> next(iter(loader)).shape
        torch.Size([4])
        >>> loader.items_seen
        4
    """

    def __init__(
        self,
        datasets: Mapping[str, IndexedDataset],
        weights: Mapping[str, float],
        *,
        batch_size: int,
        seed: int,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
    ) -> None:
        if not datasets or datasets.keys() != weights.keys():
            raise UsageError(
                "every source needs a dataset and a weight",
                received=f"datasets {sorted(datasets)}, weights {sorted(weights)}",
            )
        self._datasets = dict(datasets)
        self._sizes = {name: len(dataset) for name, dataset in datasets.items()}
        if empty := sorted(name for name, size in self._sizes.items() if size < 1):
            raise UsageError("a source has no items", received=", ".join(empty), next_step="leave it out")
        self._weights = {name: _check_weight(name, weights[name]) for name in self._datasets}
        self._batch_size = check_whole("batch_size", batch_size)
        self._seed = seed
        self._stream = 0
        self._collate = collate_fn
        self._taken = dict.fromkeys(self._datasets, 0)
        self._orders: dict[str, tuple[int, Tensor]] = {}

    @property
    def batch_size(self) -> int:
        """Items per batch, from the next batch on.

        Raises:
            UsageError: Set an integer >= 1.
        """
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self._batch_size = check_whole("batch_size", value)

    @property
    def weights(self) -> dict[str, float]:
        """The weights by source, before they are normalised."""
        return dict(self._weights)

    def set_weight(self, source: str, value: float) -> None:
        """Set the weight of a source, from the next batch on.

        Raises:
            UsageError: Give a known source, and a finite weight > 0.
        """
        if source not in self._weights:
            raise UsageError("the mixture has no such source", received=source, next_step=nearest(source, self._weights))
        self._weights[source] = _check_weight(source, value)

    @property
    def items_seen(self) -> int:
        """Items handed out or skipped, over all sources."""
        return sum(self._taken.values())

    @property
    def items_seen_by_source(self) -> dict[str, int]:
        """The same by source."""
        return dict(self._taken)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches from the present position on, without end."""
        while True:
            chosen, taken = self._draw(self._batch_size)
            batch = self._collate([self._datasets[name][self._index_of(name, number)] for name, number in chosen])
            self._taken = taken  # before the yield: what is saved in the loop's body is the batch after this one
            yield batch

    def skip(self, count: int) -> None:
        """Pass over the next ``count`` batches at the present batch size and weights.

        Raises:
            UsageError: Give a count >= 0.
        """
        if count < 0:
            raise UsageError("batches cannot be skipped backwards", received=count, allowed=">= 0")
        _, self._taken = self._draw(count * self._batch_size)

    def reseed(self, stream: int) -> None:
        """Draw otherwise from the next batch on: items of a source may come twice or not at all in its present pass.

        Args:
            stream: Which draws; 0 for those of the seed alone. It is part of the position.

        Raises:
            UsageError: Give a whole number >= 0.
        """
        self._stream = check_stream(stream)
        self._orders.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the position, the batch size, the weights, and what the draws depend on; JSON-ready."""
        settings = {"batch_size": self._batch_size, "weights": self.weights, "stream": self._stream}
        return {"taken": self.items_seen_by_source, **settings, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved position, batch size and weights; a running iteration goes on from there.

        Raises:
            CheckpointError: The state is malformed or of another mixture; nothing was changed.
        """
        identity = {key: state.get(key) for key in self._identity()}
        if identity != self._identity():
            raise CheckpointError(
                "the saved position is of another mixture",
                received=repr(identity),
                allowed=repr(self._identity()),
                next_step="use the datasets and seed it was saved with",
            )
        taken = self._by_source(state, "taken")
        if any(type(count) is not int or count < 0 for count in taken.values()):
            raise CheckpointError("the saved position is malformed", received=repr(taken))
        try:
            weights = {name: _check_weight(name, value) for name, value in self._by_source(state, "weights").items()}
            size = check_whole("batch_size", state.get("batch_size"))
            stream = check_stream(state.get("stream", 0))
        except UsageError as error:
            raise CheckpointError("the saved mixture is malformed", received=str(error)) from error
        if stream != self._stream:
            self.reseed(stream)
        self._taken, self._weights, self._batch_size = taken, weights, size

    def _by_source(self, state: Mapping[str, Any], key: str) -> dict[str, Any]:
        saved = cast("dict[str, Any] | None", state.get(key))
        if not isinstance(saved, dict) or saved.keys() != self._sizes.keys():
            raise CheckpointError(f"the saved mixture is malformed: {key}", received=repr(saved))
        return {name: saved[name] for name in self._sizes}

    def _identity(self) -> dict[str, Any]:
        # In order: where a source's share of the draws lies depends on it.
        return {"sources": [[name, size] for name, size in self._sizes.items()], "seed": self._seed}

    def _draw(self, count: int) -> tuple[list[tuple[str, int]], dict[str, int]]:
        """Return the next ``count`` items as pairs of source and number within it, and what is then taken of each."""
        taken = dict(self._taken)
        first = sum(taken.values())
        chosen: list[tuple[str, int]] = []
        total = math.fsum(self._weights.values())
        for number in range(first, first + count):
            left = draw_bits(stream_key(f"{self._seed}:source:{number}", self._stream)) / 2**64 * total
            name = ""
            for name, weight in self._weights.items():  # noqa: B007 - it is used after the loop: the last one takes what rounding leaves over
                left -= weight
                if left < 0:
                    break
            chosen.append((name, taken[name]))
            taken[name] += 1
        return chosen, taken

    def _index_of(self, source: str, number: int) -> int:
        """Return the index of a source's item by its number over all passes."""
        epoch, place = divmod(number, self._sizes[source])
        if source not in self._orders or self._orders[source][0] != epoch:
            self._orders[source] = (
                epoch,
                draw_order(self._sizes[source], stream_key(f"{self._seed}:{source}:{epoch}", self._stream)),
            )
        return int(self._orders[source][1][place])


def _check_weight(source: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise UsageError(f"the weight of {source} is malformed", received=repr(value), allowed="a finite number > 0")
    return float(value)
