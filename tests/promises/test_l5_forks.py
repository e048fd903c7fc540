"""L5: with the same answers a run takes the same course; with one answer changed it differs from there on, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.courses import story
from tests.integration.pytorch.conftest import WORKLOADS, supervise
from tests.integration.pytorch.managed import boundary, script
from tests.promises.counting import Tally
from tests.promises.managed_training import PLAN, STEPS, evaluate
from trimtab.decision.action import Action

SHARES = 2


def planned_run(name: str, seed: int, run_dir: Path, plan: tuple[tuple[int, Action], ...]) -> list[str]:
    """Train as a plan says; return the hash of the whole state after every step."""
    workload = WORKLOADS[name](seed)
    with supervise(workload, run_dir, script(*plan), envelope=boundary()) as supervisor:
        workload.train(STEPS, supervisor, evaluate)
        assert not supervisor.is_held
    return workload.hashes


def first_difference(one: list[str], other: list[str]) -> int:
    """Return the index of the first entry that differs, the shorter one's length if none does."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


@pytest.mark.parametrize("share", range(SHARES))
def test_the_same_answers_give_the_same_course_and_one_changed_answer_changes_it_from_there(
    share: int, tmp_path: Path, tally: Tally
) -> None:
    for number in range(tally.goal("runs made again with the same answers", portion=1, full=15)):
        seed = SHARES * number + share
        name = list(WORKLOADS)[seed % len(WORKLOADS)]
        folder = tmp_path / str(seed)
        hashes = planned_run(name, tally.seed(seed), folder / "whole", PLAN)
        told = story(folder / "whole" / "ledger.jsonl")
        assert planned_run(name, seed, folder / "again", PLAN) == hashes
        assert story(folder / "again" / "ledger.jsonl")[1:] == told[1:]  # the first names the run
        tally.count("runs made again with the same answers")
        for left_out, (step, _) in enumerate(PLAN):
            changed = (*PLAN[:left_out], *PLAN[left_out + 1 :])
            other = planned_run(name, seed, folder / f"without-{step}", changed)
            # The answer counts after the next step: most is seen in that very state, dropout in the one after it.
            assert first_difference(hashes, other) in (step, step + 1), f"without what was planned at {step}"
            at = first_difference(told[1:], story(folder / f"without-{step}" / "ledger.jsonl")[1:]) + 1
            assert told[at].startswith("ProposalReceived"), f"the first record that differs is not the answer: {told[at]}"
            tally.count("runs with one answer left out")
