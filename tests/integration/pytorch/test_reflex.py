"""R3, a portion: transient faults are recovered within one step, persistent ones are named and stop the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import nn

import trimtab
from tests.integration.pytorch.conftest import WORKLOADS, Workload, mlp, supervise
from tests.integration.pytorch.managed import CONTROLS, records
from trimtab.controls.envelope import Envelope, Objective
from trimtab.controls.safeguards import Reflex
from trimtab.decision.action import Rollback, SkipBatches, Stop, checkpoint_of
from trimtab.ledger.record import ActionApplied, ActionIntended, RunStarted, SymptomObserved, VerdictGiven
from trimtab.runtime.supervisor import Supervisor

Fault = Callable[[Workload, int], None]


def _envelope(**reflex: Any) -> Envelope:
    return Envelope(Objective("val/loss", "minimize"), CONTROLS, reflex=Reflex(**reflex))


def _nan_at(*steps: int) -> Callable[[int, torch.Tensor], torch.Tensor]:
    return lambda step, loss: loss * torch.nan if step in steps else loss


def _is_finite(workload: Workload) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in workload.model.parameters())


def _by_reflex(supervisor: Supervisor) -> list[ActionIntended]:
    return [record for record in records(supervisor, ActionIntended) if record.source == "reflex"]


def _faults(supervisor: Supervisor) -> list[tuple[int, str]]:
    symptoms = [record.symptom for record in records(supervisor, SymptomObserved)]
    return [(symptom.step, symptom.name) for symptom in symptoms if symptom.severity == "critical"]


def _evaluate() -> float:
    return 1.0


def test_a_transient_nan_is_undone_within_its_step(tmp_path: Path) -> None:
    workload = mlp(1)
    finite: dict[int, bool] = {}
    with supervise(workload, tmp_path / "run") as supervisor:
        workload.train(
            80, supervisor, _evaluate, loss_hook=_nan_at(35), before_step=lambda s: finite.update({s: _is_finite(workload)})
        )
    assert math.isnan(workload.losses[34])
    assert all(finite.values()), "a step began with weights that were not finite"
    assert fmean(workload.losses[-10:]) < 2 * fmean(workload.losses[20:30])
    (intended,) = _by_reflex(supervisor)
    assert (intended.step, intended.action, intended.symptoms) == (35, Rollback("step-00000030"), ("non_finite",))
    (verdict,) = [record for record in records(supervisor, VerdictGiven) if record.source == "reflex"]
    assert verdict.accepted
    assert [(record.step, record.intervention) for record in records(supervisor, ActionApplied)] == [(35, 1)]
    assert _faults(supervisor) == [(35, "non_finite")]


def test_a_rollback_of_the_reflex_leads_back_to_the_course_without_the_fault(tmp_path: Path) -> None:
    plain = mlp(1)
    plain.train(40)
    workload = mlp(1)
    with supervise(workload, tmp_path / "run") as supervisor:
        workload.train(45, supervisor, _evaluate, loss_hook=_nan_at(35))
    assert workload.hashes[35:] == plain.hashes[30:]


def _gradient(value: float) -> Fault:
    def fault(workload: Workload, step: int) -> None:
        for parameter in workload.model.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(value)

    return fault


def _rate(workload: Workload, step: int) -> None:
    for group in workload.optimizer.param_groups:
        group["lr"] = 1e6


def _weights(workload: Workload, step: int) -> None:
    with torch.no_grad():
        for parameter in workload.model.parameters():
            parameter.mul_(1000.0)


def _moments(workload: Workload, step: int) -> None:
    for state in workload.optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor) and value.numel() > 1:
                value.fill_(torch.nan)


FAULTS: dict[str, Fault] = {
    "NaN gradient": _gradient(math.nan),
    "infinite gradient": _gradient(math.inf),
    "learning rate 1e6": _rate,
    "weights times 1000": _weights,
    "NaN optimizer state": _moments,
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("at", [32, 39, 40])
def test_a_fault_in_the_training_objects_is_recovered(name: str, at: int, tmp_path: Path) -> None:
    workload = mlp(2)
    with supervise(workload, tmp_path / "run") as supervisor:

        def fault(step: int) -> None:
            if step == at:
                FAULTS[name](workload, step)

        workload.train(140, supervisor, _evaluate, before_step=fault)
        assert not supervisor.should_stop
        assert not supervisor.is_held
    assert len(workload.losses) == 140
    assert _by_reflex(supervisor)
    assert fmean(workload.losses[-10:]) < 2 * fmean(workload.losses[20:30])
    assert workload.optimizer.param_groups[0]["lr"] < 1.0


def _with_bad_item(bad: int) -> Workload:
    workload = mlp(4)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(16 * 100, 12, generator=generator)
    targets = (inputs[:, :3].sum(1) > 0).long()
    inputs[bad] = torch.nan
    dataset = torch.utils.data.TensorDataset(inputs, targets)
    workload.loader = trimtab.ResumableLoader(dataset, batch_size=16, seed=0, shuffle=False)
    return workload


def test_a_bad_batch_is_skipped_at_the_second_attempt(tmp_path: Path) -> None:
    workload = _with_bad_item(16 * 25 + 3)  # met at step 26
    with supervise(workload, tmp_path / "run", envelope=_envelope(skip_batches=10)) as supervisor:
        workload.train(70, supervisor, _evaluate)
        assert not supervisor.should_stop
    intended = _by_reflex(supervisor)
    assert [record.step for record in intended] == [26, 32, 32]
    assert checkpoint_of(intended[0].action) == "step-00000020"
    assert [record.then_skip_batches for record in intended] == [0, 10, 0]
    assert intended[2].action == SkipBatches(10)
    assert _is_finite(workload)
    # From batch 20 on 10 were passed over: steps 33 to 70 trained on batches 31 to 68, and the bad one was not met again.
    assert [index + 1 for index, loss in enumerate(workload.losses) if math.isnan(loss)] == [26, 32]


@pytest.mark.parametrize(("every", "passed_over"), [(10, 16), (20, 20), (100, 100), (250, 200)])
def test_of_a_small_loader_no_more_is_skipped_than_an_epoch_or_leads_back_to_the_checkpoint(
    every: int, passed_over: int, tmp_path: Path
) -> None:
    workload = mlp(4)
    assert len(workload.loader) == 16
    with supervise(workload, tmp_path / "run", every=every) as supervisor:
        workload.train(8, supervisor, loss_hook=_nan_at(4, 7))  # at the same place, counted from the checkpoint of step 1
        (started,) = records(supervisor, RunStarted)
    assert started.envelope.reflex.skip_batches == passed_over, "the record and the verifier go by what is skipped"
    assert [record.action for record in _by_reflex(supervisor) if isinstance(record.action, SkipBatches)] == [
        SkipBatches(passed_over)
    ]


def test_a_loader_that_cannot_skip_or_has_no_length_changes_no_limit(tmp_path: Path) -> None:
    class Endless:
        def skip(self, count: int) -> None:
            raise AssertionError

    for name, loader in (
        ("plain", torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(3)))),
        ("endless", Endless()),
    ):
        workload = mlp(4)
        workload.loader = loader  # type: ignore[assignment] - any iterable is taken
        supervise(workload, tmp_path / name).close()
        (started,) = records(tmp_path / name, RunStarted)
        assert started.envelope.reflex.skip_batches == 200


def test_a_fault_that_is_everywhere_stops_the_run_and_is_named(tmp_path: Path) -> None:
    workload = mlp(4)
    with supervise(workload, tmp_path / "run", envelope=_envelope(attempts=3)) as supervisor:
        workload.train(100, supervisor, _evaluate, loss_hook=lambda step, loss: loss * torch.nan if step >= 25 else loss)
        assert supervisor.should_stop
        assert supervisor.state.stop_reason == "reflex: non_finite"
    assert len(workload.losses) < 50, "the run went on long after it was hopeless"
    intended = _by_reflex(supervisor)
    went_back = [record for record in intended if checkpoint_of(record.action)]
    assert [record.step for record in went_back] == [25, 27, 34, 42, 43], "twice it is given time to pass"
    assert [record.then_skip_batches for record in went_back] == [0, 0, 16, 0, 16]
    assert intended[-1].action == Stop()
    assert "is back after 5 rollbacks: look at the batches behind that checkpoint" in intended[-1].reason


def test_a_loop_that_does_not_stop_is_left_alone_after_the_reflex_gave_up(tmp_path: Path) -> None:
    workload = mlp(4)
    hook = _nan_at(*range(5, 60))
    with supervise(workload, tmp_path / "run", envelope=_envelope(attempts=2)) as supervisor:
        batches = [batch for _ in range(4) for batch in workload.loader]
        for step, (inputs, targets) in enumerate(batches[:60], start=1):
            loss = hook(step, nn.functional.cross_entropy(workload.model(inputs), targets))
            workload.optimizer.zero_grad()
            loss.backward()
            workload.optimizer.step()
            supervisor.step(loss=loss)
        assert supervisor.should_stop
        assert not supervisor.is_held
    assert len(_by_reflex(supervisor)) <= 2 + 2 * 2 + 1, "two repeats, two attempts, of which one skips, and the end"


def test_with_the_reflex_off_a_fault_is_recorded_and_nothing_else(tmp_path: Path) -> None:
    plain = mlp(1)
    plain.train(50, loss_hook=_nan_at(35))
    workload = mlp(1)
    with supervise(workload, tmp_path / "run", envelope=_envelope(armed=False)) as supervisor:
        workload.train(50, supervisor, _evaluate, loss_hook=_nan_at(35))
        assert not supervisor.should_stop
    assert workload.hashes == plain.hashes
    assert _faults(supervisor) == [(35, "non_finite")]
    assert records(supervisor, ActionIntended) == []


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", WORKLOADS)
def test_a_healthy_run_is_never_rolled_back(name: str, seed: int, tmp_path: Path) -> None:
    workload = WORKLOADS[name](seed)
    with supervise(workload, tmp_path / "run", every=50) as supervisor:
        workload.train(150, supervisor, _evaluate)
    assert _by_reflex(supervisor) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_hundred_healthy_runs_are_never_rolled_back(tmp_path: Path) -> None:
    for seed in range(100):
        workload = list(WORKLOADS.values())[seed % 3](seed)
        with supervise(workload, tmp_path / str(seed), every=50) as supervisor:
            workload.train(200, supervisor, _evaluate)
        assert _by_reflex(supervisor) == [], f"seed {seed}"


def test_a_step_that_the_scaler_skipped_is_no_fault(tmp_path: Path) -> None:
    workload = mlp(6)
    workload.scheduler = None
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)  # the loss overflows
    skipped = 0
    norms: list[float] = []
    with supervise(workload, tmp_path / "run", extra_state={"scaler": scaler}) as supervisor:
        for inputs, targets in [batch for _ in range(3) for batch in workload.loader]:
            loss = 8 * nn.functional.cross_entropy(workload.model(inputs), targets)
            workload.optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(workload.optimizer)
            norm = nn.utils.clip_grad_norm_(workload.model.parameters(), 1e9)
            before = scaler.get_scale()
            scaler.step(workload.optimizer)
            scaler.update()
            skipped += scaler.get_scale() < before
            norms.append(float(norm))
            supervisor.step(loss=loss, grad_norm=norm)
        assert not all(map(math.isfinite, norms))
        assert skipped > 0, "the scaler never skipped, so nothing was shown"
        assert _by_reflex(supervisor) == []
        assert _faults(supervisor) == []
    assert _is_finite(workload)


def test_a_scaler_that_skips_for_ever_is_a_fault(tmp_path: Path) -> None:
    workload = mlp(6)
    with supervise(workload, tmp_path / "run") as supervisor:
        for _ in range(30):  # the loop never calls optimizer.step()
            supervisor.step(loss=math.nan)
        assert _faults(supervisor) == [(21, "non_finite")]


def test_a_nan_at_the_very_first_step_goes_back_to_the_beginning(tmp_path: Path) -> None:
    plain = mlp(1)
    plain.train(20)
    workload = mlp(1)
    with supervise(workload, tmp_path / "run") as supervisor:
        workload.train(21, supervisor, _evaluate, loss_hook=_nan_at(1))
        assert not supervisor.should_stop
    (intended,) = _by_reflex(supervisor)
    assert (intended.step, intended.action) == (1, Rollback("step-00000000"))
    assert workload.hashes[1:] == plain.hashes


def test_a_nan_objective_leads_back_to_a_checkpoint_that_was_evaluated_well(tmp_path: Path) -> None:
    workload = mlp(1)
    values = iter([1.0, 0.9, math.nan, 0.8, 0.7])
    with supervise(workload, tmp_path / "run") as supervisor:
        workload.train(50, supervisor, lambda: next(values))
        assert not supervisor.is_held
    (intended,) = _by_reflex(supervisor)
    # The evaluation was after step 30; changes happen inside step() only, so after step 31.
    assert (intended.step, intended.action, intended.symptoms) == (31, Rollback("step-00000020"), ("non_finite",))
