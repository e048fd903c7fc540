"""A run that goes on: what it owes, what it must not lose, and with whom it may not go on."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import trimtab
from tests.integration.pytorch.conftest import Workload, mlp, supervise
from tests.integration.pytorch.managed import CONTROLS, adjust, boundary, problems, records, script
from tests.unit.runtime.exchange_fixtures import put
from trimtab.controls.envelope import Deliberation
from trimtab.decision.briefing import Briefing
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.errors import CheckpointError, LedgerError, UsageError
from trimtab.ledger.course import iter_course
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import (
    ActionApplied,
    EvaluationRecorded,
    ManagerAsked,
    ProposalReceived,
    RunResumed,
    RunStarted,
)
from trimtab.ledger.series import read_series
from trimtab.ledger.verify import verify_file
from trimtab.runtime.exchange_form import question_name
from trimtab.runtime.supervisor import Supervisor

OWED = "an evaluation that was due when the run was resumed is missing"
PLAN = ((10, adjust(dropout=0.3)), (20, adjust(learning_rate=5e-3)), (30, adjust(dropout=0.5)))


def run(
    path: Path,
    steps: int = 40,
    *,
    evaluate: Callable[[], float] | None = lambda: 1.0,
    after_step: Callable[[int], None] | None = None,
    **options: Any,
) -> Workload:
    """Train to the end, whatever of it was done before."""
    workload = mlp(3)
    known: dict[str, Any] = {"manager": script(*PLAN), "envelope": boundary()}
    with supervise(workload, path, **(known | options)) as supervisor:
        workload.train(steps, supervisor, evaluate, after_step=after_step, goes_on=True)
        assert not supervisor.is_held
    return workload


def killed(path: Path, at: int, *, steps: int = 40, **options: Any) -> Path:
    """Return a copy of the directory as a kill after a step would have left it; the run beside it is whole."""
    target = path.with_name(f"{path.name}-{at}")

    def keep(step: int) -> None:
        if step == at:
            shutil.copytree(path, target)

    run(path, steps, after_step=keep, **options)
    return target


def evaluations(path: Path) -> dict[int, float]:
    found = [entry.record for entry in iter_course(path / "ledger.jsonl")]
    return {record.step: record.objective for record in found if isinstance(record, EvaluationRecorded)}


class TestOwedEvaluation:
    def test_one_that_the_loop_does_not_make_again_is_taken_from_the_record(self, tmp_path: Path) -> None:
        values = iter([3.0, 2.0, 1.0, 0.5])
        path = killed(tmp_path / "run", 23, manager="no_action", evaluate=lambda: next(values))
        run(path, 25, resume=True, manager="no_action", evaluate=None)
        assert evaluations(path) == {10: 3.0, 20: 2.0}
        assert OWED not in problems(path)

    def test_one_that_the_loop_makes_is_not_told_twice(self, tmp_path: Path) -> None:
        path = killed(tmp_path / "run", 23, manager="no_action")
        run(path, 25, resume=True, manager="no_action", evaluate=lambda: 9.0)
        assert evaluations(path) == {10: 1.0, 20: 9.0}
        assert problems(path) == []

    def test_one_of_which_nothing_is_known_is_missed_with_a_word(self, tmp_path: Path) -> None:
        path, count = tmp_path / "run", iter(range(9))
        target = tmp_path / "killed"

        def evaluate() -> float:
            if next(count) == 1:
                shutil.copytree(path, target)  # killed while it evaluates: the checkpoint of step 20 is saved
            return 1.0

        run(path, evaluate=evaluate, manager="no_action")
        assert max(evaluations(target)) == 10
        run(target, 25, resume=True, manager="no_action", evaluate=None)
        assert problems(target).count(OWED) == 1
        assert max(evaluations(target)) == 10

    def test_a_run_that_goes_on_from_a_step_without_one_owes_none(self, tmp_path: Path) -> None:
        path = killed(tmp_path / "run", 5, manager="no_action")
        run(path, 9, resume=True, manager="no_action", evaluate=None)
        assert problems(path) == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "field", "values"),
        [
            ({"every": 20}, "evaluate_every_steps", ("20", "10")),
            ({"total_steps": 99}, "total_steps", ("99", "None")),
            ({"envelope": boundary(CONTROLS[:2])}, r"recipe\.values\.dropout", ("None", "0.1")),
            (
                {"envelope": boundary(deliberation=Deliberation())},
                r"envelope\.deliberation\.",
                ("received", "as it was"),
            ),
            ({"manager": "no_action"}, "manager", ("no_action", "ScriptedManager")),
        ],
    )
    def test_a_script_that_differs_is_refused_by_field_with_both_values(
        self, tmp_path: Path, options: dict[str, Any], field: str, values: tuple[str, ...]
    ) -> None:
        path = killed(tmp_path / "run", 12, steps=13)
        before = (path / "ledger.jsonl").read_bytes()
        with pytest.raises(UsageError, match=rf"{field}\S* differs") as refused:
            run(path, resume=True, **options)
        for value in values:
            assert value in str(refused.value)
        assert (path / "ledger.jsonl").read_bytes() == before
        run(path, 20, resume=True)
        assert len(records(path, RunResumed)) == 1

    def test_another_rate_is_refused_with_both(self, tmp_path: Path) -> None:
        path = killed(tmp_path / "run", 12, steps=13)
        workload = mlp(3)
        for group in workload.optimizer.param_groups:
            group["lr"] = group["initial_lr"] = 0.02
        with pytest.raises(UsageError, match=r"recipe\.values\.learning_rate differs") as refused:
            supervise(workload, path, script(*PLAN), envelope=boundary(), resume=True)
        assert "0.02" in str(refused.value)
        assert "0.01" in str(refused.value)

    def test_another_model_is_refused_and_the_run_can_still_go_on(self, tmp_path: Path) -> None:
        path = killed(tmp_path / "run", 12, steps=13)
        other = mlp(3)
        other.model = torch.nn.Sequential(torch.nn.Linear(12, 31), torch.nn.Dropout(0.1), torch.nn.Linear(31, 3))
        other.optimizer = torch.optim.AdamW(other.model.parameters(), lr=1e-2)
        other.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(other.optimizer, 200)
        with pytest.raises(CheckpointError):
            supervise(other, path, script(*PLAN), envelope=boundary(), resume=True)
        run(path, 20, resume=True)

    def test_a_run_that_another_process_makes_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "run"
        with supervise(mlp(3), path, script(*PLAN), envelope=boundary()) as first:
            first.step(loss=1.0)
            series = path / "series.jsonl"
            series.write_bytes(b'{"n":1,"step":1,"v":{}}\n{"n":2')  # a row that is being written
            before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
            with pytest.raises(LedgerError, match="another process writes"):
                supervise(mlp(3), path, script(*PLAN), envelope=boundary(), resume=True)
            assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before

    def test_a_run_to_go_on_with_has_to_be_named(self) -> None:
        workload = mlp(3)
        with pytest.raises(UsageError, match="has to be named"):
            trimtab.supervise(workload.model, workload.optimizer, envelope=boundary(), resume=True)


class TestBeginning:
    @pytest.mark.parametrize("content", [None, b"", b'{"torn'])
    def test_where_there_is_no_run_yet_one_begins(self, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "run"
        if content is not None:
            (path / "checkpoints").mkdir(parents=True)
            (path / "ledger.jsonl").write_bytes(content)
        run(path, 12, resume=True)
        kinds = [entry.record.kind for entry in read_ledger(path / "ledger.jsonl")]
        assert kinds[0] == "run_started"
        assert "run_resumed" not in kinds

    def test_without_a_whole_checkpoint_it_begins_anew_with_the_random_numbers_it_had(self, tmp_path: Path) -> None:
        random.seed()
        torch.seed()
        path = tmp_path / "run"

        def unseeded(*, resume: bool) -> list[float]:
            workload = mlp(3)
            torch.seed()
            random.seed()
            with supervise(workload, path, script(*PLAN), envelope=boundary(), resume=resume) as supervisor:
                workload.train(12, supervisor, lambda: 1.0, goes_on=True)
                supervisor.close("the process ended")
            return workload.losses

        whole = unseeded(resume=False)
        for folder in (path / "checkpoints").iterdir():
            (folder / "state.json").write_bytes(b"damaged")
        assert unseeded(resume=True) == whole
        assert [record.checkpoint for record in records(path, RunResumed)] == [None]
        for folder in (path / "checkpoints").iterdir():
            (folder / "state.json").write_bytes(b"damaged")
        (path / "start.json").write_bytes(b"damaged")
        lines = (path / "ledger.jsonl").read_bytes().splitlines(keepends=True)
        assert b"run_ended" in lines[-1]
        with pytest.raises(CheckpointError, match="the random numbers that the run began with"):
            unseeded(resume=True)


class Changing:
    """A manager that never says the same twice, as a language model may; counts how often it is asked."""

    asked = 0

    def propose(self, briefing: Briefing) -> Proposal:
        type(self).asked += 1
        value = (0.0, 0.3, 0.5)[self.asked % 3]
        action = adjust(dropout=value) if value != briefing.recipe["dropout"] else adjust(weight_decay=0.3)
        return Proposal(action, f"the {self.asked}th", Expectation(0.0, 1))


class TestNothingIsLost:
    def test_a_run_that_is_killed_again_and_again_keeps_the_answers_it_had(self, tmp_path: Path) -> None:
        Changing.asked = 0
        path = killed(tmp_path / "whole", 29, manager=Changing())
        known = [repr(record.proposal) for record in records(path, ProposalReceived)]
        asked = Changing.asked
        for _ in range(3):  # killed right after it was restored, before anything was made again
            supervisor = supervise(mlp(3), path, Changing(), envelope=boundary(), resume=True)
            lines = (path / "ledger.jsonl").read_bytes()
            supervisor.close()
            (path / "ledger.jsonl").write_bytes(lines)
        assert len(records(path, RunResumed)) == 3
        run(path, 29, resume=True, manager=Changing())
        course = [entry.record for entry in iter_course(path / "ledger.jsonl")]
        assert [repr(record.proposal) for record in course if isinstance(record, ProposalReceived)] == known
        assert Changing.asked == asked, "somebody was asked for what the record knows"
        assert verify_file(path / "ledger.jsonl").ok

    def test_a_damaged_row_of_the_curves_keeps_no_run_from_going_on(self, tmp_path: Path) -> None:
        path = killed(tmp_path / "run", 25)
        series = path / "series.jsonl"
        rows = series.read_bytes().splitlines(keepends=True)
        series.write_bytes(b"".join([*rows[:3], b"nonsense\n", *rows[4:]]))
        run(path, 30, resume=True)
        assert problems(path) == []

    def test_the_curves_have_every_step_once(self, tmp_path: Path) -> None:
        path = killed(tmp_path / "whole", 25)
        run(path, resume=True)
        whole, resumed = read_series(tmp_path / "whole" / "series.jsonl"), read_series(path / "series.jsonl")
        assert [(row.sequence, row.step, row.values) for row in resumed] == [
            (row.sequence, row.step, row.values) for row in whole
        ]

    def test_a_value_that_comes_late_still_counts_after_a_resume(self, tmp_path: Path) -> None:
        """As in a run that was not interrupted: nothing was undone that it could belong to."""

        def taken(path: Path, *, resume: bool) -> list[int]:
            workload = mlp(3)
            with supervise(workload, path, "no_action", envelope=boundary(), resume=resume) as supervisor:
                workload.train(21, supervisor, lambda: 1.0, goes_on=True)  # the first step after the resume
                supervisor.observe({"reward": 6.0}, step=18)
                workload.train(23, supervisor, lambda: 1.0, goes_on=True)
            return [row.step for row in read_series(path / "series.jsonl") if "reward" in row.values]

        path = killed(tmp_path / "run", 20, manager="no_action")
        assert taken(tmp_path / "plain", resume=False) == taken(path, resume=True) == [18]


class TestOpenQuestion:
    def wait_for(self, path: Path) -> None:
        end = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < end, f"{path.name} was not asked"
            time.sleep(0.02)

    @pytest.mark.parametrize("manager", ["external", "human"])
    def test_somebody_outside_is_asked_again_what_was_open_when_the_run_was_killed(self, tmp_path: Path, manager: str) -> None:
        plan = tmp_path / "plan.json"
        action = {"kind": "adjust", "changes": [{"control": "dropout", "value": 0.3}]}
        proposal = {"action": action, "reason": "planned", "expectation": {"gain": 0.0, "within_evaluations": 1}}
        plan.write_text(json.dumps([{"step": 10, "proposal": proposal}]))
        chosen = "external" if manager == "external" else f"human:scripted:{plan}"
        options: dict[str, Any] = {"manager": chosen, "envelope": boundary(deliberation=Deliberation(apply_after_steps=2))}
        path = killed(tmp_path / "run", 23, steps=24, **options)
        asked = records(path, ManagerAsked)
        assert [record.step for record in asked] == [10]
        shutil.rmtree(path / "exchange", ignore_errors=True)  # a person may not have been asked yet
        workload = mlp(3)
        with supervise(workload, path, resume=True, **options) as supervisor:
            self.go_on(workload, supervisor, path, manager, proposal)
        course = [entry.record for entry in iter_course(path / "ledger.jsonl")]
        given = [record for record in course if isinstance(record, ProposalReceived)]
        assert [(record.question, record.approved_by) for record in given if record.question == 1] == [(1, "ada")]
        assert len([record for record in course if isinstance(record, ActionApplied)]) == 1
        assert len([record for record in course if isinstance(record, ManagerAsked) and record.question == 1]) == 1

    def go_on(self, workload: Workload, supervisor: Supervisor, path: Path, manager: str, proposal: dict[str, Any]) -> None:
        assert supervisor.num_steps == 20
        question = path / "exchange" / question_name(1)
        while not question.exists():
            workload.train(supervisor.num_steps + 1, supervisor, lambda: 1.0, goes_on=True)
            assert supervisor.num_steps < 150, "the question was not laid out"
            time.sleep(0.05)
        put(path / "exchange", {**proposal, "by": "ada"} if manager == "external" else {"approve": True, "by": "ada"}, 1)
        while not records(supervisor, ActionApplied):
            workload.train(supervisor.num_steps + 1, supervisor, lambda: 1.0, goes_on=True)
            assert supervisor.num_steps < 190, "the answer was not taken"
            time.sleep(0.05)


def test_every_process_of_a_run_tells_its_versions(tmp_path: Path) -> None:
    path = killed(tmp_path / "run", 12, steps=13)
    run(path, 15, resume=True)
    (started,), (resumed,) = records(path, RunStarted), records(path, RunResumed)
    assert resumed.versions == started.versions
    assert dict(resumed.versions).keys() >= {"python", "torch", "trimtab"}
