"""A run with a tracker is the same run, bit for bit, and nothing is imported to find one."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.integration.pytorch.conftest import WORKLOADS, supervise
from tests.integration.pytorch.managed import a_value, adjust, boundary, script
from tests.unit.integrations.trackers.tracker_doubles import WandbRun, wandb_module
from tests.unit.runtime.test_tracking import Broken, Kept
from trimtab.decision.action import Rollback
from trimtab.errors import UsageError
from trimtab.ledger.reading import read_ledger
from trimtab.runtime.supervisor import Supervisor

STEPS = 60


def _run(run_dir: Path, tracker: object) -> tuple[list[str], list[str], Supervisor]:
    """Return the hashes of every step's state, the records but for their latency, and the supervisor."""
    workload = WORKLOADS["mlp"](5)
    manager = script((10, adjust(dropout=0.3)), (30, Rollback("step-00000020")), (40, adjust(learning_rate=5e-3)))
    with supervise(workload, run_dir, manager, envelope=boundary(), tracker=tracker) as supervisor:
        workload.train(STEPS, supervisor, a_value())
        assert not supervisor.is_held
    records = [repr(entry.record) for entry in read_ledger(supervisor.run_directory.ledger)]
    return workload.hashes, [record for record in records if "latency_seconds" not in record][1:], supervisor


def test_a_run_with_a_tracker_is_bit_identical_and_so_is_its_record(tmp_path: Path) -> None:
    tracker, broken = Kept(), Broken(RuntimeError("no route"), after=1)
    hashes, records, supervisor = _run(tmp_path / "none", None)
    assert supervisor.state.num_interventions == 3
    for name, given in (("kept", tracker), ("broken", broken), ("hung", Kept(threading.Event()))):
        assert _run(tmp_path / name, given)[:2] == (hashes, records)
    curve = [(one.step, one.values["trimtab/recipe/dropout"]) for one in tracker.told if one.subject == "intervention"]
    assert [value for _, value in curve] == pytest.approx([0.3, 0.3, 0.3])
    assert tracker.told[-1].text == "ended: finished"


def test_the_active_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = WandbRun()
    monkeypatch.setitem(sys.modules, "wandb", wandb_module(run))
    _run(tmp_path / "run", "auto")
    run.finish()
    assert run.rows[-1]["trimtab/interventions"] == 3.0


def test_what_is_no_tracker_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this is no tracker"):
        supervise(WORKLOADS["mlp"](0), tmp_path / "run", tracker="tensorboard")
    assert not (tmp_path / "run").exists()


def test_nothing_is_imported_to_find_a_tracker(tmp_path: Path) -> None:
    script_ = (
        "import sys, torch, trimtab\n"
        "model = torch.nn.Linear(2, 2)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "supervisor = trimtab.supervise(model, optimizer, controls=[trimtab.learning_rate(1e-6, 1.0)],\n"
        "    objective='minimize val/loss', manager='no_action', run_dir=sys.argv[1])\n"
        "supervisor.close()\n"
        "print(sorted({'wandb', 'mlflow', 'trackio', 'tensorboard', 'tensorboardX'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script_, tmp_path / "run"], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.stdout == "[]\n", done.stderr
