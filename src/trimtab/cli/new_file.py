"""A file that a command writes for its user, who has not lost another one by it."""

from __future__ import annotations

from pathlib import Path

from trimtab.errors import UsageError


def write_new(path: Path, text: str, *, force: bool, option: str) -> None:
    """Write a UTF-8 file that was not there, or replace one with ``force``.

    Args:
        path: The file.
        text: Its content.
        force: Whether a file that is there is replaced.
        option: The command's option that named the file, for the messages.

    Raises:
        UsageError: Name another file, or allow that it is replaced.
    """
    try:
        with path.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(
            "the file exists already",
            received=str(path),
            next_step=f"name another with {option}, or replace it with --force",
        ) from error
    except OSError as error:
        raise UsageError(
            "the file cannot be written", received=f"{path}: {error.strerror}", next_step=f"name another with {option}"
        ) from error
