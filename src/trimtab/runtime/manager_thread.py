"""A manager given as an object: it cannot leave the process, so it answers in a thread.

That costs training steps some milliseconds while it works; a manager named by a string runs in a
process of its own instead.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue

from trimtab.decision.briefing import Briefing
from trimtab.decision.consultation import Consultation, Consulting
from trimtab.decision.manager import Manager, Remembering
from trimtab.decision.wire import encode_proposal, proposal_from
from trimtab.runtime.answer import Answer, Failure, problem_of, told
from trimtab.runtime.clock import Clock


class ManagerThread:
    """Asks a manager object in a daemon thread.

    Args:
        manager: The object.
        deadline_seconds: Longest one question may take; a thread cannot be ended, so it is left
            behind, and further questions fail until it comes back.
        clock: For the deadline and the latency.
    """

    def __init__(self, manager: Manager, deadline_seconds: float, clock: Clock) -> None:
        self._manager = manager
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._outcomes: SimpleQueue[Answer | Failure] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._question: int | None = None
        self._asked_seconds = 0.0
        self._consultation: Consultation | None = None
        self._recalled: list[Briefing] = []

    def recall(self, step: int, briefing: Briefing) -> None:
        """Keep a question that was answered from the record until the manager is asked one."""
        if isinstance(self._manager, Remembering):
            self._recalled.append(briefing)

    def ask(self, step: int, briefing: Briefing) -> None:
        """Start answering; ``step`` is part of the briefing already."""
        self._question = briefing.question
        self._asked_seconds = self._clock.monotonic_seconds()
        if self._thread is not None and self._thread.is_alive():
            self._outcomes.put(Failure(briefing.question, "busy", "the manager still works on an earlier question"))
            return
        self._consultation = None
        recalled, self._recalled = self._recalled, []
        self._thread = threading.Thread(target=self._answer, args=(briefing, recalled), name="trimtab-manager", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the system has no thread left to give
            self._thread = None
            self._outcomes.put(Failure(briefing.question, "gone", f"the manager's thread cannot be started: {error}"))

    def poll(self) -> Answer | Failure | None:
        """Return the outcome of the open question, once."""
        return self._take(0.0)

    def wait(self, seconds: float) -> Answer | Failure | None:
        """Wait for the outcome, at most ``seconds``."""
        return self._take(seconds)

    def give_up(self, detail: str) -> Failure:
        """Leave the open question; its late answer will be passed over."""
        question, self._question = self._question, None
        return Failure(question or 0, "late", detail, self._consultation)

    def close(self) -> None:
        """Leave the thread behind; it ends with the process."""
        self._question = None

    def _take(self, seconds: float) -> Answer | Failure | None:
        if self._question is None:
            return None
        end = self._clock.monotonic_seconds() + seconds
        while True:
            left = end - self._clock.monotonic_seconds()
            try:
                outcome = self._outcomes.get(timeout=left) if left > 0 else self._outcomes.get_nowait()
            except Empty:
                return self._late()
            if outcome.question == self._question:  # others are late answers to questions that were given up
                self._question = None
                return outcome

    def _late(self) -> Failure | None:
        if self._question is None or self._age_seconds() <= self._deadline_seconds:
            return None
        question, self._question = self._question, None
        return Failure(question, "late", f"no answer within {self._deadline_seconds:g} seconds", self._consultation)

    def _answer(self, briefing: Briefing, recalled: Sequence[Briefing]) -> None:
        if isinstance(self._manager, Consulting):
            self._manager.report_to(self._report)
        try:
            if isinstance(self._manager, Remembering):
                for earlier in recalled:
                    self._manager.remember(earlier)
            # Through the wire form, so that an object's answer is checked like any other.
            proposal = proposal_from(encode_proposal(self._manager.propose(briefing)))
            seconds = self._age_seconds()
            self._outcomes.put(Answer(briefing.question, proposal, seconds, consultation=self._consultation))
        except BaseException as error:  # noqa: BLE001 - a user's manager may raise any type, SystemExit too, which would end this thread unseen; it is recorded
            self._outcomes.put(Failure(briefing.question, problem_of(error), told(error), self._consultation))

    def _report(self, consultation: Consultation) -> None:
        self._consultation = consultation

    def _age_seconds(self) -> float:
        return self._clock.monotonic_seconds() - self._asked_seconds
