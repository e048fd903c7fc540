"""Checks the promises with all their cases, and prints one line for each: ``make promises ARGS="L2 L3"``."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import pytest

from tests.promises.counting import HERE, PROMISES, PROPERTY, Kept, promise_of

_NAMED: Final = ("torch", "safetensors", "pydantic", "numpy", "pytest", "hypothesis")


class Summary:
    """What became of each promise; all reports come here, also those of other processes.

    Args:
        promises: Those that are checked.
    """

    def __init__(self, promises: Sequence[str]) -> None:
        self.kept = {promise: Kept(promise) for promise in promises}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name, _, test = report.nodeid.partition("::")
        kept = self.kept.get(promise_of(HERE / Path(name).name) or "")
        if kept is None:
            return
        kept.seconds += report.duration
        if report.failed:
            kept.failed.append(test)
        if report.when == "call":
            trees: list[Any] = [value for key, value in report.user_properties if key == PROPERTY]
            for tree in trees:
                kept.add(tree)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        kept = self.kept.get(promise_of(HERE / Path(report.nodeid.partition("::")[0]).name) or "")
        if kept is not None and report.failed:
            kept.failed.append("its file cannot be read")


def provenance(*, is_full: bool) -> str:
    """Return what was checked: commit, versions, and how much of it."""
    packages = ", ".join(f"{name} {_version(name)}" for name in _NAMED)
    counts = "all cases" if is_full else "a portion of the cases"
    python = f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} CPUs"
    return f"trimtab {_version('trimtab')}, commit {_commit()}; {counts}\n{python}; {packages}"


def _commit() -> str:
    try:
        head, changed = (_git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} with changes that are not committed" if changed else head


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def files_of(promises: Sequence[str]) -> list[str]:
    """Return the files of their checks.

    Raises:
        FileNotFoundError: Write the check.
    """
    files = [str(file) for file in sorted(HERE.glob("test_*.py")) if promise_of(file) in promises]
    if missing := set(promises) - {promise_of(Path(file)) for file in files}:
        raise FileNotFoundError(f"there is no check of {', '.join(sorted(missing))} in {HERE}")
    return files


def main(arguments: Sequence[str]) -> int:
    """Check the named promises, all without a name; return 0 if all were kept."""
    parser = argparse.ArgumentParser(prog="make promises", description=__doc__)
    parser.add_argument("promises", nargs="*", metavar="PROMISE", help=f"any of {', '.join(PROMISES)}; all without one")
    parser.add_argument("--portion", action="store_true", help="try only what every test run tries")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    options = parser.parse_args(arguments)
    promises: list[str] = [name.upper() for name in options.promises] or list(PROMISES)
    if unknown := [name for name in promises if name not in PROMISES]:
        parser.error(f"there is no promise {', '.join(unknown)}; there are {', '.join(PROMISES)}")
    summary = Summary(promises)
    given = [*files_of(promises), "-q", "--no-header", "-m", ""]
    given += [] if options.portion else ["--full"]
    given += ["-n", str(options.jobs), "--dist", "worksteal"] if options.jobs > 1 else []
    begin = time.monotonic()
    code = int(pytest.main(given, plugins=[summary]))
    broken = [kept.promise for kept in summary.kept.values() if not kept.is_kept]
    lines = ["", provenance(is_full=not options.portion), "", *(kept.line() for kept in summary.kept.values()), ""]
    lines += [f"{'all kept' if not broken else 'broken: ' + ', '.join(broken)}, in {time.monotonic() - begin:.0f} s"]
    sys.stdout.write("\n".join([*lines, ""]))
    return code or bool(broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
