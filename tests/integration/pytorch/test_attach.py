"""Attaching refuses what cannot work, says what to do instead, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trimtab
from tests.integration.pytorch.conftest import Workload, mlp, supervise
from tests.integration.pytorch.managed import CONTROLS, a_value, adjust, boundary, free, records, script
from tests.unit.runtime.workers import zombies
from trimtab.controls.bounds import Bounds
from trimtab.controls.control import Control
from trimtab.controls.envelope_file import load_envelope
from trimtab.decision.no_action import NoActionManager
from trimtab.errors import ControlError, LedgerError, MissingExtraError, OwnershipError, RunDirectoryError, UsageError
from trimtab.integrations.pytorch.state import TorchStateStore
from trimtab.ledger.journal import Journal
from trimtab.ledger.record import RunStarted

RATE = trimtab.learning_rate(1e-6, 1.0)


def _children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children").read_text().split())


def _hooks(workload: Workload) -> list[int]:
    optimizer = workload.optimizer
    return [
        len(optimizer._optimizer_step_pre_hooks),
        len(optimizer._optimizer_step_post_hooks),
        len(optimizer._optimizer_state_dict_pre_hooks),
        len(optimizer._optimizer_load_state_dict_post_hooks),
    ]


def _nothing_is_left(workload: Workload, before: list[int], children: set[str], path: Path) -> None:
    assert _hooks(workload) == before
    assert _children() <= children, "a process was left behind"
    assert zombies() == []
    assert not path.exists(), "a run directory was left behind"
    supervise(workload, path).close()  # nothing is claimed


_TYPO = Control("droput", Bounds(0.0, 0.5), trimtab.SetTo((0.1,)), "difference", 0.5, 0.5, 0)

WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no such control": (
        {"controls": [free("dropout", 0.0, 0.9, 0.1), _TYPO]},
        ControlError,
        'nothing says where droput is found; received parts: none; next: pass parts=[trimtab.handle("droput"',
    ),
    "starts below its bounds": (
        {"controls": [RATE, trimtab.dropout(0.2, 0.5)]},
        ControlError,
        "dropout starts outside its bounds; received 0.1; allowed: 0.2 to 0.5, both included; next: widen the bounds",
    ),
    "starts above its bounds": (
        {"controls": [trimtab.learning_rate(1e-6, 1e-3)]},
        ControlError,
        "learning_rate starts outside its bounds; received 0.01",
    ),
    "no objective": ({"objective": None}, UsageError, "controls and objective are missing"),
    "no controls": (
        {"controls": None},
        UsageError,
        'allowed: controls=[...] and objective="minimize val/loss", or envelope="trimtab.yaml"',
    ),
    "the training loss as objective": (
        {"objective": "minimize loss"},
        UsageError,
        'write for example "minimize val/loss"',
    ),
    "a malformed objective": (
        {"objective": "val/loss"},
        UsageError,
        'the objective is malformed; received val/loss; allowed: "minimize SIGNAL"',
    ),
    "a control twice": ({"controls": [RATE, RATE]}, ControlError, "a control is declared twice; received learning_rate"),
    "every 0 steps": (
        {"every": 0},
        UsageError,
        "evaluate_every_steps is out of range; received 0; allowed: a whole number >= 1",
    ),
    "every True steps": ({"every": True}, UsageError, "evaluate_every_steps is out of range"),
    "every 1.5 steps": ({"every": 1.5}, UsageError, "evaluate_every_steps is out of range"),
    "-1 steps in all": ({"total_steps": -1}, UsageError, "total_steps is out of range; received -1"),
    "no such manager": ({"manager": "rulse"}, UsageError, "did you mean 'rules'?"),
    "an object that proposes nothing": ({"manager": 3}, UsageError, "the manager has no method propose; received int"),
    "a class, no object": ({"manager": NoActionManager}, UsageError, "the manager has no method propose; received type"),
    "no such mode": ({"mode": "sometimes"}, UsageError, "the mode is unknown; received sometimes; allowed: async or boundary"),
    "extra state without one": ({"extra_state": {"ema": 3}}, UsageError, "ema has no state that could be saved; received int"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_work_is_refused_and_nothing_is_left(name: str, tmp_path: Path) -> None:
    options, kind, message = WRONG[name]
    workload = mlp(0)
    before, children = _hooks(workload), _children()
    with pytest.raises(kind) as caught:
        supervise(workload, tmp_path / "run", **options)
    assert message in str(caught.value)
    _nothing_is_left(workload, before, children, tmp_path / "run")


def test_reversed_bounds_are_refused_where_they_are_written() -> None:
    with pytest.raises(
        ControlError, match=r"the bounds are reversed; received low=1.0, high=1e-06; allowed: low <= high; next: swap them"
    ):
        trimtab.learning_rate(1.0, 1e-6)


def test_an_envelope_and_controls_are_one_too_many(tmp_path: Path) -> None:
    workload = mlp(0)
    doubles: tuple[dict[str, Any], ...] = ({"controls": [RATE]}, {"objective": "minimize val/loss"})
    for doubled in doubles:
        with pytest.raises(UsageError, match="an envelope already names controls and objective; next: leave those two out"):
            supervise(workload, tmp_path / "run", envelope=boundary(), **doubled)


def test_not_an_optimizer_is_refused(tmp_path: Path) -> None:
    workload = mlp(0)
    workload.optimizer = workload.model  # type: ignore[assignment] - the wrong object, on purpose
    with pytest.raises(ControlError, match=r"not an optimizer; received Sequential; allowed: a torch.optim.Optimizer"):
        supervise(workload, tmp_path / "run")


def test_a_taken_run_directory_is_refused_and_a_free_one_named(tmp_path: Path) -> None:
    supervise(mlp(0), tmp_path / "run").close()
    workload = mlp(0)
    before, children = _hooks(workload), _children()
    with pytest.raises(RunDirectoryError, match=f"already holds a run; .*for example {tmp_path}/run-1"):
        supervise(workload, tmp_path / "run")
    _nothing_is_left(workload, before, children, tmp_path / "run-1")


def test_a_run_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run" / "envelope.yaml").mkdir(parents=True)
    workload = mlp(0)
    before, children = _hooks(workload), _children()
    with pytest.raises(RunDirectoryError, match="the run directory cannot be written"):
        supervise(workload, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == [tmp_path / "run" / "envelope.yaml"], "what was there before is left"
    _nothing_is_left(workload, before, children, tmp_path / "next")


def test_if_the_ledger_fails_at_the_start_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise LedgerError("no space")

    workload = mlp(0)
    before, children = _hooks(workload), _children()
    with monkeypatch.context() as patch, pytest.raises(LedgerError, match="no space"):
        patch.setattr(Journal, "append", full)
        supervise(workload, tmp_path / "deep" / "run", "rules")
    assert list(tmp_path.iterdir()) == []
    _nothing_is_left(workload, before, children, tmp_path / "next")


def test_what_fails_after_the_first_record_leaves_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise MemoryError

    workload = mlp(0)
    before, children = _hooks(workload), _children()
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(TorchStateStore, "save", breaks)
        supervise(workload, tmp_path / "run")
    assert len(records(tmp_path / "run", RunStarted)) == 1
    _nothing_is_left(workload, before, children, tmp_path / "next")


def test_two_supervisors_cannot_own_one_control(tmp_path: Path) -> None:
    workload = mlp(0)
    with supervise(workload, tmp_path / "one") as first:
        hooks = _hooks(workload)
        with pytest.raises(
            OwnershipError, match=r"learning_rate of this AdamW is already supervised; .*close the other supervisor"
        ):
            supervise(workload, tmp_path / "two")
        assert _hooks(workload) == hooks, "the first supervisor lost its hooks"
        workload.train(20, first, a_value())
        assert not first.is_held
    supervise(workload, tmp_path / "three").close()


def test_supervisors_of_different_controls_live_together(tmp_path: Path) -> None:
    workload = mlp(0)
    with supervise(workload, tmp_path / "one", envelope=boundary(CONTROLS[:1])):
        supervise(workload, tmp_path / "two", envelope=boundary(CONTROLS[1:])).close()


def test_after_closing_with_an_unchanged_recipe_the_objects_are_free_and_untouched(tmp_path: Path) -> None:
    workload = mlp(0)
    before, children = _hooks(workload), _children()
    with supervise(workload, tmp_path / "one", "no_action") as supervisor:
        assert _hooks(workload) != before
        assert _children() > children
        workload.train(15, supervisor, a_value())
    _nothing_is_left(workload, before, children, tmp_path / "two")


def test_after_closing_with_a_changed_recipe_it_stays_in_force(tmp_path: Path) -> None:
    workload = mlp(0)
    workload.scheduler = None
    rates: list[float] = []
    with supervise(workload, tmp_path / "run", script((10, adjust(learning_rate=5e-3))), envelope=boundary()) as supervisor:
        workload.train(15, supervisor, a_value())
    workload.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    workload.train(3)
    assert rates == [5e-3] * 3


def test_what_is_limited_in_this_run_is_in_its_first_record(tmp_path: Path) -> None:
    workload = mlp(0)
    workload.scheduler = None  # and so there is none, or it would be found
    workload.loader = torch.utils.data.DataLoader([1, 2, 3])  # type: ignore[assignment] - any iterable is taken
    supervise(workload, tmp_path / "run", total_steps=100).close()
    (started,) = records(tmp_path / "run", RunStarted)
    assert started.notes == (
        (
            "DataLoader cannot go back: after a rollback training goes on with its next batch; ResumableLoader and "
            "ResumableDataLoader of trimtab can"
        ),
    )
    assert (started.can_skip, started.total_steps, started.evaluate_every_steps) == (False, 100, 10)
    assert {name for name, _ in started.versions} == {"python", "torch", "trimtab", "device", "threads"}
    assert load_envelope(tmp_path / "run" / "envelope.yaml") == started.envelope


def test_a_wrapped_optimizer_is_unwrapped(tmp_path: Path) -> None:
    class Wrapper:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    supervisor = trimtab.supervise(
        model, Wrapper(optimizer), controls=[RATE], objective="minimize val/loss", run_dir=tmp_path / "run", manager="no_action"  # type: ignore[arg-type] - the wrong object, on purpose
    )  # fmt: skip
    with supervisor:
        assert supervisor.recipe["learning_rate"] == 0.1


def test_a_script_that_just_ends_closes_its_ledger(tmp_path: Path) -> None:
    source = """
        import sys, torch, trimtab
        model = torch.nn.Linear(2, 2)
        supervisor = trimtab.supervise(
            model, torch.optim.SGD(model.parameters(), lr=0.1), controls=[trimtab.learning_rate(1e-6, 1.0)],
            objective="minimize val/loss", run_dir=sys.argv[1], manager="no_action")
        supervisor.step(loss=1.0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(source), str(tmp_path / "run")], check=True)
    assert '"the process ended"' in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()[-1]


def test_without_torch_the_extra_is_named() -> None:
    source = """
        import sys
        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "torch":
                    raise ModuleNotFoundError("No module named 'torch'", name="torch")
        sys.meta_path.insert(0, Blocker())
        import trimtab
        trimtab.learning_rate(1e-6, 1.0)
        for name in ("supervise", "ResumableLoader"):
            try:
                getattr(trimtab, name)
            except trimtab.TrimtabError as error:
                print(type(error).__name__, error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(source)], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        f"{MissingExtraError.__name__} trimtab.{name} needs torch, which is not installed; next: pip install 'trimtab[torch]'"
        for name in ("supervise", "ResumableLoader")
    ]
