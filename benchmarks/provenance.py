"""Where a figure comes from: the commit that measured it."""

from __future__ import annotations

import subprocess


def git(*words: str) -> str:
    """Return what ``git`` prints for a command in this repository."""
    command = ["git", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - our own words, no shell


def commit() -> str:
    """Return the short name of the commit, with ``+changes`` if the code beside it is not what it holds."""
    return git("rev-parse", "--short", "HEAD") + ("+changes" if git("status", "--porcelain", "src") else "")
