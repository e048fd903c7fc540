"""The reader: numbers at once on the CPU, some steps later from an accelerator, never out of order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trimtab.integrations.pytorch import scalars
from trimtab.integrations.pytorch.scalars import TorchReader
from trimtab.runtime.reading import Reading


class Away(torch.Tensor):
    """A tensor that says it lives on an accelerator."""

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride] - what a tensor on another device says
        return torch.device("cuda", 0)

    def __float__(self) -> float:
        raise AssertionError("a value on the device was waited for")

    def item(self) -> float:
        raise AssertionError("a value on the device was waited for")


def away(value: float) -> torch.Tensor:
    return torch.tensor(value).as_subclass(Away)


@dataclass
class FakeEvent:
    """A copy that is complete when the test says so."""

    is_complete: bool = False
    waited: bool = False

    def record(self) -> None:
        pass

    def query(self) -> bool:
        return self.is_complete

    def synchronize(self) -> None:
        self.is_complete = self.waited = True


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[FakeEvent]:
    made: list[FakeEvent] = []

    def make() -> FakeEvent:
        made.append(FakeEvent())
        return made[-1]

    plain = torch.Tensor.to

    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        # What moves to the device stays where it is, what comes from it is plain again.
        if args and args[0] == "cpu":
            return self.as_subclass(torch.Tensor)
        return plain(self.as_subclass(torch.Tensor), *args[1:]).as_subclass(Away)

    monkeypatch.setattr(Away, "to", to, raising=False)
    monkeypatch.setattr(scalars.torch, "get_device_module", lambda device: SimpleNamespace(Event=make))
    return made


class Fused(torch.optim.SGD):
    """Runs its hooks and leaves the infinities that the scaler found to its kernel, as fused optimizers do."""

    def step(self, closure: Any = None) -> None:
        pass


class Loop:
    def __init__(self) -> None:
        self.parameter = torch.nn.Parameter(torch.zeros(1))
        self.optimizer = Fused([self.parameter], lr=0.1)
        self.reader = TorchReader(self.optimizer)
        self.step = 0

    def take(self, *, skipped: bool = False, **signals: object) -> list[Reading]:
        self.step += 1
        if not skipped:
            self.optimizer.step()
        return self.reader.take(self.step, signals)


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.reader.close()


def test_values_on_the_cpu_are_read_at_once(loop: Loop) -> None:
    loss = torch.tensor([[2.5]], requires_grad=True) * 1
    assert loop.take(loss=loss, rate=1, flag=True, half=torch.tensor(0.5, dtype=torch.bfloat16)) == [
        Reading(1, {"loss": 2.5, "rate": 1.0, "flag": 1.0, "half": 0.5})
    ]


def test_a_value_that_is_no_number_is_left_out_and_the_others_kept(loop: Loop) -> None:
    (reading,) = loop.take(loss=1.0, text="high", matrix=torch.zeros(2))
    assert reading.values == {"loss": 1.0}
    assert reading.refused is not None
    assert reading.refused.startswith("the signal 'text' is not a number; received str: 'high'")
    taken = loop.reader.take_now(5, {"val/loss": torch.tensor(2.0), "matrix": torch.zeros(2, 2), 3: 1.0})  # type: ignore[dict-item] - a wrong value, on purpose
    assert (taken.step, taken.values) == (5, {"val/loss": 2.0})
    assert "a tensor of shape [2, 2]" in str(taken.refused)


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(2.0, dtype=torch.float64),
        torch.tensor([2.0]),
        torch.tensor(2),
        torch.tensor(2.0, requires_grad=True),
        torch.nn.Parameter(torch.tensor(2.0)),
        2,
        Fraction(2),
    ],
)
def test_every_kind_of_number_is_read_as_the_same_float(value: object, loop: Loop) -> None:
    (reading,) = loop.take(loss=value)
    assert reading == Reading(1, {"loss": 2.0})
    assert type(reading.values["loss"]) is float


@pytest.mark.parametrize("value", [torch.tensor(1j), torch.zeros(0), torch.zeros((), device="meta"), None, "1.0"])
def test_what_is_no_number_is_refused_on_every_way(value: object, loop: Loop) -> None:
    for reading in (
        *loop.take(loss=value),
        loop.reader.take_apart(1, {"loss": value}),
        loop.reader.take_now(1, {"loss": value}),
    ):
        assert reading.values == {}
        assert str(reading.refused).startswith("the signal 'loss'")


def test_values_that_come_apart_are_at_hand_at_once_and_skip_no_step(loop: Loop) -> None:
    loop.take(loss=1.0)
    assert loop.reader.take_apart(1, {"success_rate": 0.5, "text": "x"}) == Reading(
        1, {"success_rate": 0.5}, loop.reader.take_now(1, {"text": "x"}).refused, is_apart=True
    )
    (reading,) = loop.take(loss=math.nan)
    assert "loss" in reading.values, "the step ran: nothing excuses its loss"


def test_values_that_come_apart_on_a_device_come_with_a_later_step(loop: Loop, events: list[FakeEvent]) -> None:
    assert loop.reader.take_apart(3, {"kl": away(0.25), "reward": 1.0}) == Reading(3, {"reward": 1.0}, is_apart=True)
    assert loop.take(loss=away(1.0)) == []
    for event in events:
        event.is_complete = True
    loop.step = 9
    assert loop.take(loss=2.0) == [
        Reading(3, {"kl": 0.25}, is_apart=True),
        Reading(1, {"loss": 1.0}),
        Reading(10, {"loss": 2.0}),
    ]


def test_values_on_a_device_come_when_the_copy_is_complete_and_in_order(loop: Loop, events: list[FakeEvent]) -> None:
    assert loop.take(loss=away(1.0), rate=0.5) == []
    assert loop.take(loss=away(2.0), grad_norm=away(3.0)) == []
    assert loop.take(loss=4.0) == [], "a value that is at hand waits for those before it"
    events[1].is_complete = True
    assert loop.take(loss=away(5.0)) == [], "the second copy is complete, the first is not"
    events[0].is_complete = True
    assert loop.take(loss=away(6.0)) == [
        Reading(1, {"rate": 0.5, "loss": 1.0}),
        Reading(2, {"loss": 2.0, "grad_norm": 3.0}),
        Reading(3, {"loss": 4.0}),
    ]
    events[2].is_complete = events[3].is_complete = True
    assert [reading.step for reading in loop.take(loss=7.0)] == [4, 5, 6]
    assert loop.take(loss=8.0) == [Reading(7, {"loss": 8.0})]


def test_one_copy_a_step_whatever_the_number_of_values(loop: Loop, events: list[FakeEvent]) -> None:
    signals: dict[str, Any] = {f"signal_{index}": away(float(index)) for index in range(20)}
    loop.take(**signals)
    assert len(events) == 1


def test_what_is_under_way_is_forgotten_on_a_rollback(loop: Loop, events: list[FakeEvent]) -> None:
    loop.take(loss=away(1.0))
    loop.reader.discard()
    events[0].is_complete = True
    assert loop.take(loss=2.0) == [Reading(2, {"loss": 2.0})]


def test_a_device_far_behind_is_waited_for_so_that_memory_is_bounded(loop: Loop, events: list[FakeEvent]) -> None:
    for _ in range(256):
        assert loop.take(loss=away(1.0)) == []
    assert not any(event.waited for event in events)
    assert [reading.step for reading in loop.take(loss=away(1.0))] == [1]
    assert [event.waited for event in events[:2]] == [True, False]


def test_a_refused_value_beside_one_on_a_device_is_told_with_its_reading(loop: Loop, events: list[FakeEvent]) -> None:
    loop.take(loss=away(1.0), text="high")
    events[0].is_complete = True
    first, second = loop.take(loss=2.0)
    assert "'text' is not a number" in str(first.refused)
    assert second.refused is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_skipped_step_is_excused(value: float, loop: Loop) -> None:
    assert loop.take(loss=1.0) == [Reading(1, {"loss": 1.0})]
    signals: dict[str, Any] = {"grad_norm": value, "grad_norm/head": value, "other": 2.0}
    assert loop.take(skipped=True, loss=value, **signals) == [Reading(2, {"other": 2.0})]
    (reading,) = loop.take(loss=value)
    assert not math.isfinite(reading.values["loss"]), "the step was executed"


def test_only_so_many_skipped_steps_in_a_row_are_excused(loop: Loop) -> None:
    taken = [loop.take(skipped=True, loss=math.nan)[0] for _ in range(22)]
    assert [index + 1 for index, reading in enumerate(taken) if "loss" in reading.values] == [21, 22]
    loop.take(loss=1.0)
    assert loop.take(skipped=True, loss=math.nan)[0].values == {}, "an executed step starts the count over"


def test_found_inf_on_the_cpu_excuses_a_step_that_ran(loop: Loop) -> None:
    loop.optimizer.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined] - as a gradient scaler leaves it
    assert loop.take(loss=math.inf)[0].values == {}
    loop.optimizer.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined] - as a gradient scaler leaves it
    assert loop.take(loss=math.inf)[0].values == {"loss": math.inf}


def test_found_inf_on_a_device_comes_with_the_values(loop: Loop, events: list[FakeEvent]) -> None:
    loop.optimizer.found_inf = away(1.0)  # type: ignore[attr-defined] - as a gradient scaler leaves it
    loop.take(loss=away(math.inf), other=away(2.0))
    loop.optimizer.found_inf = away(0.0)  # type: ignore[attr-defined] - as a gradient scaler leaves it
    loop.take(loss=away(math.inf))
    for event in events:
        event.is_complete = True
    del loop.optimizer.found_inf  # type: ignore[attr-defined] - as a gradient scaler leaves it
    assert [reading.values for reading in loop.take(loss=1.0)] == [{"other": 2.0}, {"loss": math.inf}, {"loss": 1.0}]


def test_closing_removes_the_hook() -> None:
    loop = Loop()
    before = len(loop.optimizer._optimizer_step_post_hooks)
    loop.reader.close()
    assert len(loop.optimizer._optimizer_step_post_hooks) == before - 1
