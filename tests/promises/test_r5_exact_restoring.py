"""R5: a rollback and a resume restore everything a step depends on."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.pytorch.conftest import WORKLOADS, supervise
from tests.integration.pytorch.managed import boundary, problems, records
from tests.promises.counting import Tally
from tests.promises.killing import Killed
from tests.promises.managed_training import STEPS, check_steps, has_ended, hashes_of, run_to_the_end
from trimtab.decision.action import Rollback, checkpoint_of
from trimtab.decision.briefing import Briefing
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.ledger.record import ActionApplied, ActionIntended
from trimtab.ledger.verify import verify_run

EVERY = 7
SHARES = 4


class RollsBack:
    """Goes back at every question, to one checkpoint after another."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def propose(self, briefing: Briefing) -> Proposal:
        offered = briefing.surface.rollbacks
        chosen = offered[(self._seed + 5 * briefing.question) % len(offered)]
        return Proposal(Rollback(chosen.checkpoint), "again", Expectation(0.0, 1))


def _evaluate() -> float:
    return 1.0  # draws nothing: the two runs evaluate at different steps


@pytest.mark.parametrize("name", WORKLOADS)
def test_after_a_rollback_every_step_equals_the_original_one(name: str, tmp_path: Path, tally: Tally) -> None:
    wanted = tally.goal("rollbacks", portion=4, full=70)
    each = 4 if wanted == 4 else 10
    for seed in range(1, 1 + wanted // each):
        _check_rollbacks(name, tally.seed(seed), each, tmp_path / f"{name}-{seed}")
        tally.count("rollbacks", each)


def _check_rollbacks(name: str, seed: int, count: int, path: Path) -> None:
    steps = EVERY * count + EVERY - 1
    original = WORKLOADS[name](seed)
    original.train(steps, evaluate=_evaluate, every=EVERY)
    workload = WORKLOADS[name](seed)
    with supervise(workload, path, RollsBack(seed), every=EVERY, envelope=boundary()) as supervisor:
        workload.train(steps, supervisor, _evaluate)
        assert not supervisor.is_held
    went_back = {record.step: checkpoint_of(record.action) for record in records(supervisor, ActionIntended)}
    assert len(records(supervisor, ActionApplied)) == count
    assert problems(supervisor) == []
    position = [0]  # by step of the managed run: the step of the original run whose state it is in
    for step in range(1, steps + 1):
        target = went_back.get(step)
        position.append(position[-1] + 1 if target is None else position[int(target.removeprefix("step-"))])
        assert workload.hashes[step - 1] == original.hashes[position[step] - 1], f"seed {seed}, step {step}: {position[-2:]}"
    assert max(position) > EVERY, "the run never came past its first evaluation, so little was shown"


@pytest.fixture(scope="module")
def training() -> Iterator[Killed]:
    with Killed("tests.promises.managed_training") as killed:
        yield killed


@pytest.mark.parametrize("share", range(SHARES))
def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, tally: Tally, training: Killed, share: int
) -> None:
    name = list(WORKLOADS)[share % len(WORKLOADS)]
    seed = tally.seed(share)
    draw = random.Random(seed)
    begin = time.monotonic()
    whole, _ = run_to_the_end(training, name=name, run_dir=str(tmp_path / "whole"), seed=seed, resume=False)
    duration = time.monotonic() - begin
    what = "SIGKILLs of a run that was resumed"
    left, number = tally.goal(what, portion=1, full=100 // SHARES), 0
    while left:
        number += 1
        run_dir = tmp_path / str(number)
        given = {"name": name, "run_dir": str(run_dir), "seed": seed}
        # By turns at a step, and at a moment of its own.
        at_step = draw.randrange(1, STEPS) if number % 2 else None
        after = None if at_step else draw.uniform(0.0, 0.7 * duration)
        end = training.run({**given, "resume": False, "kill_at_step": at_step}, kill_after_seconds=after)
        if not end.was_killed or has_ended(run_dir):
            assert after is not None, end
            duration *= 0.9  # the machine is quicker than it was: it was done before
            continue
        resumed, _ = run_to_the_end(training, **given, resume=True)
        check_steps(hashes_of(end.said), resumed, whole, f"{given}, killed at {at_step or after}")
        found = verify_run(run_dir, with_checkpoints=True)
        assert found.ok, found
        left -= 1
        tally.count(what)
        tally.count("steps with the same hash after them", len(resumed))
