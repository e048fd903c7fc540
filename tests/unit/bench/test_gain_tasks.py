"""The trainings of the gain table: what is spoiled in them, and what is not."""

from __future__ import annotations

import pytest
import torch

from trimtab.bench.gain_tasks import HEAVY_CODE_WEIGHT, KINDS, WRONG_LABELS, autoencoder, digits, mislabelled
from trimtab.bench.scenarios.digits import load_digits, split
from trimtab.integrations.pytorch.untyped import backward


def test_exactly_the_share_of_labels_is_wrong_and_evenly_so() -> None:
    labels = torch.arange(10).repeat(1000)
    spoiled = mislabelled(labels, 0.4, seed=1)
    is_wrong = spoiled != labels
    assert int(is_wrong.sum()) == 4000
    assert spoiled.min() == 0 and spoiled.max() == 9
    shifts = torch.bincount((spoiled - labels)[is_wrong] % 10, minlength=10)
    assert shifts[0] == 0 and shifts[1:].min() > 370
    assert torch.equal(spoiled, mislabelled(labels, 0.4, seed=1))
    assert not torch.equal(spoiled, mislabelled(labels, 0.4, seed=2))


def test_the_digits_are_trained_on_wrong_labels_and_evaluated_on_true_ones() -> None:
    (_, true), held = split(*load_digits(), 3)
    dataset = digits(3).loader._dataset
    given = torch.stack([dataset[row][1] for row in range(len(dataset))])
    assert float((given != true).float().mean()) == pytest.approx(WRONG_LABELS, abs=1e-3)
    task = digits(3)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(task.model(held[0]), held[1])
    assert task.evaluate() == pytest.approx(float(expected))


def test_the_heavy_term_weighs_in_the_loss_and_not_in_the_objective() -> None:
    task = autoencoder(3)
    images = torch.rand(4, 64)
    with torch.no_grad():
        image, code = task.model(images)
        expected = torch.nn.functional.mse_loss(image, images) + HEAVY_CODE_WEIGHT * code.square().mean()
        assert float(task.loss(images, images)) == pytest.approx(float(expected))
    assert set(task.signals()) == {"loss_term/reconstruction", "loss_term/code"}
    before = task.evaluate()
    [weights] = task.parts
    weights.set_weight("code", 1e-3)  # type: ignore[attr-defined] - a part is any object
    assert task.evaluate() == before


@pytest.mark.parametrize("name", KINDS)
def test_a_task_starts_the_same_for_a_seed_inside_its_envelope_and_cannot_be_stopped(name: str) -> None:
    one, other = KINDS[name].build(5), KINDS[name].build(5)
    assert one.evaluate() == other.evaluate() != KINDS[name].build(6).evaluate()
    inputs, targets = next(iter(one.loader))
    assert torch.equal(inputs, next(iter(other.loader))[0])
    backward(one.loss(inputs, targets))
    assert all(parameter.grad is not None for parameter in one.model.parameters())
    assert one.envelope.control("learning_rate").admits(one.optimizer.param_groups[0]["lr"])
    assert one.envelope.deliberation.mode == "boundary"
    assert not one.envelope.authority.may_stop
    assert one.model.training
