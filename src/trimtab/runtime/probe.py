"""How an integration measures signals by itself, so that the training loop need not report them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Probes(Protocol):
    """All probes of a run. A fault inside one switches that one off and goes no further."""

    def collect(self, step: int) -> Mapping[str, object]:
        """Return what was measured since the last call, for ``step``: numbers or tensors with one element."""
        ...

    def faults(self) -> Sequence[str]:
        """Return which probes were switched off since the last call, and why."""
        ...

    def close(self) -> None:
        """Let go of the run."""
        ...
