"""The oracle sees every way out of an envelope, and nothing where there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trimtab.controls.catalogue import batch_size, dropout, learning_rate
from trimtab.controls.envelope import Authority, Deliberation, Envelope, Objective
from trimtab.testing.envelope_oracle import Applied, Books, EnvelopeOracle

START = {"learning_rate": 1e-3, "dropout": 0.1, "batch_size": 32.0}
ENVELOPE = Envelope(
    Objective("val/loss", "minimize"),
    (
        learning_rate(1e-4, 1e-2, largest_change=2.0, cumulative_drift=4.0, dwell_steps=10),
        dropout(0.0, 0.5, largest_change=0.3, cumulative_drift=0.3, dwell_steps=10, max_values=3),
        batch_size(8, 128, rate_scaling="linear", when="boundary", dwell_steps=0),
    ),
    Authority(interventions=2, rollbacks=1, reflex_rollbacks=1, controls_per_intervention=2),
    Deliberation(boundary_every_steps=10),
)


def judged(by: Any = "manager", books: Any = None, step: Any = 100, restored: Any = None, **after: float) -> str:
    oracle = EnvelopeOracle(ENVELOPE, START, books)
    return "; ".join(oracle.see(Applied(step, by, START, START | after, restored)))


@pytest.mark.parametrize(
    "after",
    [
        {},
        {"learning_rate": 2e-3},
        {"learning_rate": 5e-4, "dropout": 0.4},
        {"batch_size": 64.0, "learning_rate": 2e-3},
        {"batch_size": 64.0, "learning_rate": 2e-3, "dropout": 0.2},
    ],
)
def test_what_is_allowed_is_found_sound(after: dict[str, float]) -> None:
    assert judged(**after) == ""


@pytest.mark.parametrize(
    ("after", "found"),
    [
        ({"dropout": 0.6}, "outside"),
        ({"dropout": float("nan")}, "not a finite number"),
        ({"dropout": True}, "not a finite number"),
        ({"batch_size": 32.5}, "not whole"),
        ({"learning_rate": 8e-3}, "drifted"),
        ({"learning_rate": 4e-3}, "at once"),
        ({"learning_rate": 1.7e-3}, "no permitted move"),
        ({"batch_size": 64.0, "learning_rate": 1.7e-3}, "no permitted move"),
        ({"learning_rate": 2e-3, "dropout": 0.2, "batch_size": 16.0}, "3 controls at once"),
    ],
)
def test_a_value_that_leaves_is_found(after: dict[str, float], found: str) -> None:
    assert found in judged(**after)


@pytest.mark.parametrize(
    ("books", "found"),
    [
        (Books({"dropout": 91}), "after 9 steps of 10"),
        (Books({"dropout": 90}), ""),
        (Books(interventions=2), "intervention 3 of 2"),
        (Books(values={"dropout": {0.1, 0.3, 0.4}}), "more than 3 distinct values"),
        (Books(values={"dropout": {0.1, 0.2, 0.4}}), ""),
    ],
)
def test_the_books_count(books: Books, found: str) -> None:
    said = judged(books=books, dropout=0.2)
    assert found in said
    assert bool(said) == bool(found)


def test_a_rollback_is_judged_from_what_it_brought_back() -> None:
    saved = START | {"dropout": 0.3}
    assert judged(restored=saved, dropout=0.3) == ""
    assert judged(restored=saved, dropout=0.3, books=Books({"dropout": 99})) == ""
    assert "after 1 steps" in judged(restored=saved, dropout=0.2, books=Books({"dropout": 99}))
    assert "rollback 2 of 1" in judged(restored=saved, dropout=0.3, books=Books(rollbacks=1))


def test_a_boundary_and_the_shadow_are_kept() -> None:
    assert "multiple of 10" in judged(step=101, batch_size=64.0, learning_rate=2e-3)
    shadow = replace(ENVELOPE, authority=Authority(shadow=True))
    assert any("shadow" in one for one in EnvelopeOracle(shadow, START).see(Applied(1, "manager", START, START)))


def test_the_reflex_is_exempt_from_moves_and_dwell_only() -> None:
    assert judged(by="reflex", learning_rate=0.7e-3, books=Books({"learning_rate": 99}, interventions=9)) == ""
    assert "at once" in judged(by="reflex", learning_rate=4e-3)
    assert "rollback 2 of 1" in judged(by="reflex", restored=START, books=Books(reflex_rollbacks=1))


def test_what_was_seen_is_in_the_books() -> None:
    oracle = EnvelopeOracle(ENVELOPE, START)
    later = START | {"dropout": 0.2}
    assert oracle.see(Applied(100, "manager", START, later)) == []
    assert oracle.books == Books(
        {"dropout": 100}, 1, 0, 0, {"learning_rate": {1e-3}, "dropout": {0.1, 0.2}, "batch_size": {32.0}}
    )
    assert any("after 5 steps" in one for one in oracle.see(Applied(105, "manager", later, START)))
