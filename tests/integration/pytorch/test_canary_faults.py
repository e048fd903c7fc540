"""Trials in which something fails: the run's own course comes back, and what was spent is booked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders import a_symptom
from tests.integration.pytorch.conftest import mlp, supervise
from tests.integration.pytorch.managed import CONTROLS, adjust, boundary, records, script
from tests.integration.pytorch.test_canary import (
    CANARY,
    CANDIDATE_EVALUATED,
    EVERY,
    FORK,
    HELD_LOOKED_AT,
    LOOKED,
    H,
    favour,
    plain,
    tried,
)
from trimtab.controls.envelope import Deliberation
from trimtab.errors import ActuationError, CheckpointError
from trimtab.integrations.pytorch.state import TorchStateStore
from trimtab.integrations.pytorch.tree import decode_tree
from trimtab.ledger.record import ActionIntended, ProblemNoticed, TrialBegan, TrialEnded
from trimtab.runtime.supervisor import Supervisor


def engine_of(supervisor: Supervisor) -> Any:
    return supervisor._engine


@pytest.mark.parametrize("at", [FORK + H + 1, FORK + 2 * H + 1, CANDIDATE_EVALUATED, CANDIDATE_EVALUATED + 2])
def test_when_trimtab_fails_in_a_trial_the_loop_goes_on_with_its_own_course(at: int, tmp_path: Path) -> None:
    workload = mlp(3)
    workload.scheduler = None
    proposal = script((20, adjust(learning_rate=2e-2, dropout=0.5)))
    held: list[int] = []
    with supervise(workload, tmp_path / "run", proposal, EVERY, envelope=boundary(canary=CANARY)) as it:

        def refuse(*_: object, **__: object) -> object:
            raise OSError(28, "No space left on device")

        def after(step: int) -> None:
            if step == at:
                engine_of(it)._journal.append = refuse
            if it.is_held and not held:
                held.append(step)

        workload.train(70, it, lambda: favour(2.0, 1.0)(it.num_steps), after_step=after)
        assert it.is_held
        assert not engine_of(it)._forks._kept, "nor is it kept for ever"
    expected = mlp(3)
    expected.scheduler = None
    expected.train(FORK + H + 70 - held[0])
    assert workload.hashes[held[0] :] == expected.hashes[FORK + H :]
    assert (workload.dropout.p, workload.optimizer.param_groups[0]["lr"]) == (0.1, 1e-2)


def test_when_trimtab_fails_behind_an_early_look_what_the_evaluation_drew_is_undone(tmp_path: Path) -> None:
    workload = mlp(3)

    def evaluate() -> float:
        return 1.0 + 0.0 * float(torch.rand(()) if it.in_trial else 0.0)

    def after(step: int) -> None:
        if step == HELD_LOOKED_AT:
            engine_of(it).read_back = None

    with supervise(
        workload, tmp_path / "run", script((20, adjust(dropout=0.5))), EVERY, envelope=boundary(canary=LOOKED)
    ) as it:
        workload.train(50, it, evaluate, after_step=after)
        assert it.is_held
    assert workload.hashes[HELD_LOOKED_AT + 1 :] == plain(50 - 1)[HELD_LOOKED_AT:]


def test_no_memory_to_bring_a_fork_back_is_a_fault_of_the_trial_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def refuse(*given: Any) -> Any:
        calls.append("")
        if len(calls) == 1:
            raise RuntimeError("can't allocate memory")
        return decode_tree(*given)

    monkeypatch.setattr("trimtab.integrations.pytorch.state.decode_tree", refuse)
    workload, supervisor = tried(tmp_path, adjust(dropout=0.5), favour(1.0, 2.0))
    assert not supervisor.is_held
    assert [(one.outcome, one.spent) for one in records(supervisor, TrialEnded)] == [("abandoned", 0)]
    assert workload.hashes == plain(60)


@pytest.mark.parametrize("call", [2, 3])
def test_a_state_that_cannot_be_kept_in_a_trial_costs_nothing_of_the_own_course(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    keep = TorchStateStore.keep

    def refuse(store: TorchStateStore) -> object:
        calls.append("")
        if len(calls) == call:  # at the end of the arm of no_action, and of the candidate
            raise CheckpointError("no memory")
        return keep(store)

    monkeypatch.setattr(TorchStateStore, "keep", refuse)
    workload, supervisor = tried(tmp_path, adjust(dropout=0.5), favour(1.0, 2.0))
    [ended] = records(supervisor, TrialEnded)
    assert (ended.outcome, ended.spent) == ("abandoned", 0 if call == 2 else H)
    assert records(supervisor, ActionIntended) == []
    assert workload.hashes[-1] == plain(60 - ended.spent)[-1]
    assert supervisor.state.lineage_step(60) == 60 - ended.spent


def test_a_candidate_that_cannot_be_carried_out_has_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ActuationError("it is stuck")

    monkeypatch.setattr("trimtab.runtime.engine.Engine._attempt", refuse)
    workload, supervisor = tried(tmp_path, adjust(dropout=0.5), favour(1.0, 2.0))
    assert [(one.outcome, one.spent, one.reason) for one in records(supervisor, TrialEnded)] == [("lost", 0, "it is stuck")]
    assert workload.hashes == plain(60)
    bring_back, calls = TorchStateStore.bring_back, list[str]()

    def refuse_again(store: TorchStateStore, kept: object) -> None:
        calls.append("")
        if len(calls) == 2:
            raise CheckpointError("and there is no way back")
        bring_back(store, kept)

    monkeypatch.setattr(TorchStateStore, "bring_back", refuse_again)
    workload, supervisor = tried(tmp_path / "again", adjust(dropout=0.5), favour(1.0, 2.0))
    assert [one.outcome for one in records(supervisor, TrialEnded)] == ["abandoned"]
    assert [one.source for one in records(supervisor, ActionIntended)] == ["guard"], "from disk"
    assert workload.hashes[-1] == plain(supervisor.state.lineage_step(60))[-1]


@pytest.mark.parametrize("canary", [CANARY, LOOKED])
def test_a_control_that_waits_for_a_boundary_is_tried_too(canary: Any, tmp_path: Path) -> None:
    controls = tuple(replace(one, when="boundary") if one.name == "dropout" else one for one in CONTROLS)
    deliberation = Deliberation(mode="boundary", deadline_seconds=20.0, boundary_every_steps=10)
    envelope = boundary(controls=controls, canary=canary, deliberation=deliberation)
    workload = mlp(3)
    with supervise(workload, tmp_path / "run", script((20, adjust(dropout=0.5))), EVERY, envelope=envelope) as it:
        workload.train(90, it, lambda: 1.0 / it.num_steps if it.recipe["dropout"] == 0.1 else 1e-9)
    assert [one.step for one in records(it, TrialBegan)] == [30]
    assert [one.outcome for one in records(it, TrialEnded)] == ["won"]
    assert it.recipe["dropout"] == 0.5


def test_the_seeds_of_a_branch_are_left_alone_in_a_trial(tmp_path: Path) -> None:
    workload, restored = mlp(3), list[int]()
    with supervise(
        workload, tmp_path / "run", script((20, adjust(dropout=0.5))), EVERY, envelope=boundary(canary=LOOKED)
    ) as it:
        engine_of(it).on_restored = restored.append
        workload.train(60, it, lambda: favour(2.0, 1.0)(it.num_steps - 2))
    assert len(records(it, TrialEnded)) == 1
    assert restored == []


def test_two_faults_in_one_reading_of_a_candidate_end_the_trial_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trimtab.runtime import supervisor as module

    examine, at = module.examine, FORK + H + 2

    def found(view: Any, detectors: Any) -> Any:
        if view.step == at and detectors is module.STEP_DETECTORS:
            return (a_symptom("non_finite", "critical", at, "loss"), a_symptom("non_finite", "critical", at, "grad_norm"))
        return examine(view, detectors)

    monkeypatch.setattr(module, "examine", found)
    workload, it = tried(tmp_path, adjust(dropout=0.5), favour(1.0, 2.0))
    assert [(one.outcome, one.spent) for one in records(it, TrialEnded)] == [("lost", 2)]
    assert it.state.reflex_rollbacks_used == 0
    assert workload.hashes[-1] == plain(60 - 2)[-1]


def test_a_loop_that_does_not_evaluate_in_a_trial_is_tried_once_and_told(tmp_path: Path) -> None:
    workload = mlp(3)
    manager = script(*((step, adjust(dropout=(0.3, 0.5, 0.0)[step // 10 % 3])) for step in range(20, 200, 10)))
    with supervise(workload, tmp_path / "run", manager, EVERY, envelope=boundary(canary=CANARY)) as it:
        workload.train(200, it, None, after_step=lambda step: it.evaluated({"val/loss": 1.0}) if step % EVERY == 0 else None)
    assert len(records(it, TrialEnded)) == 1
    told = [one for one in records(it, ProblemNoticed) if one.problem == "a trial could not be judged"]
    assert len(told) == 1
    assert it.recipe == it.state.initial
