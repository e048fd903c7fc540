"""The operations of one step, traced twice: the first that differs is found, with its place in the script and a reason."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import library, nn

from trimtab.integrations.pytorch.tracing import StepTrace, TracingProbes
from trimtab.report.parted_trace import parted_operation


class Quiet:
    """Probes that measure one number, and write down what they are asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def collect(self, step: int) -> Mapping[str, object]:
        self.calls.append(f"collect {step}")
        return {"loss": 1.0}

    def faults(self) -> Sequence[str]:
        return ["a fault"]

    def close(self) -> None:
        self.calls.append("close")


class Training:
    """Three steps of a small net with dropout; ``disturb`` is called within each, before and after the forward pass."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.batch = torch.ones(3, 4)

    def step(self, disturb: Callable[[Training], None] = lambda _: None) -> None:
        disturb(self)
        loss = self.model(self.batch).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def traced(path: Path, disturb: Callable[[Training], None] = lambda _: None, *, step: int = 2) -> Path:
    """Train three steps and trace one of them; it alone is disturbed."""
    training, probes = Training(), TracingProbes(Quiet(), step, path)
    probes.begin(0)
    for number in range(1, 4):
        training.step(disturb if number == step else lambda _: None)
        probes.collect(number)
    return path


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_two_repetitions_that_are_alike_have_the_same_trace(tmp_path: Path) -> None:
    one, other = traced(tmp_path / "one"), traced(tmp_path / "other")
    assert one.read_bytes() == other.read_bytes()
    assert parted_operation(one, other) == ""
    operations = [line["op"] for line in lines(one)]
    assert any("addmm" in name for name in operations)
    assert operations.count("aten.mm.default") == 3, "the backward pass is traced too"
    assert {Path(line["at"].rpartition(":")[0]).name for line in lines(one) if line["at"]} == {Path(__file__).name}
    assert {line["op"] for line in lines(one) if line["random"]} != set()


def test_only_the_step_in_question_is_traced(tmp_path: Path) -> None:
    quiet = Quiet()
    training, probes = Training(), TracingProbes(quiet, 2, tmp_path / "trace")
    probes.begin(0)
    for number in (1, 2):
        training.step()
        assert not (tmp_path / "trace").exists()
        assert probes.collect(number) == {"loss": 1.0}
    count = len(lines(tmp_path / "trace"))
    training.step()
    probes.collect(3)
    assert len(lines(tmp_path / "trace")) == count > 10
    assert list(probes.faults()) == ["a fault"]
    probes.close()
    assert quiet.calls == ["collect 1", "collect 2", "collect 3", "close"]


@pytest.mark.parametrize(("begun_at", "is_traced"), [(0, False), (1, True), (2, False)])
def test_a_resumed_run_traces_its_first_step_if_that_is_the_one(tmp_path: Path, begun_at: int, is_traced: bool) -> None:
    training, probes = Training(), TracingProbes(Quiet(), 2, tmp_path / "trace")
    probes.begin(begun_at)
    training.step()
    probes.collect(begun_at + 1)
    assert (tmp_path / "trace").exists() is is_traced
    probes.close()


def test_a_run_that_ends_within_the_step_leaves_no_trace_and_no_tracing_behind(tmp_path: Path) -> None:
    probes = TracingProbes(Quiet(), 1, tmp_path / "trace")
    probes.begin(0)
    torch.ones(2).add(1)
    probes.close()
    torch.ones(2).add(1)
    assert list(tmp_path.iterdir()) == []


def test_tracing_changes_no_result(tmp_path: Path) -> None:
    training = Training()
    for _ in range(3):
        training.step()
    expected, generator = training.model.state_dict(), torch.get_rng_state()
    again, probes = Training(), TracingProbes(Quiet(), 2, tmp_path / "trace")
    probes.begin(0)
    for number in (1, 2, 3):
        again.step()
        probes.collect(number)
    assert all(torch.equal(again.model.state_dict()[name], value) for name, value in expected.items())
    assert torch.equal(torch.get_rng_state(), generator)


def _other_data(training: Training) -> None:
    training.batch = torch.tensor([[1.0, 1.0, 1.0, random.random()]] * 3)


def _one_more(training: Training) -> None:
    training.batch = training.batch.neg().neg()


@pytest.mark.parametrize(
    ("disturb", "says"),
    [
        (_one_more, "does aten.neg"),
        (_other_data, "it was given other values"),
    ],
)
def test_the_first_operation_that_parts_is_named_with_a_reason(
    tmp_path: Path, disturb: Callable[[Training], None], says: str
) -> None:
    def calm(training: Training) -> None:
        if disturb is _other_data:
            training.batch = torch.tensor([[1.0, 1.0, 1.0, 0.5]] * 3)

    said = parted_operation(traced(tmp_path / "one", calm), traced(tmp_path / "other", disturb))
    assert said.startswith("operation 1, aten.")
    assert says in said


def test_random_numbers_that_somebody_else_drew_are_told_as_that(tmp_path: Path) -> None:
    one = traced(tmp_path / "one")
    first = next(line for line in lines(one) if line["random"])
    other = tmp_path / "other"
    changed = [{**line, "random": "0" * 16, "outputs": "1" * 16} if line == first else line for line in lines(one)]
    other.write_text("".join(json.dumps(line) + "\n" for line in changed))
    said = parted_operation(one, other)
    assert first["op"] in said
    assert "its random numbers are not the same" in said


def test_an_operation_of_another_result_for_the_same_values_is_called_not_deterministic(tmp_path: Path) -> None:
    one = traced(tmp_path / "one")
    changed = lines(one)
    changed[5]["outputs"] = "0" * 16
    changed[7]["inputs"] = "0" * 16
    other = tmp_path / "other"
    other.write_text("".join(json.dumps(line) + "\n" for line in changed))
    assert parted_operation(one, other).startswith(f"operation 6, {changed[5]['op']}")
    assert "not deterministic" in parted_operation(one, other)


def test_a_generator_of_the_users_own_is_looked_at_where_it_is_drawn_from(tmp_path: Path) -> None:
    def drawn(seed: int) -> Path:
        torch.manual_seed(0)
        generator, path = torch.Generator().manual_seed(seed), tmp_path / str(seed)
        with StepTrace() as trace:
            torch.zeros(3).bernoulli_(0.5, generator=generator)
        path.write_text("".join(f"{line}\n" for line in trace.lines))
        return path

    assert "its random numbers are not the same" in parted_operation(drawn(1), drawn(2))


def test_a_result_is_looked_at_also_where_it_is_no_argument() -> None:
    draws = iter((1.0, 2.0))
    operations = library.Library("trimtab_test", "DEF")  # they end with it
    operations.define("chance(Tensor x) -> Tensor")
    operations.impl("chance", lambda x: x * next(draws), "CompositeExplicitAutograd")
    with StepTrace() as trace:
        for _ in range(2):
            torch.ops.trimtab_test.chance(torch.ones(3))
    first, second = (told for line in trace.lines if "chance" in (told := json.loads(line))["op"])
    assert first["inputs"] == second["inputs"]
    assert first["outputs"] != second["outputs"]


def test_memory_that_was_never_written_is_no_difference(tmp_path: Path) -> None:
    def dirty(value: float) -> Path:
        torch.manual_seed(0)
        path = tmp_path / str(value)
        probes = TracingProbes(Quiet(), 1, path)
        probes.begin(0)
        for _ in range(20):  # memory that is freed and handed out again
            torch.full((300,), value)
            torch.empty(300).uniform_(0, 0)
            torch.ones(300).new_empty(300).fill_(1.0)
            torch.empty_strided((300,), (1,)).fill_(1.0)
        probes.collect(1)
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines(path) if "full" not in line["op"]))
        return path

    assert parted_operation(dirty(1.5), dirty(2.5)) == ""


def test_values_of_every_kind_are_told_apart() -> None:
    tensors = [
        torch.zeros(2),
        -torch.zeros(2),
        torch.zeros(2, dtype=torch.float64),
        torch.zeros(1, 2),
        torch.zeros(2, dtype=torch.bfloat16),
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(0),
        torch.zeros((), dtype=torch.bool),
    ]
    with StepTrace() as trace:
        for tensor in tensors:
            torch.ops.aten.alias(tensor)
        torch.ones(2).to_sparse().mul(2)
        torch.ops.aten.cat([tensors[0], tensors[0]])
        torch.ops.aten.cat([tensors[0], tensors[1]])
        torch.ops.aten.add(tensors[0], 1)
        torch.ops.aten.add(tensors[0], 2)
        torch.ops.aten.add(tensors[0], 1, alpha=3)
    told = [(json.loads(line)["op"], json.loads(line)["inputs"]) for line in trace.lines]
    assert len(set(told)) == len(told) >= len(tensors) + 5
