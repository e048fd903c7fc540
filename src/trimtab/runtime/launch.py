"""What a command of trimtab tells the process that it starts, through the environment."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trimtab.errors import UsageError

RESUME: Final = "TRIMTAB_RESUME"
RUN_DIR: Final = "TRIMTAB_RUN_DIR"
HASH_EVERY: Final = "TRIMTAB_HASH_EVERY"
COMMAND: Final = "TRIMTAB_COMMAND"
OFFLINE: Final = "TRIMTAB_OFFLINE"
TRACE: Final = "TRIMTAB_TRACE"
NAMES: Final = (RESUME, RUN_DIR, HASH_EVERY, COMMAND, OFFLINE, TRACE)


@dataclass(frozen=True, slots=True)
class Launch:
    """How this process was started.

    Args:
        resume: The run to go on with; None to begin one.
        run_dir: Where a new run goes; None for where the script says.
        hash_every_steps: Steps between hashes of the state; None for what the script says, 0 for none.
        command: The recorded command as JSON text; None if the process was started by hand.
        is_offline: Whether the process may not reach the network.
        trace: A step whose operations are traced, and the file of the trace; None for none.
    """

    resume: Path | None = None
    run_dir: Path | None = None
    hash_every_steps: int | None = None
    command: str | None = None
    is_offline: bool = False
    trace: tuple[int, Path] | None = None

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Launch:
        """Read the variables and remove them: they are for the first supervised run of the first process only.

        Raises:
            UsageError: A variable was set by hand to what it cannot be.
        """
        told = {name: value for name in NAMES if (value := environ.pop(name, None))}
        every = told.get(HASH_EVERY)
        step, _, trace = told.get(TRACE, "0:").partition(":")
        for name, text in ((HASH_EVERY, every or "0"), (TRACE, step)):
            if not (text.isascii() and text.isdigit()):
                raise UsageError(f"{name} is malformed", received=text, allowed="a whole number >= 0")
        if TRACE in told and not (int(step) and trace):
            raise UsageError(f"{TRACE} is malformed", received=told[TRACE], allowed="STEP:FILE, a step >= 1")
        return cls(
            resume=Path(told[RESUME]) if RESUME in told else None,
            run_dir=Path(told[RUN_DIR]) if RUN_DIR in told else None,
            hash_every_steps=None if every is None else int(every),
            command=told.get(COMMAND),
            is_offline=OFFLINE in told,
            trace=(int(step), Path(trace)) if TRACE in told else None,
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that tell another process the same."""
        told = {
            RESUME: "" if self.resume is None else str(self.resume.absolute()),
            RUN_DIR: "" if self.run_dir is None else str(self.run_dir.absolute()),
            HASH_EVERY: "" if self.hash_every_steps is None else str(self.hash_every_steps),
            COMMAND: self.command or "",
            OFFLINE: "1" if self.is_offline else "",
            TRACE: "" if self.trace is None else f"{self.trace[0]}:{self.trace[1].absolute()}",
        }
        return {name: value for name, value in told.items() if value}
