"""The command that started a run: what is needed to start it again, and to say what has changed since.

Of the environment only variables that bear on the computation are kept, by name: never a key.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from trimtab.errors import RunDirectoryError
from trimtab.runtime.files import write_whole
from trimtab.runtime.redaction import MARK, Redactor

SCHEMA: Final = "trimtab/command/1"
_KEPT: Final = (
    "CONDA_PREFIX",
    "HF_HUB_OFFLINE",
    "LD_LIBRARY_PATH",
    "MASTER_ADDR",
    "MASTER_PORT",
    "PYTHONHASHSEED",
    "PYTHONPATH",
    "TOKENIZERS_PARALLELISM",
    "VIRTUAL_ENV",
)
_KEPT_BEGINNINGS: Final = ("CUBLAS_", "CUDA_", "GOMP_", "KMP_", "MKL_", "NCCL_", "OMP_", "OPENBLAS_", "PYTORCH_", "TORCH_")
_SECRET: Final = ("CREDENTIAL", "KEY", "PASSWORD", "SECRET", "TOKEN")
_MOST_SCRIPT_BYTES: Final = 16_777_216


@dataclass(frozen=True, slots=True)
class Command:
    """A command and where it ran.

    Args:
        arguments: The program and its arguments.
        directory: Where it was started.
        environment: Variables that bear on the computation, by name.
        script: Path of the script; empty if there is none, as with ``-c`` or ``-m``.
        script_hash: SHA-256 of the script as it was; empty without one.
    """

    arguments: tuple[str, ...]
    directory: str
    environment: Mapping[str, str]
    script: str = ""
    script_hash: str = ""

    @classmethod
    def of(cls, arguments: Sequence[str], directory: Path, environ: Mapping[str, str]) -> Command:
        """Describe a command that is about to run."""
        kept = {name: value for name, value in sorted(environ.items()) if _is_kept(name)}
        script = _script(arguments, directory)
        hash_ = "" if script is None else _hash(script)
        return cls(tuple(arguments), str(directory), kept, "" if script is None else str(script), hash_)

    def to_json(self) -> str:
        """Return the command as text for its file; a secret of the environment among the arguments is blotted out."""
        redactor = Redactor.from_environment(os.environ)
        arguments = [redactor.redact(argument) for argument in self.arguments]
        return json.dumps({"schema": SCHEMA, **asdict(self), "arguments": arguments}, indent=2)

    def environment_in(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return an environment in which the variables that bear on the computation are those of then."""
        return {name: value for name, value in environ.items() if not _is_kept(name)} | dict(self.environment)

    def changes(self) -> tuple[str, ...]:
        """Say what is no longer as it was."""
        if not self.script:
            return ()
        now = _hash(Path(self.script))
        if now == self.script_hash:
            return ()
        return (f"{self.script} {'has changed since' if now else 'is gone'}",)


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    schema_: Literal["trimtab/command/1"]
    arguments: list[str]
    directory: str
    environment: dict[str, str]
    script: str
    script_hash: str


def this_command() -> Command | None:
    """Return the command of this process; None for one that is typed or piped in, which cannot be started again."""
    arguments = [sys.executable, *sys.orig_argv[1:]]
    if not sys.executable or hasattr(sys, "ps1") or len(arguments) < 2 or sys.argv[:1] == ["-"] or "ipykernel" in sys.modules:
        return None
    return Command.of(arguments, Path.cwd(), os.environ)


def write_command(path: Path, text: str) -> None:
    """Write the file.

    Raises:
        OSError: It cannot be written.
    """
    write_whole(path, text.encode("utf-8", "backslashreplace"))


def read_command(path: Path) -> Command:
    """Read the command of a run.

    Raises:
        RunDirectoryError: Start the run's script by hand, as the message says.
    """
    try:
        tree: Any = json.loads(path.read_bytes())
        form = _Form.model_validate({"schema_" if key == "schema" else key: value for key, value in tree.items()})
    except (OSError, ValidationError, ValueError, AttributeError, RecursionError) as error:
        raise RunDirectoryError(
            "how the run was started is not known",
            received=f"{path}: {error}"[:300],
            next_step="start its script by hand with supervise(..., run_dir=..., resume=True), "
            "and the next one with: trimtab run -- COMMAND",
        ) from error
    if any(MARK in argument for argument in form.arguments):
        raise RunDirectoryError(
            "the command holds a secret, which was not recorded",
            received=" ".join(form.arguments)[:300],
            next_step="pass it in the environment, and go on by hand with supervise(..., run_dir=..., resume=True)",
        )
    return Command(tuple(form.arguments), form.directory, form.environment, form.script, form.script_hash)


def _is_kept(name: str) -> bool:
    return name in _KEPT or (name.startswith(_KEPT_BEGINNINGS) and not any(word in name for word in _SECRET))


def _script(arguments: Sequence[str], directory: Path) -> Path | None:
    """Return the first argument that is a Python file."""
    for argument in arguments[1:]:
        if argument.endswith(".py") and (path := directory / argument).is_file():
            return path
    return None


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(_MOST_SCRIPT_BYTES)).hexdigest()
    except OSError:
        return ""
