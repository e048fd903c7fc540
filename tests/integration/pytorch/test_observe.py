"""Values that come apart from a step or late: they reach the telemetry and the curves, and change nothing."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.pytorch.conftest import WORKLOADS, Workload, supervise
from tests.integration.pytorch.managed import problems, records
from trimtab.controls.envelope import Envelope, Objective
from trimtab.controls.safeguards import Reflex
from trimtab.ledger.record import ActionApplied, SymptomObserved
from trimtab.ledger.series import read_series
from trimtab.runtime.supervisor import Supervisor
from trimtab.telemetry.window import Window


@pytest.fixture
def run(tmp_path: Path) -> Iterator[tuple[Workload, Supervisor]]:
    workload = WORKLOADS["mlp"](0)
    with supervise(workload, tmp_path / "run") as supervisor:
        yield workload, supervisor
        assert not supervisor.is_held


def window(supervisor: Supervisor, name: str) -> Window:
    found = supervisor._telemetry.window(name)
    assert found is not None
    return found


def test_late_values_stand_at_their_step_in_telemetry_and_curves(run: tuple[Workload, Supervisor]) -> None:
    _, supervisor = run
    for step in range(1, 11):
        supervisor.step(loss=1.0)
        supervisor.observe({"success_rate": 0.1 * step})
    supervisor.observe({"success_rate": torch.tensor(7.0), "reward": 2}, step=4)
    supervisor.step(loss=1.0)
    rate = window(supervisor, "success_rate")
    assert [step for step, _ in rate.points] == list(range(1, 11))
    assert rate.points[3] == (4, 7.0)
    assert (rate.num_late, rate.num_repeated) == (1, 1)
    supervisor.close()
    rows = [row for row in read_series(supervisor.run_directory.series) if row.step == 4]
    assert [dict(row.values) for row in rows] == [
        {"loss": 1.0},
        {"success_rate": pytest.approx(0.4)},
        {"reward": 2.0, "success_rate": 7.0},
    ]


def test_they_are_in_the_snapshot_of_an_evaluation_that_follows(run: tuple[Workload, Supervisor]) -> None:
    _, supervisor = run
    for _ in range(10):
        supervisor.step(loss=1.0)
    supervisor.evaluated({"val/loss": 1.0, "val/accuracy": 0.5})
    supervisor.step(loss=1.0)
    supervisor.observe({"success_rate": 0.5, "val/accuracy": 0.25}, step=5)
    supervisor.evaluated({"val/loss": 1.0})
    assert list(window(supervisor, "success_rate").points) == [(5, 0.5)]
    assert list(window(supervisor, "val/accuracy").points) == [(5, 0.25), (10, 0.5)], "it stays a signal of evaluations"
    assert "a signal was refused" not in problems(supervisor)


def test_the_objective_counts_only_when_evaluated(run: tuple[Workload, Supervisor]) -> None:
    _, supervisor = run
    supervisor.step(loss=1.0)
    supervisor.observe({"val/loss": 0.1, "reward": 1.0})
    supervisor.step(loss=1.0)
    assert supervisor._telemetry.window("val/loss") is None
    assert window(supervisor, "reward").count == 1
    assert problems(supervisor) == ["the objective was observed"]


@pytest.mark.parametrize("step", [-1, 5, pytest.param(10**6000, id="huge"), 1.0, "1", True, math.nan, None])
def test_a_step_that_cannot_be_is_refused_with_a_notice(step: Any, run: tuple[Workload, Supervisor]) -> None:
    _, supervisor = run
    supervisor.step(loss=1.0)
    supervisor.observe({"reward": 1.0}, step=step)
    supervisor.step(loss=1.0)
    assert (supervisor._telemetry.window("reward") is None) == (step is not None)
    assert problems(supervisor) == ([] if step is None else ["observed values were refused"])


class Hostile(dict[str, object]):
    def keys(self) -> Any:
        raise RuntimeError("no keys")

    def __iter__(self) -> Any:
        raise RuntimeError("no keys")


@pytest.mark.parametrize(
    "values",
    [None, 3, [1.0], Hostile(), {3: 1.0}, {"bad name": 1.0}, {"reward": "high"}, {"reward": torch.zeros(2)}, {"": 1.0}],
)
def test_nothing_that_is_observed_raises_or_stops_supervision(values: Any, run: tuple[Workload, Supervisor]) -> None:
    _, supervisor = run
    supervisor.observe(values)
    for _ in range(3):
        supervisor.step(loss=1.0)
    assert not supervisor.is_held
    assert window(supervisor, "loss").count == 3


def test_a_non_finite_value_that_comes_apart_calls_nobody(run: tuple[Workload, Supervisor]) -> None:
    _, supervisor = run
    for _ in range(5):
        supervisor.step(loss=1.0)
    supervisor.observe({"loss": math.nan, "grad_norm": math.inf}, step=3)
    supervisor.step(loss=1.0)
    assert window(supervisor, "grad_norm").num_non_finite == 1
    assert records(supervisor, SymptomObserved) == []


def test_what_was_measured_before_a_rollback_is_left_out(tmp_path: Path) -> None:
    workload = WORKLOADS["mlp"](0)
    envelope = Envelope(Objective("val/loss", "minimize"), (), reflex=Reflex())
    with supervise(workload, tmp_path / "run", envelope=envelope) as supervisor:
        workload.train(15, supervisor, loss_hook=lambda step, loss: loss * math.nan if step == 15 else loss)
        assert records(supervisor, ActionApplied), "the reflex went back"
        supervisor.observe({"reward": 1.0}, step=14)
        supervisor.observe({"reward": 2.0}, step=15)
        workload.train(1, supervisor)
        supervisor.observe({"reward": 3.0}, step=16)
        workload.train(1, supervisor)
        assert list(window(supervisor, "reward").points) == [(16, 3.0)]


def test_threads_may_observe_while_the_run_goes_on(run: tuple[Workload, Supervisor]) -> None:
    _, supervisor = run

    def report(name: str) -> None:
        for value in range(100):
            supervisor.observe({name: float(value)}, step=0)

    threads = [threading.Thread(target=report, args=(f"worker_{index}/reward",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        supervisor.step(loss=1.0)
    for thread in threads:
        thread.join()
    supervisor.step(loss=1.0)
    for index in range(4):
        reward = window(supervisor, f"worker_{index}/reward")
        assert (list(reward.points), reward.num_repeated) == ([(0, 99.0)], 99)


def test_a_flood_between_two_steps_is_bounded_and_told(run: tuple[Workload, Supervisor]) -> None:
    _, supervisor = run
    for value in range(5000):
        supervisor.observe({"reward": float(value)}, step=0)
    assert len(supervisor._apart) == 1000
    supervisor.step(loss=1.0)
    assert problems(supervisor) == ["observed values were lost"]
    assert list(window(supervisor, "reward").points) == [(0, 999.0)]


@pytest.mark.parametrize("name", WORKLOADS)
def test_training_is_bit_identical_with_observations(name: str, tmp_path: Path) -> None:
    plain = WORKLOADS[name](1)
    plain.train(30)
    watched = WORKLOADS[name](1)
    with supervise(watched, tmp_path / "run") as supervisor:

        def observe(step: int) -> None:
            supervisor.observe({"reward": torch.tensor(float(step))}, step=step // 2)

        watched.train(30, supervisor, before_step=observe)
        assert window(supervisor, "reward").num_repeated > 0
    assert watched.hashes == plain.hashes
