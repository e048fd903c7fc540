"""A manager in a process of its own, spoken to over pipes that never block.

A thread would stall small training steps; a process does not. Nothing here waits, except `wait`,
which is for boundaries. A manager that dies, hangs or floods is ended and counts as no_action; a new
process is started for the next question, up to a limit.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import IO, Final

from pydantic import TypeAdapter

from trimtab.decision.briefing import Briefing
from trimtab.decision.consultation import Consultation
from trimtab.decision.wire import MAX_REPLY_BYTES, parse_reply
from trimtab.errors import ReplyError
from trimtab.ledger.codec import canonical, encode
from trimtab.ledger.record import ManagerAsked
from trimtab.runtime.answer import Answer, Failure
from trimtab.runtime.clock import Clock
from trimtab.runtime.manager_spec import REMEMBER, REMEMBERING, ManagerSpec
from trimtab.runtime.worker_setup import WorkerSetup

MAX_STARTS: Final = 5
_READ_BYTES: Final = 65_536
_MAX_LINE: Final = 2 * MAX_REPLY_BYTES + 1024
_MOST_LINES_ASIDE: Final = 32
_MAX_WORD: Final = 40


class ManagerProcess:
    """The training process's end of the pipes.

    Args:
        spec: Which manager.
        log: File that receives what the manager prints.
        deadline_seconds: Longest one question may take.
        clock: For the deadline and the latency.
        setup: What the process is told besides.
        command: How to start the worker; for tests.
    """

    def __init__(
        self,
        spec: ManagerSpec,
        log: Path,
        deadline_seconds: float,
        clock: Clock,
        setup: WorkerSetup,
        command: tuple[str, ...] = (sys.executable, "-m", "trimtab.runtime.worker"),
    ) -> None:
        self._command = (*command, spec.kind, spec.argument, setup.encode())
        self._log = log
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._num_starts = 0
        self._question: int | None = None
        self._asked_seconds = 0.0
        self._outgoing = b""
        self._incoming = b""
        self._failure: Failure | None = None
        self._consultation: Consultation | None = None
        self._num_aside = 0
        self._can_remember = spec.kind in REMEMBERING
        self._start()

    @property
    def pid(self) -> int | None:
        """Process id of the running manager, or None."""
        return None if self._process is None else self._process.pid

    def recall(self, step: int, briefing: Briefing) -> None:
        """Send a question that was answered from the record, for a manager that goes by what it was asked."""
        if self._can_remember and self._process is not None:
            line = canonical(encode(ManagerAsked(step, briefing.question, briefing)))
            self._outgoing += f"{REMEMBER}{line}\n".encode()
            self._send()

    def ask(self, step: int, briefing: Briefing) -> None:
        """Send a question without waiting for it to be taken."""
        self._question = briefing.question
        self._asked_seconds = self._clock.monotonic_seconds()
        self._failure = None
        self._consultation = None
        self._num_aside = 0
        if self._process is None:
            self._start()
        if self._process is None:
            # _fail keeps the first reason: this one is for a manager that was started too often.
            self._fail("gone", f"the manager was started {self._num_starts} times and is not started again")
            return
        line = canonical(encode(ManagerAsked(step, briefing.question, briefing)))
        self._outgoing += line.encode() + b"\n"
        self._send()

    def poll(self) -> Answer | Failure | None:
        """Return the outcome of the open question, once."""
        if self._question is None:
            return None
        if self._failure is None:
            self._send()
        outcome: Answer | Failure | None = None
        while outcome is None and self._failure is None and (line := self._receive()) is not None:
            outcome = self._read(line)  # None for the late answer to a question that was given up
        outcome = outcome or self._failure
        if outcome is None and self._age_seconds() > self._deadline_seconds:
            self.close()
            outcome = Failure(self._question, "late", f"no answer within {self._deadline_seconds:g} seconds")
        if outcome is None:
            return None
        self._question, self._failure = None, None
        return replace(outcome, consultation=self._consultation)

    def wait(self, seconds: float) -> Answer | Failure | None:
        """Wait for the outcome, at most ``seconds``."""
        end = self._clock.monotonic_seconds() + seconds
        while self._question is not None:
            outcome = self.poll()
            left = end - self._clock.monotonic_seconds()
            if outcome is not None or left <= 0:
                return outcome
            if self._process is not None:
                ready = select.poll()  # unlike select.select, it takes any descriptor
                ready.register(_fd(self._process.stdout), select.POLLIN)
                if self._outgoing:
                    ready.register(_fd(self._process.stdin), select.POLLOUT)
                ready.poll(min(left, 0.05) * 1000)
        return None

    def give_up(self, detail: str) -> Failure:
        """Leave the open question; its late answer will be passed over."""
        question, self._question = self._question, None
        return Failure(question or 0, "late", detail, self._consultation)

    def close(self) -> None:
        """End the process at once; it holds nothing that needs saving."""
        process, self._process = self._process, None
        self._outgoing, self._incoming = b"", b""
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait()

    def _start(self) -> None:
        if self._num_starts >= MAX_STARTS:
            return
        self._num_starts += 1
        # The worker imports what the training script can import; it needs no threads of its own.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for the training loop alone
                )
        except OSError as error:
            self._fail("gone", f"the manager's process cannot be started: {error}")
            return
        os.set_blocking(_fd(self._process.stdin), False)
        os.set_blocking(_fd(self._process.stdout), False)

    def _send(self) -> None:
        if not self._outgoing or self._process is None:
            return
        try:
            written = os.write(_fd(self._process.stdin), self._outgoing)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error)
            return
        self._outgoing = self._outgoing[written:]

    def _receive(self) -> bytes | None:
        if self._process is None:
            return None
        line = self._take_line()
        if line is not None:
            return line
        try:
            chunk = os.read(_fd(self._process.stdout), _READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            self._lost(error)
            return None
        if not chunk:
            self._lost(None)
            return None
        self._incoming += chunk
        line = self._take_line()
        if line is not None:
            return line
        if len(self._incoming) > _MAX_LINE:
            self.close()
            self._fail("flood", f"more than {_MAX_LINE} bytes without an answer")
        return None

    def _take_line(self) -> bytes | None:
        line, newline, rest = self._incoming.partition(b"\n")
        if not newline:
            return None
        self._incoming = rest
        return line

    def _read(self, line: bytes) -> Answer | Failure | None:
        assert self._question is not None
        try:
            message = json.loads(line)
            question = message["question"]
            error, problem, reply = message.get("error"), message.get("problem"), message.get("reply")
            taken = _consultation(message.get("consultation"))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self.close()  # what follows a broken line cannot be told apart from it
            return Failure(self._question, "not a proposal", "the manager's process broke its protocol")
        if question != self._question:
            return self._aside("answers to other questions")
        if taken is not None:
            self._consultation = taken
            return self._aside("reports")
        if error is not None or not isinstance(reply, str):
            detail = error if isinstance(error, str) else "an answer without a reply"
            word = problem if isinstance(problem, str) and 0 < len(problem) <= _MAX_WORD else "error"
            return Failure(self._question, word, detail[:500])
        try:
            answer = Answer(self._question, parse_reply(reply), self._age_seconds())
        except ReplyError as refused:
            return Failure(self._question, "not a proposal", str(refused)[:500])
        self._num_starts = 1  # it works: earlier failures no longer count against it
        return answer

    def _aside(self, lines: str) -> Failure | None:
        """Pass over a line that is no outcome; a process that writes too many of them is ended."""
        self._num_aside += 1
        if self._num_aside <= _MOST_LINES_ASIDE or self._question is None:
            return None
        self.close()
        return Failure(self._question, "flood", f"more than {_MOST_LINES_ASIDE} {lines}")

    def _lost(self, error: OSError | None) -> None:
        process = self._process
        code = None if process is None else process.poll()
        self.close()
        detail = f"exit code {code}" if error is None else repr(error)
        self._fail("died", f"the manager's process ended ({detail}); see {self._log}")

    def _fail(self, problem: str, detail: str) -> None:
        if self._question is not None and self._failure is None:
            self._failure = Failure(self._question, problem, detail)

    def _age_seconds(self) -> float:
        return self._clock.monotonic_seconds() - self._asked_seconds


def _consultation(tree: object) -> Consultation | None:
    return None if tree is None else _consultations().validate_json(json.dumps(tree), strict=True, extra="forbid")


@cache
def _consultations() -> TypeAdapter[Consultation]:
    return TypeAdapter(Consultation)


def _fd(pipe: IO[bytes] | None) -> int:
    assert pipe is not None
    return pipe.fileno()
