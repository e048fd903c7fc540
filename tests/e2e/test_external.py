"""A run whose manager is somebody else: agents and people answer through the run directory, and the ledger shows it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.integration.pytorch.conftest import Workload, mlp, supervise
from tests.integration.pytorch.managed import a_value, boundary, records
from trimtab.controls.envelope import Deliberation, Envelope
from trimtab.controls.manager_settings import Approval, ManagerSettings
from trimtab.errors import UsageError
from trimtab.ledger.record import ActionApplied, ManagerFailed, ProposalReceived, VerdictGiven
from trimtab.ledger.verify import verify_file
from trimtab.runtime.exchange_form import OpenQuestion, hand_in, waiting_question

STEPS = 25
PROPOSE = {
    "action": {"kind": "adjust", "changes": [{"control": "dropout", "value": 0.3}]},
    "reason": "planned",
    "expectation": {"gain": 0.0, "within_evaluations": 1},
}


def waiting_envelope(deadline_seconds: float, default: Approval = "reject") -> Envelope:
    deliberation = Deliberation(mode="boundary", deadline_seconds=deadline_seconds)
    return boundary(deliberation=deliberation, manager=ManagerSettings(approval_default=default))


def train(path: Path, manager: str, envelope: Envelope, steps: int = STEPS, **how: Any) -> Workload:
    workload = mlp(1)
    with supervise(workload, path, manager, envelope=envelope) as supervisor:
        workload.train(steps, supervisor, a_value(), **how)
        assert not supervisor.is_held
    assert verify_file(path / "ledger.jsonl").ok
    assert [name for name in open_files(path) if name.startswith("question")] == []
    return workload


def unmanaged(steps: int = STEPS) -> list[str]:
    workload = mlp(1)
    workload.train(steps, evaluate=a_value())
    return workload.hashes


def open_files(run: Path) -> list[str]:
    folder = run / "exchange"
    return sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


@contextmanager
def answering(run: Path, answer: Callable[[OpenQuestion], dict[str, Any] | None]) -> Any:
    """Answer every question in a thread, as an agent beside the run does."""
    stop = threading.Event()

    def watch() -> None:
        done: set[int] = set()
        while not stop.is_set():
            question = waiting_question(run / "exchange")
            if question is not None and question.number not in done:
                done.add(question.number)
                given = answer(question)
                if given is not None:
                    with suppress(UsageError):  # too late: the run goes on
                        hand_in(run / "exchange", question.number, given)
            time.sleep(0.002)

    agent = threading.Thread(target=watch)
    agent.start()
    try:
        yield
    finally:
        stop.set()
        agent.join(20)


_AGENT = """
import json, os, sys
from trimtab.cli.app import main
def call(*words):
    try:
        main(words)
    except SystemExit as ended:
        return ended.code
run = sys.argv[1]
assert call("pending", run, "--wait", "60") == 0
assert call("decide", run, "adjust", "dropout=0.3", "--by", "agent", "--reason", "try it") == 0
assert call("pending", run, "--wait", "60", "--json") == 0
assert call("decide", run, "adjust", "dropout=0.7") == 2
assert call("decide", run, "no_action", "--by", "agent") == 0
assert call("pending", run, "--wait", "60") == 0
out_of_bounds = {"kind": "adjust", "changes": [{"control": "learning_rate", "value": 50.0}]}
reply = {"action": out_of_bounds, "reason": "why not", "expectation": {"gain": 0.0, "within_evaluations": 1}}
with open(run + "/exchange/mine.tmp", "w") as file:
    json.dump(reply, file)
os.rename(run + "/exchange/mine.tmp", run + "/exchange/answer-00000003.json")
assert call("pending", run, "--wait", "60") == 3
"""


@pytest.mark.timeout(120)
def test_an_agent_in_another_process_steers_by_the_command_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    workload = mlp(1)
    with supervise(workload, run, "external", envelope=waiting_envelope(60.0)) as supervisor:
        agent = subprocess.Popen(
            [sys.executable, "-c", _AGENT, str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        workload.train(35, supervisor, a_value())
        assert not supervisor.is_held
    out, err = agent.communicate(timeout=60)
    assert agent.returncode == 0, err
    assert "handed in: dropout=0.3" in out
    received = records(run, ProposalReceived)
    assert [(one.question, one.by, one.approved_by) for one in received] == [
        (1, "manager", "agent"),
        (2, "manager", "agent"),
        (3, "manager", ""),
    ]
    assert received[0].proposal.reason == "try it"
    verdicts = records(run, VerdictGiven)
    assert [one.accepted for one in verdicts] == [True, True, False]
    assert {reason.constraint for reason in verdicts[2].reasons} >= {"bounds"}
    applied = records(run, ActionApplied)
    assert [(one.step, one.recipe["dropout"]) for one in applied] == [(11, 0.3)]
    assert workload.dropout.p == 0.3
    assert verify_file(run / "ledger.jsonl").ok


def test_a_run_that_nobody_answers_is_bit_identical_to_an_unmanaged_one(tmp_path: Path) -> None:
    deliberation = Deliberation(apply_after_steps=2, stale_after_steps=15, deadline_seconds=0.05)
    silent = train(tmp_path / "run", "external", boundary(deliberation=deliberation), 60)
    assert silent.hashes == unmanaged(60)
    assert {one.problem for one in records(tmp_path / "run", ManagerFailed)} == {"late"}
    assert records(tmp_path / "run", ActionApplied) == []


def test_a_full_or_missing_folder_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def break_it(step: int) -> None:
        if step == 1:
            (run / "exchange").write_text("a file stands in the way")

    broken = train(run, "external", boundary(deliberation=Deliberation()), before_step=break_it)
    assert broken.hashes == unmanaged()
    assert {one.problem for one in records(run, ManagerFailed)} == {"exchange"}


def test_an_answering_process_that_dies_half_way_harms_nobody_and_the_next_one_counts(tmp_path: Path) -> None:
    run = tmp_path / "run"
    crash = (
        "import os, signal, sys\nfile = open(sys.argv[1], 'w')\n"
        'file.write(\'{"action":{"kind":"stop"},\'); file.flush()\nos.kill(os.getpid(), signal.SIGKILL)'
    )

    def answer(question: OpenQuestion) -> dict[str, Any] | None:
        path = run / "exchange" / f"answer-{question.number:08d}.json"
        subprocess.run([sys.executable, "-S", "-E", "-c", crash, str(path)], check=False, timeout=20)
        end = time.monotonic() + 20
        while path.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        return PROPOSE

    with answering(run, answer):
        workload = train(run, "external", waiting_envelope(20.0), 15)
    assert workload.dropout.p == 0.3
    assert len(list((run / "exchange" / "answered").glob("*.refused"))) == 1
    assert records(run, ManagerFailed) == []


def test_of_two_agents_one_counts_and_the_ledger_says_which(tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcomes: list[tuple[str, int, bool]] = []

    def named(name: str) -> Callable[[OpenQuestion], None]:
        def answer(question: OpenQuestion) -> None:
            try:
                hand_in(run / "exchange", question.number, {"action": {"kind": "no_action"}, "reason": "r", "by": name})
            except UsageError:
                outcomes.append((name, question.number, False))
            else:
                outcomes.append((name, question.number, True))

        return answer

    with answering(run, named("Ada")), answering(run, named("Bob")):
        train(run, "external", waiting_envelope(20.0), 75)
    received = records(run, ProposalReceived)
    assert len(received) == 7
    for one in received:
        assert (one.approved_by, one.question, True) in outcomes
    assert records(run, ManagerFailed) == []


def test_the_reflex_takes_an_open_question_back(tmp_path: Path) -> None:
    run, seen = tmp_path / "run", {}

    def look(step: int) -> None:
        seen[step] = open_files(run)

    envelope = boundary(deliberation=Deliberation(stale_after_steps=1000, apply_after_steps=500))
    train(
        run,
        "external",
        envelope,
        18,
        before_step=look,
        loss_hook=lambda step, loss: loss * float("nan") if step == 14 else loss,
    )
    assert seen[12] == ["question-00000001.json"]
    assert seen[15] == [], "the question stays open though its answer cannot count any more"
    assert [one.problem for one in records(run, ManagerFailed)] == ["superseded"]


def test_a_stale_question_is_taken_back_at_its_step(tmp_path: Path) -> None:
    run, seen = tmp_path / "run", {}

    def look(step: int) -> None:
        seen[step] = open_files(run)

    envelope = boundary(deliberation=Deliberation(stale_after_steps=4, apply_after_steps=2))
    train(run, "external", envelope, 18, before_step=look)
    assert (seen[14], seen[16]) == (["question-00000001.json"], [])


# ---- a person approves


def a_script(path: Path) -> str:
    path.write_text(json.dumps([{"step": 0, "proposal": PROPOSE}]))
    return f"human:scripted:{path}"


@pytest.mark.parametrize(
    ("answer", "dropout", "approved_by", "against"),
    [
        ({"approve": True, "by": "Ada"}, 0.3, "Ada", None),
        ({"approve": True}, 0.3, "a person", None),
        ({"approve": False, "reason": "too soon", "by": "Ada"}, 0.2, "", "Ada rejected it: too soon"),
    ],
    ids=["approved by name", "approved", "rejected"],
)
def test_a_person_decides_whether_a_proposal_is_applied(
    tmp_path: Path, answer: dict[str, Any], dropout: float, approved_by: str, against: str | None
) -> None:
    run = tmp_path / "run"
    with answering(run, lambda question: answer if question.proposal is not None else None):
        workload = train(run, a_script(tmp_path / "script.json"), waiting_envelope(20.0), 25)
    received = records(run, ProposalReceived)
    assert received[0].approved_by == approved_by
    verdict = records(run, VerdictGiven)[0]
    assert [(reason.constraint, reason.detail) for reason in verdict.reasons] == ([("approval", against)] if against else [])
    assert len(records(run, ActionApplied)) == (against is None)
    assert (workload.dropout.p == 0.3) is (against is None)
    if against is not None:
        assert workload.hashes == unmanaged(25)


@pytest.mark.parametrize("default", ["approve", "reject"])
def test_nobody_answers_and_the_default_decides(tmp_path: Path, default: Approval) -> None:
    run = tmp_path / "run"
    workload = train(run, a_script(tmp_path / "script.json"), waiting_envelope(2.0, default), 12)
    [received] = records(run, ProposalReceived)
    if default == "approve":
        assert (received.approved_by, received.objection) == ("default: nobody answered within 2 seconds", "")
        assert workload.dropout.p == 0.3
    else:
        assert (received.approved_by, received.objection) == ("", "not approved: nobody answered within 2 seconds")
        assert workload.hashes == unmanaged(12)


def test_an_approval_does_not_put_a_proposal_above_the_envelope(tmp_path: Path) -> None:
    run = tmp_path / "run"
    beyond = {**PROPOSE, "action": {"kind": "adjust", "changes": [{"control": "dropout", "value": 0.95}]}}
    (tmp_path / "script.json").write_text(json.dumps([{"step": 0, "proposal": beyond}]))
    with answering(run, lambda _: {"approve": True, "by": "Ada"}):
        workload = train(run, f"human:scripted:{tmp_path / 'script.json'}", waiting_envelope(20.0), 15)
    assert records(run, ProposalReceived)[0].approved_by == "Ada"
    assert not records(run, VerdictGiven)[0].accepted
    assert workload.hashes == unmanaged(15)


# ---- the agents of the documentation

DOCUMENT = Path(__file__).parents[2] / "docs" / "external.md"


def code(language: str, heading: str) -> str:
    section = DOCUMENT.read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def run_beside(run: Path, command: list[str], **how: Any) -> tuple[Workload, subprocess.Popen[str]]:
    """Train while ``command`` answers; the agent has to be there before the first question."""
    workload = mlp(1)
    with supervise(workload, run, "external", envelope=waiting_envelope(30.0)) as supervisor:
        agent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)
        workload.train(25, supervisor, a_value())
        assert not supervisor.is_held
    return workload, agent


def test_the_documented_agent_in_python_steers(tmp_path: Path) -> None:
    source = code("python", "An agent in fifteen lines of Python")
    workload, agent = run_beside(tmp_path / "run", [sys.executable, "-S", "-c", source, str(tmp_path / "run")])
    assert agent.poll() is None, "it died"
    agent.kill()
    agent.communicate(timeout=20)
    assert [one.recipe["dropout"] for one in records(tmp_path / "run", ActionApplied)] == [0.5, 0.3]
    assert workload.dropout.p == 0.3
    assert records(tmp_path / "run", ManagerFailed) == []


@pytest.mark.timeout(120)
def test_the_documented_agent_in_shell_answers_until_the_run_has_ended(tmp_path: Path) -> None:
    command = tmp_path / "trimtab"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from trimtab.cli.app import main; main()" "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    source = code("sh", "And in shell")
    run = tmp_path / "run"
    workload, agent = run_beside(run, ["sh", "-c", source, "sh", str(run)], env=environment, cwd=tmp_path)
    _, err = agent.communicate(timeout=60)
    assert agent.returncode == 0, err
    assert [one.approved_by for one in records(run, ProposalReceived)] == ["night-shift"] * 2
    assert records(run, ManagerFailed) == []
    assert workload.hashes == unmanaged(25)
