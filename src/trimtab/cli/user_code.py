"""Code of the user's that a command calls: what it raises is told with the user's own lines, and no others."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from trimtab.errors import TrimtabError, UsageError

_PACKAGE: Final = Path(__file__).parents[1]


@contextmanager
def users_code(what: str) -> Generator[None]:
    """Turn what the user's code raises into an error that a command prints.

    Args:
        what: The code, in words: ``my_run:setup``.

    Raises:
        UsageError: Correct the code; its lines that led there are in the message, one each.
    """
    try:
        yield
    except TrimtabError:
        raise
    except Exception as error:  # the user's own script may raise any type; the command prints it with its lines, and ends
        lines = [f"{type(error).__name__}: {error}".strip(), *_own_lines(error)]
        raise UsageError(f"{what} raised an error\n" + "\n".join(lines), next_step="correct it, and call again") from error


def _own_lines(error: Exception) -> list[str]:
    """Return the lines of the user's files that led to an error, the last one first."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename)]
    return [f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}" for frame in reversed(frames)]


def _is_own(filename: str) -> bool:
    path = Path(filename)
    paths = sysconfig.get_paths()
    installed = (Path(paths[kind]) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
    return path.is_file() and not any(path.is_relative_to(folder) for folder in (_PACKAGE, *installed))
