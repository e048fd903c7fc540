"""`trimtab export`, as a user calls it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import trimtab
from tests.unit.cli.test_run_commands import HOSTILE, call
from tests.unit.report.sample_run import Play, whole_run, write_ledger
from trimtab.decision.schedule_file import load_schedule
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.series import SeriesFile


@pytest.fixture(autouse=True)
def in_a_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_ledger(tmp_path / "runs" / "first", whole_run())


def test_a_run_becomes_a_plan_that_says_where_it_is_from(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "export", "first", "--schedule", "plan.yaml")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "wrote plan.yaml: 2 entries, the last after step 320",
        'Follow it with manager="schedule:plan.yaml"; read and edit it first.',
    ]
    head = read_ledger(Path("runs/first/ledger.jsonl"))[-1]
    text = Path("plan.yaml").read_text(encoding="utf-8")
    for told in (
        "# Run: first, manager rules, 1000 steps, of which rollbacks undid 140.",
        f"# Ledger head: {head.sequence}:{head.hash}",
        f"# Written by trimtab {trimtab.__version__}",
        "  # intervention 1 of rules, after step 210 of the run: dropout 0 -> 0.1",
        '    reason: "validation loss turned up"',
        "      learning_rate: {factor: 0.5}",
        "      dropout: 0.1",
        "# Not carried over:",
        "# - step 210: rules went back from step 210 of the weights' own history to step 100; what was undone is left out",
        "# - step 330: reflex went back from step 220 of the weights' own history to step 190",
    ):
        assert told in text
    assert [entry.step for entry in load_schedule(Path("plan.yaml")).entries] == [100, 320]


def test_its_steps_can_be_moved(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "export", "first", "--schedule", "a.yaml", "--scale", "0.5", "--shift", "7")[0] == 0
    assert [entry.step for entry in load_schedule(Path("a.yaml")).entries] == [57, 167]
    assert "its steps are multiplied by 0.5, then 7 later" in Path("a.yaml").read_text(encoding="utf-8")
    # Planned were 1000 steps, whatever was undone of them.
    assert call(capsys, "export", "first", "--schedule", "b.yaml", "--total-steps", "100")[0] == 0
    assert [entry.step for entry in load_schedule(Path("b.yaml")).entries] == [10, 32]


def test_the_length_that_was_planned_moves_no_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "export", "first", "--schedule", "a.yaml")[0] == 0
    assert call(capsys, "export", "first", "--schedule", "b.yaml", "--total-steps", "1000")[0] == 0
    assert Path("b.yaml").read_text(encoding="utf-8") == Path("a.yaml").read_text(encoding="utf-8")


def test_a_plan_is_not_overwritten_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("plan.yaml").write_text("mine")
    code, _, err = call(capsys, "export", "first", "--schedule", "plan.yaml")
    assert code == 2
    assert "the file exists already" in err
    assert Path("plan.yaml").read_text() == "mine"
    assert call(capsys, "export", "first", "--schedule", "plan.yaml", "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to export was named"),
        (("--csv", "t", "--shift", "3"), "steps are moved in a plan only"),
        (("--schedule", "p", "--scale", "2", "--total-steps", "9"), "both scale and total steps were given"),
        (("--schedule", "p", "--scale", "-1"), "the scale of a schedule is out of range"),
        (("--schedule", "p", "--total-steps", "0"), "total_steps is out of range"),
        (("--schedule", "not/there/p"), "the file cannot be written"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    code, _, err = call(capsys, "export", "first", *arguments)
    assert code == 2
    assert message in err
    assert not Path("p").exists()


def test_a_run_becomes_tables(capsys: pytest.CaptureFixture[str]) -> None:
    series = SeriesFile(Path("runs/first/series.jsonl"))
    series.append(1, 1, {"loss": 2.0, "grad_norm": 0.5})
    series.flush()
    code, out, _ = call(capsys, "export", "first", "--csv", "tables", "--wide")
    assert code == 0
    assert "wrote tables/series.csv: 1 row, 4 columns" in out
    with Path("tables/series.csv").open(encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [{"sequence": "1", "step": "1", "grad_norm": "0.5", "loss": "2.0"}]
    assert sorted(path.name for path in Path("tables").iterdir()) == [
        "decisions.csv", "evaluations.csv", "interventions.csv", "series.csv",
    ]  # fmt: skip


def test_a_run_without_curves_has_an_empty_table_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "export", "first", "--csv", "tables")[0] == 0
    assert Path("tables/series.csv").read_text() == "sequence,step,signal,value\n"


def test_a_run_in_which_nothing_was_applied_is_an_empty_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_ledger(tmp_path / "runs" / "new", Play(run="new").records)
    assert call(capsys, "export", "new", "--schedule", "plan.yaml")[0] == 0
    assert load_schedule(Path("plan.yaml")).entries == ()


def test_hostile_texts_stay_texts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    hostile = f"{HOSTILE}\n  - step: 1\n    changes: {{dropout: 0.5}}\u2028stop_after: 1\x85=1+1"
    write_ledger(tmp_path / "runs" / "evil", whole_run(hostile))
    code, out, _ = call(capsys, "export", "evil", "--schedule", "plan.yaml", "--csv", "tables")
    assert code == 0
    assert all(line.isprintable() for line in out.splitlines())
    plan = load_schedule(Path("plan.yaml"))
    assert [entry.step for entry in plan.entries] == [100, 320]
    assert plan.stop_after is None
    assert all(line.isprintable() for line in Path("plan.yaml").read_text(encoding="utf-8").splitlines())
