"""Each probe measures what it says, read off by hand from the same run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from trimtab.controls.bounds import Bounds
from trimtab.errors import UsageError
from trimtab.integrations.pytorch.bindings.learning_rate import LearningRateBinding
from trimtab.integrations.pytorch.probes.dead_units import DeadUnitsProbe
from trimtab.integrations.pytorch.probes.grad_norm import GradNormProbe
from trimtab.integrations.pytorch.probes.learning_rate import LearningRateProbe
from trimtab.integrations.pytorch.probes.loss import LossProbe
from trimtab.integrations.pytorch.probes.memory import MemoryProbe
from trimtab.integrations.pytorch.probes.probe_set import ProbeSet, open_probes
from trimtab.integrations.pytorch.probes.throughput import ThroughputProbe
from trimtab.integrations.pytorch.probes.update_ratio import UpdateRatioProbe
from trimtab.integrations.pytorch.probes.weight_norm import WeightNormProbe
from trimtab.integrations.pytorch.training import Training


class Loop:
    """A training loop whose parts the tests can get at."""

    def __init__(self, dtype: torch.dtype = torch.float32, **optimizer: Any) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(1)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
        self.criterion = nn.MSELoss()
        self.first_bias = self.model[0].get_parameter("bias")
        first, second = self.model[0].parameters(), self.model[2].parameters()
        groups = [{"params": list(first), "name": "stem", "lr": 0.02}, {"params": list(second), "name": "head", "lr": 0.1}]
        self.optimizer = optimizer.pop("kind", torch.optim.SGD)(groups, **optimizer)
        self.training = Training(self.model, self.optimizer, parts=(self.criterion,))
        self.inputs = torch.randn(16, 4, dtype=dtype)
        self.losses: list[float] = []
        self.step_count = 0
        self.probes: ProbeSet | None = None

    def watch(self, *names: Any) -> None:
        self.probes = open_probes(names, self.training)

    def backward(self, inputs: torch.Tensor | None = None) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(self.inputs if inputs is None else inputs), torch.ones(16, 3, dtype=self.inputs.dtype))
        loss.backward()
        self.losses.append(float(loss.detach()))
        return loss

    def collect(self) -> dict[str, float]:
        assert self.probes is not None
        self.step_count += 1
        measured = self.probes.collect(self.step_count)
        assert self.probes.faults() == []
        return {name: float(value) for name, value in measured.items()}  # type: ignore[arg-type] - a tensor of one element

    def step(self) -> dict[str, float]:
        self.backward()
        self.optimizer.step()
        return self.collect()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    if made.probes is not None:
        made.probes.close()


def norm(tensors: Any) -> float:
    return math.sqrt(sum(float((tensor.double() ** 2).sum()) for tensor in tensors))


class TestGradNorm:
    def test_the_whole_and_each_named_group(self, loop: Loop) -> None:
        loop.watch("grad_norm")
        measured = loop.step()
        assert measured == {
            "grad_norm": pytest.approx(norm(weight.grad for weight in loop.model.parameters())),
            "grad_norm/stem": pytest.approx(norm(weight.grad for weight in loop.model[0].parameters())),
            "grad_norm/head": pytest.approx(norm(weight.grad for weight in loop.model[2].parameters())),
        }

    def test_it_is_measured_after_the_loops_clipping(self, loop: Loop) -> None:
        loop.watch("grad_norm")
        loop.backward()
        nn.utils.clip_grad_norm_(loop.model.parameters(), 0.01)
        loop.optimizer.step()
        assert loop.collect()["grad_norm"] == pytest.approx(0.01, rel=1e-3)

    def test_groups_of_one_name_count_together_and_a_strange_name_only_in_the_whole(self, loop: Loop) -> None:
        loop.optimizer.param_groups[0]["name"] = loop.optimizer.param_groups[1]["name"] = "all"
        loop.watch("grad_norm")
        measured = loop.step()
        assert measured["grad_norm/all"] == pytest.approx(measured["grad_norm"])
        strange = Loop()
        strange.optimizer.param_groups[0]["name"] = "no decay!"
        del strange.optimizer.param_groups[1]["name"]
        strange.watch("grad_norm")
        assert set(strange.step()) == {"grad_norm"}

    def test_a_step_without_gradients_measures_nothing(self, loop: Loop) -> None:
        loop.watch("grad_norm")
        loop.optimizer.step()
        assert loop.collect() == {}

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_any_precision(self, dtype: torch.dtype) -> None:
        loop = Loop(dtype)
        loop.watch("grad_norm")
        assert loop.step()["grad_norm"] == pytest.approx(norm(weight.grad for weight in loop.model.parameters()), rel=1e-2)

    def test_half_precision_does_not_overflow(self) -> None:
        weight = nn.Parameter(torch.zeros(100, dtype=torch.float16))
        optimizer = torch.optim.SGD([weight], lr=0.0)
        weight.grad = torch.full_like(weight, 3e4)
        probes = open_probes(["grad_norm"], Training(nn.Linear(1, 1), optimizer))
        optimizer.step()
        assert float(probes.collect(1)["grad_norm"]) == pytest.approx(3e5, rel=1e-3)  # type: ignore[arg-type] - a tensor of one element

    def test_sparse_gradients(self) -> None:
        embedding = nn.Embedding(10, 2, sparse=True)
        optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
        probes = open_probes(["grad_norm"], Training(embedding, optimizer))
        embedding(torch.tensor([1, 1, 3])).sum().backward()
        optimizer.step()
        assert float(probes.collect(1)["grad_norm"]) == pytest.approx(math.sqrt(2 * 4 + 2))  # type: ignore[arg-type] - a tensor of one element

    @pytest.mark.parametrize("unscales", [False, True])
    def test_a_fused_step_that_unscales_inside_is_scaled_back(self, unscales: bool, loop: Loop) -> None:
        loop.watch("grad_norm")
        expected = loop.step()
        fused, scaler = Loop(fused=True), torch.amp.GradScaler("cpu", init_scale=1024.0)
        fused.watch("grad_norm")
        scaler.scale(fused.criterion(fused.model(fused.inputs), torch.ones(16, 3))).backward()
        if unscales:
            scaler.unscale_(fused.optimizer)
        scaler.step(fused.optimizer)
        assert fused.collect() == pytest.approx(expected)

    @pytest.mark.parametrize("skips", [False, True])
    def test_under_a_real_scaler_the_gradients_are_unscaled_and_a_skipped_step_has_none(self, skips: bool, loop: Loop) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        loop.watch("grad_norm", "loss")
        loss = loop.criterion(loop.model(loop.inputs), torch.ones(16, 3))
        (scaler.scale(loss) * (math.inf if skips else 1.0)).backward()
        scaler.step(loop.optimizer)
        measured = loop.collect()
        assert measured["loss"] == pytest.approx(float(loss.detach()))
        if skips:
            assert "grad_norm" not in measured
        else:
            assert measured["grad_norm"] == pytest.approx(norm(weight.grad for weight in loop.model.parameters()))

    def test_a_step_with_a_closure_is_measured_when_the_closure_has_run(self, loop: Loop) -> None:
        loop.watch("grad_norm")

        def closure() -> float:
            return float(loop.backward().detach())

        for call in (lambda: loop.optimizer.step(closure), lambda: loop.optimizer.step(closure=closure)):
            call()
            expected = norm(weight.grad for weight in loop.model.parameters())
            assert loop.collect()["grad_norm"] == pytest.approx(expected)


class TestWeights:
    @pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
    def test_the_update_ratio_is_that_of_the_step_and_only_of_every_tenth(self, kind: Any) -> None:
        loop = Loop(kind=kind, weight_decay=0.1)
        loop.watch("update_ratio")
        for step in range(25):
            before = [weight.detach().clone() for weight in loop.model.parameters()]
            measured = loop.step()
            if step % 10:
                assert measured == {}
            else:
                moved = norm(new.detach() - old for new, old in zip(loop.model.parameters(), before, strict=True))
                assert measured == {
                    "update_ratio": pytest.approx(moved / norm(w.detach() for w in loop.model.parameters()), rel=1e-4)
                }

    def test_no_copy_is_kept_between_steps(self, loop: Loop) -> None:
        probe = UpdateRatioProbe(every_steps=1)
        loop.watch(probe)
        loop.step()
        assert probe._before == []

    def test_weights_of_zero_have_a_finite_ratio(self, loop: Loop) -> None:
        loop.watch("update_ratio")
        with torch.no_grad():
            for weight in loop.model.parameters():
                weight.zero_()
        loop.optimizer.step()
        assert loop.collect() == {"update_ratio": 0.0}

    def test_the_weight_norm_is_taken_after_the_step(self, loop: Loop) -> None:
        loop.watch(WeightNormProbe(every_steps=2))
        expected = {"weight_norm": pytest.approx(norm(w.detach() for w in loop.model.parameters()))}
        measured = [loop.step() for _ in range(2)]
        assert measured[0] != expected
        assert measured[1] == {}
        assert loop.step() == {"weight_norm": pytest.approx(norm(w.detach() for w in loop.model.parameters()))}


class TestLearningRate:
    def test_it_is_the_largest_with_the_controls_factor(self, loop: Loop) -> None:
        binding = LearningRateBinding(loop.optimizer, Bounds(1e-6, 1.0))
        loop.watch("learning_rate")
        assert loop.step() == {"learning_rate": 0.1}
        binding.write(0.05)
        assert loop.step() == {"learning_rate": pytest.approx(0.05)}
        assert loop.optimizer.param_groups[1]["lr"] == 0.1
        binding.close()

    def test_rates_that_are_tensors(self, loop: Loop) -> None:
        loop.optimizer.param_groups[0]["lr"] = torch.tensor(0.5)
        binding = LearningRateBinding(loop.optimizer, Bounds(1e-6, 1.0))
        loop.watch("learning_rate")
        binding.write(0.25)
        assert loop.step() == {"learning_rate": pytest.approx(0.25)}
        binding.close()


class TestLoss:
    def test_it_is_the_loss_of_the_step(self, loop: Loop) -> None:
        loop.watch("loss")
        assert [loop.step()["loss"] for _ in range(3)] == loop.losses

    def test_with_accumulation_it_is_the_mean_of_the_parts(self, loop: Loop) -> None:
        loop.watch("loss")
        loop.backward()
        loop.backward(loop.inputs * 2)
        loop.optimizer.step()
        assert loop.collect() == {"loss": pytest.approx(sum(loop.losses) / 2)}

    def test_evaluations_do_not_count(self, loop: Loop) -> None:
        loop.watch("loss")
        first = loop.step()["loss"]
        with torch.no_grad():
            loop.criterion(loop.model(loop.inputs * 9), torch.ones(16, 3))
        loop.model.eval()
        loop.criterion(loop.model(loop.inputs * 9), torch.ones(16, 3))
        loop.model.train()
        assert loop.step()["loss"] == loop.losses[1] < first

    def test_a_loss_of_ones_own_is_found_among_the_parts(self, loop: Loop) -> None:
        class Own(nn.Module):
            def forward(self, value: torch.Tensor) -> torch.Tensor:
                return value**2

        own = Own()
        probes = open_probes(["loss"], Training(loop.model, loop.optimizer, parts=(own,)))
        own(torch.tensor([1.0, 3.0], requires_grad=True))
        assert float(probes.collect(1)["loss"]) == 5.0  # type: ignore[arg-type] - a tensor of one element

    @pytest.mark.parametrize("parts", [(), (nn.MSELoss(), nn.L1Loss())])
    def test_without_the_one_module_it_says_what_to_do(self, parts: tuple[Any, ...], loop: Loop) -> None:
        with pytest.raises(UsageError, match=r"parts=\[criterion\]"):
            open_probes(["loss"], Training(loop.model, loop.optimizer, parts=parts))


class TestThroughputAndMemory:
    def test_a_pause_does_not_count(self, loop: Loop) -> None:
        times = iter([0.0, 0.1, 0.2, 60.0, 60.1, 60.2, 60.3])
        loop.watch(ThroughputProbe(every_steps=5, items_per_step=32, clock=lambda: next(times)))
        measured = [loop.collect() for _ in range(7)]
        assert measured[:5] == [{}] * 5
        assert measured[5] == {"throughput": pytest.approx(320.0)}
        assert measured[6] == {}

    def test_the_processs_memory_grows_with_what_is_held(self, loop: Loop) -> None:
        loop.watch(MemoryProbe(every_steps=2))
        before = loop.collect()["memory"]
        held = torch.ones(64 * 2**20 // 4)
        assert loop.collect() == {}
        grown = loop.collect()["memory"] - before
        assert 50 < grown < 200, "64 MiB are held"
        assert held.numel()

    def test_on_a_cuda_device_it_is_what_torch_has_allocated_there(self, monkeypatch: pytest.MonkeyPatch, loop: Loop) -> None:
        probe = MemoryProbe()
        loop.watch(probe)
        probe._device = torch.device("cuda", 1)
        asked: list[object] = []
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: asked.append(device) or 3 * 2**20)
        assert loop.collect() == {"memory": 3.0}
        assert asked == [torch.device("cuda", 1)]


class TestDeadUnits:
    def rounds(self, loop: Loop, probe: DeadUnitsProbe, steps: int = 5) -> list[float]:
        loop.watch(probe)
        return [measured["dead_units"] for _ in range(steps) if (measured := loop.step())]

    def test_units_that_never_answer_are_counted(self, loop: Loop) -> None:
        with torch.no_grad():
            loop.first_bias[:2] = -1e3
            loop.first_bias[2:] = 1e3
        assert self.rounds(loop, DeadUnitsProbe()) == [2 / 8]

    def test_a_unit_that_answers_in_one_batch_is_alive(self, loop: Loop) -> None:
        probe = DeadUnitsProbe(num_batches=2)
        loop.watch(probe)
        with torch.no_grad():
            loop.first_bias[:] = -1e3
        loop.collect()
        loop.model(loop.inputs)
        loop.collect()
        with torch.no_grad():
            loop.first_bias[:4] = 1e3
        loop.model(loop.inputs)
        assert loop.collect() == {"dead_units": 0.5}

    @pytest.mark.parametrize(
        ("shape", "units"), [((2, 6), 6), ((2, 5, 6), 6), ((2, 6, 3, 3), 6), ((2, 6, 2, 2, 2), 6), ((6,), 6)]
    )
    def test_what_a_unit_is(self, shape: tuple[int, ...], units: int, loop: Loop) -> None:
        activation = nn.GELU()
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
        probes = open_probes([DeadUnitsProbe(num_batches=1)], Training(activation, optimizer))
        values = torch.ones(shape)
        values.movedim(1 if len(shape) >= 4 else -1, 0)[0] = -100.0
        probes.collect(1)
        activation(values)
        assert float(probes.collect(2)["dead_units"]) == pytest.approx(1 / units)  # type: ignore[arg-type] - a tensor of one element

    def test_hooks_are_there_in_a_round_only_and_evaluations_do_not_count(self, loop: Loop) -> None:
        loop.watch(DeadUnitsProbe(every_steps=6, num_batches=2))
        seen: list[int] = []
        for _ in range(8):
            loop.step()
            seen.append(len(loop.model[1]._forward_hooks))
        assert seen == [1, 1, 0, 0, 0, 0, 1, 1]
        assert loop.probes is not None
        loop.probes.close()
        evaluated = Loop()
        evaluated.model.eval()
        assert self.rounds(evaluated, DeadUnitsProbe()) == []

    def test_a_model_without_activation_modules_is_refused(self) -> None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
        with pytest.raises(UsageError, match=r"nn\.ReLU"):
            open_probes(["dead_units"], Training(nn.Linear(2, 2), optimizer))


@pytest.mark.parametrize(
    "make",
    [
        lambda: GradNormProbe(0),
        lambda: UpdateRatioProbe(-1),
        lambda: WeightNormProbe(True),
        lambda: LearningRateProbe(1.5),  # type: ignore[arg-type] - a wrong value, on purpose
        lambda: ThroughputProbe(items_per_step=0),
        lambda: MemoryProbe(0),
        lambda: DeadUnitsProbe(every_steps=4, num_batches=4),
    ],
)
def test_counts_are_checked(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()


def test_the_loss_probe_takes_no_options() -> None:
    assert LossProbe().collect(1) == {}
