"""L5: a fork's control branch reproduces the run, and a treated branch differs by one answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.pytorch.conftest import WORKLOADS
from tests.promises.counting import Tally
from tests.promises.test_l4_replays import Nobody, RandomAndSlow, course_of, train
from trimtab.decision.proposal import Proposal, hold
from trimtab.ledger.record import ManagerAsked, Origin, ProposalReceived, Record
from trimtab.report.repeat import first_difference
from trimtab.runtime.answer import Answer
from trimtab.runtime.branching import Answered, find_answered, find_base, head_of, lay_out
from trimtab.runtime.repetition import Repetition
from trimtab.runtime.run_dir import RunDirectory

SHARES = 4


@pytest.mark.parametrize("share", range(SHARES))
def test_the_control_branch_is_the_run_and_the_treated_one_differs_by_one_answer(
    share: int, tmp_path: Path, tally: Tally
) -> None:
    for number in range(tally.goal("forks", portion=1, full=40 // SHARES)):
        seed = tally.seed(SHARES * number + share)
        name = list(WORKLOADS)[seed % len(WORKLOADS)]
        original = RunDirectory(tmp_path / f"{seed}")
        hashes = train(name, seed, original.path, RandomAndSlow(seed)).hashes
        at = _a_decision(original)
        origin = Origin("branch", original.path.name, head_of(original.ledger), at.asked.question)
        copy = RunDirectory(tmp_path / f"{seed}-copy")
        unchanged = Repetition(original.ledger, origin, at.asked.step, None, copy.path)
        same, control = _branch(original, RunDirectory(tmp_path / f"{seed}-control"), unchanged, name, seed)
        assert same == hashes[len(hashes) - len(same) :], f"seed {seed}"
        assert first_difference(course_of(original.path), control) is None, f"seed {seed}"
        changed = Repetition(original.ledger, origin, at.asked.step, hold("left out"))
        other, treated = _branch(copy, RunDirectory(tmp_path / f"{seed}-treated"), changed, name, seed)
        assert 0 < len(other) <= len(hashes) - at.asked.step, "it did not begin from the copy"
        _check_treated(control, treated, at)
        tally.count("forks")
        tally.count("steps of control branches with the same hash", len(same))
        tally.count("answers that were the same in both branches", len(_answers(treated)) - 1)


def _branch(
    source: RunDirectory, target: RunDirectory, repetition: Repetition, name: str, seed: int
) -> tuple[list[str], list[Record]]:
    """Run a branch; return its hashes and its records."""
    assert repetition.asked_step is not None
    lay_out(source, target, find_base(source, repetition.asked_step), repetition)
    return train(name, seed, target.path, Nobody(), resume=True).hashes, course_of(target.path)


def _a_decision(original: RunDirectory) -> Answered:
    """Return the middle one of the decisions that did something."""
    answered = [record for record in course_of(original.path) if isinstance(record, ProposalReceived)]
    acted = [record.question for record in answered if record.proposal.action.kind != "no_action"]
    at = find_answered(original, acted[len(acted) // 2])
    assert isinstance(at.answer.outcome, Answer)
    return at


def _check_treated(control: list[Record], treated: list[Record], at: Answered) -> None:
    parted = first_difference(control, treated)
    assert parted is not None
    assert (parted.kind, parted.step) == ("proposal_received", at.answer.step), parted
    assert parted.field.startswith("proposal."), parted
    ours, theirs = _answers(control), _answers(treated)
    for step in ours.keys() & theirs.keys():
        assert (ours[step] == theirs[step]) == (step != at.asked.step), f"the answer to the question of step {step}"


def _answers(records: list[Record]) -> dict[int, Proposal]:
    """Return the answers by the step after which was asked."""
    asked = {record.question: record.step for record in records if isinstance(record, ManagerAsked)}
    return {asked[record.question]: record.proposal for record in records if isinstance(record, ProposalReceived)}
