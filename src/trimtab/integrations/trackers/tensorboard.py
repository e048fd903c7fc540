"""TensorBoard: scalars and texts at the run's own steps."""

from __future__ import annotations

from typing import Any

from trimtab.errors import UsageError
from trimtab.runtime.tracking import Told


class TensorBoardTracker:
    """Writes through a ``SummaryWriter``, of `torch.utils.tensorboard` or of `tensorboardX`.

    Args:
        writer: The run's own writer; it is flushed at the end, and never closed.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def track(self, told: Told) -> None:
        """Write it.

        Raises:
            UsageError: The writer was closed: it would begin another file.
        """
        if getattr(self._writer, "all_writers", ()) is None:
            raise UsageError("the SummaryWriter was closed", next_step="close it after the supervisor")
        for name, value in told.values.items():
            self._writer.add_scalar(name, value, told.step)
        if told.text:
            # Four blanks make it a literal block: the text is read as Markdown.
            self._writer.add_text(f"trimtab/{told.subject}", f"    {told.text}", told.step)

    def flush(self) -> None:
        """Bring it to disk."""
        if getattr(self._writer, "all_writers", ()) is not None:
            self._writer.flush()
