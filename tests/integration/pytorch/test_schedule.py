"""A schedule in place of a manager: the round trip from a managed run, and what becomes of it after a rollback."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

import trimtab
from tests.integration.pytorch.conftest import WORKLOADS, Workload, mlp, supervise
from tests.integration.pytorch.managed import adjust, boundary, problems, records, script
from trimtab.controls.envelope import Authority, Deliberation
from trimtab.decision.action import Change, Rollback, RollbackAndAdjust, Stop
from trimtab.decision.schedule_file import load_schedule
from trimtab.errors import UsageError
from trimtab.ledger.course import iter_course
from trimtab.ledger.record import ActionApplied, ActionFailed, ActionIntended, ManagerAsked, ReadBackRecorded, VerdictGiven
from trimtab.report.schedule_text import schedule_text
from trimtab.runtime.supervisor import Supervisor

Found = TypeVar("Found")

STEPS = 60
PLAN = ((10, adjust(dropout=0.3, learning_rate=5e-3)), (20, adjust(weight_decay=0.1)), (40, adjust(learning_rate=2e-2)))


def _evaluate() -> float:
    return float(torch.rand(()))  # consumes random numbers, as a careless evaluation does


def _steady() -> float:
    return 1.0  # draws nothing, for runs that evaluate at different points of their history


def a_schedule(path: Path, *lines: str) -> str:
    file = path / "plan.yaml"
    file.write_text("\n".join(("schema: trimtab/schedule/1", *lines)) + "\n", encoding="utf-8")
    return f"schedule:{file}"


def exported(run_dir: Path, file: Path, **moves: Any) -> str:
    _, text = schedule_text(iter_course(run_dir / "ledger.jsonl"), "0.1.0", **moves)
    file.write_text(text, encoding="utf-8")
    return f"schedule:{file}"


@dataclass
class Done:
    """A run that is over, and what it was made of."""

    supervisor: Supervisor
    workload: Workload

    @property
    def hashes(self) -> list[str]:
        return self.workload.hashes

    def records(self, kind: type[Found]) -> list[Found]:
        return records(self.supervisor, kind)

    @property
    def problems(self) -> list[str]:
        return problems(self.supervisor)

    @property
    def applied(self) -> list[tuple[int, tuple[tuple[str, float], ...]]]:
        return [(record.step, record.recipe.values) for record in self.records(ActionApplied)]


def run(run_dir: Path, manager: Any, seed: int = 3, steps: int = STEPS, name: str = "mlp", **options: Any) -> Done:
    """Train from the seed, which is set here, so that one run does not disturb the next."""
    options.setdefault("envelope", boundary())
    loss_hook, evaluate = options.pop("loss_hook", None), options.pop("evaluate", _evaluate)
    after_step = options.pop("after_step", None)
    workload = WORKLOADS[name](seed)
    with supervise(workload, run_dir, manager, **options) as supervisor:
        workload.train(steps, supervisor, evaluate, loss_hook=loss_hook, after_step=after_step, goes_on=True)
        assert not supervisor.is_held
    return Done(supervisor, workload)


def nan_at(*steps: int) -> Callable[[int, torch.Tensor], torch.Tensor]:
    return lambda step, loss: loss * torch.nan if step in steps else loss


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_managed_run_as_a_schedule_is_the_same_run_bit_for_bit(name: str, tmp_path: Path) -> None:
    first = run(tmp_path / "managed", script(*PLAN), name=name)
    second = run(tmp_path / "followed", exported(tmp_path / "managed", tmp_path / "found.yaml"), name=name)
    assert len(first.applied) == 3
    assert second.applied == first.applied
    assert second.hashes == first.hashes
    assert second.records(ManagerAsked) == []
    assert second.problems == first.problems == []
    shown = [(r.step, r.results) for r in second.records(ReadBackRecorded)]
    assert shown == [(r.step, r.results) for r in first.records(ReadBackRecorded)]
    assert len(shown) == 3
    # What the detectors go by is the same too, so they would find the same.
    assert second.supervisor._telemetry.state() == first.supervisor._telemetry.state()


def test_a_plan_that_was_followed_is_exported_as_it_was(tmp_path: Path) -> None:
    lines = ("- {step: 3, changes: {dropout: 0.3}}", "- {step: 4, changes: {dropout: 0.2}, reason: why (not)}", "stop_after: 8")
    manager = a_schedule(tmp_path, "entries:", *lines)
    run(tmp_path / "followed", manager, steps=20)
    again = exported(tmp_path / "followed", tmp_path / "again.yaml").removeprefix("schedule:")
    assert load_schedule(Path(again)) == load_schedule(Path(manager.removeprefix("schedule:")))


def test_the_hash_sees_an_entry_that_comes_one_step_late(tmp_path: Path) -> None:
    first = run(tmp_path / "managed", script(*PLAN))
    second = run(tmp_path / "followed", exported(tmp_path / "managed", tmp_path / "found.yaml", shift=1))
    parted = next(step for step, (one, other) in enumerate(zip(first.hashes, second.hashes, strict=True), 1) if one != other)
    assert parted == 12  # applied after step 11, so step 12 is the first that uses it


def test_an_asynchronous_run_makes_the_round_trip_too(tmp_path: Path) -> None:
    envelope = boundary(deliberation=Deliberation(mode="async", apply_after_steps=7))
    first = run(tmp_path / "managed", script(*PLAN), envelope=envelope, steps=120)  # asked in a thread, while training goes on
    second = run(tmp_path / "followed", exported(tmp_path / "managed", tmp_path / "found.yaml"), envelope=envelope, steps=120)
    assert first.applied
    assert second.applied == first.applied
    assert second.hashes == first.hashes


def test_entries_of_step_0_are_in_force_before_the_first_step(tmp_path: Path) -> None:
    manager = a_schedule(tmp_path, "entries:", "- {step: 0, changes: {dropout: 0.4, learning_rate: {factor: 0.5}}}")
    workload = mlp(0)
    with supervise(workload, tmp_path / "run", manager, envelope=boundary()) as supervisor:
        assert workload.dropout.p == 0.4
        assert dict(supervisor.recipe.values)["learning_rate"] == 5e-3
        workload.train(3, supervisor, _evaluate)
    assert [record.step for record in records(supervisor, ActionApplied)] == [0]
    assert records(supervisor, ReadBackRecorded)[0].step == 1


def test_a_factor_is_one_on_the_new_runs_own_start(tmp_path: Path) -> None:
    run(tmp_path / "managed", script(*PLAN))
    manager = exported(tmp_path / "managed", tmp_path / "found.yaml")
    other = run(tmp_path / "followed", manager, seed=9, name="attention")  # starts at a rate of 3e-3, not 1e-2
    assert dict(other.applied[0][1]) == {"dropout": 0.3, "learning_rate": 1.5e-3, "weight_decay": 1e-4}
    assert dict(other.applied[-1][1]) == {"dropout": 0.3, "learning_rate": 6e-3, "weight_decay": 0.1}


def test_a_plan_scales_to_another_length(tmp_path: Path) -> None:
    run(tmp_path / "managed", script(*PLAN), total_steps=STEPS)
    manager = exported(tmp_path / "managed", tmp_path / "found.yaml", total_steps=2 * STEPS)
    assert [step for step, _ in run(tmp_path / "followed", manager, steps=2 * STEPS).applied] == [22, 42, 82]


def test_after_a_rollback_of_the_reflex_the_plan_goes_on_from_the_restored_state(tmp_path: Path) -> None:
    values = ((15, 0.2), (22, 0.3), (35, 0.4))
    lines = ("entries:", *(f"- {{step: {step}, changes: {{dropout: {value}}}}}" for step, value in values))
    thrown = run(tmp_path / "run", a_schedule(tmp_path, *lines), loss_hook=nan_at(25), steps=50, evaluate=_steady)
    # Back from step 25 to the state of step 20: five steps are made again, and the plan with them.
    assert [(r.step, r.source) for r in thrown.records(ActionIntended)] == [
        (15, "schedule"), (22, "schedule"), (25, "reflex"), (27, "schedule"), (40, "schedule"),
    ]  # fmt: skip
    assert [dict(values)["dropout"] for _, values in thrown.applied] == [0.2, 0.3, 0.2, 0.3, 0.4]
    plain = run(tmp_path / "plain", a_schedule(tmp_path, *lines), steps=45, evaluate=_steady)
    assert thrown.hashes[:24] == plain.hashes[:24]
    assert thrown.hashes[25:] == plain.hashes[20:], "the run without the fault, five steps later"


def test_what_is_due_where_a_rollback_leads_to_is_in_force_there_already(tmp_path: Path) -> None:
    manager = a_schedule(tmp_path, "entries: [{step: 20, changes: {dropout: 0.4}}]")
    thrown = run(tmp_path / "run", manager, loss_hook=nan_at(25), steps=30)
    assert [(r.step, r.source) for r in thrown.records(ActionIntended)] == [(20, "schedule"), (25, "reflex")]
    assert dict(thrown.applied[-1][1])["dropout"] == 0.4


def test_what_the_reflex_has_cut_stays_cut(tmp_path: Path) -> None:
    lines = ("entries:", "- {step: 12, changes: {learning_rate: 5e-3}}", "- {step: 30, changes: {learning_rate: 1e-2}}")
    hook = nan_at(25, 31)  # the second time, when the place was reached again, the rate is cut and batches are skipped
    thrown = run(tmp_path / "run", a_schedule(tmp_path, *lines), loss_hook=hook, steps=50)
    rates = [(step, dict(values)["learning_rate"]) for step, values in thrown.applied]
    assert rates[0] == (12, 5e-3)
    assert rates[-2:] == [(31, 2.5e-3), (36, 5e-3)], "the plan's 1e-2, six undone steps later, at half"
    assert "cut by the reflex: learning_rate" in thrown.records(ActionIntended)[-1].reason


def test_a_rejected_entry_is_told_and_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    changes = ((5, "dropout: 0.95"), (6, "momentum: 0.5"), (7, "dropout: 0.5"))
    lines = (f"- {{step: {step}, changes: {{{change}}}}}" for step, change in changes)
    done = run(tmp_path / "run", a_schedule(tmp_path, "entries:", *lines), steps=9)
    judged = [(r.step, r.accepted, r.source) for r in done.records(VerdictGiven)]
    assert judged == [(5, False, "schedule"), (6, False, "schedule"), (7, True, "schedule")]
    assert done.problems == ["an entry of the schedule was rejected"] * 2
    assert "step 5 of the schedule: dropout: 0.95 is outside" in caplog.text
    assert "note: step 5 of the schedule will be rejected: dropout: 0.95 is outside" in caplog.text, "it was known at attach"
    assert "'momentum' is not a control of the envelope" in caplog.text
    assert [step for step, _ in done.applied] == [7]


def test_a_schedule_needs_no_moves_dwell_budget_or_small_steps(tmp_path: Path) -> None:
    controls = (trimtab.learning_rate(1e-6, 1.0), trimtab.dropout(0.0, 0.9))  # with the catalogue's limits
    envelope = boundary(controls, authority=Authority(interventions=0, rollbacks=0, controls_per_intervention=1))
    changes = ("{step: 3, changes: {learning_rate: {factor: 0.0123}, dropout: 0.77}}", "{step: 4, changes: {dropout: 0.011}}")
    manager = a_schedule(tmp_path, "entries:", *(f"- {one}" for one in changes))
    done = run(tmp_path / "run", manager, steps=6, envelope=envelope)
    assert [step for step, _ in done.applied] == [3, 4]
    assert done.problems == []


def test_entries_of_one_step_are_applied_in_their_order(tmp_path: Path) -> None:
    changes = ("{step: 3, changes: {dropout: 0.5}}", "{step: 3, changes: {dropout: 0.2, weight_decay: 0.3}}")
    done = run(tmp_path / "run", a_schedule(tmp_path, "entries:", *(f"- {one}" for one in changes)), steps=6)
    assert [(step, dict(values)["dropout"]) for step, values in done.applied] == [(3, 0.5), (3, 0.2)]


def test_an_entry_does_not_write_over_a_foreign_hand(tmp_path: Path) -> None:
    def meddle(step: int) -> None:
        if step == 4:
            workload.dropout.p = 0.7

    workload = mlp(0)
    manager = a_schedule(tmp_path, "entries: [{step: 6, changes: {weight_decay: 0.5}}]")
    with supervise(workload, tmp_path / "run", manager, envelope=boundary()) as supervisor:
        workload.train(8, supervisor, _evaluate, after_step=meddle)
    (failed,) = records(supervisor, ActionFailed)
    assert failed.problem == "something else changed a control: dropout=0.7, expected 0.1"
    assert workload.optimizer.param_groups[0]["weight_decay"] == 0.01


def test_a_plan_can_stop_the_run(tmp_path: Path) -> None:
    done = run(tmp_path / "run", a_schedule(tmp_path, "entries: []", "stop_after: 12"), steps=30)
    assert len(done.hashes) == 12
    assert done.supervisor.state.stop_reason == "schedule: step 12 of the schedule"


def test_in_shadow_a_plan_is_judged_and_not_applied(tmp_path: Path) -> None:
    envelope = boundary(authority=Authority(shadow=True))
    manager = a_schedule(tmp_path, "entries: [{step: 3, changes: {dropout: 0.5}}]", "stop_after: 5")
    done = run(tmp_path / "run", manager, steps=8, envelope=envelope)
    assert [(r.step, r.accepted) for r in done.records(VerdictGiven)] == [(3, True), (5, True)]
    assert done.applied == []
    assert not done.supervisor.should_stop


def test_a_broken_plan_is_refused_before_the_run_begins(tmp_path: Path) -> None:
    manager = a_schedule(tmp_path, "entries: [{step: 3, changes: {dropout: high}}]")
    with pytest.raises(UsageError, match=r"plan\.yaml:2:\d+: dropout is wrong"):
        supervise(mlp(0), tmp_path / "run", manager)
    assert not (tmp_path / "run").exists()


def test_rollbacks_are_left_out_and_the_lineage_is_renumbered(tmp_path: Path) -> None:
    manager = script(
        (10, adjust(dropout=0.3)),
        (20, adjust(learning_rate=5e-3)),
        (30, RollbackAndAdjust("step-00000020", (Change("weight_decay", 0.1),))),
        (40, adjust(learning_rate=2e-3)),
        (50, Stop()),
    )
    run(tmp_path / "managed", manager, evaluate=_steady)
    plan = load_schedule(Path(exported(tmp_path / "managed", tmp_path / "found.yaml").removeprefix("schedule:")))
    # The run was at step 31 when it went back to step 20: what follows is 11 steps earlier in its weights' own history.
    changed = [(entry.step, [planned.control for planned in entry.changes]) for entry in plan.entries]
    assert changed == [(11, ["dropout"]), (20, ["weight_decay"]), (30, ["learning_rate"])]
    assert plan.stop_after == 40
    text = (tmp_path / "found.yaml").read_text(encoding="utf-8")
    assert "# - step 31: ScriptedManager went back from step 31 of the weights' own history to step 20" in text


def test_a_run_with_a_rollback_leads_another_run_to_the_same_weights(tmp_path: Path) -> None:
    manager = script(
        (10, adjust(dropout=0.3)), (20, adjust(learning_rate=5e-3)), (30, Rollback("step-00000010")), (40, adjust(dropout=0.5))
    )
    first = run(tmp_path / "managed", manager, steps=50, evaluate=_steady)
    found = exported(tmp_path / "managed", tmp_path / "found.yaml")
    second = run(tmp_path / "followed", found, steps=29, evaluate=_steady)  # 21 of the 50 steps were undone
    assert second.hashes[-1] == first.hashes[-1]
    assert [step for step, _ in second.applied] == [20]  # the change at step 11 was undone, the one at 41 was step 20


def test_a_boundary_is_counted_in_the_weights_own_steps(tmp_path: Path) -> None:
    size = trimtab.batch_size(4, 64, when="boundary")
    envelope = boundary((size,), deliberation=Deliberation(mode="boundary", boundary_every_steps=5, deadline_seconds=20.0))
    lines = ("- {step: 7, changes: {batch_size: 8}}", "- {step: 30, changes: {batch_size: {factor: 2}}}")
    manager = a_schedule(tmp_path, "entries:", *lines)
    done = run(tmp_path / "run", manager, steps=40, envelope=envelope, loss_hook=nan_at(23))
    judged = [(r.step, r.accepted) for r in done.records(VerdictGiven) if r.source == "schedule"]
    assert judged == [(7, False), (33, True)]
    assert dict(done.applied[-1][1]) == {"batch_size": 32.0}


RESUMED = (
    "entries:",
    "- {step: 0, changes: {weight_decay: 0.2}}",
    *(f"- {{step: {step}, changes: {{dropout: {value}}}}}" for step, value in ((5, 0.2), (20, 0.3), (22, 0.4), (35, 0.5))),
)


def followed(run_dir: Path) -> list[tuple[int, str, Any]]:
    """Return what was done in the course that counts."""
    course = [entry.record for entry in iter_course(run_dir / "ledger.jsonl")]
    return [(record.step, record.source, record.action) for record in course if isinstance(record, ActionIntended)]


def test_a_run_that_was_killed_goes_on_with_its_schedule(tmp_path: Path) -> None:
    manager, kills = a_schedule(tmp_path, *RESUMED), (1, 4, 5, 20, 21, 23, 25, 26, 27, 33, 40, 41)

    def keep(step: int) -> None:
        if step in kills:
            shutil.copytree(tmp_path / "whole", tmp_path / f"killed-{step}")

    whole = run(tmp_path / "whole", manager, loss_hook=nan_at(25), steps=45, evaluate=_steady, after_step=keep)
    assert [step for step, _, _ in followed(tmp_path / "whole")] == [0, 5, 20, 22, 25, 27, 40]
    for kill in kills:
        path = tmp_path / f"killed-{kill}"
        again = run(path, manager, loss_hook=nan_at(25), steps=45, evaluate=_steady, resume=True)
        assert again.hashes == whole.hashes[-len(again.hashes) :], f"killed at {kill}"
        assert followed(path) == followed(tmp_path / "whole"), f"killed at {kill}"


def test_a_run_that_was_killed_while_it_began_applies_step_0_once(tmp_path: Path) -> None:
    manager = a_schedule(tmp_path, *RESUMED)
    whole = run(tmp_path / "whole", manager, steps=12)
    for num_lines in (1, 3, 5):  # run_started; the intent of step 0; its outcome and the state saved after it
        path = tmp_path / f"killed-{num_lines}"
        shutil.copytree(tmp_path / "whole", path)
        lines = (path / "ledger.jsonl").read_bytes().splitlines(keepends=True)
        (path / "ledger.jsonl").write_bytes(b"".join(lines[:num_lines]))
        for left in (path / "checkpoints").iterdir():
            if num_lines < 5 or left.name != "step-00000000":
                shutil.rmtree(left)
        again = run(path, manager, steps=12, resume=True)
        assert again.hashes == whole.hashes, f"{num_lines} lines were left"
        assert followed(path) == followed(tmp_path / "whole")


def test_a_run_is_not_resumed_with_another_schedule(tmp_path: Path) -> None:
    def keep(step: int) -> None:
        if step == 7:
            shutil.copytree(tmp_path / "run", tmp_path / "killed")

    run(tmp_path / "run", a_schedule(tmp_path, *RESUMED), steps=12, after_step=keep)
    manager = a_schedule(tmp_path, "entries: []")
    with pytest.raises(UsageError, match=r"schedule\.entries\.\S+ differs"):
        run(tmp_path / "killed", manager, steps=14, resume=True)
