"""Time, injected: the runtime is the only place that reads a clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def wall_seconds(self) -> float:
        """Return seconds since 1970, for the record only."""
        ...

    def monotonic_seconds(self) -> float:
        """Return seconds that never go back, for deadlines."""
        ...


class SystemClock:
    """The machine's clock."""

    def wall_seconds(self) -> float:
        """Return seconds since 1970."""
        return time.time()

    def monotonic_seconds(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()
