"""A run that died goes on exactly: every step after it has the state that it would have had."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.integration.pytorch.conftest import WORKLOADS, Workload, supervise
from tests.integration.pytorch.managed import adjust, boundary, script
from trimtab.controls.safeguards import Canary, Guard
from trimtab.decision.action import Rollback
from trimtab.ledger.course import iter_course
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import AnswerDropped, CheckpointDeleted, Record, RunResumed
from trimtab.ledger.verify import verify_file

STEPS = 60
PLAN = (
    (10, adjust(dropout=0.3)),
    (20, adjust(learning_rate=5e-3)),
    (30, Rollback("step-00000020")),
    (40, adjust(dropout=0.5, weight_decay=0.3)),
)


def a_loss(workload: Workload) -> Callable[[], float]:
    """Return an evaluation of the model as it is, which draws random numbers as a careless one does."""
    inputs = torch.randn(64, 12, generator=torch.Generator().manual_seed(9))
    targets = (inputs[:, 0] > 0).long()

    def evaluate() -> float:
        workload.model.eval()
        with torch.no_grad():
            value = float(nn.functional.cross_entropy(workload.model(inputs), targets))
        workload.model.train()
        torch.rand(3)
        return value

    return evaluate


def run(
    name: str, path: Path, *, resume: bool = False, after_step: Callable[[int], None] | None = None, **options: Any
) -> Workload:
    workload = WORKLOADS[name](3)
    known: dict[str, Any] = {"manager": script(*PLAN), "envelope": boundary()}
    with supervise(workload, path, resume=resume, **(known | options)) as supervisor:
        workload.train(STEPS, supervisor, a_loss(workload), after_step=after_step, goes_on=True)
        assert not supervisor.is_held
    return workload


def killed_at(name: str, path: Path, steps: set[int], **options: Any) -> Workload:
    """Run to the end, and keep what a SIGKILL at each of the steps would have left; buffered curves are lost."""

    def keep(step: int) -> None:
        if step in steps:
            shutil.copytree(path, path.with_name(f"killed-{step}"))

    return run(name, path, after_step=keep, **options)


def course(path: Path) -> list[Record]:
    """Return the records that count, without those that say that the run was resumed."""
    records = [entry.record for entry in iter_course(path / "ledger.jsonl")]
    return [record for record in records if not isinstance(record, (RunResumed, AnswerDropped))]


def story(path: Path) -> list[str]:
    """Return a course as text; which checkpoint was given up when depends on what was left of them."""
    told = [record for record in course(path) if not isinstance(record, CheckpointDeleted)]
    return [repr(record).split("latency_seconds")[0] for record in told]


def given_up(path: Path) -> set[str]:
    return {record.checkpoint for record in course(path) if isinstance(record, CheckpointDeleted)}


@pytest.mark.parametrize("look_steps", [0, 2])
def test_a_run_that_dies_during_a_trial_makes_it_again(look_steps: int, tmp_path: Path) -> None:
    canary = Canary("win", steps=5, look_steps=look_steps, decay_steps=2, budget=1.0)
    envelope = boundary(canary=canary, guard=Guard(baseline_evaluations=1))
    kills = {11, 13, 14, 17, 20, 22, 24, 27, 33, 40, 47}
    whole = killed_at("mlp", tmp_path / "whole", kills, envelope=envelope)
    kinds = [record.kind for record in course(tmp_path / "whole")]
    assert kinds.count("trial_ended") >= 2
    for kill in sorted(kills):
        path = tmp_path / f"killed-{kill}"
        resumed = run("mlp", path, resume=True, envelope=envelope)
        assert resumed.hashes == whole.hashes[STEPS - len(resumed.hashes) :], f"killed at {kill}"
        assert story(path) == story(tmp_path / "whole"), f"killed at {kill}"


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_resumed_run_has_the_states_and_the_record_of_one_that_never_stopped(name: str, tmp_path: Path) -> None:
    kills = {3, 10, 11, 25, 31, 39, 47, 60}
    whole = killed_at(name, tmp_path / "whole", kills)
    for kill in sorted(kills):
        path = tmp_path / f"killed-{kill}"
        resumed = run(name, path, resume=True)
        assert resumed.hashes == whole.hashes[STEPS - len(resumed.hashes) :], f"killed at {kill}"
        assert len(resumed.hashes) >= STEPS - kill
        assert story(path) == story(tmp_path / "whole"), f"killed at {kill}"
        assert given_up(path) == given_up(tmp_path / "whole")
        assert verify_file(path / "ledger.jsonl").ok
        assert sum(isinstance(entry.record, RunResumed) for entry in read_ledger(path / "ledger.jsonl")) == 1
