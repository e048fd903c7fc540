"""A loader whose position is known, saved and moved, and whose batch size is changed, while it runs.

Its position, and where a running ``for`` goes after a move, are those of `ResumableBatchSampler`; see there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trimtab.integrations.pytorch.data.order import IndexedDataset
from trimtab.integrations.pytorch.data.sampler import ResumableBatchSampler
from trimtab.integrations.pytorch.untyped import default_collate


class ResumableLoader:
    """Batches of a dataset, epoch after epoch, in an order of items that depends on seed and epoch alone.

    The order is drawn from a generator of its own, so the global RNG is neither used nor needed. Items are fetched
    in the training process; `ResumableDataLoader` fetches them in workers.

    Args:
        dataset: Has ``__len__`` and ``__getitem__``.
        batch_size: Items per batch, >= 1; may be set at any time.
        seed: Of the order.
        shuffle: Whether each epoch has an order of its own; otherwise the dataset's.
        drop_last: Whether items that do not fill a batch at the end of an epoch are left out.
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
        self._dataset = dataset
        self._collate = collate_fn
        self._sampler = ResumableBatchSampler(
            len(dataset), batch_size=batch_size, seed=seed, shuffle=shuffle, drop_last=drop_last
        )

    @property
    def epoch(self) -> int:
        """The epoch of the next batch; the next epoch once a ``for`` has ended."""
        return self._sampler.epoch

    @property
    def batch_size(self) -> int:
        """Items per batch, from the next batch on.

        Raises:
            UsageError: Set an integer >= 1; with ``drop_last`` one that the dataset fills at least once.
        """
        return self._sampler.batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self._sampler.batch_size = value

    @property
    def largest_batch_size(self) -> int | None:
        """The largest size that can be set; None if there is no limit."""
        return self._sampler.largest_batch_size

    def __len__(self) -> int:
        """Return the batches per whole epoch at the present batch size."""
        return len(self._sampler)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches from the present position to the end of its epoch."""
        return self._sampler.each(lambda batch: self._collate([self._dataset[index] for index in batch]))

    def skip(self, count: int) -> None:
        """Pass over the next ``count`` batches at the present batch size, across epochs.

        Raises:
            UsageError: Give a count >= 0.
        """
        self._sampler.skip(count)

    def reseed(self, stream: int) -> None:
        """Go on in another order from the next batch on, as `ResumableBatchSampler.reseed` says."""
        self._sampler.reseed(stream)

    def state_dict(self) -> dict[str, Any]:
        """Return the position, the batch size, and what the order depends on; JSON-ready."""
        return self._sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved position and batch size; a running iteration goes on from there.

        Raises:
            CheckpointError: The state is malformed or of another order; nothing was changed.
        """
        self._sampler.load_state_dict(state)
