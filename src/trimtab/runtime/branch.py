"""A run that repeats another with one answer changed: where the copy for further branches is kept, and other random numbers."""

from __future__ import annotations

import logging
from hashlib import sha256
from typing import Final

from trimtab.runtime.branching import keep_copy
from trimtab.runtime.engine import Engine
from trimtab.runtime.recorded import Listener
from trimtab.runtime.repetition import Repetition
from trimtab.runtime.run_dir import RunDirectory

_LOG: Final = logging.getLogger("trimtab")


class Branch(Listener):
    """Follows a repetition past the decision that is in question.

    Random numbers go on from the branch's seed when that decision is given, and again whenever the run goes back to a state
    from before: otherwise branches of all seeds would be one from there on.

    Args:
        repetition: What is repeated.
        directory: Of this run.
        step: Step that this process goes on from.
    """

    def __init__(self, repetition: Repetition, directory: RunDirectory, step: int) -> None:
        self._repetition = repetition
        self._directory = directory
        self._engine: Engine | None = None
        asked_step = repetition.asked_step
        self._is_past = bool(repetition.origin.seed) and asked_step is not None and step > asked_step

    def follow(self, engine: Engine) -> None:
        """Seed the random numbers of this engine's run."""
        self._engine = engine
        engine.on_restored = self._restored

    def asked(self, asked_step: int) -> None:
        """Keep a copy of the run where further branches begin."""
        target = self._repetition.keep_at
        if asked_step == self._repetition.asked_step and target is not None:
            try:
                keep_copy(self._directory, target)
            except OSError as error:  # they begin at the start then
                _LOG.warning("no copy of the run was kept for further branches: %s", error)

    def given(self, asked_step: int) -> None:
        """Go on from the branch's seed."""
        if asked_step == self._repetition.asked_step and self._repetition.origin.seed:
            self._is_past = True
            self._reseed(asked_step)

    def _restored(self, step: int) -> None:
        if self._is_past:
            self._reseed(step)

    def _reseed(self, step: int) -> None:
        assert self._engine is not None
        origin = self._repetition.origin
        # Of the run, the branch's number and the step alone: the two branches of a pair have the same.
        text = f"{origin.head}:{origin.seed}:{step}"
        self._engine.reseed(int.from_bytes(sha256(text.encode()).digest()[:7], "big"))
