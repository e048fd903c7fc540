"""A rollback takes the telemetry and the recipe back too; that every step after it is exact is promise R5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.integration.pytorch.conftest import mlp, supervise
from tests.integration.pytorch.managed import adjust, boundary, records, script
from trimtab.decision.action import Change, Rollback, RollbackAndAdjust, checkpoint_of
from trimtab.ledger.record import ActionApplied, ActionFailed, ActionIntended, CheckpointDeleted, EvaluationRecorded


def _evaluate() -> float:
    return 1.0  # draws nothing: the two runs evaluate at different steps


def test_the_telemetry_goes_back_with_the_state(tmp_path: Path) -> None:
    workload = mlp(0)
    supervisor = supervise(workload, tmp_path / "run", script((20, Rollback("step-00000010"))), envelope=boundary())
    seen: dict[int, Any] = {}

    def keep(step: int) -> None:
        seen[step] = json.loads(json.dumps(supervisor._telemetry.state()))

    values = iter([1.5, 2.0, 1.4])
    with supervisor:
        workload.train(24, supervisor, lambda: next(values), before_step=keep)
    (applied,) = records(supervisor, ActionApplied)
    assert applied.step == 21
    # Before step 22 the windows are those from before step 11, when step 10 had been evaluated.
    assert seen[22]["signals"]["loss"] == seen[11]["signals"]["loss"]
    assert seen[22]["signals"]["val/loss"] == seen[11]["signals"]["val/loss"]
    assert (seen[21]["rewinds"], seen[22]["rewinds"]) == ([], [21])
    assert seen[22] != seen[21]
    assert seen[24]["signals"]["loss"]["window"]["count"] == 12


def test_a_rollback_restores_the_recipe_and_adjusts_after_it(tmp_path: Path) -> None:
    workload = mlp(0)
    action = RollbackAndAdjust("step-00000010", (Change("weight_decay", 0.3),))
    manager = script((10, adjust(dropout=0.5)), (20, action))
    weights: dict[int, Any] = {}
    held: dict[int, tuple[float, float]] = {}

    def keep(step: int) -> None:
        weights[step] = {name: value.clone() for name, value in workload.model.state_dict().items()}
        held[step] = (workload.dropout.p, workload.optimizer.param_groups[0]["weight_decay"])

    with supervise(workload, tmp_path / "run", manager, envelope=boundary()) as supervisor:
        workload.train(25, supervisor, lambda: 1.0, before_step=keep)
        assert supervisor.recipe.values == (("dropout", 0.1), ("learning_rate", 0.01), ("weight_decay", 0.3))
    assert [record.step for record in records(supervisor, ActionApplied)] == [11, 21]
    # Before step 12 dropout was changed; before step 22 the run is back before step 11, but for the weight decay.
    assert (held[11], held[12], held[22]) == ((0.1, 0.01), (0.5, 0.01), (0.1, 0.3))
    assert all(torch.equal(weights[22][name], weights[11][name]) for name in weights[11])
    assert not all(torch.equal(weights[22][name], weights[21][name]) for name in weights[11])


def _damage(directory: Path) -> None:
    path = directory / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_checkpoint_is_given_up_and_the_run_goes_on_untouched(tmp_path: Path) -> None:
    plain = mlp(3)
    plain.train(30, evaluate=_evaluate)
    workload = mlp(3)
    manager = script((20, Rollback("step-00000010")))
    supervisor = supervise(workload, tmp_path / "run", manager, envelope=boundary())

    def damage(step: int) -> None:
        if step == 15:
            _damage(tmp_path / "run" / "checkpoints" / "step-00000010")

    with supervisor:
        workload.train(30, supervisor, _evaluate, before_step=damage)
        assert not supervisor.is_held
    (failed,) = records(supervisor, ActionFailed)
    assert failed.step == 21
    assert failed.restored is None
    assert "the checkpoint is damaged" in failed.problem
    assert "step-00000010" in [record.checkpoint for record in records(supervisor, CheckpointDeleted)]
    assert not (tmp_path / "run" / "checkpoints" / "step-00000010").exists()
    assert workload.hashes == plain.hashes, "a rollback that failed changed the run"


def test_the_reflex_takes_the_next_checkpoint_if_the_newest_is_damaged(tmp_path: Path) -> None:
    workload = mlp(3)
    supervisor = supervise(workload, tmp_path / "run")

    def damage(step: int) -> None:
        if step == 22:
            _damage(tmp_path / "run" / "checkpoints" / "step-00000020")

    def fault(step: int, loss: torch.Tensor) -> torch.Tensor:
        return loss * torch.nan if step == 25 else loss

    with supervisor:
        workload.train(60, supervisor, _evaluate, before_step=damage, loss_hook=fault)
        assert not supervisor.should_stop
        assert not supervisor.is_held
    assert [record.step for record in records(supervisor, ActionFailed)] == [25]
    # The step after: the weights are still not finite, the loss says so, and the older checkpoint is used.
    intended = records(supervisor, ActionIntended)
    assert [(record.step, checkpoint_of(record.action)) for record in intended[:2]] == [
        (25, "step-00000020"),
        (26, "step-00000010"),
    ]
    assert {record.step for record in intended} == {25, 26}
    assert all(bool(torch.isfinite(p).all()) for p in workload.model.parameters())
    assert records(supervisor, EvaluationRecorded)[-1].step == 60
