"""A scripted run end to end: changes are in effect from the step after their application, and never before."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torch.optim import lr_scheduler

import trimtab
from tests.integration.pytorch.conftest import WORKLOADS, Workload, mlp, supervise
from tests.integration.pytorch.managed import CONTROLS, SlowClient, a_value, adjust, boundary, free, problems, records, script
from trimtab.controls.envelope import Deliberation
from trimtab.decision.action import Rollback
from trimtab.decision.wire import encode_proposal
from trimtab.errors import ControlError, OwnershipError
from trimtab.ledger.record import (
    ActionApplied,
    ActionIntended,
    AnswerDropped,
    ManagerAsked,
    ManagerFailed,
    ProposalReceived,
    ReadBackRecorded,
    RunStarted,
    VerdictGiven,
)
from trimtab.runtime import open_manager


@dataclass
class Observed:
    """What the optimizer and the modules really hold while a step runs; one row a step."""

    rates: list[tuple[float, ...]] = field(default_factory=list)
    decays: list[float] = field(default_factory=list)
    dropouts: list[float] = field(default_factory=list)

    def watch(self, workload: Workload) -> Observed:
        def hook(optimizer: Any, *_: object) -> None:
            self.rates.append(tuple(float(group["lr"]) for group in optimizer.param_groups))
            self.decays.append(max(float(group["weight_decay"]) for group in optimizer.param_groups))
            self.dropouts.append(max(m.p for m in workload.model.modules() if isinstance(m, nn.Dropout)))

        # Registered after trimtab's hook, so it sees what the step will use.
        workload.optimizer.register_step_pre_hook(hook)
        return self


def test_all_three_controls_take_effect_at_the_step_after_application(tmp_path: Path) -> None:
    workload = mlp(0)
    workload.scheduler = None
    manager = script((10, adjust(learning_rate=5e-3, weight_decay=0.3, dropout=0.5)))
    supervisor = supervise(workload, tmp_path / "run", manager, envelope=boundary())
    observed = Observed().watch(workload)
    with supervisor:
        workload.train(30, supervisor, a_value())
    # Asked after step 10, applied after step 11, so step 12 is the first to use it: index 11.
    assert observed.rates == [(1e-2,)] * 11 + [(5e-3,)] * 19
    assert observed.decays == [0.01] * 11 + [0.3] * 19
    assert observed.dropouts == [0.1] * 11 + [0.5] * 19
    (applied,) = records(supervisor, ActionApplied)
    assert applied.step == 11
    (read_back,) = records(supervisor, ReadBackRecorded)
    assert read_back.step == 12
    assert {result.control: (result.expected, result.observed, result.holds) for result in read_back.results} == {
        "learning_rate": (5e-3, 5e-3, True),
        "weight_decay": (0.3, 0.3, True),
        "dropout": (0.5, 0.5, True),
    }
    assert workload.optimizer.param_groups[0]["lr"] == 1e-2, "the schedule's own value must not be touched"
    assert not supervisor.is_held
    assert problems(supervisor) == []


FAMILIES: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=[0.02, 0.1], total_steps=40),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 5), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[15]
    ),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 40),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 7),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 4),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=5),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 40),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:.*scheduler.step.*:UserWarning", "ignore:.*epoch parameter.*:UserWarning")
def test_a_halved_rate_holds_under_every_scheduler_and_keeps_the_ratios(family: str, tmp_path: Path) -> None:
    plain = WORKLOADS["batch_norm"](1)
    plain.scheduler = FAMILIES[family](plain.optimizer)
    scheduled = Observed().watch(plain)
    plain.train(30, evaluate=a_value())

    workload = WORKLOADS["batch_norm"](1)
    workload.scheduler = FAMILIES[family](workload.optimizer)
    half = trimtab.learning_rate(1e-9, 10.0, moves=trimtab.Multiply((0.5,)), dwell_steps=0)
    reference = 0.1 if family == "OneCycleLR" else 0.05  # where a group has a max_lr, that is the reference
    supervisor = supervise(
        workload, tmp_path / "run", script((10, adjust(learning_rate=reference / 2))), envelope=boundary((half,))
    )
    observed = Observed().watch(workload)
    with supervisor:
        assert supervisor.recipe["learning_rate"] == pytest.approx(reference)
        workload.train(30, supervisor, a_value())
    assert observed.rates[:11] == scheduled.rates[:11]
    for seen, plan in zip(observed.rates[11:], scheduled.rates[11:], strict=True):
        assert seen == pytest.approx([rate / 2 for rate in plan])
    assert len({round(rates[0] / max(rates), 12) for rates in observed.rates}) == len(
        {round(rates[0] / max(rates), 12) for rates in scheduled.rates}
    ), "the ratio of the groups changed"
    assert all(result.holds for record in records(supervisor, ReadBackRecorded) for result in record.results)
    assert records(supervisor, ReadBackRecorded)


def test_a_scheduler_that_steers_by_a_metric_is_refused(tmp_path: Path) -> None:
    workload = mlp(0)
    workload.scheduler = lr_scheduler.ReduceLROnPlateau(workload.optimizer)
    with pytest.raises(OwnershipError, match="ReduceLROnPlateau already steers the learning rate"):
        supervise(workload, tmp_path / "run")
    # Without the learning rate among the controls nothing is owned twice.
    with supervise(workload, tmp_path / "run", envelope=boundary(CONTROLS[2:])) as supervisor:
        assert supervisor.recipe.values == (("dropout", 0.1),)


def test_a_control_of_one_named_group_leaves_the_others_alone(tmp_path: Path) -> None:
    workload = WORKLOADS["batch_norm"](0)
    workload.scheduler = None
    head = free("learning_rate", 1e-6, 1.0, 0.025, group="head")
    manager = script((10, adjust(**{"learning_rate/head": 0.025})))
    supervisor = supervise(workload, tmp_path / "run", manager, envelope=boundary((head,)))
    observed = Observed().watch(workload)
    with supervisor:
        workload.train(20, supervisor, a_value())
    assert observed.rates == [(0.01, 0.05)] * 11 + [(0.01, 0.025)] * 9


def test_a_group_that_does_not_exist_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    workload = WORKLOADS["batch_norm"](0)
    with pytest.raises(ControlError, match=r"no parameter group of that name; received hed; .*did you mean 'head'\?"):
        supervise(workload, tmp_path / "run", envelope=boundary((free("learning_rate", 1e-6, 1.0, 0.1, group="hed"),)))
    with pytest.raises(ControlError, match="known names: head, stem"):
        supervise(workload, tmp_path / "run", envelope=boundary((free("weight_decay", 0.0, 1.0, 0.1, group="decoder"),)))


def test_a_script_file_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    proposal = script((10, adjust(dropout=0.3)))._left[0].proposal
    path = tmp_path / "plan.json"
    path.write_text(json.dumps([{"step": 10, "proposal": encode_proposal(proposal)}]))
    workload = mlp(0)
    with supervise(workload, tmp_path / "run", f"scripted:{path}", envelope=boundary()) as supervisor:
        workload.train(25, supervisor, a_value())
    started = records(supervisor, RunStarted)[0]
    assert (started.manager, started.isolation) == (f"scripted:{path}", "process")
    assert [record.step for record in records(supervisor, ActionApplied)] == [11]
    assert workload.dropout.p == 0.3


def test_the_isolation_of_an_object_is_a_thread(tmp_path: Path) -> None:
    with supervise(mlp(0), tmp_path / "run", script()) as supervisor:
        pass
    started = records(supervisor, RunStarted)[0]
    assert (started.manager, started.isolation) == ("ScriptedManager", "thread")


def test_a_python_manager_decides_in_its_own_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "import os\nfrom trimtab.decision.proposal import hold\n"
        "class Mine:\n    def propose(self, briefing): return hold(str(os.getpid()))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    workload = mlp(0)
    with supervise(workload, tmp_path / "run", "python:mine:Mine", envelope=boundary()) as supervisor:
        worker = supervisor._manager.pid  # type: ignore[attr-defined] - this manager is a process
        workload.train(12, supervisor, a_value())
    assert records(supervisor, RunStarted)[0].isolation == "process"
    assert [record.proposal.reason for record in records(supervisor, ProposalReceived)] == [str(worker)]


# ------------------------------------------------------------------------------------ when an answer counts


def _async(lead: int = 5, stale: int = 8) -> Deliberation:
    return Deliberation(mode="async", apply_after_steps=lead, stale_after_steps=stale)


def _run_async(path: Path, polls: int, monkeypatch: pytest.MonkeyPatch, **deliberation: int) -> tuple[list[str], Path]:
    monkeypatch.setattr(open_manager, "ManagerThread", lambda manager, *_: SlowClient(manager, polls))
    workload = mlp(5)
    manager = script((10, adjust(learning_rate=5e-3, dropout=0.3)), (20, Rollback("step-00000020")), (30, adjust(dropout=0.5)))
    envelope = boundary(deliberation=_async(**deliberation))
    with supervise(workload, path, manager, envelope=envelope) as supervisor:
        workload.train(45, supervisor, a_value())
        assert not supervisor.is_held
    return workload.hashes, path


def test_how_fast_a_manager_is_does_not_change_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, quick = _run_async(tmp_path / "quick", 0, monkeypatch)
    slowly, slow = _run_async(tmp_path / "slow", 4, monkeypatch)
    assert [record.step for record in records(quick, ActionApplied)] == [15, 25, 35]
    assert [record.step for record in records(slow, ActionApplied)] == [15, 25, 35]
    assert [record.step for record in records(quick, ProposalReceived)] == [11, 21, 31, 41]
    assert [record.step for record in records(slow, ProposalReceived)] == [15, 25, 35, 45]
    assert at_once == slowly
    assert at_once != _plain(45)


def _plain(steps: int) -> list[str]:
    workload = mlp(5)
    workload.train(steps, evaluate=a_value())
    return workload.hashes


def test_an_answer_after_its_step_is_applied_when_it_comes_and_a_stale_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, late = _run_async(tmp_path / "late", 6, monkeypatch)
    assert records(late, ActionApplied)[0].step == 17
    hashes, stale = _run_async(tmp_path / "stale", 9, monkeypatch)
    assert records(stale, ActionIntended) == []
    assert {record.problem for record in records(stale, ManagerFailed)} == {"late"}
    assert [record.step for record in records(stale, ManagerFailed)] == [18, 28, 38]
    assert hashes == _plain(45), "a stale answer did something"


def test_two_processes_of_different_speed_give_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The steps wait for the slower one's answer, as a run with long steps would.
    source = (
        "import time\nfrom trimtab.decision.random import RandomManager\n"
        "class Quick(RandomManager):\n    pass\n"
        "class Slow(RandomManager):\n    def propose(self, briefing): time.sleep(0.1); return super().propose(briefing)\n"
    )
    (tmp_path / "speeds.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)

    def hashes(name: str) -> list[str]:
        workload = mlp(5)
        with supervise(
            workload, tmp_path / name, f"python:speeds:{name}", envelope=boundary(deliberation=_async(8, 60))
        ) as run:
            client = run._manager
            kept: list[Any] = []

            def wait(step: int) -> None:
                if step % 10 == 7 and step > 10:  # two steps before the answer counts
                    while run.state.phase == "asked" and not kept:
                        outcome = client.poll()
                        if outcome is not None:
                            kept.append(outcome)

            poll = client.poll
            monkeypatch.setattr(client, "poll", lambda: kept.pop() if kept else poll())
            workload.train(50, run, a_value(), before_step=wait)
            assert not run.is_held
        assert len(records(run, ActionApplied)) >= 2
        assert {record.step % 10 for record in records(run, ActionApplied)} == {8}
        return workload.hashes

    assert hashes("Quick") == hashes("Slow")


def test_boundary_waits_no_longer_than_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hangs.py").write_text("import time\nclass Hangs:\n    def propose(self, briefing): time.sleep(600)\n")
    monkeypatch.syspath_prepend(tmp_path)
    workload = mlp(5)
    deliberation = Deliberation(mode="boundary", deadline_seconds=0.5)
    with supervise(
        workload, tmp_path / "run", "python:hangs:Hangs", envelope=boundary(deliberation=deliberation)
    ) as supervisor:
        worker = supervisor._manager.pid  # type: ignore[attr-defined] - this manager is a process
        workload.train(25, supervisor, a_value())
        assert supervisor._manager.pid != worker  # type: ignore[attr-defined] - this manager is a process
        assert not supervisor.is_held
    assert [(record.step, record.problem) for record in records(supervisor, ManagerFailed)] == [(10, "late"), (20, "late")]
    assert workload.hashes == _plain(25)


def test_in_mode_boundary_the_question_and_the_answer_are_one_step_apart(tmp_path: Path) -> None:
    workload = mlp(5)
    with supervise(workload, tmp_path / "run", script((10, adjust(dropout=0.3))), envelope=boundary()) as supervisor:
        workload.train(25, supervisor, a_value())
    assert [record.step for record in records(supervisor, ManagerAsked)] == [10, 20]
    assert [record.step for record in records(supervisor, ProposalReceived)] == [10, 20]
    assert [record.step for record in records(supervisor, VerdictGiven)] == [11, 21]
    assert [record.step for record in records(supervisor, ActionApplied)] == [11]
    assert records(supervisor, AnswerDropped) == []
