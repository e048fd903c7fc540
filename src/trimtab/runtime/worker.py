"""The manager's own process: reads questions on standard input, writes answers on standard output.

One JSON object a line. A question is a ``manager_asked`` record, exactly as it stands in the ledger.
An answer is ``{"question": N, "reply": TEXT}`` or ``{"question": N, "error": TEXT}``. The process ends
when its input does, so it never outlives the training run.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TextIO

from trimtab.decision.manager import Manager
from trimtab.decision.wire import encode_proposal
from trimtab.errors import LedgerError, UsageError
from trimtab.ledger.codec import decode
from trimtab.ledger.record import ManagerAsked
from trimtab.runtime.manager_spec import ManagerSpec, build_manager


def answer(manager: Manager, line: str) -> dict[str, object]:
    """Return the answer to one question; a manager's failure is an answer too."""
    record = decode(json.loads(line))
    if not isinstance(record, ManagerAsked):
        raise LedgerError("a question is a manager_asked record", received=record.kind)
    try:
        reply = json.dumps(encode_proposal(manager.propose(record.briefing)))
    except Exception as error:  # noqa: BLE001 - whatever a manager raises counts as no_action
        return {"question": record.question, "error": repr(error)[:500]}
    return {"question": record.question, "reply": reply}


def serve(manager: Manager, questions: TextIO, answers: TextIO) -> None:
    """Answer every question until the input ends."""
    for line in questions:
        answers.write(json.dumps(answer(manager, line)) + "\n")
        answers.flush()


def main() -> int:
    """Run the manager named by the arguments ``KIND ARGUMENT``."""
    # What a manager prints must not be taken for an answer: standard output becomes the log.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.nice(5)
    try:
        manager = build_manager(ManagerSpec(sys.argv[1], sys.argv[2]))
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    serve(manager, sys.stdin, answers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
