"""B3: a manager that is killed or hangs at a random moment changes nothing but its own answer."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.integration.pytorch.conftest import mlp, supervise
from tests.integration.pytorch.managed import a_value, boundary, free, records
from tests.promises.counting import Tally
from tests.unit.runtime.workers import PRELUDE, zombies
from trimtab.controls.envelope import Deliberation
from trimtab.ledger.record import ActionApplied, ManagerFailed
from trimtab.runtime import manager_process, open_manager
from trimtab.runtime.manager_process import ManagerProcess

STEPS = 150
SHARES = 2
WHAT = "kills and hangs"

# Proposes another dropout each time, so that an answer that counted twice or too late would show.
_RESTLESS = """
for line in sys.stdin:
    asked = json.loads(line)
    values = asked["briefing"]["surface"]["adjustable"][0]["values"]
    change = {"control": "dropout", "value": values[asked["question"] % len(values)]}
    action = {"kind": "adjust", "changes": [change]}
    say(asked["question"], reply=json.dumps(
        {"action": action, "reason": "restless", "expectation": {"gain": 0.0, "within_evaluations": 1}}))
"""


def _run(seed: int, path: Path) -> tuple[int, int, int]:
    """Train under random kills and hangs; return counts of faults, failures and interventions."""
    draws = random.Random(seed)
    workload = mlp(seed)
    control = free("dropout", 0.0, 0.9, *(round(0.05 * k, 2) for k in range(1, 15)))
    deliberation = Deliberation(apply_after_steps=2, stale_after_steps=60, deadline_seconds=0.1)
    faults = 0
    with supervise(workload, path, "rules", every=4, envelope=boundary((control,), deliberation=deliberation)) as supervisor:

        def fault(step: int) -> None:
            nonlocal faults
            pid = supervisor._manager.pid  # type: ignore[attr-defined] - this manager is a process
            if pid is not None and draws.random() < 0.08:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, draws.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP]))
                    faults += 1

        workload.train(STEPS, supervisor, a_value(), before_step=fault)
        assert not supervisor.is_held
    applied = {record.step: record.recipe["dropout"] for record in records(supervisor, ActionApplied)}
    # The oracle knows nothing of trimtab: it sets what the ledger says at the step it says.
    oracle = mlp(seed)

    def change(step: int) -> None:
        if step in applied:  # set while this step is made, so the next forward pass is the first to use it
            oracle.dropout.p = applied[step]

    oracle.train(STEPS, evaluate=a_value(), every=4, before_step=change)
    assert workload.hashes == oracle.hashes, f"seed {seed}"
    return faults, len(records(supervisor, ManagerFailed)), len(applied)


@pytest.mark.parametrize("share", range(SHARES))
def test_kills_and_hangs_at_random_moments_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally, share: int
) -> None:
    monkeypatch.setattr(manager_process, "MAX_STARTS", 1_000_000)
    command = (sys.executable, "-S", "-E", "-c", PRELUDE + _RESTLESS)
    monkeypatch.setattr(open_manager, "ManagerProcess", partial(ManagerProcess, command=command))
    wanted = tally.goal(WHAT, portion=16, full=500 // SHARES)
    faults = failures = interventions = 0
    for seed in range(share * wanted, (share + 1) * wanted):
        counts = _run(tally.seed(seed), tmp_path / str(seed))
        faults, failures, interventions = faults + counts[0], failures + counts[1], interventions + counts[2]
        if faults >= wanted:
            break
    tally.count(WHAT, faults)
    tally.count("questions that went without an answer", failures)
    tally.count("answers that came through", interventions)
    assert failures > wanted / 5, "hardly a fault met an open question"
    assert interventions > wanted / 10, "hardly an answer came through, so nothing was at stake"
    assert zombies() == []


def test_a_manager_that_never_starts_leaves_the_run_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    tally.goal("managers that never start", portion=1, full=1)
    monkeypatch.setattr(open_manager, "ManagerProcess", partial(ManagerProcess, command=("/does/not/exist",)))
    workload = mlp(1)
    with supervise(workload, tmp_path / "run", "rules") as supervisor:
        workload.train(40, supervisor, a_value())
        assert not supervisor.is_held
    plain = mlp(1)
    plain.train(40, evaluate=a_value())
    assert workload.hashes == plain.hashes
    assert {record.problem for record in records(supervisor, ManagerFailed)} == {"gone"}
    tally.count("managers that never start")
