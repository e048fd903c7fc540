"""L4: a replay has the states and the record of the run, bit for bit, whatever the manager's answers took."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.pytorch.conftest import WORKLOADS, Workload, supervise
from tests.integration.pytorch.managed import CONTROLS, boundary
from tests.promises.counting import Tally
from trimtab.controls.envelope import Deliberation
from trimtab.decision.briefing import Briefing
from trimtab.decision.proposal import Proposal
from trimtab.decision.random import RandomManager
from trimtab.ledger.course import iter_course
from trimtab.ledger.record import ActionApplied, ActionIntended, ManagerFailed, Origin, ProposalReceived, Record
from trimtab.report.repeat import first_difference
from trimtab.runtime.branching import Base, head_of, lay_out
from trimtab.runtime.repetition import Repetition
from trimtab.runtime.run_dir import RunDirectory

STEPS = 80
SHARES = 5


class RandomAndSlow:
    """Draws an action at random, and takes a random time for it, now and then too long."""

    def __init__(self, seed: int) -> None:
        self._inner = RandomManager(seed)
        self._draw = random.Random(seed)

    def propose(self, briefing: Briefing) -> Proposal:
        time.sleep(self._draw.choice((0.0, 0.002, 0.01, 0.03, 0.06)))
        return self._inner.propose(briefing)


class Nobody:
    """A manager that must not be asked."""

    def propose(self, briefing: Briefing) -> Proposal:
        raise AssertionError("a replay asked its manager")


def train(name: str, seed: int, path: Path, manager: Any, **options: Any) -> Workload:
    """Run to the end under a manager, in mode async for even seeds."""
    workload = WORKLOADS[name](seed)
    mode: Any = "boundary" if seed % 2 else "async"
    deliberation = Deliberation(mode=mode, apply_after_steps=3, stale_after_steps=12, deadline_seconds=0.05)
    envelope = boundary(CONTROLS, deliberation=deliberation)
    noise = random.Random(seed)
    values = [5.0 - 0.01 * step + noise.uniform(-0.1, 0.1) for step in range(STEPS + 1)]
    with supervise(workload, path, manager, envelope=envelope, **options) as supervisor:
        workload.train(STEPS, supervisor, lambda: values[supervisor.num_steps], goes_on=True)
        assert not supervisor.is_held
    return workload


def course_of(path: Path) -> list[Record]:
    """Return the records of a run that count."""
    return [entry.record for entry in iter_course(path / "ledger.jsonl")]


@pytest.mark.parametrize("share", range(SHARES))
def test_a_replay_has_the_states_and_the_record_of_the_run(share: int, tmp_path: Path, tally: Tally) -> None:
    for number in range(tally.goal("replays", portion=1, full=50 // SHARES)):
        seed = tally.seed(SHARES * number + share)
        name = list(WORKLOADS)[seed % len(WORKLOADS)]
        original, repeated = RunDirectory(tmp_path / f"{seed}"), RunDirectory(tmp_path / f"{seed}-replay")
        run = train(name, seed, original.path, RandomAndSlow(seed))
        repetition = Repetition(original.ledger, Origin("replay", original.path.name, head_of(original.ledger)))
        lay_out(original, repeated, Base(), repetition)
        again = train(name, seed, repeated.path, Nobody(), resume=True)
        assert again.hashes == run.hashes, f"seed {seed}: {_first(run.hashes, again.hashes)}"
        assert first_difference(course_of(original.path), course_of(repeated.path)) is None, f"seed {seed}"
        tally.count("replays")
        tally.count("steps with the same hash", len(run.hashes))
        records = course_of(original.path)
        rollbacks = [r for r in records if isinstance(r, ActionIntended) and "rollback" in r.action.kind]
        tally.count("interventions", sum(isinstance(record, ActionApplied) for record in records))
        tally.count("rollbacks among them", len(rollbacks))
        tally.count("answers", sum(isinstance(record, ProposalReceived) for record in records))
        tally.count("questions without an answer in time", sum(isinstance(record, ManagerFailed) for record in records))


def _first(one: list[str], other: list[str]) -> str:
    differing = [step for step, (a, b) in enumerate(zip(one, other, strict=False), start=1) if a != b]
    return f"first at step {differing[0]}" if differing else f"{len(one)} and {len(other)} steps"
