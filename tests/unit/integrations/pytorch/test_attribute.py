from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.integrations.pytorch.small_runs import Run
from trimtab.actuation.enact import write_recipe
from trimtab.controls.catalogue import entropy_coefficient
from trimtab.controls.moves import Multiply, SetTo
from trimtab.controls.recipe import Recipe
from trimtab.errors import ActuationError, ControlError, OwnershipError
from trimtab.integrations.pytorch.binders import bind
from trimtab.integrations.pytorch.bindings.attribute import OwnControl, attribute, custom, handle
from trimtab.integrations.pytorch.training import Training

MOVES = SetTo((0.1, 0.2, 0.5, 0.9))


def training(*parts: object) -> Training:
    model = nn.Linear(2, 2)
    return Training(model, torch.optim.SGD(model.parameters(), lr=0.1), parts=parts)


def bound(own: OwnControl, run: Training | None = None) -> Any:
    live = training() if run is None else run
    return bind(own.control, Training(live.model, live.optimizer, parts=(*live.parts, own.handle)))


class Holder:
    """Holds numbers of every kind."""

    def __init__(self) -> None:
        self.number = 0.2
        self.whole = 4
        self.tensor = torch.tensor(0.2)
        self.parameter = nn.Parameter(torch.tensor([0.2]))
        self.numpy = np.float32(0.25)
        self.flag = True
        self.text = "auto"
        self.nothing = None
        self.many = torch.zeros(3)
        self.infinite = math.inf
        self.schedule: Callable[[float], float] = lambda _: 0.2
        self.inside = SimpleNamespace(table={"deep": 0.2})
        self._clamped = 0.2

    @property
    def clamped(self) -> float:
        return self._clamped

    @clamped.setter
    def clamped(self, value: float) -> None:
        self._clamped = min(value, 0.5)

    @property
    def ignored(self) -> float:
        return 0.2

    @ignored.setter
    def ignored(self, value: float) -> None:
        pass

    @property
    def fixed(self) -> float:
        return 0.2


@dataclass(frozen=True)
class Frozen:
    number: float = 0.2


class Pair(NamedTuple):
    number: float = 0.2


def test_a_float_attribute_is_read_written_and_read_back() -> None:
    holder, run = Holder(), training()
    binding = bound(attribute(holder, "number", 0.0, 1.0, moves=MOVES), run)
    assert (binding.name, binding.read(), binding.took_effect()) == ("number", 0.2, None)
    binding.write(0.5)
    assert holder.number == 0.5
    assert binding.took_effect() is None
    run.optimizer.step()
    held = binding.took_effect()
    assert (held.control, held.expected, held.observed, held.holds) == ("number", 0.5, 0.5, True)
    holder.number = 0.9
    run.optimizer.step()
    lost = binding.took_effect()
    assert (lost.expected, lost.observed, lost.holds) == (0.5, 0.9, False)


@pytest.mark.parametrize("path", ["inside.table.deep", "table.deep", "deep"])
def test_dots_go_deeper_through_objects_and_mappings(path: str) -> None:
    holder = Holder()
    target: Any = {3: holder, 2: holder.inside, 1: holder.inside.table}[len(path.split("."))]
    binding = bound(attribute(target, path, 0.0, 1.0, moves=MOVES))
    assert binding.name == "deep"
    binding.write(0.5)
    assert holder.inside.table == {"deep": 0.5}


def test_an_object_on_the_way_may_be_replaced() -> None:
    holder = Holder()
    binding = bound(attribute(holder, "inside.table.deep", 0.0, 1.0, moves=MOVES))
    holder.inside = SimpleNamespace(table={"deep": 0.9})
    assert binding.read() == 0.9
    binding.write(0.1)
    assert holder.inside.table == {"deep": 0.1}


@pytest.mark.parametrize("name", ["tensor", "parameter"])
def test_a_tensor_is_filled_in_place(name: str) -> None:
    holder = Holder()
    before = getattr(holder, name)
    binding = bound(attribute(holder, name, 0.0, 1.0, moves=MOVES))
    assert binding.read() == 0.2
    binding.write(0.1)
    assert getattr(holder, name) is before
    assert float(before.detach()) == pytest.approx(0.1)
    assert binding.read() == 0.1


def test_a_tensor_needs_no_setter() -> None:
    class Agent:
        held = torch.tensor(0.2)

        @property
        def rate(self) -> torch.Tensor:
            return self.held

    agent = Agent()
    bound(attribute(agent, "rate", 0.0, 1.0, moves=MOVES)).write(0.5)
    assert float(agent.held) == 0.5


def test_an_int_stays_an_int_and_a_number_of_numpy_of_its_type() -> None:
    holder = Holder()
    own = attribute(holder, "whole", 1, 10, moves=SetTo((2.0, 8.0, 2.5)))
    assert own.control.is_whole
    assert own.control.reachable(4.0, 4.0) == (2.0, 8.0)
    binding = bound(own)
    binding.write(8.0)
    assert holder.whole == 8
    assert type(holder.whole) is int
    with pytest.raises(ControlError, match="whole numbers only"):
        binding.write(2.5)
    assert holder.whole == 8
    bound(attribute(holder, "numpy", 0.0, 1.0, moves=MOVES)).write(0.5)
    assert type(holder.numpy) is np.float32


def test_the_catalogue_knows_whole_controls_and_fractions_written_short() -> None:
    agent = SimpleNamespace(n_epochs=4, ent_coef=0)
    epochs = attribute(agent, "n_epochs", 1, 10, name="num_epochs")
    assert (epochs.control.is_whole, epochs.control.unit) == (True, "epochs")
    bound(epochs).write(8.0)
    entropy = attribute(agent, "ent_coef", 0.0, 0.05, name="entropy_coefficient")
    assert not entropy.control.is_whole
    bound(entropy).write(0.01)
    assert vars(agent) == {"n_epochs": 8, "ent_coef": 0.01}
    assert type(agent.n_epochs) is int


def test_limits_come_from_the_catalogue_or_from_the_user() -> None:
    agent = SimpleNamespace(ent_coef=0.01)
    own = attribute(agent, "ent_coef", 0.0, 0.05, name="entropy_coefficient", dwell_steps=7)
    assert own.control == entropy_coefficient(0.0, 0.05, dwell_steps=7)
    with pytest.raises(ControlError, match="ent_coef has no moves"):
        attribute(agent, "ent_coef", 0.0, 0.05)
    with pytest.raises(ControlError, match="stand in the catalogue"):
        attribute(agent, "ent_coef", 0.01, 0.05, name="entropy_coefficient", scale="ratio")
    rate = attribute(agent, "ent_coef", 0.001, 0.05, moves=Multiply((0.5, 2.0)), scale="ratio", unit="factor")
    assert (rate.control.scale, rate.control.unit, rate.control.largest_change) == ("ratio", "factor", 4.0)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("flag", "a bool, True"),
        ("text", "a str, 'auto'"),
        ("nothing", "a NoneType"),
        ("many", r"a tensor of shape \(3,\)"),
        ("infinite", "not a number"),
        ("schedule", "a function, not a number.*use trimtab.custom"),
        ("fixed", "can only be read.*use trimtab.custom"),
        ("numbr", "did you mean 'number'"),
        ("inside.tabel", "did you mean 'table'"),
        ("inside.table.dep", "did you mean 'deep'"),
    ],
)
def test_what_cannot_be_a_control_is_refused_with_what_to_do(name: str, match: str) -> None:
    with pytest.raises(ControlError, match=match):
        attribute(Holder(), name, 0.0, 1.0, name="own", moves=MOVES)


@pytest.mark.parametrize("target", [Frozen(), Pair(), MappingProxyType({"number": 0.2})])
def test_what_cannot_be_set_is_refused(target: object) -> None:
    with pytest.raises(ControlError, match="cannot be set"):
        handle("own", target, "number")


def test_attributes_that_an_agent_reads_once_are_refused() -> None:
    sac = SimpleNamespace(ent_coef=0.1, ent_coef_tensor=torch.tensor(0.1), learning_rate=3e-4, lr_schedule=lambda _: 3e-4)
    with pytest.raises(ControlError, match=r"read once.*ent_coef_tensor"):
        attribute(sac, "ent_coef", 0.0, 1.0, name="entropy_coefficient")
    with pytest.raises(ControlError, match=r"read once.*use the control learning_rate"):
        handle("learning_rate", sac, "learning_rate")
    bound(attribute(sac, "ent_coef_tensor", 0.0, 1.0, name="entropy_coefficient")).write(0.2)
    assert float(sac.ent_coef_tensor) == pytest.approx(0.2)


def test_a_schedule_function_is_controlled_through_custom() -> None:
    agent = SimpleNamespace(clip_range=lambda _: 0.2)

    def put(value: float) -> None:
        agent.clip_range = lambda _: value

    binding = bound(custom("clip_range", lambda: agent.clip_range(1.0), put, 0.05, 0.3, owner=agent))
    assert (binding.name, binding.read()) == ("clip_range", 0.2)
    binding.write(0.1)
    assert agent.clip_range(0.5) == 0.1


@pytest.mark.parametrize(("name", "value", "found"), [("clamped", 0.9, 0.5), ("ignored", 0.9, 0.2)])
def test_a_setter_that_does_not_keep_the_value_fails_and_the_recipe_is_put_back(name: str, value: float, found: float) -> None:
    holder = Holder()
    binding = bound(attribute(holder, name, 0.0, 1.0, moves=MOVES))
    with pytest.raises(ActuationError, match=f"did not keep what was written; received {found} after writing 0.9"):
        write_recipe(Recipe.of({name: value}), {name: binding})
    assert getattr(holder, name) == 0.2
    assert binding.read() == 0.2


def test_a_getter_that_fails_in_a_step_does_not_end_the_training() -> None:
    values: list[Any] = [0.2, 0.2]
    run = training()
    binding = bound(custom("own", values.pop, lambda value: None, 0.0, 1.0, moves=MOVES), run)
    assert values == []
    run.optimizer.step()
    read_back = binding.took_effect()
    assert math.isnan(read_back.observed)
    assert not read_back.holds


def test_a_value_has_one_owner_under_whatever_name() -> None:
    for holder in (SimpleNamespace(number=0.2), {"number": 0.2}):
        first = bound(attribute(holder, "number", 0.0, 1.0, name="one", moves=MOVES))
        with pytest.raises(OwnershipError, match="other; held by one"):
            bound(attribute(holder, "number", 0.0, 1.0, name="other", moves=MOVES))
        first.close()
        bound(attribute(holder, "number", 0.0, 1.0, name="other", moves=MOVES)).close()


def test_a_handle_on_a_dropout_module_and_the_dropout_control_exclude_each_other() -> None:
    model = nn.Sequential(nn.Dropout(0.1))
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    own = attribute(model[0], "p", 0.0, 0.5, name="dropout")
    bound(own, Training(model, optimizer))
    with pytest.raises(OwnershipError):
        bind(own.control, Training(model, optimizer))


def test_a_custom_control_is_owned_through_its_owner_or_its_setter() -> None:
    class Agent:
        tau = 0.01

        def set_tau(self, value: float) -> None:
            self.tau = value

    agent = Agent()

    def declared(**more: Any) -> OwnControl:
        return custom("tau", lambda: agent.tau, agent.set_tau, 0.001, 0.1, moves=Multiply((0.5, 2.0)), **more)

    assert declared().handle.owner is agent
    bound(declared()).write(0.02)
    assert agent.tau == 0.02
    with pytest.raises(OwnershipError):
        bound(declared(owner=agent))
    with pytest.raises(ControlError, match="set of tau is not a function"):
        custom("tau", lambda: 0.1, 0.2, 0.0, 1.0, moves=MOVES)  # type: ignore[arg-type] - a wrong value, on purpose


def test_negative_values_are_within_reach() -> None:
    agent = SimpleNamespace(target_entropy=-6.0)
    binding = bound(attribute(agent, "target_entropy", -12.0, -1.0))
    binding.write(-3.0)
    assert agent.target_entropy == -3.0
    for bad in (math.nan, math.inf, True):
        with pytest.raises(ControlError):
            binding.write(bad)


def test_a_handle_among_the_parts_goes_before_the_catalogue_and_only_once() -> None:
    agent = SimpleNamespace(ent_coef=0.01)
    control = entropy_coefficient(0.0, 0.1)
    with pytest.raises(ControlError, match=r'trimtab.handle\("entropy_coefficient"'):
        bind(control, training())
    one = handle("entropy_coefficient", agent, "ent_coef")
    with pytest.raises(ControlError, match="more than one handle"):
        bind(control, training(one, handle("entropy_coefficient", agent, "ent_coef")))
    binding = bind(control, training(handle("clip_range", agent, "ent_coef"), one))
    binding.write(0.05)
    assert agent.ent_coef == 0.05


def test_a_binding_that_changes_nothing_leaves_the_run_bit_identical() -> None:
    plain = Run()
    expected = [plain.step() for _ in range(6)]
    managed = Run()
    for own in (
        attribute(managed.model.drop, "p", 0.0, 0.5, name="own", moves=MOVES),
        attribute(managed.optimizer.param_groups[0], "eps", 0.0, 1.0, moves=MOVES),
    ):
        binding = bind(own.control, Training(managed.model, managed.optimizer, parts=(own.handle,)))
        binding.write(binding.read())
    assert [managed.step() for _ in range(6)] == expected


def test_a_handle_with_its_arguments_swapped_is_refused_with_the_right_order() -> None:
    wrong: Any = (({"ent": 0.1}, "entropy_coefficient", "ent"), ("entropy_coefficient", "ent", {"ent": 0.1}))
    for arguments in wrong:
        with pytest.raises(ControlError, match=r"out of order; received handle\(.*dict.*\); allowed: handle\("):
            handle(*arguments)
