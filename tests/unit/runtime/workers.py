"""Worker processes that misbehave, each a few lines of Python that start in some 20 milliseconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from trimtab.controls.manager_settings import ManagerSettings
from trimtab.runtime.answer import Answer, Failure, ManagerClient
from trimtab.runtime.clock import SystemClock
from trimtab.runtime.manager_process import ManagerProcess
from trimtab.runtime.manager_spec import ManagerSpec
from trimtab.runtime.worker_setup import WorkerSetup

PRELUDE = """
import json, os, signal, sys, time
GOOD = json.dumps({"action": {"kind": "no_action"}, "reason": "fine"})
def say(question, **message):
    sys.stdout.write(json.dumps({"question": question, **message}) + "\\n")
    sys.stdout.flush()
def questions():
    for line in sys.stdin:
        yield json.loads(line)["question"]
"""

ANSWERS = "for n in questions(): say(n, reply=GOOD)"


def start(source: str, log: Path, deadline_seconds: float = 20.0) -> ManagerProcess:
    """Return the client of a worker that runs ``source``; what it answers with is `ANSWERS` or worse."""
    command = (sys.executable, "-S", "-E", "-c", PRELUDE + source)
    return ManagerProcess(
        ManagerSpec("rules"), log, deadline_seconds, SystemClock(), a_setup(log.parent, deadline_seconds), command
    )


def a_setup(folder: Path, deadline_seconds: float = 20.0) -> WorkerSetup:
    return WorkerSetup(ManagerSettings(), "0" * 64, str(folder / "spending.sqlite"), deadline_seconds)


def outcome_of(client: ManagerClient, within_seconds: float = 20.0) -> Answer | Failure:
    """Poll as a training loop does until the open question has its outcome."""
    found: list[Answer | Failure] = []

    def is_there() -> bool:
        outcome = client.poll()
        if outcome is not None:
            found.append(outcome)
        return bool(found)

    eventually(is_there, within_seconds)
    return found[0]


def eventually(holds: Callable[[], bool], within_seconds: float = 20.0) -> None:
    end = time.monotonic() + within_seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.001)


def is_alive(pid: int) -> bool:
    """Return whether the process runs; one that has ended and was not waited for counts as alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def zombies() -> list[str]:
    """Return this process's children that ended without being waited for."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if fields[0] == "Z" and int(fields[1]) == os.getpid():
            found.append(path.parent.name)
    return found
