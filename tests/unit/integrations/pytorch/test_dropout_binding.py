from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.unit.integrations.pytorch.small_runs import Run
from trimtab.errors import ControlError, OwnershipError
from trimtab.integrations.pytorch.dropout import DropoutBinding


def stepper() -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Dropout(0.4)
        self.maps = nn.Dropout2d(0.1)
        self.off = nn.Dropout(0.0)
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.2)
        self.recurrent = nn.LSTM(4, 4, num_layers=2, dropout=0.2)
        self.single = nn.GRU(4, 4, num_layers=1)

    def values(self) -> list[float]:
        return [self.plain.p, self.maps.p, self.off.p, self.attention.dropout, self.recurrent.dropout, self.single.dropout]


def test_every_place_is_reached_and_keeps_its_ratio() -> None:
    model = Mixed()
    binding = DropoutBinding(model, stepper())
    assert binding.read() == 0.4
    binding.write(0.2)
    assert model.values() == pytest.approx([0.2, 0.05, 0.0, 0.1, 0.1, 0.0])
    assert binding.read() == 0.2
    binding.write(0.0)
    assert model.values() == [0.0] * 6
    binding.write(0.4)
    assert model.values() == [0.4, 0.1, 0.0, 0.2, 0.2, 0.0]


def test_all_places_are_set_if_all_are_off() -> None:
    model = nn.Sequential(nn.Dropout(0.0), nn.Dropout(0.0))
    DropoutBinding(model, stepper()).write(0.3)
    assert [module.p for module in model if isinstance(module, nn.Dropout)] == [0.3, 0.3]


def test_the_written_probability_acts() -> None:
    model = nn.Sequential(nn.Dropout(0.1))
    DropoutBinding(model, stepper()).write(0.9)
    torch.manual_seed(0)
    share = float((model(torch.ones(10_000)) == 0).float().mean())
    assert share == pytest.approx(0.9, abs=0.02)


def test_the_read_back_sees_what_the_step_used() -> None:
    run = Run()
    binding = DropoutBinding(run.model, run.optimizer)
    binding.write(0.4)
    assert binding.took_effect() is None
    run.step()
    held = binding.took_effect()
    assert held is not None
    assert (held.expected, held.observed, held.holds) == (0.4, 0.4, True)
    run.model.drop.p = 0.7
    run.step()
    lost = binding.took_effect()
    assert lost is not None
    assert (lost.observed, lost.holds) == (0.7, False)


def test_a_binding_that_changes_nothing_leaves_the_run_bit_identical() -> None:
    plain = Run()
    expected = [plain.step() for _ in range(10)]
    managed = Run()
    binding = DropoutBinding(managed.model, managed.optimizer)
    binding.write(binding.read())
    assert [managed.step() for _ in range(10)] == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.0, math.nextafter(1, 2), True])
def test_a_value_that_is_no_probability_is_refused(value: float) -> None:
    model = Mixed()
    with pytest.raises(ControlError):
        DropoutBinding(model, stepper()).write(value)
    assert model.values()[0] == 0.4


def test_models_without_reachable_dropout_or_with_another_owner_are_refused() -> None:
    with pytest.raises(ControlError, match="functional dropout cannot be reached"):
        DropoutBinding(nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 2, num_layers=1)), stepper())
    with pytest.raises(ControlError, match="0 <= probability < 1"):
        DropoutBinding(nn.Dropout(1.0), stepper())
    model = Mixed()
    first = DropoutBinding(model, stepper())
    with pytest.raises(OwnershipError):
        DropoutBinding(model, stepper())
    first.close()
    DropoutBinding(model, stepper())
