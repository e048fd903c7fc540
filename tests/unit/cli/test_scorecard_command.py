"""`trimtab scorecard`, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.test_run_commands import HOSTILE, call
from tests.unit.report.sample_run import whole_run, write_ledger
from tests.unit.report.scored_run import LOWER_RATE, ScoredRun, shadow_story


@pytest.fixture(autouse=True)
def in_a_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    write_ledger(tmp_path / "runs" / "shadow", shadow_story())
    write_ledger(tmp_path / "runs" / "work", whole_run())


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code, out, err = call(capsys, "scorecard", *arguments)
    assert (code, err) == (0, "")
    return " ".join(out.split())


def test_the_card_of_a_run_in_shadow_says_what_would_have_been(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, "shadow")
    for words in (
        "run · scripted · in shadow · ended",
        "8 questions · 4 proposals · 2 no action · 1 answered by rules instead",
        "2 would have been accepted · 2 rejected (approval 1, largest_change 1, permitted_moves 1)",
        "2 not needed · 1 perhaps missed · 1 not judged",
        "median 0.5 s · worst 2 s",
        "1 (late 1)",
        "2 calls · 1,200 tokens read, 80 written · $0.0012",
        "?3 step 300 · would have been applied at step 310 · perhaps missed",
        "proposed rollback to step-00000100 expected a gain of at least 0.05 within 2 evaluations",
        "without 1.3 → 1.32, 1.2 · noise ±0.028284",
        "checkpoint 1, better by 0.2 than the best that followed",
        "so all that followed was worse than its checkpoint, beyond noise",
        "rejected approval: not today",
        "No counterfactual:",
        "no dwell, drift or budget was used up",
    ):
        assert words in out


def test_the_card_of_a_run_at_work_compares_expected_and_measured(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, "work")
    for words in (
        "first · rules · at work · ended",
        "what is accepted is applied",
        "1 as expected",
        "50% of the measured interventions brought what was expected",
        "measured 1.9 → 1.8 · gain +0.1",
        "it could not be carried out",
    ):
        assert words in out
    assert "no dwell" not in out


def test_every_question_is_told_with_all(capsys: pytest.CaptureFixture[str]) -> None:
    run = ScoredRun()
    for _ in range(6):
        run.next(1.0)
        run.hold()
    write_ledger(Path("runs/quiet"), run.records)
    assert "?1-6 steps 100 to 600 · 6 no action: 3 held, no worse, 3 not judged" in told(capsys, "quiet")
    assert told(capsys, "quiet", "--all").count("proposed no_action") == 6


def test_the_same_proposal_again_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    run = ScoredRun()
    for place in range(6):
        run.next(1.0 + place)
        run.act(LOWER_RATE)
    write_ledger(Path("runs/again"), run.records)
    out = told(capsys, "again")
    assert out.count("proposed learning_rate=0.0005") == 3
    assert "again the same at 3 more questions, steps 200 to 400" in out


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("run", ["shadow", "work"])
def test_the_card_keeps_to_the_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = call(capsys, "scorecard", run, "--all")
    assert max(len(line) for line in out.splitlines()) <= columns


def test_the_card_as_json_is_one_valid_object(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "scorecard", "shadow", "--json")
    tree = json.loads(out, parse_constant=pytest.fail)
    assert set(tree) == {"summary", "totals", "scores", "cautions"}
    assert tree["totals"]["judged"]["perhaps_missed"] == 1
    assert tree["scores"][2]["window"]["checkpoint_lead"] == pytest.approx(0.2)


def test_a_run_without_a_question_and_one_that_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    run = ScoredRun()
    write_ledger(Path("runs/new"), run.records)
    assert "No question yet." in told(capsys, "new")
    run.next(1.0)
    write_ledger(Path("runs/going"), run.records)
    out = told(capsys, "going")
    assert "not ended" in out
    assert "no answer yet" in out
    run.act(LOWER_RATE)
    write_ledger(Path("runs/crashed"), run.records)
    with Path("runs/crashed/ledger.jsonl").open("ab") as file:
        file.write(b'{"hash":')
    assert "no evaluation after it so far" in told(capsys, "crashed")
    assert call(capsys, "scorecard", "nowhere")[0] == 2


def test_hostile_texts_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    write_ledger(Path("runs/evil"), whole_run(HOSTILE))
    _, out, _ = call(capsys, "scorecard", "evil", "--all")
    assert "\\x1b[" in out
    assert all(line.isprintable() for line in out.splitlines())
    assert call(capsys, "scorecard", "evil", "--json")[1].isascii()
