from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.unit.ledger.ledger_samples import ONE_OF_EACH, RECOVER, STARTED
from trimtab.decision.action import Adjust, Change
from trimtab.errors import LedgerDamaged, LedgerError, LedgerVersionUnknown
from trimtab.ledger.codec import canonical, decode, encode, freeze, thaw
from trimtab.ledger.record import ActionIntended, EvaluationRecorded, ProblemNoticed, Record, VerdictGiven


def through_text(record: Record) -> Record:
    return decode(json.loads(canonical(encode(record))))


@pytest.mark.parametrize("record", ONE_OF_EACH, ids=lambda record: record.kind)
def test_every_record_reads_back_as_it_was(record: Record) -> None:
    # By their text: a NaN is not equal to itself, and 1 is equal to 1.0.
    assert repr(through_text(record)) == repr(record)


def test_the_samples_hold_every_type_of_record() -> None:
    assert {type(record) for record in ONE_OF_EACH} == set(Record.__args__)


def test_whole_floats_stay_floats_and_zero_keeps_its_sign() -> None:
    record = EvaluationRecorded(1, 2.0, (("a", -0.0), ("b", 5e-324), ("c", 1.7976931348623157e308)), None)
    again = through_text(record)
    assert repr(again) == repr(record)
    assert '"objective":2.0' in canonical(encode(record))


def test_canonical_text_is_sorted_tight_and_ascii() -> None:
    assert canonical({"b": [1, 2.5], "a": "\u00fc"}) == '{"a":"\\u00fc","b":[1,2.5]}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical({"a": float("nan")})


def test_non_finite_numbers_have_their_own_form() -> None:
    tree = freeze((float("nan"), float("inf"), float("-inf"), 1.0))
    assert tree == [{"$float": "nan"}, {"$float": "inf"}, {"$float": "-inf"}, 1.0]
    assert repr(thaw(tree)) == "[nan, inf, -inf, 1.0]"


def test_a_lone_surrogate_is_written_as_its_escape() -> None:
    again = through_text(ProblemNoticed(1, "file", "run-\udcff"))
    assert again == ProblemNoticed(1, "file", "run-\\udcff")


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (EvaluationRecorded(1, True, (), None), "objective"),
        (EvaluationRecorded(1.5, 1.0, (), None), "step"),  # pyright: ignore[reportArgumentType] - what is refused
        (EvaluationRecorded(1, 1.0, (), object()), "object"),  # pyright: ignore[reportArgumentType] - what is refused
    ],
)
def test_what_could_not_be_read_back_is_not_written(record: Record, problem: str) -> None:
    with pytest.raises(LedgerError, match=problem):
        encode(record)


def test_an_unknown_kind_or_schema_is_another_version() -> None:
    with pytest.raises(LedgerVersionUnknown, match="teleported"):
        decode({"kind": "teleported", "step": 1})
    with pytest.raises(LedgerVersionUnknown, match="trimtab/ledger/2"):
        decode({**encode(STARTED), "schema": "trimtab/ledger/2"})


def changed(record: Record, *path: str | int, value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(encode(record))
    branch: Any = tree
    for key in path[:-1]:
        branch = branch[key]
    branch[path[-1]] = value
    return tree


VERDICT = VerdictGiven(1, 0, "reflex", Adjust((Change("dropout", 0.1),)), accepted=True, reasons=())


@pytest.mark.parametrize(
    "tree",
    [
        None,
        [],
        "run_ended",
        {},
        {"kind": 1},
        {"kind": "run_ended", "step": 1},
        {"kind": "run_ended", "step": 1, "reason": "closed", "more": 1},
        {"kind": "run_ended", "step": 1.0, "reason": "closed"},
        {"kind": "run_ended", "step": True, "reason": "closed"},
        {"kind": "run_ended", "step": "1", "reason": "closed"},
        {"kind": "run_ended", "step": 1, "reason": None},
        {"kind": "run_ended", "step": 1, "reason": "\ud800"},
        changed(VERDICT, "action", value={}),
        changed(VERDICT, "action", "kind", value="explode"),
        changed(VERDICT, "action", "changes", 0, "value", value="0.1"),
        changed(VERDICT, "action", "changes", 0, "value", value={"$float": "NaN"}),
        changed(VERDICT, "action", "changes", 0, "value", value={"$float": "nan", "x": 1}),
        changed(VERDICT, "source", value="nobody"),
        changed(STARTED, "envelope", "controls", 0, "bounds", "low", value=1.0),
        changed(STARTED, "envelope", "controls", 0, "moves", value={"divide": [2.0]}),
        changed(STARTED, "envelope", "controls", 0, "moves", value={"factors": [2.0], "values": [2.0]}),
        changed(STARTED, "recipe", "values", 0, value=["dropout"]),
        changed(STARTED, "schema", value=1),
    ],
)
def test_what_is_not_a_record_is_damage(tree: object) -> None:
    with pytest.raises(LedgerDamaged):
        decode(tree)


def test_a_deep_tree_is_damage_and_no_crash() -> None:
    deep: Any = 1.0
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(LedgerDamaged):
        decode({"kind": "evaluation_recorded", "step": 1, "objective": deep, "metrics": [], "checkpoint": None})


def test_a_field_with_a_default_may_be_missing_in_an_older_ledger() -> None:
    record = ActionIntended(1, 1, "reflex", RECOVER, STARTED.recipe, (), "because", None)
    tree = encode(record)
    del tree["then_skip_batches"]
    assert decode(tree) == record
