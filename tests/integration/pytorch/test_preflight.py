"""What attaching says of each control, whom it refuses, and that compiled models keep to what torch compiles."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo import config as dynamo
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters
from torch.optim import lr_scheduler as schedules

import trimtab
from tests.integration.pytorch.conftest import Workload, mlp, supervise
from tests.integration.pytorch.managed import adjust, boundary, free, records, script
from trimtab.controls.envelope_file import load_envelope
from trimtab.errors import ControlError, OwnershipError
from trimtab.ledger.record import ActionApplied, RunStarted, VerdictGiven

RATE = trimtab.learning_rate(1e-6, 1.0)
VALUES = (0.05, 0.15, 0.2, 0.25)


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def ran_uncompiled() -> bool:
    """Whether torch gave up on compiling something, because it had too many graphs."""
    return any("recompile limit" in problem.lower() for problem in counters["unimplemented"])


def answers(preflight: Any) -> dict[str, str]:
    return {finding.control.name: finding.answer for finding in preflight.findings}


def evaluating(workload: Workload) -> Any:
    """Return an evaluation through the model as it is called in training, on batches of another size."""
    losses = iter(range(1000, 0, -1))

    def evaluate() -> float:
        workload.model.eval()
        with torch.no_grad():
            workload.model(torch.ones(5, 12))
        workload.model.train()
        return float(next(losses))

    return evaluate


def test_a_preflight_says_what_is_and_changes_nothing(tmp_path: Path) -> None:
    workload = mlp(0)
    before = [len(workload.optimizer._optimizer_step_pre_hooks), len(workload.optimizer._optimizer_step_post_hooks)]
    envelope = boundary((RATE, trimtab.batch_size(1, 2), trimtab.dropout(0.0, 0.5, when="boundary")))
    found = trimtab.preflight(
        workload.model, workload.optimizer, scheduler=workload.scheduler, loader=workload.loader, envelope=envelope
    )
    assert answers(found) == {"learning_rate": "live", "batch_size": "impossible", "dropout": "boundary"}
    assert found.notes == ()
    assert "batch_size starts outside its bounds; received 16" in str(found)
    assert [len(workload.optimizer._optimizer_step_pre_hooks), len(workload.optimizer._optimizer_step_post_hooks)] == before
    supervise(workload, tmp_path / "run").close()


@pytest.mark.parametrize("is_limited", [False, True])
def test_attaching_logs_the_table_and_warns_if_something_is_limited(
    is_limited: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workload = mlp(0)
    if is_limited:
        workload.loader = None  # type: ignore[assignment] - as a user without one
    control = trimtab.dropout(0.0, 0.5, when="boundary")  # as it was asked for: that is no limit
    with caplog.at_level(logging.INFO, "trimtab"):
        supervise(workload, tmp_path / "run", envelope=boundary((RATE, control))).close()
    (logged,) = [record for record in caplog.records if "preflight" in record.getMessage()]
    assert logged.levelno == (logging.WARNING if is_limited else logging.INFO)
    first, header, rate, dropout, *notes = logged.getMessage().splitlines()
    assert first == "run: preflight"
    assert header.split() == ["control", "now", "bounds", "answer", "reason"]
    assert rate.split()[:6] == ["learning_rate", "0.01", "1e-06", "to", "1", "live"]
    assert dropout.split()[:2] == ["dropout", "0.1"]
    (started,) = records(tmp_path / "run", RunStarted)
    said = "dropout: boundary: changes after any step: boundary_every_steps is 1"
    missing = "no loader was given: a rollback does not restore the data position"
    assert started.notes == ((missing, said) if is_limited else (said,))
    assert (f"note: {missing}" in notes) == is_limited
    hint = "note: reflex.skip_batches: 16 instead of 200, as an epoch of the loader has 16 batches"
    assert (hint in notes) != is_limited, "what limits nothing is told, and neither recorded nor a warning"


def test_all_impossible_controls_are_named_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    workload = mlp(0)
    controls = (RATE, trimtab.batch_size(1, 2), trimtab.dropout(0.2, 0.5), trimtab.label_smoothing(0.0, 0.2))
    with pytest.raises(ControlError) as caught:
        supervise(workload, tmp_path / "deep" / "run", controls=controls)
    message = str(caught.value)
    assert message.startswith("3 controls are impossible in this run:\n  batch_size: ")
    assert "\n  dropout: dropout starts outside its bounds" in message
    assert "\n  label_smoothing: " in message
    assert not (tmp_path / "deep").exists()
    supervise(workload, tmp_path / "run").close()


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
@pytest.mark.parametrize("is_passed", [True, False])
def test_a_scheduler_that_cycles_the_momentum_owns_it_and_only_it(name: str, is_passed: bool, tmp_path: Path) -> None:
    workload = mlp(0)
    made = {
        "OneCycleLR": lambda optimizer: schedules.OneCycleLR(optimizer, 0.02, total_steps=50),
        "CyclicLR": lambda optimizer: schedules.CyclicLR(optimizer, 0.001, 0.02, cycle_momentum=True),
    }[name](workload.optimizer)
    workload.scheduler = made if is_passed else None
    momentum = trimtab.momentum(0.0, 0.99)
    with pytest.raises(OwnershipError, match=f"{name} already writes the momentum .*cycle_momentum=False"):
        supervise(workload, tmp_path / "run", controls=(RATE, momentum))
    supervise(workload, tmp_path / "run", controls=(RATE,)).close()
    assert made.optimizer is workload.optimizer


@pytest.mark.parametrize(
    "is_passed", ["alone", "in SequentialLR", "in a wrapper", "not at all", "not at all, in ChainedScheduler"]
)
def test_a_scheduler_that_watches_a_metric_is_refused_wherever_it_is(is_passed: str, tmp_path: Path) -> None:
    workload = mlp(0)
    adaptive: Any = schedules.ReduceLROnPlateau(workload.optimizer)

    class Wrapper:
        def __init__(self, scheduler: Any) -> None:
            self.scheduler = scheduler

        def step(self) -> None:
            self.scheduler.step(1.0)

        def state_dict(self) -> dict[str, Any]:
            return self.scheduler.state_dict()

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.scheduler.load_state_dict(state)

    chain: Any = None
    workload.scheduler = adaptive
    if is_passed == "in SequentialLR":
        # torch refuses to make such a chain of its own; users put one together all the same.
        chain = schedules.SequentialLR(workload.optimizer, [schedules.StepLR(workload.optimizer, 2)], [])
        chain._schedulers.append(adaptive)
        workload.scheduler = chain
    elif is_passed == "in a wrapper":
        workload.scheduler = Wrapper(adaptive)
    elif is_passed.startswith("not at all"):
        workload.scheduler = None
        if "Chained" in is_passed:
            chain = schedules.ChainedScheduler([schedules.StepLR(workload.optimizer, 2)], workload.optimizer)
            chain._schedulers += (adaptive,)
    with pytest.raises(OwnershipError, match="ReduceLROnPlateau already steers the learning rate by a metric"):
        supervise(workload, tmp_path / "run")
    dropout = boundary((trimtab.dropout(0.0, 0.5),))
    supervise(workload, tmp_path / "run", envelope=dropout).close()  # its rate is its own business then
    assert adaptive.optimizer is workload.optimizer


def test_a_schedule_that_was_not_passed_is_noted(tmp_path: Path) -> None:
    workload = mlp(0)
    hidden, workload.scheduler = workload.scheduler, None
    supervise(workload, tmp_path / "run").close()
    (started,) = records(tmp_path / "run", RunStarted)
    assert started.notes == (
        "a CosineAnnealingLR of this optimizer was not passed: a rollback does not restore it; pass it as scheduler=",
    )
    del hidden
    supervise(mlp(0), tmp_path / "other").close()
    assert records(tmp_path / "other", RunStarted)[0].notes == ()


class Net(nn.Module):
    """A class of the user's: torch compiles nothing of its own ``nn.Sequential`` where that is compiled in place."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def _compiled(workload: Workload, how: str, backend: Any) -> nn.Module:
    """Compile the workload's model; return what the user passes to supervise."""
    model = workload.model = Net(workload.model)
    if how == "in place":
        model.compile(backend=backend)
        return model
    workload.model = torch.compile(model, backend=backend)  # type: ignore[assignment] - compiled, it is a function to the types
    return model if how == "the original is passed" else workload.model


@pytest.mark.parametrize(
    ("how", "is_bounded"),
    [("the wrapper is passed", True), ("the original is passed", True), ("in place", True), ("in place", False)],
)
def test_dropout_of_a_compiled_model_stays_within_what_torch_compiles(
    how: str, is_bounded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_bounded:  # the counterproof: without the budget, torch gives up
        monkeypatch.setattr("trimtab.integrations.pytorch.compilation._limit", lambda: 100)
    workload, counter = mlp(0), CompileCounter()
    passed = _compiled(workload, how, counter)
    plan = script(*((10 * (at + 1), adjust(dropout=value)) for at, value in enumerate(VALUES)))
    supervisor = trimtab.supervise(
        passed, workload.optimizer, scheduler=workload.scheduler, loader=workload.loader, manager=plan,
        run_dir=tmp_path / "run", evaluate_every_steps=10, envelope=boundary((free("dropout", 0.0, 0.9, *VALUES),)),
    )  # fmt: skip
    with supervisor:
        workload.train(55, supervisor, evaluating(workload))
    values = [record.recipe["dropout"] for record in records(tmp_path / "run", ActionApplied)]
    if not is_bounded:
        assert values == list(VALUES)
        assert ran_uncompiled()
        return
    assert values == list(VALUES[:2])
    assert 3 * 2 <= counter.frame_count <= 8
    assert not ran_uncompiled()
    (started,) = records(tmp_path / "run", RunStarted)
    assert started.envelope.control("dropout").max_values == 3
    assert load_envelope(tmp_path / "run" / "envelope.yaml") == started.envelope
    assert "dropout: recompiles: each new value recompiles the model: at most 3" in started.notes[-1]
    reasons = [reason.constraint for record in records(tmp_path / "run", VerdictGiven) for reason in record.reasons]
    assert set(reasons) == {"max_values"}


def test_a_smaller_budget_of_the_user_stands_and_a_higher_limit_gives_room() -> None:
    workload = mlp(0)
    compiled: Any = torch.compile(workload.model, backend="eager")
    few = trimtab.preflight(compiled, workload.optimizer, controls=[trimtab.dropout(0.0, 0.5, max_values=2)])
    assert few.findings[0].control.max_values == 2
    with dynamo.patch(recompile_limit=64):
        many = trimtab.preflight(compiled, workload.optimizer, controls=[trimtab.dropout(0.0, 0.5, max_values=40)])
    assert many.findings[0].control.max_values == 31


def test_a_budget_for_two_controls_of_one_model_counts_their_combinations() -> None:
    workload = mlp(0)
    model = nn.Sequential(workload.model, nn.Dropout(0.1))
    compiled: Any = torch.compile(model, backend="eager")
    both = [trimtab.dropout(0.0, 0.5, name=name, modules=modules) for name, modules in (("one", "0.*"), ("two", "1"))]
    with dynamo.patch(recompile_limit=26):
        found = trimtab.preflight(compiled, workload.optimizer, controls=both)
    assert [finding.control.max_values for finding in found.findings] == [4, 3]  # 12 combinations of 2 graphs, and 2


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, while it compiles
def test_blocks_compiled_one_by_one_say_which_limit_they_need_and_keep_to_it(tmp_path: Path) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.dropout = nn.Linear(12, 12), nn.Dropout(0.1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.dropout(torch.relu(self.linear(x)))

    workload, counter = mlp(0), CompileCounter()
    workload.model = nn.Sequential(Block(), Block(), Block(), nn.Linear(12, 3))
    workload.optimizer, workload.scheduler = torch.optim.SGD(workload.model.parameters(), lr=0.01), None
    for block in workload.model.children():
        if isinstance(block, Block):
            block.compile(backend=counter)
    control = free("dropout", 0.0, 0.9, *VALUES)
    tight = trimtab.preflight(workload.model, workload.optimizer, controls=[control])
    assert tight.findings[0].control.max_values == 2
    assert "2 combinations of all controls there, 1 of them compiled: set torch._dynamo.config.recompile_limit=9" in str(tight)
    plan = script(*((10 * (at + 1), adjust(dropout=value)) for at, value in enumerate(VALUES)))
    with dynamo.patch(recompile_limit=12):
        with supervise(workload, tmp_path / "run", plan, envelope=boundary((control,))) as supervisor:
            workload.train(55, supervisor, evaluating(workload))
        values = [record.recipe["dropout"] for record in records(tmp_path / "run", ActionApplied)]
        assert values == list(VALUES[:2])
        assert not ran_uncompiled()


def test_an_attribute_of_a_compiled_module_recompiles_unless_it_is_a_tensor() -> None:
    class Scaled(nn.Module):
        def __init__(self, temperature: Any) -> None:
            super().__init__()
            self.temperature = temperature
            self.linear = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) / self.temperature

    for temperature, answer in ((1.0, "recompiles"), (torch.tensor(1.0), "live")):
        model = Scaled(temperature)
        compiled: Any = torch.compile(model, backend="eager")
        own = trimtab.attribute(model, "temperature", 0.5, 2.0, moves=trimtab.SetTo((0.5, 2.0)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        assert answers(trimtab.preflight(compiled, optimizer, controls=[own])) == {"temperature": answer}


def test_label_smoothing_recompiles_only_where_its_loss_is_compiled() -> None:
    workload = mlp(0)
    compiled: Any = torch.compile(workload.model, backend="eager")
    loss = nn.CrossEntropyLoss()
    controls = [trimtab.label_smoothing(0.0, 0.2), RATE]

    def found() -> dict[str, str]:
        return answers(trimtab.preflight(compiled, workload.optimizer, controls=controls, parts=[loss]))

    assert found() == {"label_smoothing": "live", "learning_rate": "live"}
    compiled_loss = torch.compile(loss, backend="eager")
    assert compiled_loss is not loss
    assert found() == {"label_smoothing": "recompiles", "learning_rate": "live"}


def test_where_torch_was_told_to_raise_a_recompiling_control_is_impossible(tmp_path: Path) -> None:
    workload = mlp(0)
    compiled: Any = torch.compile(workload.model, backend="eager")
    workload.model = compiled
    with dynamo.patch(error_on_recompile=True), pytest.raises(ControlError, match="new value of dropout recompiles"):
        supervise(workload, tmp_path / "run")
    supervise(workload, tmp_path / "run").close()
