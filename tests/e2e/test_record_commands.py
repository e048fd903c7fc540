"""A user's own script, started, killed, resumed, replayed and forked from the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trimtab.ledger.course import iter_course
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import ActionApplied, ProposalReceived, RunEnded, RunResumed
from trimtab.ledger.verify import verify_file

SCRIPT = Path(__file__).parents[2] / "examples" / "digits.py"
PLAN = [
    {
        "step": step,
        "proposal": {
            "action": {"kind": "adjust", "changes": [{"control": name, "value": value}]},
            "reason": "planned",
            "expectation": {"gain": 0.0, "within_evaluations": 1},
        },
    }
    for step, name, value in ((60, "dropout", 0.1), (80, "weight_decay", 0.1))
]

pytestmark = pytest.mark.timeout(180)


def trimtab(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trimtab", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def digits(folder: Path, *more: str, steps: int = 120) -> list[str]:
    plan = folder / "plan.json"
    plan.write_text(json.dumps(PLAN))
    return [sys.executable, str(SCRIPT), "--steps", str(steps), "--every", "20", "--manager", f"scripted:{plan}", *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run that was started from the command line and ended in order."""
    folder = tmp_path_factory.mktemp("finished")
    done = trimtab("run", "--run-dir", "runs/whole", "--hash-every", "1", "--", *digits(folder), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_recorded_run_is_replayed_bit_for_bit(finished: Path) -> None:
    command = json.loads((finished / "runs/whole/command.json").read_text())
    assert command["arguments"][1] == str(SCRIPT)
    assert command["directory"] == str(finished)
    (finished / "plan.json").rename(finished / "gone.json")  # a replay asks nobody, so it needs no script either
    try:
        done = trimtab("replay", "runs/whole", cwd=finished)
    finally:
        (finished / "gone.json").rename(finished / "plan.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"bit-exact: .* up to step 120, 9 saved states, 120 hashed steps", done.stdout.replace("\n", " "))
    assert not (finished / "runs/whole-replay-1").exists()


def test_a_changed_script_is_named_and_the_first_difference_too(finished: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.read_text())
    words = [word if word != str(SCRIPT) else str(script) for word in digits(tmp_path, steps=60)]
    assert trimtab("run", "--run-dir", "run", "--hash-every", "1", "--", *words, cwd=tmp_path).returncode == 0
    touched = "        loss.backward()\n        if supervisor.num_steps == 41: model[0].bias.grad[0] += 1e-3\n"
    script.write_text(script.read_text().replace("        loss.backward()\n", touched))
    done = trimtab("replay", "run", cwd=tmp_path)
    said = " ".join(done.stdout.split())
    assert done.returncode == 1, done.stderr
    assert "not the same: first known to differ at step 42" in said
    assert "step 42: the state differs in model, optimizer" in said
    assert "41 hashed steps" in said
    assert "train.py has changed since" in said
    assert (tmp_path / "run-replay-1").exists()


def test_a_replay_cannot_reach_the_network(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    call = (
        "import socket",
        "try:",
        "    socket.create_connection(('127.0.0.1', 9))",
        "except OSError as error:",
        "    print(error)",
    )
    script.write_text("\n".join((SCRIPT.read_text(), *call, "")))
    words = [word if word != str(SCRIPT) else str(script) for word in digits(tmp_path, steps=20)]
    first = trimtab("run", "--run-dir", "run", "--", *words, cwd=tmp_path)
    assert "refused" in first.stdout
    assert trimtab("replay", "run", "--keep", cwd=tmp_path).returncode == 0
    assert "keeps the network closed" in (tmp_path / "run-replay-1/output.log").read_text()


def test_a_killed_run_is_resumed_exactly(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [sys.executable, "-m", "trimtab", "run", "--run-dir", "run", "--hash-every", "1", "--", *digits(tmp_path)]
    process = subprocess.Popen(words, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)
    ledger = run / "ledger.jsonl"
    while not (ledger.is_file() and ledger.read_bytes().count(b'"kind":"evaluation_recorded"') >= 3):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # the script too
    process.wait()
    assert "cut off" in trimtab("show", "run", cwd=tmp_path).stdout
    done = trimtab("resume", "run", "--hash-every", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Going on with run after step \d+", done.stderr)
    records = [entry.record for entry in read_ledger(ledger)]
    assert sum(isinstance(record, RunResumed) for record in records) == 1
    course = [entry.record for entry in iter_course(ledger)]
    assert isinstance(course[-1], RunEnded)
    assert [record.step for record in course if isinstance(record, ActionApplied)] == [61]
    assert verify_file(ledger).ok
    replayed = trimtab("replay", "run", cwd=tmp_path)
    assert replayed.returncode == 0, replayed.stdout
    assert "120 hashed steps" in " ".join(replayed.stdout.split())
    again = trimtab("resume", "run", cwd=tmp_path)
    assert again.returncode == 2
    assert "the run has ended in order" in again.stderr


def test_a_fork_says_what_a_decision_was_worth(finished: Path) -> None:
    done = trimtab("fork", "runs/whole", "--at", "1", "--without", "--seeds", "2", "--json", cwd=finished)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["control_is_exact"]
    assert not found["is_anecdote"]
    assert [pair["seed"] for pair in found["pairs"]] == [0, 1]
    first, second = found["pairs"]
    assert first["control"] != second["control"], "another seed changed nothing"
    assert first["control"] != first["treated"]
    effect = found["effects"]["last"]
    differences = [pair["treated"]["last"] - pair["control"]["last"] for pair in found["pairs"]]
    assert effect["mean"] == pytest.approx(sum(differences) / 2)
    assert effect["low"] < min(differences) < max(differences) < effect["high"]  # two pairs say little
    folder = finished / found["folder"]
    for branch in ("control-0", "treated-0", "control-1", "treated-1"):
        assert verify_file(folder / branch / "ledger.jsonl").ok
    answers = {
        branch: [
            entry.record
            for entry in iter_course(folder / branch / "ledger.jsonl")
            if isinstance(entry.record, ProposalReceived)
        ]
        for branch in ("control-0", "treated-0")
    }
    kinds = {branch: [record.proposal.action.kind for record in given] for branch, given in answers.items()}
    assert kinds["control-0"] == ["adjust", "adjust", "no_action"]
    assert kinds["treated-0"] == ["no_action", "adjust", "no_action"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--at", "99", "--without"), "the run has no such decision; received 99; allowed: 1 to 3"),
        (("--at", "1"), "say what happens in place of the decision"),
        (("--at", "1", "--with", "dropout=0.9"), "this value is not executable now"),
        (("--at", "1", "--with", "nonsense"), "this is no action"),
        (("--at", "1", "--with", "dropout=0.1"), "that is what was answered, so nothing would change"),
        (("--at", "3", "--without"), "that is what was answered, so nothing would change"),
    ],
)
def test_a_fork_that_cannot_be_is_refused_before_anything_runs(finished: Path, words: tuple[str, ...], said: str) -> None:
    done = trimtab("fork", "runs/whole", *words, cwd=finished)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_a_run_without_a_command_says_how_to_go_on(finished: Path, tmp_path: Path) -> None:
    assert trimtab("run", cwd=tmp_path).returncode == 2
    done = trimtab("run", "--", "no-such-program", cwd=tmp_path)
    assert done.returncode == 2
    assert "the program cannot be found" in done.stderr
    assert trimtab("run", "--", sys.executable, "-c", "raise SystemExit(7)", cwd=tmp_path).returncode == 7
    assert trimtab("run", "--", sys.executable, "-c", "import os; os.kill(os.getpid(), 9)", cwd=tmp_path).returncode == 137
