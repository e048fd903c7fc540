"""The scenarios learn, and each fault changes its training from its step on and not before."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch

from trimtab.bench.recording import SCENARIOS, Scenario, record
from trimtab.bench.scenarios.faults import FAULTS, Fault
from trimtab.bench.scenarios.healthy import HEALTHY
from trimtab.bench.scenarios.loop import Settings
from trimtab.bench.traces import Moment, Trace
from trimtab.diagnosis.base import SymptomName


def short(scenario: Scenario) -> Scenario:
    return replace(scenario, num_steps=12, evaluate_every_steps=4, inject_step=6)


SUPERVISED = [fault for fault in FAULTS if SCENARIOS[fault.scenario].build is not None and fault.scenario != "text"]


def before(trace: Trace, step: int) -> list[Moment]:
    return [at for at in trace.moments if at.step < step and at.kind != "recipe"]


def after(trace: Trace, step: int) -> list[Moment]:
    return [at for at in trace.moments if at.step >= step]


@pytest.fixture(scope="module")
def twins() -> dict[str, Trace]:
    return {name: record(short(SCENARIOS[name]), 0) for name in ("digits_mlp", "digits_cnn", "autoencoder")}


@pytest.mark.parametrize("fault", SUPERVISED, ids=lambda fault: fault.name)
def test_a_fault_changes_what_is_reported_from_its_step_on(fault: Fault, twins: dict[str, Trace]) -> None:
    trace = record(short(SCENARIOS[fault.scenario]), 0, fault=fault.name, inject=fault.inject)
    twin = twins[fault.scenario]
    assert before(trace, 6) == before(twin, 6)
    assert after(trace, 6) != after(twin, 6)
    assert trace.course.injected_step == 6


def test_a_nan_loss_poisons_the_weights() -> None:
    fault = next(fault for fault in FAULTS if fault.name == "nan loss")
    trace = record(short(SCENARIOS["digits_mlp"]), 0, fault=fault.name, inject=fault.inject)
    losses = [at.values["loss"] for at in trace.moments if at.kind == "step"]
    assert [math.isnan(loss) for loss in losses] == [False] * 5 + [True] * 7


def test_the_same_seed_is_the_same_run_and_another_is_another() -> None:
    scenario = short(SCENARIOS["autoencoder"])
    assert record(scenario, 1) == record(scenario, 1)
    assert record(scenario, 1).moments != record(scenario, 2).moments


@pytest.mark.parametrize("name", ["digits_mlp", "autoencoder"])
def test_a_training_learns(name: str) -> None:
    values = [value for _, value in record(replace(SCENARIOS[name], num_steps=200), 0).objective_values()]
    assert values[-1] < 0.7 * values[0]


def test_a_language_model_learns_and_reports_no_dead_units() -> None:
    trace = record(
        replace(SCENARIOS["text"], num_steps=30, evaluate_every_steps=15), 0, settings={"width": 16, "batch_size": 4}
    )
    (_, first), (_, last) = trace.objective_values()
    assert last < first
    assert {"loss", "grad_norm", "update_ratio", "learning_rate"} <= set(trace.moments[1].values)


def test_faults_have_names_of_their_own_known_answers_and_a_training() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 12
    for fault in FAULTS:
        assert fault.scenario in SCENARIOS
        assert fault.answers
        assert set(fault.answers) <= set(get_args(SymptomName))
    # A damaged state is not seen in signals, which is all that a trace holds: see the injuries.
    assert {name for fault in FAULTS for name in fault.answers} == set(get_args(SymptomName)) - {"state_damaged"}


def test_healthy_runs_are_ten_of_each_kind_with_settings_of_their_own() -> None:
    kinds = [SCENARIOS[run.scenario].kind for run in HEALTHY]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(kinds, 10)
    assert len(set(kinds)) == 4
    assert len({(run.scenario, tuple(sorted(run.settings.items()))) for run in HEALTHY}) == 40


@pytest.mark.parametrize(("schedule", "rates"), [("constant", (1.0, 1.0)), ("warmup", (0.1, 1.0)), ("cosine", (1.0, 0.1))])
def test_a_schedule_begins_and_ends_where_it_says(schedule: str, rates: tuple[float, float]) -> None:
    loop = _perceptron(Settings(schedule=schedule, learning_rate=1.0, architecture="perceptron"))
    assert (loop.rate(1), loop.rate(100)) == pytest.approx(rates, abs=1e-3)


def test_units_that_nothing_in_the_batch_moves_are_dead() -> None:
    loop = _perceptron(Settings(width=8, architecture="perceptron"))
    with torch.no_grad():
        list(loop.model.modules())[2].bias.copy_(torch.tensor([-100.0] * 4 + [100.0] * 4))  # type: ignore[union-attr] - a linear layer
    seen = loop.take_step(1)["dead_units"]
    assert seen >= 4 / 16


def _perceptron(settings: Settings):  # noqa: ANN202 - a Loop
    build = SCENARIOS["digits_mlp"].build
    assert build is not None
    return build(settings, 0, 100)
