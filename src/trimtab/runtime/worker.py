"""The manager's own process: reads questions on standard input, writes answers on standard output.

One JSON object a line. A question is a ``manager_asked`` record, exactly as it stands in the ledger; behind a ``+`` it is
one that was answered from the record, of a run that is resumed, and gets no answer. An answer is
``{"question": N, "reply": TEXT}`` or ``{"question": N, "problem": WORD, "error": TEXT}``; before it may come any number of
``{"question": N, "consultation": {...}}``, so that what a call takes is known even if the process is ended during it. The
process ends when its input does, so it never outlives the training run.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from trimtab.decision.briefing import Briefing
from trimtab.decision.consultation import Consulting
from trimtab.decision.manager import Manager, Remembering
from trimtab.decision.proposal import Proposal
from trimtab.decision.wire import encode_proposal
from trimtab.errors import LedgerError
from trimtab.ledger.codec import decode, freeze
from trimtab.ledger.record import ManagerAsked
from trimtab.runtime.answer import problem_of, told
from trimtab.runtime.manager_spec import REMEMBER, ManagerSpec, build_manager
from trimtab.runtime.redaction import RedactingStream, Redactor
from trimtab.runtime.worker_setup import WorkerSetup

Say = Callable[[dict[str, object]], None]


def answer(manager: Manager, line: str, say: Say) -> None:
    """Answer one question; a manager's failure is an answer too."""
    record = decode(json.loads(line))
    if not isinstance(record, ManagerAsked):
        raise LedgerError("a question is a manager_asked record", received=record.kind)
    number = record.question
    if isinstance(manager, Consulting):
        manager.report_to(lambda taken: say({"question": number, "consultation": freeze(taken)}))
    reply = ""
    with _managers_code(lambda error: say({"question": number, "problem": problem_of(error), "error": told(error)})):
        reply = json.dumps(encode_proposal(manager.propose(record.briefing)))
    if reply:
        say({"question": number, "reply": reply})


def serve(manager: Manager, questions: TextIO, say: Say) -> None:
    """Answer every question until the input ends."""
    for line in questions:
        if line.startswith(REMEMBER):
            remember(manager, line[len(REMEMBER) :])
        else:
            answer(manager, line, say)


def remember(manager: Manager, line: str) -> None:
    """Tell a manager of a question that was answered from the record; whatever it raises is in its log alone."""
    record = decode(json.loads(line))
    if isinstance(manager, Remembering) and isinstance(record, ManagerAsked):
        with _managers_code(_log):
            manager.remember(record.briefing)


class _NotBuilt:
    """Stands for a manager that could not be built: the ledger then says why, instead of that a process ended."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def propose(self, briefing: Briefing) -> Proposal:
        raise self._error


def _build(spec: ManagerSpec, setup: WorkerSetup) -> Manager:
    failed: list[BaseException] = []
    with _managers_code(failed.append):
        return build_manager(spec, setup)
    _log(failed[0])
    return _NotBuilt(failed[0])


def _log(error: BaseException) -> None:
    sys.stderr.write(f"{told(error)}\n")


@contextmanager
def _managers_code(failed: Callable[[BaseException], None]) -> Generator[None]:
    """Give whatever a user's manager raises to ``failed``, and go on."""
    try:
        yield
    except KeyboardInterrupt:  # meant for the process itself
        raise
    except BaseException as error:  # noqa: BLE001 - a user's manager may raise any type, SystemExit too; the process must live to say so
        failed(error)


def _redacted(tree: Any, redactor: Redactor) -> Any:
    """Return a JSON tree without secrets in its texts; its numbers are left alone."""
    if isinstance(tree, str):
        return redactor.redact(tree)
    if isinstance(tree, dict):
        return {key: _redacted(value, redactor) for key, value in cast("dict[str, Any]", tree).items()}
    if isinstance(tree, list):
        return [_redacted(item, redactor) for item in cast("list[Any]", tree)]
    return tree


def main() -> int:
    """Run the manager named by the arguments ``KIND ARGUMENT SETUP``."""
    # What a manager prints must not be taken for an answer: standard output becomes the log.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(2, 1)
    redactor = Redactor.from_environment(os.environ)
    sys.stdout = sys.stderr = RedactingStream(sys.stderr, redactor)
    os.nice(5)
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")  # a local model is on this machine, or nowhere

    def say(message: dict[str, object]) -> None:
        answers.write(json.dumps(_redacted(message, redactor), ensure_ascii=False) + "\n")
        answers.flush()

    serve(_build(ManagerSpec(sys.argv[1], sys.argv[2]), WorkerSetup.decode(sys.argv[3])), sys.stdin, say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
