"""Somebody else's hand on a control is said, with the values; nothing of theirs is overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as schedules

import trimtab
from tests.integration.pytorch.conftest import WORKLOADS, supervise
from tests.integration.pytorch.managed import adjust, boundary, free, records, script
from trimtab.integrations.pytorch.latecomers import PROBLEM
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import ProblemNoticed, ReadBackRecorded


def _problems(run_dir: Path) -> list[str]:
    records = (entry.record for entry in read_ledger(run_dir / "ledger.jsonl"))
    return [record.detail for record in records if isinstance(record, ProblemNoticed)]


def test_a_rate_that_the_loop_takes_out_of_its_bounds_is_noticed(tmp_path: Path) -> None:
    workload = WORKLOADS["batch_norm"](0)

    def meddle(step: int) -> None:
        if step >= 25:
            workload.optimizer.param_groups[0]["lr"] = 5.0

    with supervise(workload, tmp_path / "run") as supervisor:
        workload.train(45, supervisor, lambda: 1.0, before_step=meddle)
    assert any("learning_rate is 5 in effect, above its bound 1.0" in detail for detail in _problems(tmp_path / "run"))


def test_a_rate_that_breaks_the_run_is_named_before_the_reflex_takes_it_back(tmp_path: Path) -> None:
    workload = WORKLOADS["mlp"](0)

    def meddle(step: int) -> None:
        if step == 85:
            workload.optimizer.param_groups[0]["lr"] = 1e6

    with supervise(workload, tmp_path / "run", every=40) as supervisor:
        workload.train(119, supervisor, lambda: 1.0, every=40, before_step=meddle)
        assert supervisor.state.reflex_rollbacks_used == 1
    assert any("in effect, above its bound 1.0" in detail for detail in _problems(tmp_path / "run"))


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


@pytest.mark.parametrize("high", [0.02, 1.0])
def test_a_schedule_that_takes_a_rate_below_its_bound_is_told_once(high: float, tmp_path: Path) -> None:
    workload = WORKLOADS["mlp"](0)
    workload.scheduler = torch.optim.lr_scheduler.ExponentialLR(workload.optimizer, 0.97)
    with supervise(workload, tmp_path / "run", controls=[trimtab.learning_rate(5e-3, high)]) as supervisor:
        workload.train(90, supervisor, lambda: 1.0)
    told = [detail for detail in _problems(tmp_path / "run") if "bound" in detail]
    assert len(told) == 1
    assert told[0].startswith("learning_rate is 0.004")
    assert told[0].endswith("in effect, below its bound 0.005, and not through trimtab: by a schedule, say")


def test_a_warm_up_comes_into_the_bounds_by_itself_and_is_not_told(tmp_path: Path) -> None:
    workload = WORKLOADS["mlp"](0)
    workload.scheduler = torch.optim.lr_scheduler.LambdaLR(workload.optimizer, lambda step: min(1.0, step / 60))
    with supervise(workload, tmp_path / "run", controls=[trimtab.learning_rate(5e-3, 1.0)]) as supervisor:
        workload.train(80, supervisor, lambda: 1.0)
    assert not any("bound" in detail for detail in _problems(tmp_path / "run"))


def test_a_rate_that_came_back_and_left_again_is_told_again(tmp_path: Path) -> None:
    workload = WORKLOADS["batch_norm"](0)

    def meddle(step: int) -> None:
        workload.optimizer.param_groups[0]["lr"] = 5.0 + step if 5 < step <= 25 or step > 45 else 0.05

    with supervise(workload, tmp_path / "run") as supervisor:
        workload.train(60, supervisor, lambda: 1.0, before_step=meddle)
    assert sum("above its bound 1.0" in detail for detail in _problems(tmp_path / "run")) == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda optimizer: schedules.ReduceLROnPlateau(optimizer, patience=1000),
            "ReduceLROnPlateau already steers the learning rate by a metric; remove it, or leave learning_rate out",
        ),
        (
            lambda optimizer: schedules.StepLR(optimizer, 1000),
            "a rollback does not restore this StepLR: make it before trimtab.supervise, and pass it as scheduler=",
        ),
    ],
    ids=["plateau", "step"],
)
@pytest.mark.parametrize("late_steps", [0, 15])
def test_a_scheduler_made_after_attaching_is_told_once(make: Any, said: str, late_steps: int, tmp_path: Path) -> None:
    workload = WORKLOADS["attention"](0)
    earlier = schedules.ConstantLR(workload.optimizer, 1.0, 1)  # told by the preflight, so not again
    with supervise(workload, tmp_path / "run") as supervisor:
        if late_steps:
            workload.train(late_steps, supervisor, lambda: 1.0)
        kept = make(workload.optimizer)
        workload.train(45, supervisor, lambda: 1.0)
    assert kept is not earlier
    records = [entry.record for entry in read_ledger(tmp_path / "run" / "ledger.jsonl")]
    late = [one for one in records if isinstance(one, ProblemNoticed) and one.problem == PROBLEM]
    (told,) = [one.detail for one in late]
    assert told.startswith(said)


def test_a_step_reported_before_it_is_made_is_told_once(tmp_path: Path) -> None:
    problems: dict[bool, list[str]] = {}
    for is_before in (False, True):
        workload = WORKLOADS["mlp"](0)
        with supervise(workload, tmp_path / f"run-{is_before}") as supervisor:
            for _ in range(3):
                for inputs, targets in workload.loader:
                    loss = torch.nn.functional.cross_entropy(workload.model(inputs), targets)
                    workload.optimizer.zero_grad(set_to_none=False)
                    loss.backward()
                    if is_before:
                        supervisor.step(loss=loss)
                    workload.optimizer.step()
                    if not is_before:
                        supervisor.step(loss=loss)
        problems[is_before] = [detail for detail in _problems(tmp_path / f"run-{is_before}") if "optimizer.step" in detail]
    assert problems[False] == []
    (told,) = problems[True]
    assert told.startswith("no gradient changed between supervisor.step and optimizer.step: call supervisor.step right after")


@pytest.mark.parametrize("is_stepped", [False, True])
def test_an_optimizer_that_never_steps_is_told(is_stepped: bool, tmp_path: Path) -> None:
    workload = WORKLOADS["mlp"](0)
    with supervise(workload, tmp_path / "run") as supervisor:
        for _ in range(40):
            if is_stepped:
                workload.optimizer.step()
            supervisor.step(loss=1.0)
    told = [detail for detail in _problems(tmp_path / "run") if "without a step of the AdamW that was passed" in detail]
    assert len(told) == (0 if is_stepped else 1)


def test_a_change_that_the_bounds_swallow_under_the_schedule_is_no_success(tmp_path: Path) -> None:
    workload = WORKLOADS["mlp"](0)
    workload.scheduler = torch.optim.lr_scheduler.ExponentialLR(workload.optimizer, 0.9)
    rate = free("learning_rate", 5e-3, 1.0, 1e-2, 6e-3)
    plan = script((20, adjust(learning_rate=6e-3)))
    with supervise(workload, tmp_path / "run", plan, envelope=boundary((rate,))) as supervisor:
        workload.train(60, supervisor, lambda: 1.0)
    (read_back,) = [result for record in records(supervisor, ReadBackRecorded) for result in record.results]
    assert (read_back.holds, supervisor.recipe["learning_rate"]) == (False, 6e-3)
    assert read_back.expected == pytest.approx(0.6 * read_back.observed)
    (told,) = [record for record in records(supervisor, ProblemNoticed) if record.problem == "a change did not stick"]
    assert told.detail.endswith(f"; {read_back.detail}")
    assert "and nothing of the change fits into 0.005 to 1.0" in read_back.detail
    (intervention,) = supervisor.state.interventions
    assert intervention.met is False
