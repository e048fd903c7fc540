"""The guard on live trainings: what did harm is undone to the bit, and what only slowed the run keeps its progress."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.pytorch.conftest import WORKLOADS, supervise
from tests.integration.pytorch.managed import adjust, boundary, records, script
from trimtab.controls.safeguards import Guard
from trimtab.decision.action import Rollback
from trimtab.ledger.record import ActionIntended, HarmFound
from trimtab.runtime.supervisor import Supervisor

STEPS = 50


def guarded(
    name: str, run_dir: Path, objective: Callable[[int], float], at: int = 20, steps: int = STEPS
) -> tuple[list[str], Supervisor]:
    """Train with a change of the rate in the step after ``at``, and an objective that depends on the step alone."""
    workload = WORKLOADS[name](3)
    envelope = boundary(guard=Guard(baseline_evaluations=1))
    with supervise(workload, run_dir, script((at, adjust(learning_rate=2e-2))), envelope=envelope) as supervisor:
        workload.train(steps, supervisor, lambda: objective(supervisor.num_steps))
        assert not supervisor.is_held
    return workload.hashes, supervisor


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_weights_go_back_to_before_the_harm(name: str, tmp_path: Path) -> None:
    hashes, supervisor = guarded(name, tmp_path / "run", lambda step: 5.0 if step > 21 else 1.0)
    plain = WORKLOADS[name](3)
    plain.train(STEPS)
    [harm] = records(supervisor, HarmFound)
    [_, order] = records(supervisor, ActionIntended)
    # A lag of ten steps: the evaluation after step 40 is the first behind it.
    assert (harm.step, harm.is_worse) == (40, True)
    assert (order.step, order.source, order.action) == (41, "guard", Rollback("step-00000020"))
    assert hashes[40:] == plain.hashes[19 : 19 + STEPS - 40], "as if it had not been"
    assert supervisor.recipe == supervisor.state.initial


def test_what_only_slowed_the_run_keeps_its_progress(tmp_path: Path) -> None:
    values = {10: 4.0, 20: 3.0, 30: 2.0, 50: 1.99}
    hashes, supervisor = guarded("mlp", tmp_path / "run", lambda step: values.get(step, 1.995), at=30, steps=60)
    [harm] = records(supervisor, HarmFound)
    assert (harm.step, harm.is_worse) == (50, False)
    assert supervisor.recipe == supervisor.state.initial
    assert supervisor.state.rewinds == ()
    assert len(set(hashes)) == 60


def test_what_helps_stays(tmp_path: Path) -> None:
    _, supervisor = guarded("mlp", tmp_path / "run", lambda step: 10.0 / step, at=30, steps=70)
    assert records(supervisor, HarmFound) == []
    assert supervisor.recipe["learning_rate"] == 2e-2
