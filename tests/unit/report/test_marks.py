from __future__ import annotations

from tests.unit.report.safeguarded_runs import guarded_run, tried_run
from tests.unit.report.sample_run import whole_run
from trimtab.ledger.record import Record
from trimtab.report.account import Decision
from trimtab.report.marks import marks_of, trials_of
from trimtab.report.timeline import build_timeline


def decisions_of(records: list[Record]) -> tuple[Decision, ...]:
    return build_timeline(records).decisions


def test_the_guard_has_a_mark_of_its_own_beside_the_managers_and_the_reflexs() -> None:
    assert [mark.kind for mark in marks_of(decisions_of(whole_run()))] == ["rollback", "reflex", "adjust"]
    assert [mark.kind for mark in marks_of(decisions_of(guarded_run().records))] == [
        "adjust", "adjust", "guard", "adjust", "guard",
    ]  # fmt: skip


def test_what_was_taken_back_is_marked_and_says_by_what() -> None:
    marks = marks_of(decisions_of(guarded_run().records))
    assert [mark.is_taken_back for mark in marks] == [True, True, False, True, False]
    assert marks[0].text == "learning_rate=0.0005; taken back by intervention 3 at step 601"
    assert marks[2].text == "guard: rollback to step-00000400, takes back interventions 1 and 2"


def test_a_trial_spans_its_steps_and_says_what_was_compared() -> None:
    trials = trials_of(decisions_of(tried_run().records), 500, "run1-")
    assert [(trial.from_step, trial.to_step, trial.kind, trial.link) for trial in trials] == [
        (110, 140, "won", "#run1-d1"),
        (210, 240, "lost", "#run1-d2"),
        (310, 326, "lost", "#run1-d3"),
        (410, 416, "abandoned", "#run1-d4"),
    ]
    assert trials[1].text.startswith("trial 2: learning_rate=0.00025: lost · val/loss 1.7 with it, 1.6 without")
    assert "20 steps spent" in trials[1].text


def test_a_trial_under_way_reaches_the_newest_step() -> None:
    run = tried_run()
    cut = next(place for place, record in enumerate(run.records) if record.kind == "trial_moved") + 1
    [trial] = trials_of(decisions_of(run.records[:cut]), 115)
    assert (trial.from_step, trial.to_step, trial.kind, trial.link) == (110, 115, "open", "")
