"""A batch sampler whose position is known, saved and moved, and whose batch size is changed, while it runs.

The position is (epoch, item): the first item of the next batch in the epoch's order. It is counted in items, so that
it survives a change of batch size: no item comes twice, none is lost. Where a running ``for`` goes after a move:

- `load_state_dict` and `skip` act on the running iteration: its next batch is the one at the new position.
- A ``for`` ends after the last batch of whichever epoch the position is then in. Restored to an earlier epoch, it goes
  on from there and ends with that earlier epoch; later epochs come with the following ``for`` loops. So count epochs
  with ``while loader.epoch < num_epochs: for batch in loader: ...``, not with ``range(num_epochs)``.
- A ``for`` left by ``break`` is continued by the next one. Two iterations at the same time share one position.
- Which batch is the last of an epoch is decided when it is drawn, by the batch size then: with ``drop_last``, items
  that no longer fill a batch of that size are left out, otherwise they are a smaller last batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Sampler

from trimtab.errors import CheckpointError, UsageError
from trimtab.integrations.pytorch.data.order import check_stream, check_whole, draw_order, stream_key
from trimtab.integrations.pytorch.untyped import listed

_T = TypeVar("_T")


class ResumableBatchSampler(Sampler[list[int]]):
    """Batches of indices, epoch after epoch, in an order of items that depends on seed and epoch alone.

    For ``DataLoader(dataset, batch_sampler=sampler)``. It lives in the training process, so a new ``batch_size``
    reaches the workers, but they draw ahead: with ``num_workers`` > 0 it takes effect ``num_workers * prefetch_factor``
    batches later, and `state_dict` is that many batches ahead of training. `ResumableDataLoader` has neither fault.

    Args:
        num_items: Length of the dataset, >= 1.
        batch_size: Items per batch, >= 1; may be set at any time.
        seed: Of the order.
        shuffle: Whether each epoch has an order of its own; otherwise the dataset's.
        drop_last: Whether items that do not fill a batch at the end of an epoch are left out.

    Raises:
        UsageError: The dataset is too small for one batch, or a number is malformed.

    Example:
        >>> sampler = ResumableBatchSampler(6, batch_size=2, seed=0, shuffle=False)
        >>> batches = iter(sampler)
        >>> next(batches)
        [0, 1]
        >>> sampler.batch_size = 4
        >>> list(batches)
        [[2, 3, 4, 5]]
    """

    def __init__(self, num_items: int, *, batch_size: int, seed: int, shuffle: bool = True, drop_last: bool = True) -> None:
        super().__init__()
        self._num_items = check_whole("num_items", num_items)
        self._seed = seed
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._stream = 0
        self._epoch = 0
        self._item = 0
        self._order: tuple[int, Tensor] | None = None
        self._batch_size = self._check_size(batch_size)

    @property
    def epoch(self) -> int:
        """The epoch of the next batch; the next epoch once a ``for`` has ended."""
        return self._epoch

    @property
    def item(self) -> int:
        """The items of the epoch that are behind the position."""
        return self._item

    @property
    def drop_last(self) -> bool:
        """Whether items that do not fill a batch at the end of an epoch are left out."""
        return self._drop_last

    @property
    def batch_size(self) -> int:
        """Items per batch, from the next batch that is drawn on.

        Raises:
            UsageError: Set an integer >= 1; with ``drop_last`` one that the dataset fills at least once.
        """
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self._batch_size = self._check_size(value)

    @property
    def largest_batch_size(self) -> int | None:
        """The largest size that can be set; None if there is no limit."""
        return self._num_items if self._drop_last else None

    def __len__(self) -> int:
        """Return the batches per whole epoch at the present batch size."""
        return self._batches_from(0)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches from the present position to the end of its epoch."""
        return self.each(list)

    def each(self, make: Callable[[list[int]], _T]) -> Iterator[_T]:
        """Yield ``make(batch)`` from the present position to the end of its epoch.

        The position is moved before the yield: what is saved in the loop's body is the batch after the one yielded. If
        ``make`` raises, it stays.
        """
        if not self._batches_from(self._item):
            self._epoch, self._item = self._epoch + 1, 0
        while self._batches_from(self._item):
            made = make(self._present())
            self.skip(1)
            yield made
        self._epoch, self._item = self._epoch + 1, 0

    def skip(self, count: int) -> None:
        """Pass over the next ``count`` batches at the present batch size, across epochs.

        Raises:
            UsageError: Give a count >= 0.
        """
        if count < 0:
            raise UsageError("batches cannot be skipped backwards", received=count, allowed=">= 0")
        if count > (left := self._batches_from(self._item)):
            # After a whole epoch the position is its end, not the next one's start: the running `for` ends there.
            epochs, batches = divmod(count - left - 1, len(self))
            self._epoch, self._item, count = self._epoch + epochs + 1, 0, batches + 1
        self._item = min(self._item + count * self._batch_size, self._num_items)

    def reseed(self, stream: int) -> None:
        """Go on in another order from the next batch on: items of this epoch may come twice or not at all.

        Args:
            stream: Which order; 0 for that of the seed alone. It is part of the position.

        Raises:
            UsageError: Give a whole number >= 0.
        """
        self._stream = check_stream(stream)
        self._order = None

    def state_dict(self) -> dict[str, Any]:
        """Return the position, the batch size, and what the order depends on; JSON-ready."""
        position = {"epoch": self._epoch, "item": self._item, "stream": self._stream}
        return {**position, "batch_size": self._batch_size, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved position and batch size; a running iteration goes on from there.

        Raises:
            CheckpointError: The state is malformed or of another order; nothing was changed.
        """
        identity = {key: state.get(key) for key in self._identity()}
        if identity != self._identity():
            raise CheckpointError(
                "the saved position is of a loader with another order",
                received=repr(identity),
                allowed=repr(self._identity()),
                next_step="use the dataset and seed it was saved with",
            )
        epoch, item = position = (state.get("epoch"), state.get("item"))
        if type(epoch) is not int or type(item) is not int or epoch < 0 or not 0 <= item <= self._num_items:
            raise CheckpointError("the saved position is malformed", received=repr(position))
        try:
            size = self._check_size(state.get("batch_size"))
        except UsageError as error:
            raise CheckpointError("the saved batch size is malformed", received=str(error)) from error
        try:
            stream = check_stream(state.get("stream", 0))
        except UsageError as error:
            raise CheckpointError("the saved order is malformed", received=str(error)) from error
        if stream != self._stream:
            self.reseed(stream)
        self._epoch, self._item, self._batch_size = epoch, item, size

    def _identity(self) -> dict[str, Any]:
        return {
            "num_items": self._num_items,
            "seed": self._seed,
            "shuffle": self._shuffle,
            "drop_last": self._drop_last,
        }

    def _check_size(self, value: object) -> int:
        size = check_whole("batch_size", value)
        if self._drop_last and size > self._num_items:
            raise UsageError(
                "the dataset is too small for one batch",
                received=f"{self._num_items} items, batch_size={size}",
                next_step="use a smaller batch_size, or drop_last=False",
            )
        return size

    def _batches_from(self, item: int) -> int:
        whole, rest = divmod(self._num_items - item, self._batch_size)
        return whole + (1 if rest and not self._drop_last else 0)

    def _present(self) -> list[int]:
        """Return the batch at the position."""
        if self._order is None or self._order[0] != self._epoch:
            key = stream_key(f"{self._seed}:{self._epoch}", self._stream)
            drawn = draw_order(self._num_items, key) if self._shuffle else None
            self._order = (self._epoch, torch.arange(self._num_items, device="cpu") if drawn is None else drawn)
        chosen = self._order[1][self._item : self._item + self._batch_size]
        return listed(chosen)
