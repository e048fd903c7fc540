"""Run the demo's arms side by side as child processes, and read what they report.

Rules:
1. An arm writes one JSON message per line; a line that is none is noise, shown but never obeyed.
2. One thread per arm reads its lines, so that a silent arm does not hold up the other.
3. However this ends, no child is left behind: each is ended by its own process handle.
"""

from __future__ import annotations

import json
import math
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Annotated, Final, Literal, Protocol, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from trimtab.errors import TrimtabError

ArmName = Literal["unmanaged", "managed"]

_LONGEST_LINE: Final = 64 * 2**20  # characters; a result holds its whole curve
_POLL_SECONDS: Final = 0.2
_GRACE_SECONDS: Final = 5.0
_SILENT_POLLS: Final = 5  # of a dead arm, before its end of output is no longer waited for


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


class Progress(_Message):
    """How far an arm is; losses may be non-finite, and are null before they are known."""

    event: Literal["progress"]
    step: Annotated[int, Field(ge=0)]
    steps: Annotated[int, Field(ge=1)]
    loss: float | None
    val_loss: float | None
    recipe: dict[str, float]
    decision: str | None


class Result(_Message):
    """What an arm came to: validation losses, and its interventions as (step, text, kind)."""

    event: Literal["result"]
    final: float
    best: float
    best_step: int
    seconds: float
    interventions: Annotated[int, Field(ge=0)]
    run_dir: str
    curve: list[tuple[int, float | None]]
    marks: list[tuple[int, str, str]]
    stopped: str | None

    @property
    def points(self) -> list[tuple[float, float]]:
        """The validation losses with their steps; a missing one is not a number."""
        return [(step, math.nan if loss is None else loss) for step, loss in self.curve]


class Failure(_Message):
    """Why an arm gave up."""

    event: Literal["error"]
    message: str


Message = Progress | Result | Failure
_MESSAGES: Final[TypeAdapter[Message]] = TypeAdapter(Annotated[Message, Field(discriminator="event")])


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """What an arm is told on its command line."""

    arm: ArmName
    seed: int
    steps: int
    manager: str
    text: str | None
    run_dir: str
    temperature: float | None = None
    canary: bool = False


class ArmWatcher(Protocol):
    """Whoever shows the arms at work."""

    def progressed(self, arm: ArmName, progress: Progress) -> None:
        """An arm took steps."""
        ...

    def finished(self, arm: ArmName, result: Result) -> None:
        """An arm is done."""
        ...

    def noticed(self, arm: ArmName, noise: str) -> None:
        """An arm wrote a line that is no message."""
        ...

    def waited(self) -> None:
        """A moment passed without news."""
        ...


def parse_message(line: str) -> Message | None:
    """Return the message of a line; None if it is none."""
    try:
        return _MESSAGES.validate_python(json.loads(line))
    except (ValueError, RecursionError, ValidationError):
        return None


def run_arms(command: Sequence[str], specs: Sequence[ArmSpec], logs: Path, watcher: ArmWatcher) -> dict[ArmName, Result]:
    """Run all arms at the same time and return their results.

    Args:
        command: What starts an arm; its spec follows as one JSON argument.
        specs: The arms, each with a name of its own.
        logs: Folder for what the arms write to standard error, one file each.
        watcher: Told of every message, from this thread.

    Raises:
        TrimtabError: An arm failed or died; the message says which, with its last words. The
            other arms were ended.
    """
    lines: Queue[tuple[ArmName, str | None]] = Queue()
    arms: dict[ArmName, _Arm] = {}
    results: dict[ArmName, Result] = {}
    try:
        for spec in specs:
            arms[spec.arm] = _Arm(command, spec, logs / f"{spec.arm}.log", lines)
        while len(results) < len(arms):
            try:
                name, line = lines.get(timeout=_POLL_SECONDS)
            except Empty:
                watcher.waited()
                _find_the_dead([arm for name, arm in arms.items() if name not in results])
                continue
            if name in results:
                continue
            if line is None:
                raise arms[name].died()
            result = _heed(arms[name], line, watcher)
            if result is not None:
                results[name] = result
                watcher.finished(name, result)
    finally:
        _end(arms, results)
    return results


def _heed(arm: _Arm, line: str, watcher: ArmWatcher) -> Result | None:
    match parse_message(line):
        case Progress() as progress:
            watcher.progressed(arm.name, progress)
        case Result() as result:
            return result
        case Failure() as failure:
            told = "next:" in failure.message  # an error of ours says itself what to do
            raise TrimtabError(
                f"the {arm.name} run failed: {failure.message}", next_step=None if told else "correct what it names"
            )
        case None:
            if line.strip():
                arm.noise = line.strip()
                watcher.noticed(arm.name, arm.noise)
    return None


def _find_the_dead(waiting: Sequence[_Arm]) -> None:
    """Find arms that are gone though something else holds their output open."""
    for arm in waiting:
        arm.silent_polls = arm.silent_polls + 1 if arm.process.poll() is not None else 0
        if arm.silent_polls >= _SILENT_POLLS:
            raise arm.died()


def _end(arms: dict[ArmName, _Arm], results: dict[ArmName, Result]) -> None:
    for name, arm in arms.items():
        if name not in results and arm.process.poll() is None:
            arm.process.terminate()
    for arm in arms.values():
        try:
            arm.process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            arm.process.kill()
            arm.process.wait()
        arm.close()


class _Arm:
    """A child process, and the thread that reads its lines."""

    def __init__(self, command: Sequence[str], spec: ArmSpec, log: Path, lines: Queue[tuple[ArmName, str | None]]) -> None:
        self.name: ArmName = spec.arm
        self.noise = ""
        self.silent_polls = 0
        self._log = log
        arguments = [*command, json.dumps(asdict(spec))]
        try:
            with log.open("wb") as errors:
                self.process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                )
        except OSError as error:
            raise TrimtabError(f"the {spec.arm} run could not be started", received=str(error)) from error
        output = cast("IO[str]", self.process.stdout)
        forward: Callable[[str | None], None] = lambda line: lines.put((self.name, line))  # noqa: E731 - one line of glue
        self._reader = threading.Thread(target=_forward_lines, args=(output, forward), daemon=True)
        self._reader.start()

    def died(self) -> TrimtabError:
        """Return the error that tells of an end without a result."""
        try:
            code = self.process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        how = "it closed its output" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
        words = self._last_words() or self.noise
        return TrimtabError(
            f"the {self.name} run ended without a result",
            received=f"{how}; last words: {words[:200]}" if words else how,
            next_step=f"read {self._log}" if self._last_words() else "run it again; if it was killed, free some memory first",
        )

    def _last_words(self) -> str:
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - 8192))
                lines = file.read().decode("utf-8", "replace").split("\n")
        except OSError:  # without its log the exit code has to do
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        """Let go of a process that has ended; an empty log is removed."""
        self._reader.join(timeout=1.0)  # it lives on where a grandchild holds the pipe, and ends with it or with us
        if self._log.is_file() and self._log.stat().st_size == 0:
            self._log.unlink()


def _forward_lines(output: IO[str], forward: Callable[[str | None], None]) -> None:
    with output:
        for line in iter(lambda: output.readline(_LONGEST_LINE), ""):
            forward(line)
    forward(None)
