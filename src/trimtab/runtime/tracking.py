"""Tracking: tells the run's own tracker what was decided, and never from the training thread.

Rules:
1. `tell` puts a record into a bounded queue and returns; it neither waits nor raises. A thread of its own turns the
   records into `Told` values and gives them to the tracker.
2. What does not fit into the queue is lost, counted, and said once. A tracker that raises is said once and left alone from
   then on. A tracker that hangs keeps its thread, and nobody else.
3. Nothing here changes the run, its random numbers or its ledger. A process that was forked off the run tells nothing.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Full, Queue
from typing import Final, Literal, Protocol

from trimtab.controls.recipe import Recipe
from trimtab.decision.action import checkpoint_of, describe
from trimtab.ledger.record import (
    SUPERSEDED,
    ActionApplied,
    ActionFailed,
    ActionIntended,
    EvaluationRecorded,
    HarmFound,
    InterventionMeasured,
    ManagerFailed,
    ProblemNoticed,
    ReadBackRecorded,
    Record,
    RunEnded,
    RunResumed,
    RunStarted,
    SymptomObserved,
    VerdictGiven,
)

LOG: Final = logging.getLogger("trimtab")
MOST_WAITING: Final = 1000
CLOSE_WITHIN_SECONDS: Final = 2.0
MOST_TEXT: Final = 500

Subject = Literal["run", "recipe", "symptom", "verdict", "intervention", "outcome", "problem"]

_TOLD: Final = (
    RunStarted,
    RunResumed,
    EvaluationRecorded,
    SymptomObserved,
    ManagerFailed,
    VerdictGiven,
    ActionIntended,
    ActionApplied,
    ActionFailed,
    ReadBackRecorded,
    InterventionMeasured,
    ProblemNoticed,
    RunEnded,
)


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that a tracker is told.

    Args:
        sequence: Its number, from 1: rises where steps may repeat.
        step: Step after which it happened.
        subject: What it is about.
        text: What happened, in one line; empty where there are values only.
        values: Finite numbers by name: ``trimtab/recipe/NAME``, and counts of what has happened so far.
        is_warning: Whether it calls for attention.
    """

    sequence: int
    step: int
    subject: Subject
    text: str
    values: Mapping[str, float]
    is_warning: bool = False


class Tracker(Protocol):
    """Keeps the curves of a run; anything with this method can be passed as ``supervise(tracker=...)``."""

    def track(self, told: Told) -> None:
        """Take in what happened; called in a thread of its own, one call at a time, the oldest first.

        Whatever it raises switches the tracker off. Where it has a method ``flush``, that is called at the end of the run.
        """
        ...


class Tracking:
    """Tells trackers what is in the ledger, each in a thread of its own.

    Args:
        trackers: The run's trackers; none is fine.
        most_waiting: Most records that wait for a tracker, >= 1.
    """

    def __init__(self, trackers: Iterable[Tracker] = (), most_waiting: int = MOST_WAITING) -> None:
        self._lines = tuple(_Line(tracker, most_waiting) for tracker in trackers)

    def tell(self, record: Record, recipe: Recipe) -> None:
        """Tell of a record that is in the ledger; returns at once and never raises.

        Args:
            record: The record.
            recipe: The recipe in force after it.
        """
        if self._lines and isinstance(record, _TOLD):
            for line in self._lines:
                line.put(record, recipe)

    def close(self, within_seconds: float = CLOSE_WITHIN_SECONDS) -> None:
        """Send what waits, for so long at most; calling it again does nothing."""
        deadline = time.monotonic() + within_seconds
        for line in self._lines:
            line.end()
        for line in self._lines:
            line.join(max(0.0, deadline - time.monotonic()))


class _Line:
    """The queue to one tracker, and the thread at its other end."""

    def __init__(self, tracker: Tracker, most_waiting: int) -> None:
        self._tracker = tracker
        self._name = type(tracker).__name__
        self._queue: Queue[tuple[Record, Recipe] | None] = Queue(most_waiting)
        self._process = os.getpid()
        self._thread: threading.Thread | None = None
        self._is_over = False
        self._num_lost = 0

    def put(self, record: Record, recipe: Recipe) -> None:
        if self._is_over or os.getpid() != self._process:
            return
        try:
            self._queue.put_nowait((record, recipe))
        except Full:
            self._num_lost += 1
            if self._num_lost == 1:
                LOG.warning("step %d: %s is slower than what it is told; some of it is left out", record.step, self._name)
        if self._thread is None:
            self._begin()

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._work, name=f"trimtab-{self._name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter ends
            self._thread, self._is_over = None, True
            LOG.warning("%s is told nothing: %s", self._name, error)

    def end(self) -> None:
        """Let the thread end when it has told all that waits; it looks at the flag where the queue is full."""
        self._is_over = True
        if os.getpid() == self._process:  # a fork may have caught the queue while it was locked
            with suppress(Full):
                self._queue.put_nowait(None)

    def join(self, within_seconds: float) -> None:
        thread, self._thread = self._thread, None
        if thread is None or os.getpid() != self._process:
            return
        thread.join(within_seconds)
        if thread.is_alive():
            LOG.warning("%s did not take in everything within %.3g s", self._name, within_seconds)
        elif self._num_lost:
            LOG.warning("%s was not told of %d records: it was too slow", self._name, self._num_lost)

    def _work(self) -> None:
        teller = _Teller()
        try:
            while (item := self._next()) is not None:
                for told in teller.told(*item):
                    self._tracker.track(told)
            flush = getattr(self._tracker, "flush", None)
            if flush is not None:
                flush()
        except BaseException as error:  # noqa: BLE001 - whatever it is, SystemExit too: the run goes on without its tracker
            self._is_over = True
            LOG.warning("%s is told nothing more: %s: %.300s", self._name, type(error).__name__, error)

    def _next(self) -> tuple[Record, Recipe] | None:
        if self._is_over and self._queue.empty():
            return None
        return self._queue.get()


class _Teller:
    """Turns records into what a tracker is told; remembers what the words need."""

    def __init__(self) -> None:
        self._sequence = 0
        self._counts: dict[str, int] = {}
        self._intended: ActionIntended | None = None
        self._recipe: Recipe | None = None
        self._recipe_step = 0

    def told(self, record: Record, recipe: Recipe) -> Iterator[Told]:
        match record:
            case RunStarted():
                words = (
                    f"{record.run}: {record.manager} manages {', '.join(recipe) or 'nothing'}, to {record.envelope.objective}"
                )
                yield self._tell(record.step, "run", words, self._recipe_now(record.step, recipe))
            case RunResumed():
                yield self._tell(record.step, "run", f"resumed at step {record.step}", self._recipe_now(record.step, recipe))
            case EvaluationRecorded():
                yield self._tell(record.step, "recipe", "", self._recipe_now(record.step, recipe))
            case RunEnded():
                yield self._tell(record.step, "run", f"ended: {record.reason}", self._recipe_now(record.step, recipe))
            case ActionIntended():
                self._intended = record
            case ActionApplied() | ActionFailed():
                yield from self._enacted(record, recipe)
            case _:
                yield from self._noted(record)

    def _enacted(self, record: ActionApplied | ActionFailed, recipe: Recipe) -> Iterator[Told]:
        before = self._recipe
        if before is not None and before != recipe and record.step - 1 > self._recipe_step:
            # Otherwise a chart draws the change as a slope from the last evaluation on.
            yield self._tell(record.step - 1, "recipe", "", self._recipe_now(record.step - 1, before))
        intended, values = self._intended, self._recipe_now(record.step, recipe)
        is_known = intended is not None and intended.intervention == record.intervention
        action = f"{intended.source}: {describe(intended.action)}" if is_known and intended else "an action"
        if isinstance(record, ActionFailed):
            words = f"intervention {record.intervention} failed: {action}: {record.problem}"
            yield self._tell(record.step, "problem", words, values | self._count("failed"), is_warning=True)
            return
        counts = self._count("interventions")
        if is_known and intended and checkpoint_of(intended.action) is not None:
            counts |= self._count("rollbacks")
        why = f" ({intended.reason})" if is_known and intended else ""
        by_itself = is_known and intended is not None and intended.source in ("reflex", "guard")
        words = f"intervention {record.intervention}: {action}{why}"
        yield self._tell(record.step, "intervention", words, values | counts, is_warning=by_itself)

    def _noted(self, record: Record) -> Iterator[Told]:
        match record:
            case SymptomObserved():
                symptom = record.symptom
                evidence = ", ".join(f"{item.name} {item.value:.5g}" for item in symptom.evidence)
                words = f"{symptom.name} ({symptom.severity}) in {symptom.signal}: {evidence}"
                counts = self._count(f"symptoms/{symptom.name}")
                yield self._tell(record.step, "symptom", words, counts, is_warning=symptom.severity == "critical")
            case VerdictGiven():
                against = "; ".join(f"{reason.constraint}: {reason.detail}" for reason in record.reasons)
                verdict = "accepted" if record.accepted else f"rejected: {against}"
                words = f"{record.source}: {describe(record.action)}: {verdict}"
                yield self._tell(record.step, "verdict", words, self._count("accepted" if record.accepted else "rejected"))
            case HarmFound():
                words = f"intervention {record.intervention} did harm: gain {record.gain:+.4g}, expected {record.expected:+.4g}"
                yield self._tell(record.step, "outcome", words, {}, is_warning=True)
            case InterventionMeasured():
                words = f"intervention {record.intervention}: objective {record.objective_after:.6g}"
                words += "" if record.gain is None else f", gain {record.gain:+.4g}"
                words += "" if record.met is None else ", as expected" if record.met else ", not as expected"
                values = {} if record.gain is None else {"trimtab/gain": record.gain}
                yield self._tell(record.step, "outcome", words, values)
            case ReadBackRecorded():
                wrong = [result for result in record.results if not result.holds]
                if wrong:
                    found = ", ".join(f"{one.control} is {one.observed:.6g}, not {one.expected:.6g}" for one in wrong)
                    words = f"intervention {record.intervention} did not take effect: {found}"
                    yield self._tell(record.step, "problem", words, {}, is_warning=True)
            case ManagerFailed() if record.problem != SUPERSEDED:
                words = f"the manager failed: {record.problem}: {record.detail}"
                yield self._tell(record.step, "problem", words, self._count("manager_failures"))
            case ProblemNoticed():
                yield self._tell(record.step, "problem", f"{record.problem}: {record.detail}", {}, is_warning=True)
            case _:
                pass

    def _recipe_now(self, step: int, recipe: Recipe) -> dict[str, float]:
        self._recipe, self._recipe_step = recipe, step
        return {f"trimtab/recipe/{name}": value for name, value in recipe.values}

    def _count(self, what: str) -> dict[str, float]:
        self._counts[what] = self._counts.get(what, 0) + 1
        return {f"trimtab/{what}": float(self._counts[what])}

    def _tell(self, step: int, subject: Subject, words: str, values: Mapping[str, float], *, is_warning: bool = False) -> Told:
        self._sequence += 1
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        return Told(self._sequence, step, subject, _one_line(words), known, is_warning)


def _one_line(words: str) -> str:
    """Return text that can only be read, on one line: names and reasons may hold anything."""
    shown = "".join(c if c.isprintable() else " " for c in words[: 2 * MOST_TEXT])
    shown = " ".join(shown.split())
    return shown if len(shown) <= MOST_TEXT else shown[: MOST_TEXT - 1] + "…"
