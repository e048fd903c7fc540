"""Kills processes: one that has imported everything forks a copy of itself for every kill, so that hundreds take seconds.

A module that is to be killed ends with ``if __name__ == "__main__": serve(job)``; its job says what it has done (`say`).
A test starts it as `Killed` and lets copies of it run, each until it is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

_ROOT: Final = Path(__file__).parents[2]
READY: Final = "ready"
_FORKED: Final = "forked"
_ENDED: Final = "ended"


def say(*words: Any) -> None:
    """Tell the test something, from the process that is killed: all of it or nothing arrives."""
    os.write(1, json.dumps(words).encode() + b"\n")


def serve(job: Callable[..., None]) -> None:
    """Run a copy of this process for every line of arguments, until there are no more."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                say(_FORKED, os.getpid())
                job(*json.loads(line))
                os._exit(0)
            except BaseException:  # noqa: BLE001 - whatever it is, the copy must not go on as the one that forks
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        say(_ENDED, os.waitstatus_to_exitcode(status))


@dataclass(frozen=True)
class End:
    """How a copy ended.

    Args:
        said: What it had said until then, after that it was ready.
        code: Its exit code; minus the signal's number if it was killed.
    """

    said: list[list[Any]]
    code: int

    @property
    def was_killed(self) -> bool:
        """Whether it was killed, rather than done before."""
        return self.code == -signal.SIGKILL


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it was done before
        os.kill(pid, signal.SIGKILL)


class Killed:
    """A module of this folder whose copies are killed.

    Args:
        module: Its name, such as ``tests.promises.checkpoint_writer``.
    """

    def __init__(self, module: str) -> None:
        self._copy: int | None = None  # while one runs
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._copy is not None:
            _kill(self._copy)  # a test failed in between
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def run(self, *arguments: Any, kill_after_seconds: float | None) -> End:
        """Run a copy, and kill it that long after it said ``ready``; None leaves its end to itself."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        _, pid = self._heard()
        self._copy = pid
        if kill_after_seconds is not None:
            assert self._heard() == [READY]
            time.sleep(kill_after_seconds)
            _kill(pid)
        said: list[list[Any]] = []
        while (words := self._heard())[0] != _ENDED:
            said.append(words)
        self._copy = None
        return End(said, words[1])

    def _heard(self) -> list[Any]:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())
