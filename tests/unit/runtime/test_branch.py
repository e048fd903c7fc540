"""A branch keeps a copy where others begin, and draws other random numbers from its decision on, and only from there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit.runtime.recorded_runs import Kept, saved
from trimtab.ledger.record import Origin
from trimtab.runtime.branch import Branch
from trimtab.runtime.engine import Engine
from trimtab.runtime.repetition import Repetition


class Seeded:
    """Stands for the engine: remembers what it was seeded with."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.on_restored: Callable[[int], None] = lambda _: None

    def reseed(self, seed: int) -> None:
        self.seeds.append(seed)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    kept = Kept(tmp_path / "run")
    kept.add(saved(10))
    return kept


def follow(kept: Kept, seed: int, *, step: int = 0, asked_step: int | None = 20, **changes: Any) -> tuple[Branch, Seeded]:
    origin = Origin("branch", "run", changes.pop("head", "a" * 64), 1, changes.pop("change", "nothing"), seed)
    branch = Branch(Repetition(kept.directory.ledger, origin, asked_step, **changes), kept.directory, step)
    engine = Seeded()
    branch.follow(cast("Engine", engine))
    return branch, engine


def test_random_numbers_go_on_from_the_branchs_seed_when_its_decision_is_given_and_no_earlier(kept: Kept) -> None:
    branch, engine = follow(kept, 3)
    engine.on_restored(12)
    branch.asked(20)
    branch.given(10)
    assert engine.seeds == []
    branch.given(20)
    assert len(engine.seeds) == 1
    branch.given(30)
    assert len(engine.seeds) == 1


def test_after_the_decision_every_rollback_seeds_anew_by_its_step(kept: Kept) -> None:
    branch, engine = follow(kept, 3)
    branch.given(20)
    engine.on_restored(40)
    engine.on_restored(50)
    assert len(set(engine.seeds)) == 3
    assert all(0 <= seed < 2**63 for seed in engine.seeds)


def test_the_two_branches_of_a_pair_have_the_same_seeds_and_pairs_have_others(kept: Kept) -> None:
    def seeds(seed: int, **changes: Any) -> list[int]:
        branch, engine = follow(kept, seed, **changes)
        branch.given(20)
        engine.on_restored(40)
        return engine.seeds

    assert seeds(3, change="nothing") == seeds(3, change="adjust dropout=0.3")
    assert not set(seeds(3)) & set(seeds(4))
    assert not set(seeds(3)) & set(seeds(3, head="b" * 64))


def test_seed_0_and_a_replay_keep_the_runs_own_random_numbers(kept: Kept) -> None:
    for seed, asked_step in ((0, 20), (3, None)):
        branch, engine = follow(kept, seed, asked_step=asked_step)
        branch.given(20)
        engine.on_restored(40)
        assert engine.seeds == []


@pytest.mark.parametrize(("step", "is_past"), [(10, False), (20, False), (30, True)])
def test_a_branch_that_is_resumed_behind_its_decision_knows_that(kept: Kept, step: int, is_past: bool) -> None:
    _, engine = follow(kept, 3, step=step)
    engine.on_restored(45)
    assert bool(engine.seeds) is is_past


def test_a_copy_is_kept_when_the_question_is_asked_and_only_then(kept: Kept, tmp_path: Path) -> None:
    branch, _ = follow(kept, 0, keep_at=tmp_path / "copy")
    branch.asked(10)
    assert not (tmp_path / "copy").exists()
    branch.asked(20)
    assert (tmp_path / "copy" / "ledger.jsonl").read_bytes() == kept.directory.ledger.read_bytes()


def test_without_a_place_for_the_copy_the_branch_goes_on(kept: Kept, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "taken").write_text("a file")
    branch, _ = follow(kept, 0, keep_at=tmp_path / "taken" / "copy")
    with caplog.at_level(logging.WARNING, "trimtab"):
        branch.asked(20)
    assert "no copy of the run was kept" in caplog.text
    follow(kept, 0)[0].asked(20)  # without a wish for one nothing happens
