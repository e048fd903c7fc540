from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from trimtab.cli.arms import ArmName, ArmSpec, Progress, Result, parse_message, run_arms
from trimtab.errors import TrimtabError

FAKE = Path(__file__).parent / "fake_arm.py"
ARMS: tuple[ArmName, ...] = ("unmanaged", "managed")


class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.steps: dict[str, list[int]] = {"unmanaged": [], "managed": []}
        self.done: list[str] = []
        self.noises: list[tuple[str, str]] = []
        self.order: list[str] = []

    def progressed(self, arm: ArmName, progress: Progress) -> None:
        self.steps[arm].append(progress.step)
        self.order.append(arm)

    def finished(self, arm: ArmName, result: Result) -> None:
        self.done.append(arm)

    def noticed(self, arm: ArmName, noise: str) -> None:
        self.noises.append((arm, noise))

    def waited(self) -> None:
        pass


def start(behaviour: str, folder: Path) -> tuple[dict[ArmName, Result], Watcher]:
    watcher = Watcher()
    specs = [ArmSpec(arm, 0, 100, "rules", None, str(folder / arm)) for arm in ARMS]
    return run_arms([sys.executable, str(FAKE), behaviour], specs, folder, watcher), watcher


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_both_arms_report_and_finish(tmp_path: Path) -> None:
    results, watcher = start("good", tmp_path)
    assert set(results) == set(watcher.done) == set(ARMS)
    assert watcher.steps == {arm: list(range(0, 101, 10)) for arm in ARMS}
    assert results["managed"].final < results["unmanaged"].final
    assert results["managed"].marks[0] == (30, "rollback to step-1, dropout=0.1", "rollback")
    assert list(tmp_path.iterdir()) == []  # empty logs are removed


def test_the_arms_run_at_the_same_time(tmp_path: Path) -> None:
    _, watcher = start("slow", tmp_path)
    changes = sum(one != other for one, other in zip(watcher.order, watcher.order[1:], strict=False))
    assert changes >= 4


def test_lines_that_are_no_message_are_noise(tmp_path: Path) -> None:
    results, watcher = start("noise", tmp_path)
    assert set(results) == set(ARMS)
    assert [noise[:12] for arm, noise in watcher.noises if arm == "managed"] == [
        "a warning \x1b[", "[1, 2]", '{"event": "p', '{"event": "w', "[" * 12,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ("crash", r"the managed run ended without a result; received exit code 1; last words: MemoryError: out of"),
        ("killed", r"the managed run ended without a result; received signal 6"),
        ("error", r"the managed run failed: there is no such manager; next: correct what it names"),
    ],
)
def test_an_arm_that_dies_is_an_error_and_the_other_is_ended(tmp_path: Path, behaviour: str, told: str) -> None:
    began = time.monotonic()
    with pytest.raises(TrimtabError, match=told):
        start(behaviour, tmp_path)
    assert time.monotonic() - began < 4.5  # asked to end, not killed after the 5 s of grace
    pid_file = tmp_path / "unmanaged.pid"
    assert not pid_file.exists() or not is_alive(int(pid_file.read_text() or "0"))


def test_an_arm_that_dies_while_its_child_holds_the_pipe_is_found(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(TrimtabError, match="managed run ended without a result; received exit code 0"):
        start("orphan", tmp_path)
    assert time.monotonic() - began < 9  # the child holds it for 12 s


def test_a_malformed_result_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(TrimtabError, match=r"managed run ended without a result.*last words: \{"):
        start("bad_result", tmp_path)


def test_a_command_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    spec = ArmSpec("managed", 0, 1, "rules", None, str(tmp_path / "managed"))
    with pytest.raises(TrimtabError, match="could not be started"):
        run_arms([str(tmp_path / "no-such-program")], [spec], tmp_path, Watcher())


def test_non_finite_numbers_are_read_in_either_spelling() -> None:
    known = '{"event":"progress","arm":"managed","step":1,"steps":2,"recipe":{},"decision":null,'
    line = known + '"loss":NaN,"val_loss":"Infinity"}'
    message = parse_message(line)
    assert isinstance(message, Progress)
    assert (str(message.loss), str(message.val_loss)) == ("nan", "inf")


@pytest.mark.parametrize("line", ["", "null", "{}", '{"event":1}', '{"event":"error"}', "[" * 100_000, '{"event":"progress"'])
def test_a_line_that_is_no_message(line: str) -> None:
    assert parse_message(line) is None
