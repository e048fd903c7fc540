"""Faults: what goes wrong in trainings, put into otherwise healthy ones at a known step.

Each names beforehand the symptoms that recognise it. `Fault.inject` gets the run (`Loop`, or `Ppo`) before every step from
the step of injection on, with the steps since then; a lasting fault changes the run at 0 and leaves it at that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from trimtab.bench.scenarios.autoencoder import Autoencoder
from trimtab.bench.scenarios.digits import Noisy
from trimtab.bench.scenarios.loop import Batch, Loop, Samples, make_optimizer
from trimtab.diagnosis.base import SymptomName

if TYPE_CHECKING:
    from trimtab.bench.scenarios.ppo import Ppo


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong in a training.

    Args:
        name: Of the fault.
        scenario: Name of the training it is put into.
        inject: Does it; see the module.
        answers: Symptoms that recognise it; the first says it best.
        reason: What it stands for, and why these symptoms answer it.
    """

    name: str
    scenario: str
    inject: Callable[[Any, int], None]
    answers: tuple[SymptomName, ...]
    reason: str


def nan_loss(loop: Loop, since: int) -> None:
    """Make one loss NaN; the optimizer takes the step."""
    loop.on_loss = (lambda loss: loss * math.nan) if since == 0 else None


def infinite_gradient(loop: Loop, since: int) -> None:
    """Make one gradient infinite while the loss is fine; as under a gradient scaler, that step is skipped."""

    def spoil(model: nn.Module) -> None:
        first = next(iter(model.parameters()))
        first.grad = torch.full_like(first, math.inf)

    loop.skips_non_finite = True
    loop.on_gradients = spoil if since == 0 else None


def scaled_inputs(loop: Loop, since: int) -> None:
    """Scale the inputs of one batch by a thousand."""
    loop.on_batch = (lambda batch: (1e3 * batch[0], batch[1])) if since == 0 else None


def garbage_batch(loop: Loop, since: int) -> None:
    """Replace the targets of one batch by random ones, far from anything seen."""

    def spoil(batch: Batch) -> Batch:
        return torch.zeros_like(batch[0]), torch.randint_like(batch[1], 90, generator=loop.samples.generator)

    loop.on_batch = spoil if since == 0 else None


def rate_up(loop: Loop, _since: int) -> None:
    """Multiply the learning rate by 100."""
    loop.rate_factor = 100.0


def rate_down(loop: Loop, _since: int) -> None:
    """Multiply the learning rate by 1e-4."""
    loop.rate_factor = 1e-4


def little_data(loop: Loop, since: int) -> None:
    """Go on with 5% of the training set and without noise on it, at three times the rate."""
    if since == 0:
        assert isinstance(loop.samples, Noisy)
        loop.samples.keep(0.05)
        loop.samples.noise = 0.0
        loop.rate_factor = 3.0


def tiny_data(loop: Loop, since: int) -> None:
    """Go on with 0.2% of the training set: 114 windows of text."""
    if since == 0:
        loop.samples.keep(0.002)


def dropout(loop: Loop, _since: int) -> None:
    """Set every dropout to 0.9."""
    for module in loop.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.9
    loop.recipe = loop.recipe | {"dropout": 0.9}


def weight_decay(loop: Loop, _since: int) -> None:
    """Set weight decay to 100: with AdamW at 5e-4 the weights shrink by 5% a step."""
    for group in loop.optimizer.param_groups:
        group["weight_decay"] = 100.0
    loop.recipe = loop.recipe | {"weight_decay": 100.0}


def large_gradients(loop: Loop, _since: int) -> None:
    """Multiply all gradients by 1e4 before they are clipped."""
    loop.on_gradients = lambda model: _scale(model.parameters(), 1e4)


def frozen_lower_layers(loop: Loop, _since: int) -> None:
    """Multiply the gradients of the lower layers by 1e-6."""
    loop.on_gradients = lambda _: _scale(loop.parts["lower"], 1e-6)


def saturation(loop: Loop, since: int) -> None:
    """Shift the biases before every tanh by 10, where its slope is 1e-8."""
    if since == 0:
        assert isinstance(loop.model, Autoencoder)
        with torch.no_grad():
            for network in (loop.model.encoder, loop.model.decoder):
                first = network[0]
                assert isinstance(first, nn.Linear)
                first.bias.add_(10.0)


def dead_relus(loop: Loop, since: int) -> None:
    """Shift the biases before every ReLU by -10."""
    if since == 0:
        layers = [module for module in loop.model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        with torch.no_grad():
            for layer in layers[:-1]:
                assert layer.bias is not None
                layer.bias.sub_(10.0)


def edge_of_stability(loop: Loop, since: int) -> None:
    """Go on with plain gradient descent on all samples at 2.5 over the sharpness; more than 2 overshoots every time."""
    if since == 0:
        loop.samples = _Whole(loop.samples)
        loop.settings = replace(loop.settings, optimizer="sgd", weight_decay=0.0)
        loop.optimizer = make_optimizer(loop.model, loop.settings)
        for group in loop.optimizer.param_groups:
            group["momentum"] = 0.0
        loop.clip_norm = math.inf
        loop.rate_factor = 2.5 / _sharpness(loop) / loop.settings.learning_rate


def heavy_term(loop: Loop, _since: int) -> None:
    """Multiply the weight of the code's term by 1e4."""
    loop.weights = loop.weights | {"code": 10.0}


def label_noise(loop: Loop, _since: int) -> None:
    """Replace 80% of the labels by random ones from here on."""

    def spoil(batch: Batch) -> Batch:
        inputs, labels = batch
        wrong = torch.rand(len(labels), generator=loop.samples.generator) < 0.8
        return inputs, torch.where(wrong, torch.randint_like(labels, 10, generator=loop.samples.generator), labels)

    loop.on_batch = spoil


def frozen_metric(loop: Loop, since: int) -> None:
    """Report the same objective at every evaluation."""
    if since == 0:
        frozen: dict[str, float] = {}

        def repeat(metrics: dict[str, float]) -> dict[str, float]:
            return metrics | {name: frozen.setdefault(name, value) for name, value in metrics.items()}

        loop.on_evaluation = repeat


def frozen_loss(loop: Loop, since: int) -> None:
    """Report the same training loss at every step."""
    if since == 0:
        frozen: dict[str, float] = {}
        loop.on_report = lambda signals: signals | {"loss": frozen.setdefault("loss", signals["loss"])}


def missing_metric(loop: Loop, _since: int) -> None:
    """Report no evaluation any more."""
    loop.on_evaluation = lambda _: None


def few_samples(loop: Loop, since: int) -> None:
    """Evaluate on another 8 of the held-out samples each time."""
    if since == 0:
        whole, evaluate = Samples(*loop.held, 8, seed=7), loop.evaluate
        loop.evaluate = lambda model, _: evaluate(model, whole.draw())


def entropy_penalized(run: Ppo, _since: int) -> None:
    """Reward certainty instead of entropy."""
    run.recipe.entropy_coefficient = -1.0


def entropy_rewarded(run: Ppo, _since: int) -> None:
    """Let the entropy outweigh the return."""
    run.recipe.entropy_coefficient = 2.0


def policy_steps_too_long(run: Ppo, since: int) -> None:
    """Take ten times larger steps of the policy without any limit to how far it moves."""
    run.recipe.target_kl, run.recipe.clip_range, run.recipe.gradient_clip_norm = math.inf, 1e3, math.inf
    if since == 0:
        _set_rate(run, "actor", 1e-2)


def value_function_lost(run: Ppo, since: int) -> None:
    """Forget the value function and learn no new one."""
    if since == 0:
        for parameter in run.policy.critic.parameters():
            nn.init.normal_(parameter, 0.0, 0.3, generator=run.generator)
        _set_rate(run, "critic", 0.0)


def collisions_free(run: Ppo, _since: int) -> None:
    """Stop minding collisions and pay for haste."""
    run.recipe.collision_penalty, run.recipe.progress_scale = 0.0, 12.0


def collisions_dreaded(run: Ppo, _since: int) -> None:
    """Punish collisions so hard that standing still is best."""
    run.recipe.collision_penalty, run.recipe.progress_scale, run.recipe.success_bonus = 100.0, 0.3, 0.5


FAULTS: Final = (
    Fault("nan loss", "digits_mlp", nan_loss, ("non_finite",), "log(0) or 0/0 in one batch; the weights follow"),
    Fault("infinite gradient", "text", infinite_gradient, ("non_finite",), "overflow in half precision, the step skipped"),
    Fault("inputs x1000", "digits_mlp", scaled_inputs, ("loss_spike", "gradient_explosion"), "one batch not normalized"),
    Fault("garbage batch", "text", garbage_batch, ("loss_spike", "gradient_explosion"), "one damaged shard"),
    Fault("rate x100", "digits_cnn", rate_up, ("divergence", "gradient_explosion"), "a schedule in the wrong unit"),
    Fault("rate x100, text", "text", rate_up, ("divergence", "gradient_explosion"), "the same with AdamW"),
    Fault("rate x1e-4", "text", rate_down, ("underfitting", "plateau"), "a schedule that ended early: learning stalls"),
    Fault("rate x1e-4, digits", "digits_mlp", rate_down, ("underfitting", "plateau"), "the same"),
    Fault("5% of the data", "digits_mlp", little_data, ("overfitting",), "a filter that drops nearly everything"),
    Fault("0.2% of the text", "text", tiny_data, ("overfitting",), "a loader that repeats one shard"),
    Fault("dropout 0.9", "digits_mlp", dropout, ("over_regularization", "underfitting"), "regularized to death"),
    Fault("weight decay 100", "digits_mlp", weight_decay, ("over_regularization", "underfitting"), "the same by decay"),
    Fault(
        "gradients x1e4",
        "digits_mlp",
        large_gradients,
        ("gradient_explosion",),
        "a sum for a mean; clipping hides it",
    ),
    Fault(
        "lower layers frozen",
        "digits_mlp",
        frozen_lower_layers,
        ("gradient_vanishing",),
        "the signal stops halfway",
    ),
    Fault("saturation", "autoencoder", saturation, ("gradient_vanishing",), "activations beyond their slope"),
    Fault("biases -10", "digits_mlp", dead_relus, ("dead_units", "gradient_vanishing"), "rectifiers that never fire"),
    Fault(
        "edge of stability",
        "digits_cnn",
        edge_of_stability,
        ("oscillation", "divergence"),
        "a rate of 2.5 over the sharpness",
    ),
    Fault("code term x1e4", "autoencoder", heavy_term, ("loss_imbalance",), "one term of the loss outweighs the other"),
    Fault("label noise 80%", "digits_mlp", label_noise, ("divergence", "underfitting"), "labels joined to the wrong rows"),
    Fault("objective repeated", "digits_mlp", frozen_metric, ("metric_stale",), "a logger that repeats its last value"),
    Fault("loss repeated", "digits_cnn", frozen_loss, ("metric_stale",), "the same for the training loss"),
    Fault("objective missing", "text", missing_metric, ("metric_stale",), "evaluations that stop coming"),
    Fault("8 held-out samples", "digits_cnn", few_samples, ("noisy_metrics",), "an evaluation too small to compare"),
    Fault("entropy penalized", "cart_pole", entropy_penalized, ("entropy_collapse", "cautious_exploration"), "wrong sign"),
    Fault("entropy rewarded", "cart_pole", entropy_rewarded, ("entropy_runaway", "unsafe_exploration"), "too much of it"),
    Fault("policy steps x30", "cart_pole", policy_steps_too_long, ("kl_blowup",), "no limit to a policy's step"),
    Fault("value function lost", "cart_pole", value_function_lost, ("value_fit_poor",), "a critic that was not restored"),
    Fault("collisions free", "point_mass", collisions_free, ("unsafe_exploration",), "a reward without its safety term"),
    Fault("collisions dreaded", "point_mass", collisions_dreaded, ("cautious_exploration",), "a reward against all motion"),
)


class _Whole(Samples):
    """Draws all samples every time."""

    def __init__(self, samples: Samples) -> None:
        super().__init__(samples.inputs, samples.targets, len(samples.inputs), 0)

    def draw(self) -> Batch:
        return self.inputs, self.targets


def _sharpness(loop: Loop, rounds: int = 30) -> float:
    """Return the largest eigenvalue of the loss's Hessian on all samples, by power iteration."""
    parameters = list(loop.model.parameters())
    terms = loop.terms(loop.model, loop.samples.draw())
    loss = torch.stack([loop.weights[name] * term for name, term in terms.items()]).sum()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    direction = torch.randn(len(flat), generator=torch.Generator().manual_seed(0))
    value = 0.0
    for _ in range(rounds):
        direction = direction / nn.utils.get_total_norm([direction])
        product = torch.cat([part.flatten() for part in torch.autograd.grad(flat @ direction, parameters, retain_graph=True)])
        value, direction = float(product @ direction), product
    return value


def _scale(parameters: Any, factor: float) -> None:
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad *= factor


def _set_rate(run: Ppo, name: str, rate: float) -> None:
    for group in run.optimizer.param_groups:
        if group["name"] == name:
            group["lr"] = rate
