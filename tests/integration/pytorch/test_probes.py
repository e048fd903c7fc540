"""Probes in a managed run: they change nothing, the user's values go first, and a fault stays inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from tests.integration.pytorch.conftest import WORKLOADS, Workload, digest, supervise
from tests.integration.pytorch.managed import a_value, adjust, boundary, problems, records, script
from trimtab.errors import UsageError
from trimtab.integrations.pytorch.probes.dead_units import DeadUnitsProbe
from trimtab.integrations.pytorch.probes.grad_norm import GradNormProbe
from trimtab.integrations.pytorch.probes.probe import Guard, Measured, StepHooks
from trimtab.integrations.pytorch.probes.probe_set import PROBES, ProbeSet, open_probes
from trimtab.integrations.pytorch.probes.update_ratio import UpdateRatioProbe
from trimtab.integrations.pytorch.training import Training
from trimtab.ledger.record import RunStarted
from trimtab.runtime.supervisor import Supervisor

STEPS = 40


def watched(workload: Workload, run_dir: Path, names: Any, criterion: nn.Module | None = None) -> Supervisor:
    """Attach with probes."""
    return supervise(workload, run_dir, parts=[criterion or nn.CrossEntropyLoss()], probes=names)


def train(
    workload: Workload, criterion: nn.Module, supervisor: Supervisor | None, steps: int = STEPS, **signals: float
) -> None:
    """Train with a loss module, and hash the whole state after every step."""
    batches = iter([batch for _ in range(3) for batch in workload.loader])
    for _ in range(steps):
        inputs, targets = next(batches)
        loss = criterion(workload.model(inputs), targets)
        workload.optimizer.zero_grad()
        loss.backward()
        workload.optimizer.step()
        if workload.scheduler is not None:
            workload.scheduler.step()
        if supervisor is not None:
            supervisor.step(**signals)
        workload.hashes.append(digest(workload.model, workload.optimizer))


def names_of(supervisor: Supervisor) -> set[str]:
    return set(supervisor._telemetry.names())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WORKLOADS)
def test_with_all_probes_training_is_bit_identical(name: str, seed: int, tmp_path: Path) -> None:
    plain, criterion = WORKLOADS[name](seed), nn.CrossEntropyLoss()
    train(plain, nn.CrossEntropyLoss(), None)
    managed = WORKLOADS[name](seed)
    with watched(managed, tmp_path / "run", "all", criterion) as supervisor:
        train(managed, criterion, supervisor)
        assert not supervisor.is_held
        assert "a probe was switched off" not in problems(supervisor)
        expected = {"loss", "grad_norm", "update_ratio", "weight_norm", "learning_rate", "throughput", "memory"}
        if name == "mlp":
            expected |= {"dead_units"}
        if name == "batch_norm":
            expected |= {"grad_norm/stem", "grad_norm/head"}
        assert names_of(supervisor) == expected
    assert managed.hashes == plain.hashes


def test_the_rate_in_effect_is_seen_and_what_was_left_out_is_noted(tmp_path: Path) -> None:
    workload = WORKLOADS["attention"](0)
    action = adjust(learning_rate=5e-3)
    with supervise(workload, tmp_path / "run", script((10, action)), probes="all", envelope=boundary()) as supervisor:
        workload.train(25, supervisor, a_value())
        rate = supervisor._telemetry.window("learning_rate")
        assert rate is not None
        assert {value for step, value in rate.points if step <= 10} == {3e-3}
        assert max(value for _, value in rate.points) == pytest.approx(5e-3)
        (started,) = records(supervisor, RunStarted)
        assert [note for note in started.notes if note.startswith("no probe")] == [
            "no probe loss: the loss cannot be measured without the one module that computes it",
            "no probe dead_units: the model has no activation modules whose units could be dead",
        ]


def test_an_objective_with_the_name_of_a_probe_is_refused(tmp_path: Path) -> None:
    workload = WORKLOADS["mlp"](0)
    with pytest.raises(UsageError, match="reported every step"):
        supervise(workload, tmp_path / "run", objective="maximize throughput", probes=["throughput"])
    assert not workload.optimizer._optimizer_step_pre_hooks


def test_closing_leaves_no_hook_behind(tmp_path: Path) -> None:
    workload, criterion = WORKLOADS["mlp"](0), nn.CrossEntropyLoss()
    supervisor = watched(workload, tmp_path / "run", "all", criterion)
    train(workload, criterion, supervisor, 2)
    supervisor.close()
    optimizer = workload.optimizer
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not any(module._forward_hooks for module in (*workload.model.modules(), criterion))


def test_what_the_loop_reports_under_the_same_name_goes_first(tmp_path: Path) -> None:
    workload, criterion = WORKLOADS["mlp"](0), nn.CrossEntropyLoss()
    with watched(workload, tmp_path / "run", ["loss", "grad_norm"], criterion) as supervisor:
        train(workload, criterion, supervisor, 5, grad_norm=123.0)
        norm, loss = supervisor._telemetry.window("grad_norm"), supervisor._telemetry.window("loss")
        assert norm is not None
        assert loss is not None
        assert [value for _, value in norm.points] == [123.0] * 5
        assert (norm.num_repeated, loss.count) == (0, 5)


class Faulty:
    """Raises where it is told to."""

    name: ClassVar[str] = "faulty"

    def __init__(self, place: str) -> None:
        self.place = place
        self.hooks = StepHooks(1)
        self.is_closed = False

    def attach(self, training: Training, guard: Guard) -> None:
        self.hooks.register(training, guard, before=lambda _: self.fail("before"), after=lambda _: self.fail("after"))
        if self.place == "forward":
            self.handle = training.model.register_forward_hook(guard(lambda *_: self.fail("forward")))

    def collect(self, step: int) -> Measured:
        self.fail("collect")
        return {"faulty": 1.0}

    def close(self) -> None:
        self.is_closed = True
        self.hooks.remove()
        self.fail("close")

    def fail(self, place: str) -> None:
        if place == self.place:
            raise RuntimeError(f"planted in {place}")


@pytest.mark.parametrize("place", ["before", "after", "forward", "collect"])
def test_a_fault_inside_a_probe_switches_it_off_with_one_notice(place: str, tmp_path: Path) -> None:
    plain, criterion = WORKLOADS["mlp"](0), nn.CrossEntropyLoss()
    train(plain, criterion, None, 10)
    managed, probe = WORKLOADS["mlp"](0), Faulty(place)
    with watched(managed, tmp_path / "run", [probe, "grad_norm"], criterion) as supervisor:
        train(managed, criterion, supervisor, 10)
        assert not supervisor.is_held
        assert problems(supervisor) == ["a probe was switched off"]
        assert probe.is_closed
        norm = supervisor._telemetry.window("grad_norm")
        assert norm is not None
        assert norm.count == 10, "the others go on"
        assert "faulty" not in names_of(supervisor)
    assert managed.hashes == plain.hashes


def test_a_probe_that_cannot_be_closed_does_not_stop_the_closing(tmp_path: Path) -> None:
    workload, criterion = WORKLOADS["mlp"](0), nn.CrossEntropyLoss()
    supervisor = watched(workload, tmp_path / "run", [Faulty("close"), "grad_norm"], criterion)
    train(workload, criterion, supervisor, 2)
    supervisor.close()
    assert len(workload.optimizer._optimizer_step_pre_hooks) == 0


def test_a_probe_that_needs_more_memory_than_there_is_goes_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(self: UpdateRatioProbe, optimizer: object) -> None:
        raise torch.OutOfMemoryError("no memory for a copy of the weights")

    monkeypatch.setattr(UpdateRatioProbe, "_copy", exhausted)
    workload, criterion = WORKLOADS["mlp"](0), nn.CrossEntropyLoss()
    with watched(workload, tmp_path / "run", ["update_ratio"], criterion) as supervisor:
        train(workload, criterion, supervisor, 3)
        assert problems(supervisor) == ["a probe was switched off"]


def test_probes_stop_when_the_supervisor_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workload, criterion = WORKLOADS["mlp"](0), nn.CrossEntropyLoss()
    with watched(workload, tmp_path / "run", "all", criterion) as supervisor:

        def broken(*_: object) -> None:
            raise RuntimeError("planted")

        monkeypatch.setattr(supervisor._reader, "take", broken)
        train(workload, criterion, supervisor, 2)
        assert supervisor.is_held
        assert not criterion._forward_hooks


class TestOpening:
    def training(self, *parts: Any) -> Training:
        model = nn.Linear(2, 2)
        return Training(model, torch.optim.SGD(model.parameters(), lr=0.1), parts=parts)

    def test_all_leaves_out_what_the_run_has_nothing_for_and_says_why(self) -> None:
        probes = open_probes("all", self.training())
        assert set(probes.names) == set(PROBES) - {"loss", "dead_units"}
        assert [note.split(":")[0] for note in probes.left_out] == ["no probe loss", "no probe dead_units"]
        probes.close()
        assert probes.names == ()

    @pytest.mark.parametrize(
        ("names", "told"),
        [
            (["grad_nrom"], "did you mean 'grad_norm'"),
            ("grad_norm", r'probes=\["grad_norm"\]'),
            (["grad_norm", GradNormProbe()], "named twice"),
            ([GradNormProbe], "not a probe"),
            ([3], "not a probe"),
            (["grad_norm", "loss"], r"parts=\[criterion\]"),
        ],
    )
    def test_what_cannot_be_opened_is_refused_and_leaves_nothing_attached(self, names: Any, told: str) -> None:
        training = self.training()
        with pytest.raises(UsageError, match=told):
            open_probes(names, training)
        assert not training.optimizer._optimizer_step_pre_hooks

    def test_none_are_none(self) -> None:
        probes = open_probes([], self.training())
        assert probes.names == ()
        assert probes.collect(1) == {}


def test_what_is_compiled_is_left_alone_and_a_probe_that_sees_nothing_goes_off() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probes: ProbeSet = open_probes([DeadUnitsProbe(every_steps=3, num_batches=1)], Training(model, optimizer))
    compiled = torch.compile(model, backend="eager")
    faults: list[str] = []
    for step in range(12):
        compiled(torch.randn(3, 4)).sum().backward()
        optimizer.step()
        assert probes.collect(step) == {}
        faults += probes.faults()
    assert len(faults) == 1
    assert 'leave "dead_units" out' in faults[0]
