"""Start a run's command in a process of its own, and wait for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from trimtab.errors import UsageError
from trimtab.runtime.command import Command
from trimtab.runtime.launch import Launch

_SIGNALLED: Final = 128  # what a shell adds to the number of the signal that ended a process


def start(command: Command, launch: Launch, output: IO[bytes] | None = None) -> int:
    """Run a command as it was recorded, told what ``launch`` says; return its exit code as a shell would.

    Args:
        command: The command, with its directory and environment.
        launch: What `trimtab.supervise` is told in that process.
        output: Where its output goes; by default to this terminal.

    Raises:
        UsageError: The program or its directory is not there.
    """
    environment = command.environment_in(os.environ) | launch.environment()
    try:
        process = subprocess.Popen(  # noqa: S603 - the user's own command
            command.arguments,
            cwd=command.directory,
            env=environment,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
        )
    except OSError as error:
        raise UsageError(
            "the command cannot be started",
            received=f"{' '.join(command.arguments)} in {command.directory}: {error.strerror}",
            next_step="see that the program and the directory are where they were",
        ) from error
    with _passing_on(process):
        code = process.wait()
    return code if code >= 0 else _SIGNALLED - code


def as_command(arguments: list[str], directory: Path) -> Command:
    """Return a command for this moment, with the full path of its program.

    Raises:
        UsageError: There is none, or the program cannot be found.
    """
    if not arguments:
        raise UsageError("the command is missing", allowed="trimtab run -- python train.py ...")
    program = shutil.which(arguments[0])
    if program is None:
        hint = f"name the interpreter: trimtab run -- {sys.executable} ..." if arguments[0].startswith("python") else ""
        raise UsageError("the program cannot be found", received=arguments[0], next_step=hint or "check its name and PATH")
    environ = {"PYTHONHASHSEED": "0", **os.environ}  # the order of sets of strings depends on it
    return Command.of([str(Path(program).absolute()), *arguments[1:]], directory, environ)


@contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Generator[None]:
    """Let the command end in order: it gets Ctrl-C by itself, and a polite end from here."""

    def pass_on(number: int, _: Any) -> None:
        process.send_signal(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
