"""`trimtab diff`, as a user calls it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.cli.test_run_commands import HOSTILE, call, damage
from tests.unit.report.parted_runs import SLOWER, a_run, up_to
from tests.unit.report.safeguarded_runs import guarded_run
from tests.unit.report.sample_run import Play, whole_run, write_ledger
from trimtab.controller.event import RunClosed
from trimtab.decision.action import Adjust, Change
from trimtab.ledger.journal import Journal
from trimtab.ledger.record import CheckpointSaved, Origin, Record, RunEnded, RunResumed, RunStarted
from trimtab.report.repeat import HOUSEKEEPING


@pytest.fixture(autouse=True)
def in_a_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    runs = tmp_path / "runs"
    write_ledger(runs / "first", whole_run())
    write_ledger(runs / "one", a_run())
    write_ledger(runs / "two", a_run(SLOWER, run="two", measured=0.05, evidence=2.15))
    write_ledger(runs / "cut", up_to(a_run(), 260))
    return runs


def test_two_runs_that_part_are_told_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "diff", "one", "two")
    text = " ".join(out.split())
    assert (code, err) == (1, "")
    for told in (
        "A runs/one · rules · ended",
        "different after step 200. The first 12 records up to step 200 are the same.",
        "evaluation_recorded.objective: 2.1 in one, 2.15 in the other",
        "First evaluation that differs: step 200",
        "First decision that differs: step 200 · in evidence, action, verdict, change",
        "objective 2.1 2.15",
        "overfitting in val/loss: objective 2.1 overfitting in val/loss: objective 2.15",
        "applied at step 210 as intervention 1",
        "dropout 210 to 500 0.1 0",
        "learning_rate 210 to 500 0.003 0.0015",
        "val/loss, and the first decision that differs",
        "best 1.575 at step 450 1.625 at step 450",
        "spent nothing nothing",
    ):
        assert told in text
    assert "A one" in out
    assert "B two" in out


def test_interventions_of_the_guard_are_told_apart(capsys: pytest.CaptureFixture[str], in_a_folder_of_runs: Path) -> None:
    write_ledger(in_a_folder_of_runs / "guarded", guarded_run().records)
    out = " ".join(call(capsys, "diff", "guarded", "first")[1].split())
    assert "interventions 5, 2 by the guard 3, 1 by the reflex" in out


def test_a_run_is_identical_to_itself_and_to_what_is_left_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    num_compared = sum(not isinstance(record, HOUSEKEEPING) for record in a_run())
    code, out, _ = call(capsys, "diff", "one", "one")
    assert code == 0
    assert f"identical as far as both go: {num_compared} records up to step 500." in out
    for arguments in (("one", "cut"), ("cut", "one")):
        code, out, _ = call(capsys, "diff", *arguments)
        assert code == 0
        assert "cut off" in out
        assert "goes on to step 500" in out
        assert "First" not in out


def test_a_run_that_goes_on_is_told_from_one_that_was_cut_off(
    capsys: pytest.CaptureFixture[str], in_a_folder_of_runs: Path
) -> None:
    with Journal.open(in_a_folder_of_runs / "cut" / "ledger.jsonl"):
        code, out, _ = call(capsys, "diff", "one", "cut")
        assert code == 0
        assert "B  runs/cut · rules · running" in out
        tree = json.loads(call(capsys, "diff", "one", "cut", "--json")[1])
    assert [run["is_live"] for run in tree["runs"]] == [False, True]
    assert tree["identical"] is True


def test_as_json_it_is_one_valid_object(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "diff", "one", "two", "--json")
    tree = json.loads(out, parse_constant=pytest.fail)
    assert code == 1
    assert tree["identical"] is False
    assert [run["run_dir"] for run in tree["runs"]] == ["runs/one", "runs/two"]
    assert tree["decisions"][0]["step"] == 200
    assert tree["evaluation"]["values"][0] == {"name": "objective", "one": "2.1", "other": "2.15"}
    assert tree["recipes"][0] == {"control": "dropout", "first_step": 210, "last_step": None, "one": 0.1, "other": 0.0}


def test_without_all_the_later_decisions_are_counted(capsys: pytest.CaptureFixture[str], in_a_folder_of_runs: Path) -> None:
    write_ledger(in_a_folder_of_runs / "whole", whole_run())
    code, out, _ = call(capsys, "diff", "whole", "one")
    assert code == 1
    assert "later decisions differ too; all of them with --all" in out
    assert "reflex:" not in out
    assert "reflex: rollback to step-00000300" in " ".join(call(capsys, "diff", "whole", "one", "--all")[1].split())


def test_one_of_a_thing_is_told_as_one(capsys: pytest.CaptureFixture[str], in_a_folder_of_runs: Path) -> None:
    early = Play(run="early")
    early.feed(RunClosed(20, "finished"))
    write_ledger(in_a_folder_of_runs / "early", early.records)
    out = " ".join(call(capsys, "diff", "one", "early")[1].split())
    assert "The first record up to step 0 is the same." in out
    stories = []
    for reason in ("rejected", "applied"):
        play = Play(run=reason)
        for step in (50, 100):
            play.evaluate(step, 2.0)
            play.propose(step, Adjust((Change("dropout", 0.1 if reason == "applied" else 0.45),)), "more of it")
        play.feed(RunClosed(200, "finished"))
        write_ledger(in_a_folder_of_runs / reason, play.records)
        stories.append(reason)
    out = " ".join(call(capsys, "diff", *stories)[1].split())
    assert "1 later decision differs too; see it with --all" in out


def test_saved_states_that_differ_are_told_and_do_not_part_the_runs(
    capsys: pytest.CaptureFixture[str], in_a_folder_of_runs: Path
) -> None:
    def hashed(records: list[Record], unlike_from: int) -> list[Record]:
        return [
            replace(r, state_hash=("b" if r.step >= unlike_from else "a") * 64) if isinstance(r, CheckpointSaved) else r
            for r in records
        ]

    for name, unlike_from in (("plain", 1000), ("other", 100)):
        write_ledger(in_a_folder_of_runs / name, hashed(a_run(run=name), unlike_from))
    write_ledger(in_a_folder_of_runs / "parted", hashed(a_run(SLOWER), 50))
    code, out, _ = call(capsys, "diff", "plain", "other")
    text = " ".join(out.split())
    assert code == 0
    assert "identical in all that was measured and decided, as far as both go" in text
    assert ", 1 state by its hash." in text
    assert "Saved states differ from step 100 on, 7 of 8: in weights, optimizer or random numbers." in text
    assert json.loads(call(capsys, "diff", "plain", "other", "--json")[1])["alike"]["unlike_state_step"] == 100
    code, out, _ = call(capsys, "diff", "plain", "parted")
    assert code == 1
    assert "Saved states differ from step 50 on, 3 of 3:" in " ".join(out.split())
    assert "Saved states" not in call(capsys, "diff", "plain", "plain")[1]


def test_a_run_whose_loop_raised_is_told_as_cut_off(capsys: pytest.CaptureFixture[str], in_a_folder_of_runs: Path) -> None:
    raised = [*up_to(a_run(), 260), RunEnded(260, "the training loop raised KeyError")]
    write_ledger(in_a_folder_of_runs / "raised", raised)
    code, out, _ = call(capsys, "diff", "one", "raised")
    assert code == 0
    assert "B  runs/raised · rules · cut off" in out


def test_another_start_is_told_first_and_another_objective_draws_no_chart(
    capsys: pytest.CaptureFixture[str], in_a_folder_of_runs: Path
) -> None:
    write_ledger(in_a_folder_of_runs / "other", a_run(objective="maximize val/loss", manager="random:3"))
    code, out, _ = call(capsys, "diff", "one", "other")
    text = " ".join(out.split())
    assert code == 1
    assert "different from the start on." in text
    assert 'manager "rules" "random:3"' in text
    assert 'envelope.objective.direction "minimize" "maximize"' in text
    assert "their curves are not comparable" in text
    assert "┤" not in out


def test_a_branch_is_told_as_what_it_is(capsys: pytest.CaptureFixture[str], in_a_folder_of_runs: Path) -> None:
    records = a_run()
    origin = Origin("branch", f"one{HOSTILE}", "ab" * 32, 3, "no_action", 2)
    branch = [*records[:12], RunResumed(150, None, 11, (), origin), *a_run(SLOWER)[12:]]
    write_ledger(in_a_folder_of_runs / "branch", branch)
    code, out, _ = call(capsys, "diff", "one", "branch")
    assert code == 1
    assert "a branch of one\\x1b[31m[red] \\u202e" in out
    assert "question 3, no_action instead, seed 2" in out


def test_what_a_resumed_run_left_behind_is_not_compared(capsys: pytest.CaptureFixture[str], in_a_folder_of_runs: Path) -> None:
    records, left = a_run(), a_run(SLOWER)
    resumed = [*left[:20], RunResumed(100, "step-00000100", 7, ()), *records[8:]]
    write_ledger(in_a_folder_of_runs / "resumed", resumed)
    code, out, _ = call(capsys, "diff", "one", "resumed")
    assert code == 0, out


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_hostile_names_are_harmless_and_the_width_is_kept(
    capsys: pytest.CaptureFixture[str], in_a_folder_of_runs: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    records = whole_run(HOSTILE)
    started = records[0]
    assert isinstance(started, RunStarted)
    write_ledger(in_a_folder_of_runs / "evil\x1b[2J", [replace(started, manager=f"python:{HOSTILE}"), *records[1:]])
    for arguments in (("evil\x1b[2J", "one"), ("one", "evil\x1b[2J", "--all")):
        _, out, err = call(capsys, "diff", *arguments)
        assert err == ""
        assert all(line.isprintable() for line in out.splitlines())
        assert "\\x1b[" in out
        assert max(len(line) for line in out.splitlines()) <= columns
    assert call(capsys, "diff", "evil\x1b[2J", "one", "--json")[1].isascii()


def test_what_cannot_be_compared_is_an_error(capsys: pytest.CaptureFixture[str], in_a_folder_of_runs: Path) -> None:
    (in_a_folder_of_runs / "empty").mkdir()
    (in_a_folder_of_runs / "empty" / "ledger.jsonl").touch()
    damage(in_a_folder_of_runs / "two")
    for other, told in (
        ("nowhere", "there is no run here"),
        ("empty", "the ledger is empty"),
        ("two", "does not match its hash"),
    ):
        code, out, err = call(capsys, "diff", "one", other)
        assert (code, out) == (2, "")
        assert told in err
