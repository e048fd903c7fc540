"""Every record that can be built reads back as it was, from one canonical text."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from trimtab.controls.bounds import Bounds
from trimtab.controls.control import Control
from trimtab.controls.entries import ENTRIES
from trimtab.controls.envelope import Authority, Deliberation, Envelope, Objective
from trimtab.controls.moves import Add, Multiply, SetTo
from trimtab.controls.safeguards import Reflex
from trimtab.decision.action import Action
from trimtab.decision.briefing import Briefing, Intervention
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.errors import LedgerError
from trimtab.ledger.codec import canonical, decode, encode, freeze, thaw
from trimtab.ledger.line import GENESIS, read_line, write_line
from trimtab.ledger.record import ManagerAsked, ProposalReceived, Record, RunStarted
from trimtab.ledger.verify import verify_file


def built(cls: type[Any], **given_fields: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Build a dataclass with every field drawn by its type, those with a default too."""
    chosen: dict[str, Any] = {field.name: ... for field in fields(cls)}
    return st.builds(cls, **{**chosen, **given_fields})


finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(1e-12, 1e6)
moves = st.one_of(
    st.lists(positive.filter(lambda factor: factor != 1), min_size=1, max_size=4).map(lambda n: Multiply(tuple(n))),
    st.lists(finite, min_size=1, max_size=4).map(lambda n: SetTo(tuple(n))),
    st.lists(finite.filter(bool), min_size=1, max_size=4).map(lambda n: Add(tuple(n))),
)
limits = st.floats(1.001, 1e9)
controls = built(
    Control,
    name=st.sampled_from([*ENTRIES, "learning_rate/decoder"]),
    bounds=st.tuples(positive, positive).map(lambda ends: Bounds(min(ends), max(ends))),
    moves=moves,
    largest_change=limits,
    cumulative_drift=limits,
    dwell_steps=st.integers(0, 10**9),
    effect_lag_steps=st.integers(0, 10**9),
    max_values=st.none() | st.integers(1, 99),
    rate_scaling=st.just("none"),
)
envelopes = st.builds(
    Envelope,
    built(Objective),
    st.lists(controls, max_size=3, unique_by=lambda control: control.name).map(tuple),
    st.builds(Authority, st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(1, 3), st.booleans()),
    st.builds(Deliberation, st.sampled_from(["async", "boundary"]), deadline_seconds=st.floats(1e-3, 86_400)),
    st.builds(Reflex, st.booleans(), st.floats(1e-3, 1), st.integers(0, 999), st.integers(1, 9), st.integers(1, 999)),
)
proposals = built(
    Proposal,
    action=st.one_of(*(st.from_type(cls) for cls in Action.__args__)),
    reason=st.text(min_size=1, max_size=2000).filter(str.strip),
    expectation=st.none() | built(Expectation),
)
briefings = built(Briefing, interventions=st.lists(built(Intervention), max_size=2).map(tuple))
SPECIAL = {
    RunStarted: {"envelope": envelopes},
    ProposalReceived: {"proposal": proposals},
    ManagerAsked: {"briefing": briefings},
}
json_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize("cls", Record.__args__, ids=lambda cls: cls.__name__)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_a_record_reads_back_as_it_was(cls: type[Any], data: st.DataObject) -> None:
    record = data.draw(built(cls, **SPECIAL.get(cls, {})))
    text = canonical(encode(record))
    again = decode(json.loads(text))
    # By their text: a NaN is not equal to itself; 1 and True are equal to 1.0.
    assert repr(again) == repr(record)
    assert type(again) is cls
    assert canonical(encode(again)) == text
    assert text.isascii()
    assert "\n" not in text


@settings(max_examples=200, deadline=None)
@given(st.floats())
@example(-0.0)
@example(float("nan"))
def test_a_number_reads_back_bit_for_bit(number: float) -> None:
    assert repr(thaw(json.loads(canonical(freeze(number))))) == repr(number)


@settings(max_examples=200, deadline=None)
@given(json_trees, st.sampled_from(["run_ended", "verdict_given", "checkpoint_saved"]))
def test_no_tree_raises_anything_but_a_ledger_error(tree: Any, kind: str) -> None:
    for shape in (tree, {"kind": kind, "step": tree}, {"kind": kind, "step": 1, "action": tree, "reason": tree}):
        try:
            record = decode(shape)
        except LedgerError:
            continue
        assert record.kind == kind


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_ledger_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    path.write_bytes(content)
    assert not verify_file(path).ok
    with pytest.raises(LedgerError):
        read_line(content, 0, GENESIS, "here")


@settings(max_examples=50, deadline=None)
@given(st.data(), st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_line_passes_the_reader_and_the_verifier(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, time_seconds: float
) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "line.jsonl"
    record = data.draw(built(RunStarted, **SPECIAL[RunStarted]))
    line, hash_ = write_line(0, time_seconds, GENESIS, record)
    path.write_bytes(line)
    entry = read_line(line[:-1], 0, GENESIS, "here")
    assert (repr(entry.record), repr(entry.time_seconds), entry.hash) == (repr(record), repr(time_seconds), hash_)
    assert verify_file(path, (0, hash_)).ok
