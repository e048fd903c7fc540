"""R1: a manager that never acts leaves training bit-identical to training without trimtab."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import trimtab
from tests.integration.pytorch.conftest import WORKLOADS, supervise
from trimtab.controls.envelope import Envelope, Objective
from trimtab.controls.safeguards import Reflex

STEPS = 60


def _evaluate() -> float:
    # Consumes random numbers, as a careless evaluation does: both arms evaluate at the same steps.
    return float(torch.rand(()))


def _hashes(name: str, seed: int, tmp_path: Path | None, armed: bool = True) -> list[str]:
    workload = WORKLOADS[name](seed)
    if tmp_path is None:
        workload.train(STEPS, evaluate=_evaluate)
        return workload.hashes
    envelope = Envelope(
        Objective("val/loss", "minimize"),
        (trimtab.learning_rate(1e-6, 1.0), trimtab.weight_decay(0.0, 1.0), trimtab.dropout(0.0, 0.9)),
        reflex=Reflex(armed=armed),
    )
    with supervise(workload, tmp_path / f"{name}-{seed}", envelope=envelope) as supervisor:
        workload.train(STEPS, supervisor, _evaluate)
        assert not supervisor.is_held
        assert supervisor.state.num_questions > 0, "the manager was never asked, so nothing was shown"
    return workload.hashes


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("armed", [True, False], ids=["reflex armed", "reflex off"])
def test_no_action_is_bit_identical(name: str, armed: bool, tmp_path: Path) -> None:
    assert _hashes(name, 3, tmp_path, armed) == _hashes(name, 3, None)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", WORKLOADS)
def test_no_action_is_bit_identical_over_20_seeds(name: str, tmp_path: Path) -> None:
    for seed in range(20):
        assert _hashes(name, seed, tmp_path) == _hashes(name, seed, None), f"seed {seed}"


def test_the_hash_sees_a_single_changed_bit() -> None:
    workload = WORKLOADS["mlp"](0)
    workload.train(5)
    before = workload.hashes[-1]
    other = WORKLOADS["mlp"](0)
    with torch.no_grad():
        weight = next(other.model.parameters())
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    other.train(5)
    assert other.hashes[-1] != before
