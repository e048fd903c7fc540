from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.report.page_samples import Seen, a_run, page_of
from tests.unit.report.safeguarded_runs import TryingRun
from tests.unit.report.sample_run import OVERFITTING, Play, whole_run, write_ledger
from trimtab.controller.event import EvaluationReported, RunClosed, StepTaken
from trimtab.decision.action import Change, RollbackAndAdjust
from trimtab.decision.proposal import hold
from trimtab.errors import LedgerError
from trimtab.ledger.codec import decode
from trimtab.ledger.journal import Journal
from trimtab.ledger.record import RunResumed
from trimtab.ledger.series import SeriesFile
from trimtab.report.page.reading import read_subject
from trimtab.report.page.subject import Undone
from trimtab.runtime.run_dir import RunDirectory
from trimtab.telemetry.snapshot import Snapshot, Summary


def a_summary(name: str, kind: str = "step") -> Summary:
    return Summary(name, kind, 9, 0, 1.0, 50, 1.5, 0.1, -0.01, 0.002, 0.5, 2.0)  # type: ignore[arg-type] - the kind is any string here


def test_a_whole_run_is_read_with_its_recipes_and_rollbacks(tmp_path: Path) -> None:
    subject = a_run(tmp_path / "run", rows=300)
    assert (subject.standing, subject.damage, subject.series_problem) == ("ended", "", "")
    assert [(step, dict(recipe.values)["dropout"]) for step, recipe in subject.recipes] == [(0, 0.0), (210, 0.1), (460, 0.1)]
    assert subject.undone == (Undone(100, 210, 1), Undone(300, 330, 2))
    assert subject.watched[3] == ("val/loss",)
    assert subject.excerpts[3].interventions_left == 16
    assert subject.num_entries == subject.verification.records
    assert (subject.began_seconds, subject.newest_seconds) == (1_000_000.0, 1_000_000.0 + subject.num_entries - 1)


def test_a_rollback_that_won_its_trial_undoes_the_steps_before_the_fork(tmp_path: Path) -> None:
    run = TryingRun()
    run.evaluate(100, 2.0)
    run.answer(101, hold("wait"))
    run.give(StepTaken(110))
    end = run.attempt(200, RollbackAndAdjust("step-00000100", (Change("dropout", 0.2),)), (2.0, 1.9, 1.5, 1.6))
    subject = a_run(tmp_path / "run", run.records)
    [deed] = [one for one in subject.timeline.decisions if one.applied_step is not None]
    assert (deed.applied_step, end) == (240, 240)
    assert subject.undone == (Undone(100, 210, 1),), "what the kept arm made since was not undone"


def test_the_excerpt_of_a_briefing_has_the_signals_that_matter_first(tmp_path: Path) -> None:
    play = Play()
    names = [*(f"a/signal_{place}" for place in range(30)), "grad_norm", "loss", "val/loss"]
    snapshot = Snapshot(50, tuple(a_summary(name) for name in names))
    symptom = replace(OVERFITTING, step=50, signal="a/signal_7")
    play.feed(EvaluationReported(50, 3.0, (("val/loss", 3.0),), None, snapshot, (symptom,)))
    excerpt = a_run(tmp_path / "run", play.records).excerpts[1]
    assert [summary.name for summary in excerpt.summaries] == ["val/loss", "a/signal_7", "loss", "grad_norm"]
    assert excerpt.num_signals == 33


def test_a_run_whose_ledger_is_being_written_goes_on(tmp_path: Path) -> None:
    records = whole_run()[:12]
    journal = Journal.create(tmp_path / "ledger.jsonl")
    for record in records:
        journal.append(record, 1.0)
    journal.sync()
    assert read_subject(RunDirectory(tmp_path)).standing == "running"
    journal.close()
    assert read_subject(RunDirectory(tmp_path)).standing == "cut off"


def test_a_run_whose_loop_raised_is_cut_off_whoever_holds_its_ledger(tmp_path: Path) -> None:
    play = Play()
    play.evaluate(50, 3.2)
    play.feed(RunClosed(70, "the training loop raised KeyError"))
    subject = a_run(tmp_path / "my run", play.records)
    assert subject.standing == "cut off"
    seen = Seen(page_of(subject))
    assert "cut off after step 70: the training loop raised KeyError; its newest record is of 1970-01-12" in seen.text
    assert f"It can be gone on with: trimtab resume '{tmp_path}/my run'" in seen.text
    with Journal.open(tmp_path / "my run" / "ledger.jsonl"):
        assert read_subject(RunDirectory(tmp_path / "my run")).standing == "cut off"
    damaged = replace(subject, damage="line 3")
    assert "gone on with" not in Seen(page_of(damaged)).text, "a damaged ledger is not gone on with"
    assert "gone on with" not in Seen(page_of(a_run(tmp_path / "whole"))).text


def test_a_torn_last_line_is_counted_and_the_rest_read(tmp_path: Path) -> None:
    folder = write_ledger(tmp_path / "run", whole_run()[:12])
    with (folder / "ledger.jsonl").open("ab") as file:
        file.write(b'{"hash":"ab')
    subject = read_subject(RunDirectory(folder))
    assert (subject.torn_bytes, subject.num_entries, subject.verification.ok) == (11, 12, True)


def test_a_damaged_ledger_is_read_up_to_the_damage(tmp_path: Path) -> None:
    folder = write_ledger(tmp_path / "run", whole_run())
    lines = (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    lines[20] = lines[20].replace(b'"step":', b'"step":1')
    (folder / "ledger.jsonl").write_bytes(b"".join(lines))
    subject = read_subject(RunDirectory(folder))
    assert (subject.num_entries, subject.verification.ok) == (20, False)
    assert ":21:" in subject.damage


def test_a_ledger_without_a_whole_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_bytes(b"")
    with pytest.raises(LedgerError, match="empty"):
        read_subject(RunDirectory(tmp_path))
    (tmp_path / "ledger.jsonl").write_bytes(b"nothing\n")
    with pytest.raises(LedgerError):
        read_subject(RunDirectory(tmp_path))


def test_without_a_file_of_curves_the_ledgers_evaluations_are_drawn(tmp_path: Path) -> None:
    subject = a_run(tmp_path / "run")
    assert "no file of curves" in subject.series_problem
    assert [step for step, _ in subject.signals["val/loss"]][:3] == [50, 100, 200]


def test_a_damaged_file_of_curves_is_told_and_left_out(tmp_path: Path) -> None:
    folder = write_ledger(tmp_path / "run", whole_run())
    (folder / "series.jsonl").write_text('{"n":1,"step":1,"v":{"loss":1.0}}\n{"n":2,"step"\n')
    subject = read_subject(RunDirectory(folder))
    assert "cannot be read" in subject.series_problem
    assert set(subject.signals) == {"val/loss"}


def test_a_step_that_was_made_again_counts_as_it_was_last(tmp_path: Path) -> None:
    folder = write_ledger(tmp_path / "run", whole_run())
    series = SeriesFile(folder / "series.jsonl")
    for event, (step, loss) in enumerate([(1, 5.0), (2, 4.0), (3, 3.0), (2, 4.5), (3, math.nan), (4, 3.5)]):
        series.append(event, step, {"loss": loss})
    series.flush()
    points = read_subject(RunDirectory(folder)).signals["loss"]
    assert [step for step, _ in points] == [1, 2, 3, 4]
    assert points[1] == (2, 4.5)
    assert math.isnan(points[2][1])


def test_what_a_resume_left_does_not_count(tmp_path: Path) -> None:
    play = Play()
    play.evaluate(50, 3.2)
    kept = len(play.records)
    play.evaluate(100, 1.0)
    left = [*play.records]
    tree = {"step": 50, "checkpoint": "step-00000050", "after": kept - 1, "versions": [], "origin": None, "kind": "run_resumed"}
    resumed = decode(tree)
    assert isinstance(resumed, RunResumed)
    subject = a_run(tmp_path / "run", [*left, resumed])
    assert [point.step for point in subject.timeline.evaluations] == [50]
    assert subject.resumes == (resumed,)
    assert subject.num_entries == kept + 1
    assert subject.verification.records == len(left) + 1
