"""Two courses compared record by record: what differs is found and named, what may differ is not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.ledger.ledger_samples import BRIEFING, ONE_OF_EACH, RECIPE, STARTED
from tests.unit.report.sample_run import whole_run
from trimtab.decision.action import Adjust, Change, Rollback
from trimtab.decision.consultation import Consultation
from trimtab.ledger.record import (
    ActionApplied,
    CheckpointSaved,
    EvaluationRecorded,
    ManagerAsked,
    ManagerFailed,
    ProposalReceived,
    Record,
    RunEnded,
    RunResumed,
    RunStarted,
    VerdictGiven,
)
from trimtab.report.repeat import Comparison, compare_courses, first_difference
from trimtab.telemetry.snapshot import Snapshot, Summary

TAKEN = Consultation("model", "1", "a", "b", "c", 1, 10, 2, 0.5)


def told_of() -> list[Record]:
    """Return a whole run without what is left out of the comparison."""
    left_out = ("checkpoint_deleted", "answer_dropped", "run_resumed")
    return [record for record in whole_run() if record.kind not in left_out]


def test_a_course_repeats_itself_and_says_how_far() -> None:
    records = told_of()
    states = sum(record.kind == "checkpoint_saved" for record in records)
    hashed = [replace(one, state_hash="ab") if isinstance(one, CheckpointSaved) else one for one in records]
    assert compare_courses(hashed, hashed) == Comparison(len(records), 1000, states, None)
    assert compare_courses(hashed, records).num_states == 0
    assert first_difference(records, hashed) is None, "a state without a hash says nothing"


@pytest.mark.parametrize(
    ("one", "other", "field", "values"),
    [
        (EvaluationRecorded(9, 1.5, (), None), EvaluationRecorded(9, 1.25, (), None), "objective", ("1.5", "1.25")),
        (EvaluationRecorded(9, 0.0, (), None), EvaluationRecorded(9, -0.0, (), None), "objective", ("0.0", "-0.0")),
        (
            EvaluationRecorded(9, 1.0, (), None),
            EvaluationRecorded(9, math.nan, (), None),
            "objective",
            ("1.0", '{"$float":"nan"}'),
        ),
        (
            EvaluationRecorded(9, 1.0, (("a/b", 1.0), ("loss", 2.0)), None),
            EvaluationRecorded(9, 1.0, (("a/b", 1.0), ("loss", 2.5)), None),
            "metrics.loss.1",
            ("2.0", "2.5"),
        ),
        (EvaluationRecorded(9, 1.0, (), None), EvaluationRecorded(10, 1.0, (), None), "step", ("9", "10")),
        (CheckpointSaved(9, "a", "12"), CheckpointSaved(9, "a", "13"), "state_hash", ('"12"', '"13"')),
        (
            VerdictGiven(9, 1, "manager", Adjust((Change("dropout", 0.1),)), accepted=True, reasons=()),
            VerdictGiven(9, 1, "manager", Adjust((Change("dropout", 0.2),)), accepted=True, reasons=()),
            "action.changes.dropout.value",
            ("0.1", "0.2"),
        ),
        (
            VerdictGiven(9, 1, "manager", Adjust((Change("dropout", 0.1),)), accepted=True, reasons=()),
            VerdictGiven(9, 1, "manager", Rollback("c"), accepted=True, reasons=()),
            "action",
            ('{"changes":[{"control":"dropout","value":0.1}],"kind":"adjust"}', '{"checkpoint":"c","kind":"rollback"}'),
        ),
        (
            ActionApplied(9, 1, RECIPE),
            ActionApplied(9, 1, RECIPE.replace([("dropout", 0.5)])),
            "recipe.values.dropout.1",
            ("0.1", "0.5"),
        ),
        (RunEnded(9, "finished"), EvaluationRecorded(9, 1.0, (), None), "kind", ('"run_ended"', '"evaluation_recorded"')),
    ],
)
def test_the_first_field_that_differs_is_named_with_both_values(
    one: Record, other: Record, field: str, values: tuple[str, str]
) -> None:
    before = list(ONE_OF_EACH[:3])
    found = first_difference([*before, one, RunEnded(20, "x")], [*before, other, RunEnded(30, "y")])
    assert found is not None
    assert (found.place, found.step, found.kind, found.field) == (3, 9, one.kind, field)
    assert (found.original, found.repeated) == values
    assert f"step 9, {one.kind}.{field}: " in str(found)


def _asked(*summaries: Summary) -> ManagerAsked:
    return ManagerAsked(200, 1, replace(BRIEFING, snapshot=Snapshot(200, summaries)))


def _summary(name: str, last: float) -> Summary:
    return Summary(name, "evaluation", 4, 1, last, 200, 1.1, 0.01, -1e-3, 1e-4, 0.9, 1.3)


PROPOSED = next(record for record in ONE_OF_EACH if isinstance(record, ProposalReceived))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (PROPOSED, replace(PROPOSED, latency_seconds=99.0, consultation=TAKEN)),
        (ManagerFailed(9, 1, "late", "x", TAKEN), ManagerFailed(9, 1, "late", "x")),
        (_asked(_summary("throughput", 1.0), _summary("x", 3.0)), _asked(_summary("x", 3.0), _summary("memory", 2.0))),
        (EvaluationRecorded(9, 1.0, (("eval_runtime", 1.0),), None), EvaluationRecorded(9, 1.0, (), None)),
        (EvaluationRecorded(9, 1.0, (("eval/per_second", 1.0),), None), EvaluationRecorded(9, 1.0, (), None)),
    ],
)
def test_what_depends_on_the_machine_or_the_hour_is_left_out(one: Record, other: Record) -> None:
    assert first_difference([STARTED, one], [STARTED, other]) is None
    assert first_difference([STARTED, other], [STARTED, one]) is None


def test_a_run_may_have_another_name_place_and_versions_but_no_other_manager() -> None:
    changes: dict[str, Any] = {"run": "other", "isolation": "nowhere", "notes": (), "versions": (("torch", "9"),)}
    assert first_difference([STARTED], [replace(STARTED, **changes)]) is None
    found = first_difference([STARTED], [replace(STARTED, manager="random:1")])
    assert found is not None
    assert found.field == "manager"


def test_the_runs_own_name_of_a_timed_signal_is_left_out() -> None:
    envelope = replace(STARTED.envelope, signals=(("throughput", "speed"),))
    started: RunStarted = replace(STARTED, envelope=envelope)
    one, other = EvaluationRecorded(9, 1.0, (("speed", 1.0),), None), EvaluationRecorded(9, 1.0, (("speed", 2.0),), None)
    assert first_difference([started, one], [started, other]) is None
    assert first_difference([STARTED, one], [STARTED, other]) is not None


def test_that_a_run_was_resumed_is_left_out() -> None:
    records = whole_run()
    resumed = RunResumed(100, "step-00000100", 5, ())
    assert compare_courses(records, [*records[:6], resumed, *records[6:]]) == compare_courses(records, records)


def test_a_repetition_that_ends_first_differs_and_an_original_that_was_cut_off_does_not() -> None:
    records = told_of()
    for length in range(1, len(records)):
        assert compare_courses(records[:length], records).difference is None
        assert compare_courses(records[:length], records).num_records == length
        found = first_difference(records, records[:length])
        assert found is not None
        assert (found.place, found.kind, found.field) == (length, records[length].kind, "kind")
        assert found.repeated == "nothing: it ends before"


def test_another_hash_of_a_state_parts_a_repetition_and_without_states_is_only_counted() -> None:
    one = [replace(r, state_hash="a" * 64) if isinstance(r, CheckpointSaved) else r for r in whole_run()]
    other = [replace(r, state_hash="b" * 64) if isinstance(r, CheckpointSaved) and r.step >= 300 else r for r in one]
    strict = compare_courses(one, other)
    assert strict.difference is not None
    assert (strict.difference.step, strict.difference.field, strict.num_unlike_states) == (300, "state_hash", 0)
    saved = [r.step for r in one if isinstance(r, CheckpointSaved)]
    later = sum(step >= 300 for step in saved)
    num_records = compare_courses(one, one).num_records
    loose = compare_courses(one, other, with_states=False)
    assert loose == Comparison(num_records, 1000, len(saved) - later, None, later, 300)
    assert compare_courses(one, whole_run(), with_states=False).num_unlike_states == 0, "one has none: that says nothing"
