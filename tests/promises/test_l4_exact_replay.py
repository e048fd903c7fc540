"""L4: the record gives the run again, by the step at which a thing was applied, never by time."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.courses import story
from tests.integration.pytorch.conftest import WORKLOADS, supervise
from tests.integration.pytorch.managed import boundary
from tests.promises.counting import Tally
from tests.promises.managed_training import STEPS, evaluate
from trimtab.controller.state import State
from trimtab.controller.transitions import fold
from trimtab.decision.random import RandomManager
from trimtab.ledger.course import iter_course
from trimtab.ledger.journal import Journal
from trimtab.ledger.reading import read_ledger

SHARES = 2


def managed_run(seed: int, run_dir: Path) -> tuple[State, list[str]]:
    """Train under a manager that draws its actions, rollbacks among them; return the last state and the hash of each step."""
    workload = list(WORKLOADS.values())[seed % len(WORKLOADS)](seed)
    with supervise(workload, run_dir, RandomManager(seed), envelope=boundary(), every=5) as supervisor:
        workload.train(STEPS, supervisor, evaluate, every=5)
        assert not supervisor.is_held
    return supervisor.state, workload.hashes


def folded(ledger: Path) -> State:
    """Return the state that a ledger's fold gives."""
    state: State | None = None
    for entry in iter_course(ledger):
        state = fold(state, entry.record)
    assert state is not None
    return state


@pytest.mark.parametrize("share", range(SHARES))
def test_the_record_folds_to_the_state_that_the_run_had(share: int, tmp_path: Path, tally: Tally) -> None:
    what = "managed runs folded from their record"
    actions = 0
    for number in range(tally.goal(what, portion=1, full=25)):
        seed = tally.seed(SHARES * number + share)
        live, _ = managed_run(seed, tmp_path / str(seed))
        assert repr(folded(tmp_path / str(seed) / "ledger.jsonl")) == repr(live)
        actions += live.version
        tally.count(what)
    assert actions > 0, "nothing was ever applied, so little was shown"
    tally.count("actions in them", actions)


def test_the_record_says_the_same_whatever_time_it_was(tmp_path: Path, tally: Tally) -> None:
    for number in range(tally.goal("runs told with other times", portion=1, full=10)):
        seed = tally.seed(100 + number)
        managed_run(seed, tmp_path / str(seed))
        ledger, draw = tmp_path / str(seed) / "ledger.jsonl", random.Random(seed)
        other = tmp_path / f"{seed}.jsonl"
        with Journal.create(other) as journal:
            for entry in read_ledger(ledger):
                record = entry.record
                if record.kind == "proposal_received":
                    record = replace(record, latency_seconds=draw.uniform(0.0, 1e6))
                journal.append(record, draw.uniform(-1e9, 1e9))
                tally.count("records told with another time")
        assert repr(folded(other)) == repr(folded(ledger))
        assert story(other) == story(ledger)
        tally.count("runs told with other times")
