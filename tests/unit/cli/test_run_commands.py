"""`show`, `runs` and `verify`, as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import an_envelope
from tests.fake_run import Run
from tests.unit.report.safeguarded_runs import guarded_run, tried_run
from tests.unit.report.sample_run import Play, whole_run, write_ledger
from tests.unit.report.scored_run import TAKEN, ScoredRun, shadow_story
from trimtab.cli.app import main
from trimtab.controller.event import AnswerFailed, RunClosed
from trimtab.controls.safeguards import Canary
from trimtab.decision.action import Stop
from trimtab.ledger.journal import Journal

HOSTILE = "\x1b[31m[red]\n\u202e\ud800"


@pytest.fixture(autouse=True)
def in_a_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    write_ledger(tmp_path / "runs" / "first", whole_run())
    write_ledger(tmp_path / "runs" / "demo-1" / "managed", whole_run()[:20])


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.mark.parametrize("run", ["first", "runs/first", "runs/first/ledger.jsonl"])
def test_show_tells_the_whole_story(capsys: pytest.CaptureFixture[str], run: str) -> None:
    code, out, err = call(capsys, "show", run)
    assert (code, err) == (0, "")
    for told in (
        "first · rules · ended: finished",
        "best 1.7 at step 300",
        "dropout 0 → 0.1 · learning_rate 0.003 → 0.0015",
        "#1-2  steps 50 to 100 · 2 questions · no action",
        "#3  step 200 · manager · applied at step 210 as intervention 1",
        "overfitting in val/loss: objective 2.1, best_objective 1.9",
        "rollback to step-00000100, dropout=0.1",
        "gain +0.1 · as expected",
        "not a permitted",
        "the reflex answers non_finite",
        "non_finite in train/loss: value NaN",
        "the binding broke",
        "expected 0.0015 in effect, found 0.003",
        "2 problems",
    ):
        assert told in out


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_show_keeps_to_the_width(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = call(capsys, "show", "first")
    assert max(len(line) for line in out.splitlines()) <= columns


def test_show_all_tells_every_question(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "show", "first", "--all")
    assert "#1  step 50" in out
    assert "too early" in out


def test_show_as_json_is_one_valid_object(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "show", "first", "--json")
    tree = json.loads(out, parse_constant=pytest.fail)
    assert set(tree) == {"summary", "decisions", "evaluations", "torn_bytes", "is_live", "status", "go_on"}
    assert (tree["status"], tree["go_on"]) == ("ended", None)
    assert tree["summary"]["interventions"] == 3
    assert tree["evaluations"][5] == {"step": 350, "value": "NaN"}


def test_hostile_texts_are_harmless_in_every_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_ledger(tmp_path / "runs" / "evil\x1b[2J", whole_run(HOSTILE))
    for arguments in (["show", "evil\x1b[2J", "--all"], ["runs"], ["verify", "evil\x1b[2J"], ["show", "evil\x1b[3J"]):
        _, out, err = call(capsys, *arguments)
        assert "\\x1b[" in out + err
        assert all(line.isprintable() for line in (out + err).splitlines())
    assert "[red]" in call(capsys, "show", "evil\x1b[2J")[1]
    assert call(capsys, "show", "evil\x1b[2J", "--json")[1].isascii()


def test_a_run_that_was_cut_off_is_told_from_one_that_goes_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ledger = tmp_path / "runs" / "demo-1" / "managed" / "ledger.jsonl"
    with Journal.open(ledger), ledger.open("ab") as file:
        file.write(b'{"hash":')
        file.flush()
        out = call(capsys, "show", "demo-1/managed")[1]
        assert "first · rules · running" in out
        assert "last line is unfinished (8 bytes): it is being written" in out
        assert "resume" not in out
        assert json.loads(call(capsys, "show", "demo-1/managed", "--json")[1])["is_live"] is True
        table = call(capsys, "runs")[1]
        assert "running" in table
        assert "cut off" not in table
    out = call(capsys, "show", "demo-1/managed")[1]
    assert "first · rules · cut off" in out
    assert "last line is unfinished (8 bytes): whoever wrote it was cut off" in out
    assert "go on with trimtab resume runs/demo-1/managed" in " ".join(out.split())
    assert json.loads(call(capsys, "show", "demo-1/managed", "--json")[1])["is_live"] is False
    assert "cut off: trimtab resume runs/demo-1/managed" in " ".join(call(capsys, "runs")[1].split())


@pytest.mark.parametrize("asked", [False, True])
def test_a_run_whose_loop_raised_is_cut_off_with_the_reason_and_can_be_gone_on_with(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, asked: bool
) -> None:
    why, go_on = "the training loop raised KeyError", "trimtab resume runs/raised"
    play = Play(run="raised")
    play.evaluate(50, 3.2)
    if asked:
        play.propose(50, Stop(), "it is good enough", 0.0)
    play.feed(RunClosed(70, why))
    write_ledger(tmp_path / "runs" / "raised", play.records)
    shown = " ".join(call(capsys, "show", "raised")[1].split())
    assert f"raised · rules · cut off: {why}" in shown
    assert f"go on with {go_on}" in shown
    tree = json.loads(call(capsys, "show", "raised", "--json")[1])
    assert (tree["status"], tree["summary"]["status"], tree["is_live"], tree["go_on"]) == ("cut off", "cut off", False, go_on)
    assert tree["summary"]["ended_because"] == why
    table = " ".join(call(capsys, "runs")[1].split())
    assert "cut off: the training" in table
    assert go_on in table
    listed = {run["name"]: run for run in json.loads(call(capsys, "runs", "--json")[1])["runs"]}
    assert [listed["raised"][key] for key in ("status", "ended_because", "go_on")] == ["cut off", why, go_on]
    assert listed["first"]["go_on"] is None


def test_a_run_that_has_ended_is_ended_whoever_holds_its_ledger(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with Journal.open(tmp_path / "runs" / "first" / "ledger.jsonl"):
        assert "rules · ended: finished" in call(capsys, "show", "first")[1]
        assert json.loads(call(capsys, "show", "first", "--json")[1])["is_live"] is False


def test_show_of_a_run_without_decisions(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_ledger(tmp_path / "runs" / "new", Play(run="new").records)
    _, out, _ = call(capsys, "show", "new")
    assert "not evaluated yet" in out
    assert "No decision yet." in out


def test_show_tells_who_answered_and_what_a_shadow_run_would_have_done(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_ledger(tmp_path / "runs" / "shadow", shadow_story())
    _, out, _ = call(capsys, "show", "shadow")
    for told in (
        "0 interventions · 2 that would have been applied · 2 rejections",
        "none is applied",
        "#3 step 300 · manager · would have been applied at step 310 (shadow)",
        "approved by ada",
        "model-1 · 2 calls · 1,200 tokens read, 80 written · $0.0012 · 0.5 s",
        "the manager failed: late: no answer within 80 steps; raise",
        "approval: not today",
    ):
        assert told in " ".join(out.split())


def test_show_counts_what_rules_answered_among_the_quiet_questions(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = ScoredRun(fallback="rules")
    for _ in range(3):
        run.next(1.0)
        run.give(AnswerFailed(run.at + 1, run.now.num_questions, "timeout", "no reply", TAKEN))
        run.miss()
    run.close()
    write_ledger(tmp_path / "runs" / "failing", run.records)
    _, out, _ = call(capsys, "show", "failing")
    assert "3 questions · no action · the manager failed at 3 of them" in " ".join(out.split())


@pytest.mark.parametrize(("usd", "price"), [(0.0572, "up to $0.0572"), (None, "price not known")])
def test_show_and_the_scorecard_say_of_an_unsettled_call_that_it_is_the_most(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, usd: float | None, price: str
) -> None:
    taken = replace(TAKEN, calls=1, input_tokens=29_735, output_tokens=2000, usd=usd, unsettled_calls=1)
    run = ScoredRun()
    run.next(1.0)
    run.give(AnswerFailed(run.at + 1, run.now.num_questions, "timeout", "no reply", taken))
    run.close()
    write_ledger(tmp_path / "runs" / "unsettled", run.records)
    for command in ("show", "scorecard"):
        _, out, _ = call(capsys, command, "unsettled")
        assert f"1 call · up to 29,735 tokens read, up to 2,000 written · {price}" in " ".join(out.split())


def test_show_says_of_no_question_of_an_ended_run_that_it_is_open(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = ScoredRun()
    run.next(1.0)
    write_ledger(tmp_path / "runs" / "going", run.records)
    assert "manager · open" in call(capsys, "show", "going")[1]
    run.close()
    write_ledger(tmp_path / "runs" / "closed", run.records)
    assert "left open when the run ended" in call(capsys, "show", "closed")[1]


@pytest.mark.parametrize("arguments", [["show", "first"], ["show", "first", "--json"], ["scorecard", "first"], ["runs"]])
def test_a_reader_that_leaves_early_is_no_error(arguments: list[str]) -> None:
    command = [sys.executable, "-c", "from trimtab.cli.app import main\nmain()", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 141)


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ("frist", "did you mean 'first'?"),
        ("demo-1", "name one: runs/demo-1/managed"),
        ("runs", "runs/demo-1/managed, runs/first"),
    ],
)
def test_a_run_that_is_not_there_is_an_error_with_a_hint(capsys: pytest.CaptureFixture[str], run: str, told: str) -> None:
    code, out, err = call(capsys, "show", run)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert told in err
    assert "Traceback" not in err


def damage(folder: Path) -> None:
    ledger = folder / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    lines[7] = lines[7].replace(b"1.9", b"1.1")
    ledger.write_bytes(b"".join(lines))


def test_verify_says_whole_or_damaged_by_its_exit_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = call(capsys, "verify", "first")
    assert code == 0
    assert f"whole: {len(whole_run())} records" in out
    damage(tmp_path / "runs" / "first")
    code, out, _ = call(capsys, "verify", "first")
    assert code == 1
    assert "damaged" in out
    assert "line 8" in out
    assert call(capsys, "show", "first")[0] == 2


def test_verify_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = call(capsys, "verify", "first", "--json")
    whole = json.loads(out)
    assert code == 0
    assert (whole["ok"], whole["records"]) == (True, len(whole_run()))
    damage(tmp_path / "runs" / "first")
    code, out, _ = call(capsys, "verify", "first", "--json")
    damaged = json.loads(out)
    assert code == 1
    assert (damaged["ok"], damaged["records"], damaged["line"]) == (False, 7, 8)


def test_verify_finds_a_tail_that_was_cut_off_by_the_head_of_before(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    head = json.loads(call(capsys, "verify", "first", "--json")[1])["head"]
    assert call(capsys, "verify", "first", "--head", head)[0] == 0
    ledger = tmp_path / "runs" / "first" / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:-2]))
    assert call(capsys, "verify", "first")[0] == 0
    assert call(capsys, "verify", "first", "--head", head)[0] == 1
    code, _, err = call(capsys, "verify", "first", "--head", "what")
    assert code == 2
    assert "the head is malformed" in err


def test_runs_lists_what_can_be_read_and_what_cannot(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_ledger(tmp_path / "runs" / "demo-10", whole_run())
    write_ledger(tmp_path / "runs" / "demo-2", whole_run())
    damage(tmp_path / "runs" / "demo-2")
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "empty" / "ledger.jsonl").touch()
    code, out, _ = call(capsys, "runs", "--json")
    listed = {run["name"]: run for run in json.loads(out)["runs"]}
    assert code == 0
    assert list(listed) == ["demo-1/managed", "demo-2", "demo-10", "empty", "first"]
    assert [run["status"] for run in listed.values()] == ["cut off", "unreadable", "ended", "unreadable", "ended"]
    assert [run["is_live"] for run in listed.values()] == [False, None, False, None, False]
    assert listed["empty"]["problem"] == "no record yet"
    assert listed["first"]["best"] == {"step": 300, "value": 1.7}
    table = call(capsys, "runs")[1]
    assert "unreadable" in table
    assert "1000/1000" in table


def test_runs_of_an_empty_folder_says_what_to_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fresh").mkdir()
    monkeypatch.chdir(tmp_path / "fresh")
    assert "Start one with: trimtab demo" in call(capsys, "runs")[1], "runs/ is not there before the first run"
    Path("empty").mkdir()
    assert "Start one with: trimtab demo" in call(capsys, "runs", "empty")[1]
    assert json.loads(call(capsys, "runs", "empty", "--json")[1]) == {"runs": []}


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_runs_of_what_is_no_folder_is_an_error(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    for more in ((), ("--json",)):
        code, out, err = call(capsys, "runs", name, *more)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: there is no such folder; received {name}\nnext:  name the folder")


@pytest.mark.parametrize("columns", ["80", "120"])
def test_show_tells_what_guard_and_canary_did_within_the_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    write_ledger(tmp_path / "runs" / "guarded", guarded_run().records)
    write_ledger(tmp_path / "runs" / "tried", tried_run().records)
    (_, guarded, _), (_, tried, _) = (call(capsys, "show", run) for run in ("guarded", "tried"))
    assert max(len(line) for line in (guarded + tried).splitlines()) <= int(columns)
    for told in (
        "5 interventions, 2 by the guard",
        "guard watched 3 interventions, took 3 back · the recipe is held since step 801",
        "┊ adjusted   ║ guard   ✗ taken back",
        "as intervention 1, taken back at step 601",
        "gain -0.56 since intervention 1",
        "by the guard at step 601, as intervention 3: rollback to step-00000400",
        "takes back interventions 1 and 2",
    ):
        assert told in " ".join(guarded.split()) or told in guarded, told
    for told in (
        "4 trials, 1 won · 47 steps spent, 9.4% of the run",
        "━━ trial",
        "guard watched 1 intervention, took none back · no harm was found",
        "#2 step 200 · manager · tried, worse by 0.1, and not applied",
        "lost · val/loss 1.7 with it, 1.6 without",
        "its trial was abandoned",
        "early look: 1.9 with it, 2 without",
        "at the early look · steps 310 to 326, 6 steps spent",
    ):
        assert told in " ".join(tried.split()) or told in tried, told


def test_show_says_why_guard_and_canary_had_nothing_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = Run(an_envelope(canary=Canary("win")))
    run.evaluate(100, 2.0)
    write_ledger(tmp_path / "runs" / "idle", run.records)
    told = " ".join(call(capsys, "show", "idle")[1].split())
    assert "canary no trial · a trial costs up to 54 steps, and the budget covers none before step 360" in told
    assert "guard nothing to watch · no intervention of the manager" in told
    without = call(capsys, "show", "first")[1]
    assert "\n  guard" not in without, "it is off"
    assert "\n  canary" not in without
