"""The telemetry of a run: all signals, taken in step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from trimtab.errors import UsageError
from trimtab.telemetry.signal import MAX_SIGNALS, Kind, check_signal_name
from trimtab.telemetry.snapshot import Snapshot, summarize
from trimtab.telemetry.window import Window

_MAX_REWINDS: Final = 32  # a window's points seldom span more


class Telemetry:
    """All signals of a run, in constant memory.

    A name is checked when it is first seen; taking in a known signal costs no check.
    """

    def __init__(self) -> None:
        self._windows: dict[str, Window] = {}
        self._kinds: dict[str, Kind] = {}
        self._of_kind: dict[Kind, dict[str, Window]] = {"step": {}, "evaluation": {}}
        self._num_rewinds = 0
        self._rewinds: deque[int] = deque(maxlen=_MAX_REWINDS)

    @property
    def num_rewinds(self) -> int:
        """How often it went back to an earlier state."""
        return self._num_rewinds

    @property
    def rewinds(self) -> tuple[int, ...]:
        """The steps after which it went back, the newest last, at most 32; only those behind its present state.

        The count of steps goes on when the state goes back: between two values with a rewind between them, steps were undone.
        """
        return tuple(self._rewinds)

    def observe(self, step: int, values: Mapping[str, float], kind: Kind = "step") -> None:
        """Take in values measured after ``step``.

        Raises:
            UsageError: Rename the signal that the message names; the other values were taken in.
        """
        refused: UsageError | None = None
        windows = self._of_kind[kind]
        for name, value in values.items():
            window = windows.get(name)
            if window is None:
                try:
                    window = self._register(name, kind)
                except UsageError as error:
                    refused = error
                    continue
            window.add(step, value)
        if refused is not None:
            raise refused

    def _register(self, name: str, kind: Kind) -> Window:
        if name in self._kinds:
            raise _mixed(name, self._kinds[name])
        check_signal_name(name)
        if len(self._windows) >= MAX_SIGNALS:
            raise UsageError("too many signals", received=name, allowed=f"{MAX_SIGNALS} names", next_step="log fewer names")
        self._kinds[name] = kind
        self._windows[name] = self._of_kind[kind][name] = Window()
        return self._windows[name]

    def kind(self, name: str) -> Kind | None:
        """Return whether the signal is measured every step or at evaluations; None if it was never seen."""
        return self._kinds.get(name)

    def window(self, name: str) -> Window | None:
        """Return the signal's window, or None if it was never seen."""
        return self._windows.get(name)

    def names(self, kind: Kind | None = None) -> tuple[str, ...]:
        """Return the names seen so far, sorted; of one kind, or of all."""
        return tuple(sorted(name for name, known in self._kinds.items() if kind is None or known == kind))

    def snapshot(self, step: int) -> Snapshot:
        """Return the frozen view after ``step``."""
        summaries = (summarize(name, self._kinds[name], self._windows[name], step) for name in self.names())
        return Snapshot(step, tuple(summary for summary in summaries if summary is not None))

    def rebase(self) -> None:
        """Start the running averages of the step signals over, because the recipe changed."""
        for window in self._of_kind["step"].values():
            window.rebase()

    def state(self) -> dict[str, Any]:
        """Return everything as JSON-ready values, for a checkpoint."""
        signals = {name: {"kind": self._kinds[name], "window": w.state()} for name, w in self._windows.items()}
        return {"signals": signals, "rewinds": list(self._rewinds)}

    def load_state(self, state: Mapping[str, Any], step: int | None) -> None:
        """Go back, after ``step``, to what ``state`` returned; signals first seen since then start afresh.

        Without a step nothing was undone: another process goes on from there.
        """
        signals: Mapping[str, Any] = state["signals"]
        behind: Iterable[int] = state["rewinds"]
        self._windows = {name: Window.from_state(entry["window"]) for name, entry in signals.items()}
        self._kinds = {name: entry["kind"] for name, entry in signals.items()}
        self._rewinds = deque(behind if step is None else (*behind, step), maxlen=_MAX_REWINDS)
        for kind, windows in self._of_kind.items():
            windows.clear()
            windows.update((name, window) for name, window in self._windows.items() if self._kinds[name] == kind)
        self._num_rewinds += step is not None


def _mixed(name: str, known: Kind) -> UsageError:
    return UsageError(
        f"the signal {name!r} is reported both every step and at evaluations",
        received=f"known as a signal of every {known}",
        next_step=f"give one of them another name, for example eval/{name}",
    )
