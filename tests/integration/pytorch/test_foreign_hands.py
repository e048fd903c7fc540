"""Somebody else's hand on a control is said, with the values; nothing of theirs is overwritten."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.integration.pytorch.conftest import WORKLOADS, supervise
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import ProblemNoticed


def _problems(run_dir: Path) -> list[str]:
    records = (entry.record for entry in read_ledger(run_dir / "ledger.jsonl"))
    return [record.detail for record in records if isinstance(record, ProblemNoticed)]


def test_a_rate_that_the_loop_takes_out_of_its_bounds_is_noticed(tmp_path: Path) -> None:
    workload = WORKLOADS["batch_norm"](0)

    def meddle(step: int) -> None:
        if step >= 25:
            workload.optimizer.param_groups[0]["lr"] = 50.0

    with supervise(workload, tmp_path / "run") as supervisor:
        workload.train(45, supervisor, lambda: 1.0, before_step=meddle)
    assert any("learning_rate is 50 in effect, above its bound 1.0" in detail for detail in _problems(tmp_path / "run"))


def test_a_value_set_by_hand_is_noticed_and_left(tmp_path: Path) -> None:
    workload = WORKLOADS["mlp"](0)
    dropout = next(module for module in workload.model.modules() if isinstance(module, torch.nn.Dropout))
    with supervise(workload, tmp_path / "run") as supervisor:
        workload.train(15, supervisor, lambda: 1.0)
        dropout.p = 0.7
        workload.train(15, supervisor, lambda: 1.0)
    assert dropout.p == 0.7
    assert any("dropout is 0.7, not 0.1 as trimtab left it" in detail for detail in _problems(tmp_path / "run"))


def test_a_run_that_nobody_touches_has_no_such_notice(tmp_path: Path) -> None:
    workload = WORKLOADS["mlp"](0)
    with supervise(workload, tmp_path / "run") as supervisor:
        workload.train(30, supervisor, lambda: 1.0)
    assert not any("hand" in detail or "bound" in detail for detail in _problems(tmp_path / "run"))
