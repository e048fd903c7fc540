"""A command is started as it was recorded; its exit code and the signals for it are passed on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from trimtab.cli.starting import as_command, start
from trimtab.errors import UsageError
from trimtab.runtime.command import Command
from trimtab.runtime.launch import OFFLINE, RUN_DIR, Launch


def command(code: str, folder: Path, **environ: str) -> Command:
    return Command.of([sys.executable, "-c", code], folder, environ)


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_its_exit_code_is_that_of_the_command(tmp_path: Path, code: int) -> None:
    assert start(command(f"raise SystemExit({code})", tmp_path), Launch()) == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
def test_a_command_that_a_signal_ended_has_the_code_that_a_shell_gives_it(tmp_path: Path, number: signal.Signals) -> None:
    assert start(command(f"import os; os.kill(os.getpid(), {int(number)})", tmp_path), Launch()) == 128 + number


def test_it_runs_where_and_with_what_it_was_recorded_and_is_told_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("A_KEY_OF_NOW", "sk")
    names = ("OMP_NUM_THREADS", "A_KEY_OF_NOW", RUN_DIR, OFFLINE)
    code = f"import os; print(os.getcwd(), *map(os.environ.get, {names}))"
    with (tmp_path / "log").open("wb") as log:
        launch = Launch(run_dir=tmp_path / "run", is_offline=True)
        assert start(command(code, tmp_path, OMP_NUM_THREADS="1"), launch, log) == 0
    assert (tmp_path / "log").read_text().split() == [str(tmp_path), "1", "sk", str(tmp_path / "run"), "1"]
    assert RUN_DIR not in os.environ
    assert OFFLINE not in os.environ


def test_errors_go_where_the_output_goes(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        start(command("import sys; print('out', flush=True); print('err', file=sys.stderr)", tmp_path), Launch(), log)
    assert (tmp_path / "log").read_text().split() == ["out", "err"]


def test_a_program_or_a_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    gone = Command.of([sys.executable, "-c", "pass"], tmp_path / "gone", {})
    with pytest.raises(UsageError, match="cannot be started"):
        start(gone, Launch())
    with pytest.raises(UsageError, match="no-such-program"):
        start(Command.of(["/no-such-program"], tmp_path, {}), Launch())


def test_signals_are_handled_as_before_once_the_command_has_ended(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    start(command("pass", tmp_path), Launch())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


_PARENT = """
import sys
from pathlib import Path
from trimtab.cli.starting import start
from trimtab.runtime.command import Command
from trimtab.runtime.launch import Launch
sys.exit(start(Command.of([sys.executable, "-u", "-c", sys.argv[1]], Path.cwd(), {}), Launch()))
"""
_CHILD = """
import signal, sys, time
def leave(number, _):
    print("got", number)
    sys.exit(9)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, leave)
print("ready")
time.sleep(20)
"""


@pytest.mark.parametrize(
    ("number", "to_all", "code", "says"),
    [
        (signal.SIGTERM, False, 9, f"got {int(signal.SIGTERM)}"),  # from a supervisor of processes: to the parent alone
        (signal.SIGINT, True, 9, f"got {int(signal.SIGINT)}"),  # Ctrl-C: the terminal sends it to both
    ],
)
def test_a_polite_end_reaches_the_command_once_and_its_answer_counts(
    tmp_path: Path, number: signal.Signals, to_all: bool, code: int, says: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, _CHILD], cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.05)  # the parent may not yet have taken the signals over
            if to_all:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            assert process.stdout.read() == f"{says}\n"
            assert process.wait(timeout=20) == code
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the command too, whatever became of its parent


class TestAsCommand:
    def test_a_program_is_found_and_named_in_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = tmp_path / "train"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert as_command(["train", "--lr", "0.1"], tmp_path).arguments == (str(program), "--lr", "0.1")
        monkeypatch.chdir(tmp_path)
        assert as_command(["./train"], tmp_path).arguments == (str(program),)

    def test_the_order_of_sets_is_fixed_unless_the_user_did_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PYTHONHASHSEED", raising=False)
        assert as_command([sys.executable], tmp_path).environment["PYTHONHASHSEED"] == "0"
        monkeypatch.setenv("PYTHONHASHSEED", "7")
        assert as_command([sys.executable], tmp_path).environment["PYTHONHASHSEED"] == "7"

    def test_what_is_no_command_is_refused_with_what_helps(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(UsageError, match="missing"):
            as_command([], tmp_path)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(UsageError, match="cannot be found") as refused:
            as_command(["python3"], tmp_path)
        assert sys.executable in str(refused.value)
        with pytest.raises(UsageError, match="check its name and PATH"):
            as_command(["nonsense"], tmp_path)
