"""How fast the run goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import ClassVar

from trimtab.integrations.pytorch.probes.probe import Guard, Measured, check_count
from trimtab.integrations.pytorch.training import Training
from trimtab.telemetry.roles import THROUGHPUT


class ThroughputProbe:
    """Measures ``throughput``: steps per second, or items per second if told how many a step has.

    It is taken from the median time between two steps, so a pause for an evaluation does not count.

    Args:
        every_steps: Steps from one measurement to the next, >= 1.
        items_per_step: Items (examples, tokens) in a step, >= 1.
        clock: Seconds that never go back; for tests.
    """

    name: ClassVar[str] = THROUGHPUT

    def __init__(self, every_steps: int = 10, items_per_step: int = 1, clock: Callable[[], float] = time.perf_counter) -> None:
        self._every_steps = check_count("every_steps", every_steps)
        self._items_per_step = check_count("items_per_step", items_per_step)
        self._clock = clock
        self._last: float | None = None
        self._taken: list[float] = []

    def attach(self, training: Training, guard: Guard) -> None:
        """Begin to measure."""

    def collect(self, step: int) -> Measured:
        """Return the throughput over the last steps, if enough were taken since it was last told."""
        now = self._clock()
        if self._last is not None:
            self._taken.append(now - self._last)
        self._last = now
        if len(self._taken) < self._every_steps:
            return {}
        seconds = median(self._taken)
        self._taken.clear()
        return {self.name: self._items_per_step / seconds} if seconds > 0 else {}

    def close(self) -> None:
        """Forget what was measured."""
        self._taken.clear()
