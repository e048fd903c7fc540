"""`pending`, as a person and as an agent call it."""

from __future__ import annotations

import json
import shlex
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import a_briefing, a_standing, a_symptom
from tests.unit.report.sample_run import Play, whole_run, write_ledger
from tests.unit.runtime.exchange_fixtures import ADJUST, a_question
from trimtab.cli.app import main
from trimtab.decision.wire import encode_proposal
from trimtab.ledger.record import ManagerAsked
from trimtab.runtime.approval import read_decision
from trimtab.runtime.exchange import Exchange
from trimtab.runtime.exchange_form import decode_question, hand_in, question_name
from trimtab.runtime.external import read_answer


@pytest.fixture(autouse=True)
def in_a_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    write_ledger(tmp_path / "runs" / "first", Play(run="first").records)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def lay_out(run: str = "first", number: int = 3, **changes: Any) -> Exchange:
    exchange = Exchange(Path("runs") / run / "exchange", run)
    briefing = a_briefing(question=number, symptoms=(a_symptom(),), standing=a_standing(can_skip=True))
    asked = ManagerAsked(400, number, briefing)
    exchange.publish(a_question(number, **({"asked": asked, "asked_at_seconds": time.time(), "run": run} | changes)))
    return exchange


def test_a_question_for_a_proposal_is_told_with_all_that_is_executable(capsys: pytest.CaptureFixture[str]) -> None:
    lay_out()
    code, out, err = call(capsys, "pending", "first")
    assert (code, err) == (0, "")
    for told in (
        "first · question 3 wants a proposal · open until ",
        "at most until step 600",
        "minimize val/loss; 400 steps done, evaluated every 100",
        "overfitting",
        "objective=2.5",
        "learning_rate, now 0.001: 0.00025 (x0.25)  0.0005 (x0.5)",
        "step-00000200: 2 at step 200, the best",
        "1 to 200",
        "ask the training loop to end",
        "trimtab decide runs/first --question 3 no_action",
        "trimtab decide runs/first --question 3 adjust learning_rate=0.00025",
        "trimtab decide runs/first --question 3 rollback step-00000200",
    ):
        assert told in " ".join(out.split()) or told in out, told


def test_a_question_for_an_approval_is_told_with_the_proposal_and_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    lay_out(proposal=ADJUST, default="reject")
    code, out, _ = call(capsys, "pending")
    assert code == 0
    for told in (
        "wants an approval",
        "dropout=0.2",
        "it overfits",
        "a gain of 0.1 within 2 evaluations",
        "trimtab decide runs/first --question 3 approve",
        'trimtab decide runs/first --question 3 reject --reason "..."',
        "If nobody answers, it is rejected.",
    ):
        assert told in out
    assert "Executable" not in out


def test_every_command_that_is_shown_works(capsys: pytest.CaptureFixture[str]) -> None:
    lay_out()
    shown = [line.strip() for line in call(capsys, "pending")[1].splitlines() if "trimtab decide" in line]
    assert len(shown) == 5
    for line in shown:
        lay_out()
        assert call(capsys, *shlex.split(line)[1:])[0] == 0, line


def test_every_answer_in_the_json_can_be_handed_in(capsys: pytest.CaptureFixture[str]) -> None:
    lay_out()
    code, out, _ = call(capsys, "pending", "--json")
    assert code == 0
    [waiting] = json.loads(out)["questions"]
    assert decode_question(json.dumps(waiting["exchange"]).encode()).number == 3
    assert Path(waiting["answer_file"]) == Path.cwd() / "runs/first/exchange/answer-00000003.json"
    kinds = [read_answer(json.dumps(answer).encode())[0].action.kind for answer in waiting["answers"]]
    assert kinds == ["no_action", "adjust", "rollback", "skip_batches", "stop"]
    lay_out(proposal=ADJUST, default="approve")
    [waiting] = json.loads(call(capsys, "pending", "--json")[1])["questions"]
    assert [read_decision(json.dumps(answer).encode()).approve for answer in waiting["answers"]] == [True, False]
    assert waiting["exchange"]["proposal"] == encode_proposal(ADJUST)


def test_without_a_run_all_open_questions_are_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_ledger(tmp_path / "runs" / "demo-1" / "managed", Play(run="managed").records)
    lay_out()
    lay_out("demo-1/managed", 7)
    tree = json.loads(call(capsys, "pending", "--json")[1])
    assert [(one["run_dir"], one["exchange"]["question"]) for one in tree["questions"]] == [
        ("runs/demo-1/managed", 7),
        ("runs/first", 3),
    ]
    assert json.loads(call(capsys, "pending", "first", "--json")[1])["questions"] == tree["questions"][1:]


def test_without_a_question_the_exit_code_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "pending", "first") == (1, "No question is open.\n", "")
    code, out, _ = call(capsys, "pending", "--json")
    assert (code, json.loads(out)) == (1, {"questions": []})


def test_an_answered_a_withdrawn_and_an_expired_question_are_not_open(capsys: pytest.CaptureFixture[str]) -> None:
    exchange = lay_out()
    hand_in(Path("runs/first/exchange"), 3, {"action": {"kind": "no_action"}, "reason": "calm"})
    assert call(capsys, "pending")[0] == 1
    exchange.withdraw()
    assert call(capsys, "pending")[0] == 1
    lay_out(asked_at_seconds=time.time() - 61.0)
    assert call(capsys, "pending")[0] == 1
    lay_out(asked_at_seconds=time.time() - 50.0)
    assert call(capsys, "pending")[0] == 0


def test_waiting_returns_as_soon_as_there_is_a_question(capsys: pytest.CaptureFixture[str]) -> None:
    asker = threading.Timer(0.3, lay_out)
    asker.start()
    began = time.monotonic()
    code, out, _ = call(capsys, "pending", "first", "--wait", "60", "--json")
    asker.join()
    assert code == 0
    assert len(json.loads(out)["questions"]) == 1
    assert 0.2 < time.monotonic() - began < 20


def test_waiting_ends_after_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert call(capsys, "pending", "first", "--wait", "0.3")[0] == 1
    assert 0.3 <= time.monotonic() - began < 20


def test_waiting_for_a_run_that_has_ended_ends_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_ledger(tmp_path / "runs" / "second", whole_run())
    began = time.monotonic()
    assert call(capsys, "pending", "second", "--wait", "60") == (3, "The run has ended.\n", "")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("wait", ["-1", "nan", "inf"])
def test_a_time_that_makes_no_sense_is_refused(capsys: pytest.CaptureFixture[str], wait: str) -> None:
    code, _, err = call(capsys, "pending", "--wait", wait)
    assert code == 2
    assert "the time to wait is out of range" in err


def test_a_damaged_question_is_an_error_and_hides_no_other(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_ledger(tmp_path / "runs" / "second", Play(run="second").records)
    lay_out()
    lay_out("second")
    (tmp_path / "runs" / "second" / "exchange" / question_name(3)).write_text("{}")
    code, out, err = call(capsys, "pending")
    assert code == 0
    assert "first · question 3" in out
    assert "an open question cannot be read" in err
    assert call(capsys, "pending", "second")[0] == 2


def test_texts_of_the_run_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[31m[red]\n\u202e"
    lay_out(proposal=replace(ADJUST, reason=f"because{evil}"), default="reject")
    path = Path("runs/first/exchange") / question_name(3)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": f"first{evil}"}))
    _, out, _ = call(capsys, "pending")
    assert "\\x1b[31m[red]" in out
    assert all(line.isprintable() for line in out.splitlines())


@pytest.mark.parametrize("columns", [60, 120])
def test_the_table_of_what_is_executable_keeps_to_the_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lay_out()
    lines = call(capsys, "pending")[1].partition("Executable")[2].partition("Answer with")[0].splitlines()
    assert len(lines) > 5
    assert max(map(len, lines)) <= columns
