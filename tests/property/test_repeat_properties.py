"""Any single field of a record that was changed is found, unless it is one that may differ."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.property.test_ledger_properties import SPECIAL, built
from trimtab.errors import LedgerError
from trimtab.ledger.codec import decode, encode
from trimtab.ledger.record import AnswerDropped, CheckpointDeleted, Record, RunResumed
from trimtab.report.repeat import compare_courses, first_difference

LEFT_OUT = (AnswerDropped, CheckpointDeleted, RunResumed)
KINDS = [kind for kind in Record.__args__ if kind not in LEFT_OUT]
MAY_DIFFER = {
    ("run_started", "run"),
    ("run_started", "isolation"),
    ("run_started", "notes"),
    ("run_started", "versions"),
    ("proposal_received", "latency_seconds"),
    ("proposal_received", "consultation"),
    ("manager_failed", "consultation"),
}


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every text, number, truth value and null of a tree, but of its kinds."""
    if isinstance(tree, dict) and list(tree) != ["$float"]:
        for key, branch in tree.items():
            if key not in ("kind", "schema"):
                yield from leaves(branch, (*path, key))
    elif isinstance(tree, list):
        for place, branch in enumerate(tree):
            yield from leaves(branch, (*path, place))
    else:
        yield path


def changed(leaf: Any) -> Any:
    """Return another value of the same type, as near as can be."""
    if isinstance(leaf, bool):
        return not leaf
    if isinstance(leaf, int):
        return leaf + 1
    if isinstance(leaf, float):
        return math.nextafter(leaf, math.inf if leaf < 1e300 else 0.0)
    if isinstance(leaf, str):
        return leaf[:-1] if len(leaf) > 1 else leaf + "x"
    return {"$float": "-inf"} if leaf == {"$float": "nan"} else {"$float": "nan"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(data=st.data())
def test_any_single_changed_field_is_found_and_named(kind: type[Any], data: st.DataObject) -> None:
    record = data.draw(built(kind, **SPECIAL.get(kind, {})))
    tree = encode(record)
    path = data.draw(st.sampled_from(list(leaves(tree))))
    other = copy.deepcopy(tree)
    parent: Any = other
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = changed(parent[path[-1]])
    try:
        repeated: Any = decode(other)
    except LedgerError:  # no longer a record: such a line could not be read at all
        assume(False)
        return
    found = first_difference([record], [repeated])
    is_unknown = path[0] == "state_hash" and "" in (record.state_hash, repeated.state_hash)
    if is_unknown or (record.kind, path[0]) in MAY_DIFFER:
        assert found is None
    else:
        assert found is not None
        assert (found.step, found.kind) == (record.step, record.kind)
        assert found.field.startswith(str(path[0]))
        assert found.original != found.repeated


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_a_record_that_was_read_back_is_the_same(kind: type[Any], data: st.DataObject) -> None:
    record = data.draw(built(kind, **SPECIAL.get(kind, {})))
    assert compare_courses([record], [decode(encode(record))]).difference is None
