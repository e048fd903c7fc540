"""A loader whose position is known, saved and moved while it runs.

The position is (epoch, batch index): the next batch to come. Where a running ``for`` goes after a move:

- `load_state_dict` and `skip` act on the running iteration: its next batch is the one at the new position.
- A ``for`` ends after the last batch of whichever epoch the position is then in. Restored to an earlier epoch, it goes
  on from there and ends with that earlier epoch; later epochs come with the following ``for`` loops. So count epochs
  with ``while loader.epoch < num_epochs: for batch in loader: ...``, not with ``range(num_epochs)``.
- A ``for`` left by ``break`` is continued by the next one. Two iterations at the same time share one position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import default_collate  # pyright: ignore[reportUnknownVariableType]  # untyped in torch

from trimtab.errors import CheckpointError, UsageError


class IndexedDataset(Protocol):
    """A dataset of known length whose items are found by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class ResumableLoader:
    """Batches of a dataset, epoch after epoch, in an order that depends on seed and epoch alone.

    The order is drawn from a generator of its own, so the global RNG is neither used nor needed. Items are fetched
    in the training process.

    Args:
        dataset: Has ``__len__`` and ``__getitem__``.
        batch_size: Items per batch, >= 1.
        seed: Of the order.
        shuffle: Whether each epoch has an order of its own; otherwise the dataset's.
        drop_last: Whether an incomplete last batch is left out.
        collate_fn: Makes a batch of a list of items; by default torch's.

    Raises:
        UsageError: The dataset is too small for one batch, or batch_size is not >= 1.

    Example:
        >>> loader = ResumableLoader(range(4), batch_size=2, seed=0, shuffle=False)
        >>> [batch.tolist() for batch in loader]
        [[0, 1], [2, 3]]
    """

    def __init__(
        self,
        dataset: IndexedDataset,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = True,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise UsageError("batch_size is malformed", received=batch_size, allowed="an integer >= 1")
        self._dataset = dataset
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._collate = collate_fn
        self._epoch = 0
        self._index = 0
        self._order: tuple[int, Tensor] | None = None
        if len(self) == 0:
            raise UsageError(
                "the dataset is too small for one batch",
                received=f"{len(dataset)} items, batch_size={batch_size}",
                next_step="use a smaller batch_size, or drop_last=False",
            )

    @property
    def epoch(self) -> int:
        """The epoch of the next batch; the next epoch once a ``for`` has ended."""
        return self._epoch

    def __len__(self) -> int:
        """Return the batches per epoch."""
        whole, rest = divmod(len(self._dataset), self._batch_size)
        return whole + (1 if rest and not self._drop_last else 0)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches from the present position to the end of its epoch."""
        if self._index >= len(self):
            self._epoch, self._index = self._epoch + 1, 0
        while self._index < len(self):
            batch = self._fetch()
            self._index += 1  # before the yield: what is saved in the loop's body is the batch after this one
            yield batch
        self._epoch, self._index = self._epoch + 1, 0

    def skip(self, count: int) -> None:
        """Pass over the next ``count`` batches, across epochs.

        Raises:
            UsageError: Give a count >= 0.
        """
        if count < 0:
            raise UsageError("batches cannot be skipped backwards", received=count, allowed=">= 0")
        if count:
            # After a whole epoch the position is its end, not the next one's start: the running `for` ends there.
            epochs, index = divmod(self._index + count - 1, len(self))
            self._epoch, self._index = self._epoch + epochs, index + 1

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and what the order depends on; JSON-ready."""
        return {"epoch": self._epoch, "index": self._index, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Move to a saved position; a running iteration goes on from there.

        Raises:
            CheckpointError: The state is malformed or of another order; the position is unchanged.
        """
        position = (state.get("epoch"), state.get("index"))
        identity = {key: state.get(key) for key in self._identity()}
        if identity != self._identity():
            raise CheckpointError(
                "the saved position is of a loader with another order",
                received=repr(identity),
                allowed=repr(self._identity()),
                next_step="use the dataset, batch_size and seed it was saved with",
            )
        epoch, index = position
        if type(epoch) is not int or type(index) is not int or epoch < 0 or not 0 <= index <= len(self):
            raise CheckpointError("the saved position is malformed", received=repr(position))
        self._epoch, self._index = epoch, index

    def _identity(self) -> dict[str, Any]:
        return {
            "num_items": len(self._dataset),
            "batch_size": self._batch_size,
            "seed": self._seed,
            "shuffle": self._shuffle,
            "drop_last": self._drop_last,
        }

    def _fetch(self) -> Any:
        start = self._index * self._batch_size
        chosen = self._order_of(self._epoch)[start : start + self._batch_size]
        return self._collate([self._dataset[int(index)] for index in chosen])

    def _order_of(self, epoch: int) -> Tensor:
        """Return the items' order in an epoch; shape (items,)."""
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self._draw(epoch))
        return self._order[1]

    def _draw(self, epoch: int) -> Tensor:
        if not self._shuffle:
            return torch.arange(len(self._dataset))
        # A hash, not seed + epoch: epoch 1 of seed 0 must not be epoch 0 of seed 1.
        digest = hashlib.sha256(f"{self._seed}:{epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return torch.randperm(len(self._dataset), generator=generator)
