from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.recorded_runs import a_proposal
from trimtab.decision.action import Adjust, Change
from trimtab.decision.proposal import Proposal, hold
from trimtab.errors import RunDirectoryError
from trimtab.ledger.record import Origin
from trimtab.runtime.repetition import Repetition, read_repetition, write_repetition

ORIGIN = Origin("branch", "first", "a" * 64, 3, "adjust dropout=0.2", 7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "repetition.json"


@pytest.mark.parametrize(
    "repetition",
    [
        Repetition(Path("/runs/first/ledger.jsonl"), Origin("replay", "first", "a" * 64)),
        Repetition(Path("/runs/first/ledger.jsonl"), ORIGIN, 20, a_proposal(), Path("/runs/copy")),
        Repetition(
            Path("/rün/f\u2028irst/ledger.jsonl"), Origin("branch", "\udcff \x00", "", 3, "\u2028", 0), 20, hold("left out")
        ),
    ],
)
def test_what_is_repeated_reads_back(path: Path, repetition: Repetition) -> None:
    write_repetition(path, repetition)
    assert read_repetition(path) == repetition


def test_a_path_is_written_from_the_root(path: Path) -> None:
    write_repetition(path, Repetition(Path("here.jsonl"), ORIGIN, 20, None, Path("copy")))
    found = read_repetition(path)
    assert found is not None
    assert (found.ledger, found.keep_at) == (Path.cwd() / "here.jsonl", Path.cwd() / "copy")


def test_a_run_without_the_file_repeats_nothing(path: Path) -> None:
    assert read_repetition(path) is None


def _form(**changes: Any) -> bytes:
    tree: dict[str, Any] = {
        "schema": "trimtab/repetition/1",
        "ledger": "/runs/first/ledger.jsonl",
        "kind": "branch",
        "run": "first",
        "head": "a",
        "decision": 3,
        "change": "",
        "seed": 0,
        "asked_step": 20,
        "instead": None,
        "keep_at": None,
    }
    return json.dumps(tree | changes).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"[" * 100_000,
        _form()[:-1],
        _form(schema="trimtab/repetition/2"),
        _form(more=1),
        _form(kind="other"),
        _form(seed="0"),
        _form(decision=1.5),
        _form(asked_step=True),
        _form(ledger=None),
        _form(instead={"action": {"kind": "nonsense"}, "reason": "x"}),
        _form(instead=[1]),
    ],
)
def test_a_damaged_file_is_refused_and_never_taken_for_none(path: Path, content: bytes) -> None:
    path.write_bytes(_form())
    assert read_repetition(path) is not None
    path.write_bytes(content)
    with pytest.raises(RunDirectoryError, match="what the run repeats cannot be read"):
        read_repetition(path)


def test_an_answer_that_is_no_finite_value_cannot_be_written(path: Path) -> None:
    bad = Proposal(Adjust((Change("dropout", float("nan")),)), "x", None)
    with pytest.raises(ValueError, match="Out of range"):
        write_repetition(path, Repetition(Path("/a"), ORIGIN, 20, bad))
    assert not path.exists()
