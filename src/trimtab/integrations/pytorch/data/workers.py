"""A loader with worker processes that knows which batches were handed out.

A DataLoader's workers draw ahead, so the position of its sampler is not that of training. Here the position is kept
apart from what is drawn ahead; whatever moves it drops the batches drawn ahead, and the workers start again from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import torch
from torch.utils.data import DataLoader

from trimtab.errors import UsageError
from trimtab.integrations.pytorch.data.order import IndexedDataset, draw_bits, stream_key
from trimtab.integrations.pytorch.data.sampler import ResumableBatchSampler

_OURS: Final = {
    "batch_sampler": "leave it out: it is made here",
    "sampler": "leave it out: the order depends on seed and epoch",
    "generator": "leave it out: a generator of its own keeps the global RNG out of it",
    "in_order": "leave it out: the position needs the batches in order",
}


class ResumableDataLoader:
    """A torch DataLoader, with workers or not, with the position and the live batch size of `ResumableLoader`.

    A new batch size is that of the next batch, and a position is restored exactly. Either drops what the workers have
    drawn ahead, and without ``persistent_workers=True`` starts new ones. Random numbers that the dataset draws in a
    worker (augmentation) are not rewound: after a rollback the items are the same, their augmentation is not.

    Args:
        dataset: Has ``__len__`` and ``__getitem__``.
        batch_size: Items per batch, >= 1; may be set at any time.
        seed: Of the order, and of the workers.
        shuffle: Whether each epoch has an order of its own; otherwise the dataset's.
        drop_last: Whether items that do not fill a batch at the end of an epoch are left out.
        **options: Further arguments of `torch.utils.data.DataLoader`: num_workers, collate_fn, pin_memory...

    Raises:
        UsageError: The dataset is too small for one batch, or an option is not the user's to choose.
    """

    def __init__(
        self,
        dataset: IndexedDataset,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = True,
        **options: Any,
    ) -> None:
        if taken := sorted(_OURS.keys() & options.keys()):
            raise UsageError("not an option here", received=taken[0], next_step=_OURS[taken[0]])

        def sampler() -> ResumableBatchSampler:
            return ResumableBatchSampler(len(dataset), batch_size=batch_size, seed=seed, shuffle=shuffle, drop_last=drop_last)

        self._seed = seed
        self._position = sampler()
        self._ahead = sampler()
        self._generator = torch.Generator(device="cpu")
        self._loader: DataLoader[Any] = DataLoader(
            cast("Any", dataset),  # a DataLoader declares a Dataset, and takes whatever has its two methods
            batch_sampler=self._ahead,
            generator=self._generator,
            **options,
        )
        self._running: Iterator[Any] | None = None

    @property
    def epoch(self) -> int:
        """The epoch of the next batch; the next epoch once a ``for`` has ended."""
        return self._position.epoch

    @property
    def batch_size(self) -> int:
        """Items per batch, from the next batch on.

        Raises:
            UsageError: Set an integer >= 1; with ``drop_last`` one that the dataset fills at least once.
        """
        return self._position.batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        if value != self._position.batch_size:
            self._position.batch_size = value
            self._running = None

    @property
    def largest_batch_size(self) -> int | None:
        """The largest size that can be set; None if there is no limit."""
        return self._position.largest_batch_size

    def __len__(self) -> int:
        """Return the batches per whole epoch at the present batch size."""
        return len(self._position)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches from the present position to the end of its epoch."""
        yield from self._position.each(lambda _: self._take())
        self._running = None  # it has ended with the epoch

    def skip(self, count: int) -> None:
        """Pass over the next ``count`` batches at the present batch size, across epochs.

        Raises:
            UsageError: Give a count >= 0.
        """
        self._position.skip(count)
        self._running = None

    def reseed(self, stream: int) -> None:
        """Go on in another order from the next batch on, as `ResumableBatchSampler.reseed` says."""
        self._position.reseed(stream)
        self._running = None

    def state_dict(self) -> dict[str, Any]:
        """Return the position, the batch size, and what the order depends on; JSON-ready."""
        return self._position.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved position and batch size; a running iteration goes on from there.

        Raises:
            CheckpointError: The state is malformed or of another order; nothing was changed.
        """
        self._position.load_state_dict(state)
        self._running = None

    def _take(self) -> Any:
        """Return the batch at the position, from workers that started there or have come there since."""
        if self._running is None:
            position = self._position.state_dict()
            self._ahead.load_state_dict(position)
            # The seed of the workers, which a DataLoader would else draw from the global RNG.
            key = stream_key(f"{self._seed}:workers:{position['epoch']}:{position['item']}", position["stream"])
            self._generator.manual_seed(draw_bits(key) >> 1)
            self._running = iter(self._loader)
        try:
            return next(self._running)
        except BaseException:  # the position stays, so the workers must come back to it
            self._running = None
            raise
