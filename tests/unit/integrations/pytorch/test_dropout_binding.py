from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.unit.integrations.pytorch.small_runs import Run
from trimtab.controls.catalogue import dropout
from trimtab.errors import ControlError, OwnershipError
from trimtab.integrations.pytorch.binders import bind
from trimtab.integrations.pytorch.bindings.dropout import DropoutBinding
from trimtab.integrations.pytorch.training import Training


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
    with pytest.raises(ControlError, match="0 <= number < 1"):
        DropoutBinding(nn.Dropout(1.0), stepper())
    model = Mixed()
    first = DropoutBinding(model, stepper())
    with pytest.raises(OwnershipError):
        DropoutBinding(model, stepper())
    first.close()
    DropoutBinding(model, stepper())


class Functional(nn.Module):
    """Keeps probabilities as plain numbers: read in forward, through a method, for repr only, not as a probability."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = 0.2
        self.attention_dropout = 0.1
        self.hidden_dropout = 0.9
        self.keep_dropout = 0.8
        self.temperature = 0.5
        self.dropout_scale = 3.0

    def forward(self, x: Tensor) -> Tensor:
        scaled = x * self.temperature * self.dropout_scale * self.keep_dropout
        return self.attend(F.dropout(scaled, self.dropout, self.training))

    def attend(self, x: Tensor) -> Tensor:
        def inner() -> Tensor:
            return F.scaled_dot_product_attention(x, x, x, dropout_p=self.attention_dropout)

        return inner()

    def extra_repr(self) -> str:
        return f"hidden_dropout={self.hidden_dropout}"


class Encoders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))
        self.decoder = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3))
        self.alias = self.decoder[1]

    def values(self) -> list[Any]:
        return [half[1].p for half in (self.encoder, self.decoder)]


def test_a_plain_number_counts_where_forward_reads_it_as_a_probability() -> None:
    model = Functional()
    binding = DropoutBinding(model, stepper())
    assert binding.read() == 0.2  # not the 0.9 that only repr reads
    binding.write(0.4)
    values = [model.dropout, model.attention_dropout, model.hidden_dropout, model.keep_dropout, model.dropout_scale]
    assert values == [0.4, 0.2, 0.9, 0.8, 3.0]
    assert binding.detail == "dropout, attention_dropout"


def test_a_written_plain_number_acts() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = 0

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, self.dropout, self.training)

    model = Plain()
    binding = DropoutBinding(model, stepper())
    binding.write(0.0)
    assert type(model.dropout) is int  # what already is the value is not written
    binding.write(0.75)
    torch.manual_seed(0)
    assert float((model(torch.ones(10_000)) == 0).float().mean()) == pytest.approx(0.75, abs=0.02)


def test_a_pattern_selects_modules_by_name_also_inside_wrappers() -> None:
    for wrap in (lambda model: model, lambda model: nn.ModuleDict({"module": model})):
        model = Encoders()
        binding = DropoutBinding(wrap(model), stepper(), "dropout/encoder", "encoder.*")
        assert (binding.name, binding.read()) == ("dropout/encoder", 0.1)
        binding.write(0.5)
        assert model.values() == [0.5, 0.3]
    model = Encoders()
    DropoutBinding(torch.compile(model, backend="eager"), stepper(), "dropout/encoder", "encoder.*").write(0.5)  # type: ignore[arg-type] - compiled, it is a function to the types
    assert model.values() == [0.5, 0.3]


def test_a_shared_module_is_found_under_each_of_its_names_and_once() -> None:
    model = Encoders()
    binding = DropoutBinding(model, stepper(), "dropout/alias", "alias")
    assert (binding.detail, binding.read()) == ("alias.p", 0.3)
    binding.close()
    assert DropoutBinding(model, stepper()).detail == "encoder.1.p, decoder.1.p"


def test_two_controls_share_a_model_but_no_module() -> None:
    model = Encoders()
    run = Training(model, stepper())
    encoder = bind(dropout(0.0, 0.5, name="encoder", modules="encoder.*"), run)
    bind(dropout(0.0, 0.5, name="decoder", modules="decoder.*"), run).write(0.2)
    assert model.values() == [0.1, 0.2]
    with pytest.raises(OwnershipError, match="held by dropout/encoder"):
        bind(dropout(0.0, 0.5), run)
    with pytest.raises(OwnershipError, match="dropout/all; held by dropout/decoder"):
        bind(dropout(0.0, 0.5, name="all", modules="0.*"), Training(nn.ModuleList([model.decoder]), stepper()))
    encoder.close()
    bind(dropout(0.0, 0.5, name="again", modules="encoder.*"), run)


def test_a_claim_that_fails_half_way_leaves_nothing_claimed() -> None:
    model = Encoders()
    second = DropoutBinding(model, stepper(), "dropout/decoder", "decoder.*")
    with pytest.raises(OwnershipError):
        DropoutBinding(model, stepper())
    DropoutBinding(model, stepper(), "dropout/encoder", "encoder.*")
    second.close()


def test_a_pattern_that_matches_nothing_lists_what_there_is() -> None:
    with pytest.raises(ControlError, match=r"decoder\.1, encoder\.1"):
        DropoutBinding(Encoders(), stepper(), "dropout/encoder", "encodr.*")


def test_plain_numbers_bound_but_unchanged_leave_a_run_bit_identical() -> None:
    outputs: list[Tensor] = []
    for is_bound in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), Functional())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if is_bound:
            binding = DropoutBinding(model, optimizer)
            binding.write(binding.read())
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.ones(2, 3, 4)).square().sum().backward()
            optimizer.step()
        outputs.append(torch.cat([one.detach().reshape(-1) for one in model.parameters()]))
    assert torch.equal(*outputs)
