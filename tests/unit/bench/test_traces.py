"""A trace reads back as it was written, non-finite values included."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.bench.traces import Course, Moment, Trace, read_trace, write_trace
from trimtab.errors import UsageError

COURSE = Course("text", "base", 3, "nan loss", 5, "minimize val/loss", 10, 20)

VALUES = st.dictionaries(st.sampled_from(["loss", "grad_norm", "val/loss"]), st.floats(width=32))
MOMENTS = st.builds(Moment, st.integers(0, 1000), st.sampled_from(["step", "evaluation", "recipe"]), VALUES)


def near(one: float, other: float) -> bool:
    return (math.isnan(one) and math.isnan(other)) or one == pytest.approx(other, rel=1e-6)


@given(moments=st.lists(MOMENTS, max_size=5))
def test_a_trace_reads_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, moments: list[Moment]) -> None:
    path = tmp_path_factory.mktemp("traces") / "one.jsonl"
    write_trace(path, Trace(COURSE, tuple(moments)))
    back = read_trace(path)
    assert back.course == COURSE
    assert [(at.step, at.kind, set(at.values)) for at in back.moments] == [(at.step, at.kind, set(at.values)) for at in moments]
    for one, other in zip(moments, back.moments, strict=True):
        assert all(near(one.values[name], other.values[name]) for name in one.values)


def test_a_frozen_value_stays_frozen(tmp_path: Path) -> None:
    moments = tuple(Moment(step, "step", {"loss": 1 / 3}) for step in range(3))
    write_trace(tmp_path / "one.jsonl", Trace(COURSE, moments))
    assert len({at.values["loss"] for at in read_trace(tmp_path / "one.jsonl").moments}) == 1


@pytest.mark.parametrize("text", ["", "{}\n", '{"scenario": "text"}\n', "not json\n"])
def test_a_damaged_trace_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="delete the file"):
        read_trace(path)


def test_only_evaluations_of_the_objective_are_its_values() -> None:
    moments = (
        Moment(1, "step", {"val/loss": 9.0}),
        Moment(10, "evaluation", {"val/loss": 2.0}),
        Moment(20, "evaluation", {"val/accuracy": 0.5}),
    )
    assert Trace(COURSE, moments).objective_values() == [(10, 2.0)]
