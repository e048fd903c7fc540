from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trimtab.cli import demo
from trimtab.cli.app import main

FAKE = Path(__file__).parent / "fake_arm.py"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


Behave = Callable[[str], None]


@pytest.fixture
def behave(monkeypatch: pytest.MonkeyPatch) -> Behave:
    def choose(behaviour: str) -> None:
        monkeypatch.setattr(demo, "ARM_COMMAND", (sys.executable, str(FAKE), behaviour))

    return choose


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["demo", *arguments])
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def test_the_demo_compares_and_says_what_to_do_next(capsys: pytest.CaptureFixture[str], behave: Behave) -> None:
    behave("good")
    code, out, err = call(capsys, "--steps", "200")
    assert (code, err) == (0, "")
    for told in (
        "unmanaged, stopped early",
        "1  step 60: rollback to step-1, dropout=0.1",
        "lower than the unmanaged run's",
        "picture  runs/demo-1/demo.svg",
        "next     trimtab show runs/demo-1/managed",
    ):
        assert told in out
    assert Path("runs/demo-1/demo.svg").read_text(encoding="utf-8").startswith("<svg")
    assert max(len(line) for line in out.splitlines() if "%" not in line and "eta" not in line) <= 80


def test_json_is_all_there_is_on_standard_output(capsys: pytest.CaptureFixture[str], behave: Behave) -> None:
    behave("non_finite")
    code, out, err = call(capsys, "--json", "--seed", "3", "--steps", "100")
    tree = json.loads(out, parse_constant=pytest.fail)
    assert code == 0
    assert {"seed", "unmanaged", "managed", "early_stopping", "interventions", "run_dirs"} <= set(tree)
    assert (tree["seed"], tree["steps"], tree["managed"]["final"]) == (3, 100, "NaN")
    assert tree["run_dirs"] == {"unmanaged": "runs/demo-1/unmanaged", "managed": "runs/demo-1/managed"}
    assert "managed" in err


def test_each_demo_gets_a_folder_of_its_own(capsys: pytest.CaptureFixture[str], behave: Behave) -> None:
    behave("good")
    Path("runs/demo-1").mkdir(parents=True)
    assert "runs/demo-2/managed" in call(capsys, "--steps", "100")[1]
    assert "trimtab show 'own runs/managed'" in call(capsys, "--steps", "100", "--run-dir", "own runs")[1]
    code, _, err = call(capsys, "--run-dir", "own runs")
    assert code == 2
    assert "the folder is not empty" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--text", "nowhere.txt"], "there is no such text file"),
        (["--run-dir", "file/below"], "the folder cannot be used"),
        (["--steps", "0"], "--steps"),
    ],
)
def test_a_wrong_argument_is_told_before_anything_runs(
    capsys: pytest.CaptureFixture[str], behave: Behave, arguments: list[str], told: str
) -> None:
    behave("hang")
    Path("file").touch()
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert not Path("runs").exists()


def test_a_dead_arm_is_an_error_that_names_its_log(capsys: pytest.CaptureFixture[str], behave: Behave) -> None:
    behave("crash")
    code, _, err = call(capsys, "--steps", "100")
    assert code == 2
    assert "MemoryError: out of \\x1b[31mmemory" in err
    assert "next:  read runs/demo-1/managed.log" in err
    assert "MemoryError" in Path("runs/demo-1/managed.log").read_text(encoding="utf-8")


def test_a_missing_torch_names_the_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    code, _, err = call(capsys)
    assert code == 2
    assert "pip install 'trimtab[torch]'" in err


def test_ctrl_c_ends_both_arms_and_exits_with_130(tmp_path: Path) -> None:
    script = (
        # A shell's background job ignores Ctrl-C, and so would whatever is started in it.
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from trimtab.cli import demo\nfrom trimtab.cli.app import main\n"
        f"demo.ARM_COMMAND = (sys.executable, {str(FAKE)!r}, 'hang')\nmain(['demo', '--steps', '100'])"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pid_files = [tmp_path / "runs" / "demo-1" / f"{arm}.pid" for arm in ("unmanaged", "managed")]
    deadline = time.monotonic() + 30
    while not all(file.exists() and file.read_text() for file in pid_files):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted: both runs were ended" in err
    assert "Traceback" not in err
    for file in pid_files:
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)
