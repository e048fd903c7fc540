"""A run and its repetition, compared in all that is kept of both: what differs first, and where."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ledger.ledger_samples import STARTED
from trimtab.ledger.record import CheckpointSaved, EvaluationRecorded, Record, RunEnded
from trimtab.ledger.series import Row
from trimtab.report.sameness import Kept, Sameness, compare

RECORDS: tuple[Record, ...] = (STARTED, CheckpointSaved(10, "step-00000010", "a" * 64), EvaluationRecorded(10, 1.0, (), None))
HASHES: Mapping[int, Mapping[str, str]] = {step: {"model": f"m{step}", "rng/torch": f"r{step}"} for step in range(1, 11)}
ROWS = tuple(Row(n, n, {"loss": 1.0 / n, "throughput": float(n)}) for n in range(1, 11))


def kept(**changes: Any) -> Kept:
    known: dict[str, Any] = {"records": RECORDS, "hashes": HASHES, "rows": ROWS}
    return Kept(**(known | changes))


def with_value(at: int, **values: float) -> Kept:
    return kept(rows=[Row(row.sequence, row.step, {**row.values, **values}) if row.step == at else row for row in ROWS])


def test_a_run_is_its_own_exact_repetition() -> None:
    found = compare(kept(), kept())
    assert (found.is_exact, found.first_step) == (True, None)
    assert (found.courses.num_records, found.courses.num_states) == (3, 1)
    assert (found.num_hashes, found.num_losses) == (10, 20)


def test_the_first_step_whose_state_differs_is_told_with_its_parts() -> None:
    other = {**HASHES, 4: {"model": "x", "rng/torch": "y"}, 7: {"model": "x", "rng/torch": "r7"}}
    found = compare(kept(), kept(hashes=other))
    assert found.first_hash == (4, ("model", "rng/torch"))
    assert (found.num_hashes, found.first_step, found.is_exact) == (3, 4, False)


def test_a_part_that_only_one_of_them_has_is_a_difference() -> None:
    other = {**HASHES, 4: {**HASHES[4], "loader": "z"}}
    assert compare(kept(), kept(hashes=other)).first_hash == (4, ("loader",))
    assert compare(kept(hashes=other), kept()).first_hash == (4, ("loader",))


def test_steps_that_only_one_of_them_has_hashed_say_nothing() -> None:
    found = compare(kept(), kept(hashes={5: HASHES[5], 99: {"model": "x"}}))
    assert (found.num_hashes, found.first_hash, found.is_exact) == (1, None, True)
    assert compare(kept(), kept(hashes={})).num_hashes == 0


def test_the_first_value_that_differs_is_told_with_both() -> None:
    found = compare(kept(), with_value(6, loss=0.5))
    assert found.first_loss == (6, "loss", 1.0 / 6, 0.5)
    assert (found.num_losses, found.first_step, found.is_exact) == (10, 6, False)


def test_values_are_compared_by_their_bits_and_a_nan_is_a_nan() -> None:
    assert compare(with_value(6, loss=math.nan), with_value(6, loss=math.nan)).is_exact
    assert compare(with_value(6, loss=math.inf), with_value(6, loss=-math.inf)).first_loss is not None
    assert compare(with_value(6, loss=math.nan), kept()).first_step == 6
    assert compare(with_value(6, loss=0.0), with_value(6, loss=-0.0)).first_step == 6
    assert compare(with_value(6, loss=0.5), with_value(6, loss=math.nextafter(0.5, 1))).first_step == 6


def test_signals_that_measure_the_machine_and_rows_that_were_thinned_are_left_out() -> None:
    other = with_value(6, throughput=99.0)
    assert not compare(kept(), other).is_exact
    assert compare(kept(), other, ["throughput"]).is_exact
    thinned = compare(kept(), kept(rows=ROWS[::3]))
    assert (thinned.is_exact, thinned.num_losses) == (True, 8)


def test_the_first_step_is_the_earliest_of_all_that_is_known() -> None:
    records = [*RECORDS[:2], EvaluationRecorded(10, 2.0, (), None)]
    assert compare(kept(), kept(records=records)).first_step == 10
    hashes = {**HASHES, 8: {"model": "x"}}
    assert compare(kept(), kept(records=records, hashes=hashes)).first_step == 8
    rows = with_value(3, loss=9.0).rows
    assert compare(kept(), kept(records=records, hashes=hashes, rows=rows)).first_step == 3


def test_a_run_that_was_interrupted_is_repeated_as_far_as_it_went() -> None:
    more = [*RECORDS, EvaluationRecorded(20, 0.5, (), None), RunEnded(30, "finished")]
    assert compare(kept(records=[*RECORDS, RunEnded(12, "the process ended")]), kept(records=more)).is_exact
    ended = compare(kept(records=[*RECORDS, RunEnded(12, "finished")]), kept(records=more))
    assert not ended.is_exact
    assert not compare(kept(records=more), kept()).is_exact, "a repetition that ends first is not the same"


def test_nothing_is_the_same_as_nothing() -> None:
    empty = kept(records=(), hashes={}, rows=())
    found = compare(empty, empty)
    assert isinstance(found, Sameness)
    assert (found.is_exact, found.num_hashes, found.num_losses) == (True, 0, 0)


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_the_count_is_of_common_steps_up_to_the_first_difference(one: set[int], other: set[int], bad: set[int]) -> None:
    hashes = {step: {"model": "a"} for step in one}
    repeated = {step: {"model": "b" if step in bad else "a"} for step in other}
    found = compare(kept(hashes=hashes), kept(hashes=repeated))
    common = sorted(one & other)
    first = min((step for step in common if step in bad), default=None)
    assert (found.first_hash and found.first_hash[0]) == first
    assert found.num_hashes == sum(first is None or step < first for step in common)
