"""Forks: states that a trial keeps in memory, each with what was measured until then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.actuation.binding import RateDecay, StateStore
from trimtab.controller.effect import LOOK, NO_ACTION
from trimtab.errors import CheckpointError
from trimtab.telemetry.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class _Fork:
    state: object
    telemetry: dict[str, Any]


class Forks:
    """The kept states of the trial under way.

    Args:
        store: The run's state.
        telemetry: Goes back with it.
        decay: Lets the rate of an arm decay; None where no trial can be.
    """

    def __init__(self, store: StateStore, telemetry: Telemetry, decay: RateDecay | None) -> None:
        self._store = store
        self._telemetry = telemetry
        self._decay = decay
        self._kept: dict[str, _Fork] = {}

    def keep(self, name: str) -> None:
        """Keep the present state.

        Raises:
            CheckpointError: It cannot be read.
        """
        self._kept[name] = _Fork(self._store.keep(), self._telemetry.state())

    def bring_back(self, name: str, *, for_the_last_time: bool = False) -> dict[str, Any]:
        """Restore a kept state, and give it up if it is for the last time.

        Returns:
            What was measured until then, under ``telemetry``.

        Raises:
            CheckpointError: The state is as before.
        """
        if name not in self._kept:
            raise CheckpointError("a state that a trial needs was never kept", received=name)
        fork = self._kept[name]
        self._store.bring_back(fork.state)
        self.decay(1.0)
        if for_the_last_time:
            del self._kept[name]
        return {"telemetry": fork.telemetry}

    def leave(self) -> bool:
        """Bring back the run's own course out of whatever arm, and give up all that is kept; return whether it was left.

        Raises:
            CheckpointError: The state is as before.
        """
        own = next((name for name in (NO_ACTION, LOOK) if name in self._kept), None)
        try:
            if own is not None:
                self.bring_back(own)
        finally:
            self.forget()
        return own is not None

    def decay(self, factor: float) -> None:
        """Multiply the rate of the next steps; 1 leaves it alone."""
        if self._decay is not None:
            self._decay.set(factor)

    def forget(self) -> None:
        """Give up all that is kept: the trial is over."""
        self._kept.clear()
        self.decay(1.0)
