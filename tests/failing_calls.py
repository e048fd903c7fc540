"""A disk on which one call into the operating system fails, whichever a test asks for."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import pytest

CALLS: Final = ("mkdir", "open", "write", "fsync", "rename", "close", "scandir")


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, at: int, error: int) -> Generator[list[str]]:
    """Let the call of that number into os fail, none with -1; yields the names of the calls made."""
    made: list[str] = []

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            if len(made) - 1 == at:
                if name == "close":
                    real(*args)  # a failed close has closed
                raise OSError(error, os.strerror(error))
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        yield made
