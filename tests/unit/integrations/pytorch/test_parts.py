from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.integrations.pytorch.small_runs import Run
from trimtab.controls.catalogue import gradient_clip_norm, label_smoothing, loss_weight
from trimtab.errors import ControlError, OwnershipError, UsageError
from trimtab.integrations.pytorch.binders import bind
from trimtab.integrations.pytorch.bindings.loss import LossWeightBinding
from trimtab.integrations.pytorch.data.loader import ResumableLoader
from trimtab.integrations.pytorch.parts.gradient_clip import GradientClip
from trimtab.integrations.pytorch.parts.loss_weights import LossWeights
from trimtab.integrations.pytorch.training import Training
from trimtab.telemetry.signal import check_signal_name


def gradients(scale: float) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(7)
    made = [nn.Parameter(torch.zeros(shape)) for shape in ((5,), (3, 4), (2,))]
    for one in made[:2]:  # the third has no gradient
        one.grad = torch.randn(one.shape, generator=generator) * scale
    return made


def training(*parts: object, model: nn.Module | None = None) -> Training:
    held = nn.Linear(2, 2) if model is None else model
    return Training(held, torch.optim.SGD(held.parameters(), lr=0.1), parts=parts)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6, math.nan])
def test_a_clip_is_bit_for_bit_that_of_torch(norm_type: float, scale: float) -> None:
    ours, theirs = gradients(scale), gradients(scale)
    norm = GradientClip((one for one in ours), 0.5, norm_type)()
    expected = torch.nn.utils.clip_grad_norm_(theirs, 0.5, norm_type)
    assert torch.equal(norm.view(torch.int32), expected.view(torch.int32))
    for one, other in zip(ours[:2], theirs[:2], strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad.view(torch.int32), other.grad.view(torch.int32))
    assert ours[2].grad is None


def test_the_written_norm_acts_at_every_call_and_the_norm_before_is_returned() -> None:
    made = gradients(10.0)
    clip = GradientClip(made, 1e9)
    before = float(clip())
    binding = bind(gradient_clip_norm(0.1, 100.0), training(clip))
    binding.write(0.5)
    assert clip.max_norm == 0.5
    assert float(clip()) == pytest.approx(before)
    assert float(clip()) == pytest.approx(0.5, rel=1e-4)


def test_several_clips_keep_their_ratio_and_have_one_owner() -> None:
    actor, critic = GradientClip(gradients(1.0), 1.0), GradientClip(gradients(1.0), 0.5)
    run = training(actor, critic)
    binding = bind(gradient_clip_norm(0.1, 100.0), run)
    binding.write(4.0)
    assert (actor.max_norm, critic.max_norm) == (4.0, 2.0)
    with pytest.raises(OwnershipError):
        bind(gradient_clip_norm(0.1, 100.0), training(critic))
    binding.close()
    bind(gradient_clip_norm(0.1, 100.0), training(critic))


def test_a_clip_that_makes_no_sense_or_is_missing_is_refused() -> None:
    for bad in (0.0, -1.0, math.nan, True, "1"):
        with pytest.raises(UsageError, match="max_norm is out of range"):
            GradientClip(gradients(1.0), bad)  # type: ignore[arg-type] - a wrong value, on purpose
    with pytest.raises(UsageError, match="nothing to clip"):
        GradientClip(iter(()), 1.0)
    with pytest.raises(ControlError, match=r"parts=\[clip\]"):
        bind(gradient_clip_norm(0.1, 1.0), training())


def test_the_weighted_sum_is_that_written_by_hand_and_gradients_flow() -> None:
    terms = {name: torch.tensor(value, requires_grad=True) for name, value in (("aux", 0.7), ("task", 1.3), ("extra", 2.1))}
    weights = LossWeights(task=1.0, aux=0.3, extra=0.01)
    loss = weights(**terms)
    by_hand = terms["task"] * 1.0 + terms["aux"] * 0.3 + terms["extra"] * 0.01
    assert torch.equal(loss, by_hand)
    loss.backward()
    gradients = [one.grad for one in (terms["task"], terms["aux"], terms["extra"])]
    assert [float(one) for one in gradients if one is not None] == pytest.approx([1.0, 0.3, 0.01])


def test_the_signals_are_the_last_terms_unweighted_and_detached() -> None:
    weights = LossWeights(task=1.0, aux=0.3)
    assert weights.signals() == {}
    aux = torch.tensor(0.7, requires_grad=True)
    weights(task=torch.tensor(1.3), aux=aux)
    signals = weights.signals()
    assert {name: float(value) for name, value in signals.items()} == pytest.approx(
        {"loss_term/task": 1.3, "loss_term/aux": 0.7}
    )
    assert not any(value.requires_grad for value in signals.values())
    assert [check_signal_name(name) for name in signals] == list(signals)


@pytest.mark.parametrize(
    ("terms", "match"),
    [
        ({"task": torch.tensor(1.0)}, "missing: aux; unknown: none"),
        ({"task": torch.tensor(1.0), "aux": torch.tensor(1.0), "other": torch.tensor(1.0)}, "unknown: other"),
        ({"task": torch.tensor(1.0), "aux": torch.ones(3)}, "aux is not a scalar tensor"),
        ({"task": torch.tensor(1.0), "aux": 0.5}, "aux is not a scalar tensor"),
    ],
)
def test_terms_that_are_not_those_of_the_loss_are_refused(terms: dict[str, Tensor], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        LossWeights(task=1.0, aux=0.3)(**terms)


def test_weights_that_make_no_sense_are_refused() -> None:
    for bad in (0.0, -1.0, math.nan, math.inf, True):
        with pytest.raises(UsageError, match="out of range"):
            LossWeights(task=bad)
    with pytest.raises(UsageError, match="malformed"):
        LossWeights(Task=1.0)
    with pytest.raises(UsageError, match="at least one term"):
        LossWeights()
    weights = LossWeights(task=1.0)
    with pytest.raises(UsageError, match="did you mean 'task'"):
        weights.set_weight("tusk", 1.0)
    weights.weights["task"] = 5.0  # a copy
    assert weights.weights == {"task": 1.0}


def test_a_loss_weight_is_bound_by_term_and_acts() -> None:
    weights = LossWeights(task=1.0, aux=0.3)
    run = training(weights)
    task, aux = (bind(loss_weight(term, 0.01, 10.0), run) for term in ("task", "aux"))
    assert (aux.name, task.read(), aux.read()) == ("loss_weight/aux", 1.0, 0.3)
    aux.write(0.6)
    assert weights.weights == {"task": 1.0, "aux": 0.6}
    run.optimizer.step()
    read_back = aux.took_effect()
    assert read_back is not None
    assert (read_back.expected, read_back.observed, read_back.holds) == (0.6, 0.6, True)
    with pytest.raises(OwnershipError, match="loss_weight/aux of this LossWeights"):
        LossWeightBinding(run, "aux")
    aux.close()
    LossWeightBinding(run, "aux")


def test_a_term_that_nobody_or_more_than_one_has_is_refused() -> None:
    for run, term in ((training(), "aux"), (training(LossWeights(aux=1.0), LossWeights(aux=1.0)), "aux")):
        with pytest.raises(ControlError, match=r"needs one LossWeights"):
            bind(loss_weight(term, 0.1, 1.0), run)
    with pytest.raises(ControlError, match="terms: task"):
        bind(loss_weight("aux", 0.1, 1.0), training(LossWeights(task=1.0)))


def test_label_smoothing_reaches_every_loss_module_and_keeps_ratios() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.CrossEntropyLoss(label_smoothing=0.1))
    apart = nn.ModuleDict({"own": nn.CrossEntropyLoss(label_smoothing=0.2)})
    binding = bind(label_smoothing(0.0, 0.5), training(apart, model=model))
    assert binding.read() == 0.2
    binding.write(0.4)
    assert [apart["own"].label_smoothing, model[1].label_smoothing] == [0.4, 0.2]
    with pytest.raises(OwnershipError):
        bind(label_smoothing(0.0, 0.5), training(apart))


def test_label_smoothing_acts_on_the_loss() -> None:
    criterion = nn.CrossEntropyLoss()
    bind(label_smoothing(0.0, 0.5), training(criterion)).write(0.3)
    logits, target = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([0])
    expected = torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.3)
    assert torch.equal(criterion(logits, target), expected)


def test_without_a_loss_module_the_error_says_to_pass_it() -> None:
    with pytest.raises(ControlError, match=r"parts=\[criterion\]"):
        bind(label_smoothing(0.0, 0.5), training())
    with pytest.raises(ControlError, match="0 <= number < 1"):
        bind(label_smoothing(0.0, 0.5), training(nn.CrossEntropyLoss(label_smoothing=1.0)))


def train(run: Run, criterion: nn.Module, clip: GradientClip, weights: LossWeights) -> list[str]:
    hashes: list[str] = []
    for _ in range(6):
        x, y = next(run.batches)
        out = run.model(x)
        loss = weights(task=criterion(out, y.argmax(1)), aux=out.square().mean())
        run.optimizer.zero_grad()
        loss.backward()
        norm = clip()
        run.optimizer.step()
        hashes.append(run.hash(x, loss, norm))
    return hashes


def test_bound_but_unchanged_parts_leave_the_run_bit_identical() -> None:
    hashes: list[list[str]] = []
    for is_bound in (False, True):
        run = Run()
        criterion, weights = nn.CrossEntropyLoss(label_smoothing=0.1), LossWeights(task=1.0, aux=0.3)
        clip = GradientClip(run.model.parameters(), 0.2)
        if is_bound:
            live = Training(run.model, run.optimizer, parts=(criterion, clip, weights))
            for control in (label_smoothing(0.0, 0.5), gradient_clip_norm(0.1, 1.0), loss_weight("aux", 0.1, 1.0)):
                binding = bind(control, live)
                binding.write(binding.read())
        hashes.append(train(run, criterion, clip, weights))
    assert hashes[0] == hashes[1]


def test_the_order_of_the_sum_is_that_of_the_weights_not_of_the_call() -> None:
    weights = LossWeights(small=1.0, large=1.0, opposite=1.0)
    small, large = torch.tensor(1.0), torch.tensor(1e8)
    assert float(weights(opposite=-large, large=large, small=small)) == 0.0  # the other way round it is 1


def test_text_that_looks_like_a_number_keeps_its_quotes() -> None:
    wrong: Any = "16"
    for make in (
        lambda: LossWeights(task=wrong),
        lambda: GradientClip([torch.ones(1)], wrong),
        lambda: ResumableLoader(range(64), batch_size=wrong, seed=0),
    ):
        with pytest.raises(UsageError, match="received '16'"):
            make()
