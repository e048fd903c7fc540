"""Detectors of others, driven over a trace through what they offer to the public; none of their code is here.

Packages are looked for in the folder given with --peers, put there with `pip install --no-deps --target`.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, pstdev
from types import SimpleNamespace
from typing import Any

import torch

from trimtab.bench.detection import STANDSTILL, Finding, Replay
from trimtab.bench.traces import Trace
from trimtab.controls.envelope import Objective

NO_GAIN = frozenset({"plateau", "underfitting", "overfitting", "over_regularization", "divergence"})


@dataclass(frozen=True)
class Peer:
    """A detector.

    Args:
        name: In tables.
        replay: Runs it over a trace.
        counts_as: Our symptoms that each of its findings is taken for, generously; a name not here counts as itself.
    """

    name: str
    replay: Replay
    counts_as: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def answering(self, answers: Iterable[str]) -> set[str]:
        wanted = set(answers)
        return wanted | {name for name, ours in self.counts_as.items() if ours & wanted}

    @property
    def standstill(self) -> frozenset[str]:
        return STANDSTILL | {name for name, ours in self.counts_as.items() if ours & STANDSTILL}


def nan_check(trace: Trace) -> list[Finding]:
    watched = {"loss", "grad_norm", trace.course.objective.split()[-1]}
    return [
        Finding(moment.step, "non_finite", "critical")
        for moment in trace.moments
        if moment.kind != "recipe" and any(not math.isfinite(v) for name, v in moment.values.items() if name in watched)
    ]


def three_sigma(trace: Trace) -> list[Finding]:
    recent: deque[float] = deque(maxlen=100)
    found: list[Finding] = []
    for moment in trace.moments:
        if moment.kind != "step" or not math.isfinite(loss := moment.values["loss"]):
            continue
        if len(recent) >= 20 and loss > fmean(recent) + 3 * pstdev(recent):
            found.append(Finding(moment.step, "loss_spike", "warning"))
        recent.append(loss)
    return found


def reduce_on_plateau(trace: Trace) -> list[Finding]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    direction = "min" if Objective.parse(trace.course.objective).direction == "minimize" else "max"
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, direction, factor=0.5, min_lr=0.0, eps=0.0)
    found: list[Finding] = []
    for step, value in trace.objective_values():
        before = optimizer.param_groups[0]["lr"]
        scheduler.step(value)
        if optimizer.param_groups[0]["lr"] < before:
            found.append(Finding(step, "no_gain", "warning"))
    return found


def lightning(trace: Trace) -> list[Finding]:
    from pytorch_lightning.callbacks import EarlyStopping
    from pytorch_lightning.trainer.states import TrainerFn

    objective = Objective.parse(trace.course.objective)
    mode = "min" if objective.direction == "minimize" else "max"
    stopping = EarlyStopping(objective.signal, mode=mode, check_on_train_epoch_end=False)
    trainer: Any = SimpleNamespace(
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        sanity_checking=False,
        fast_dev_run=False,
        should_stop=False,
        current_epoch=0,
        world_size=1,
        global_rank=0,
        strategy=SimpleNamespace(reduce_boolean_decision=lambda stop, **_: stop),
        callback_metrics={},
    )
    found: list[Finding] = []
    for step, value in trace.objective_values():
        trainer.callback_metrics = {objective.signal: torch.tensor(value)}
        trainer.current_epoch += 1
        stopping.on_validation_end(trainer, None)  # type: ignore[arg-type] - it never looks at the module
        if trainer.should_stop:
            found.append(Finding(step, "no_gain" if math.isfinite(value) else "non_finite", "warning"))
            trainer.should_stop = False
    return found


def arc(trace: Trace) -> list[Finding]:
    from arc.core.controller import Controller, ControllerConfig
    from arc.signals.rl_stability import RLStabilityMonitor
    from arc.signals.silent_detector import SilentCrashDetector, SilentDetectorConfig

    model = torch.nn.Linear(1, 1, bias=False)
    config = ControllerConfig(verbose=False, async_checkpoint=False, enable_lyapunov=False, enable_weight_health=False)
    controller = Controller(model, torch.optim.SGD(model.parameters(), lr=1e-3), config=config)
    silent, policy = SilentCrashDetector(SilentDetectorConfig(verbose=False)), RLStabilityMonitor()
    found: list[Finding] = []
    for moment in trace.moments:
        values = moment.values
        if moment.kind == "step":
            model.weight.data.fill_(values.get("weight_norm", 1.0))
            model.weight.grad = torch.full_like(model.weight, values["grad_norm"])
            action = controller.step(torch.tensor(values["loss"]))
            names = [action.failure_type] if action.failure_type else []
            silently = silent.check(loss=values["loss"], gradients=[torch.tensor(values["grad_norm"])])
            if "kl" in values:
                report = policy.update(kl=values["kl"], entropy=values["entropy"])
                names += [name for name in ("kl_blowup", "entropy_collapse") if getattr(report, name)]
        elif moment.kind == "evaluation" and "val/loss" in values:
            names = []
            silently = silent.check(loss=_last_loss(trace, moment.step), val_loss=values["val/loss"])
        else:
            continue
        if silently.detected:
            names.append(silently.failure_type.name)
        found += [Finding(moment.step, name, "warning") for name in names]
    controller.close()
    return found


def _last_loss(trace: Trace, step: int) -> float:
    return next(moment.values["loss"] for moment in trace.moments if moment.kind == "step" and moment.step == step)


def runmedic(trace: Trace) -> list[Finding]:
    from runmedic.checks import run_checks
    from runmedic.model import Run
    from runmedic.roles import detect

    run = Run("trace", "jsonl", "")
    found: list[Finding] = []
    for number, moment in enumerate(trace.moments):
        if moment.kind == "recipe":
            continue
        for name, value in moment.values.items():
            run.get(name).add(moment.step, value)
        following = trace.moments[number + 1].step if number + 1 < len(trace.moments) else moment.step + 1
        if moment.step % trace.course.evaluate_every_steps == 0 and following > moment.step:
            for each in run_checks(run, detect(run)):
                severity = "notice" if each.severity == "info" else "critical" if each.severity == "critical" else "warning"
                found.append(Finding(moment.step, each.check, severity))
    return found


def stabilityguard(trace: Trace) -> list[Finding]:
    from stabilityguard.core.spike_detector import SpikeDetector

    detector = SpikeDetector()
    found: list[Finding] = []
    for moment in trace.moments:
        if moment.kind == "step":
            norm = moment.values["grad_norm"]
            spiked, info, _ = detector.check({"model": norm}, set() if math.isfinite(norm) else {"model"})
            if spiked:
                found.append(Finding(moment.step, "non_finite" if info.is_nan else "gradient_explosion", "warning"))
    return found


_ARC = {
    "nan_loss": frozenset({"non_finite"}),
    "nan_gradients": frozenset({"non_finite"}),
    "loss_explosion": frozenset({"loss_spike", "divergence"}),
    "drift_detected": frozenset({"divergence", "gradient_explosion"}),
    "LOSS_PLATEAU": frozenset({"plateau", "underfitting"}),
    "OVERFITTING": frozenset({"overfitting"}),
    "GRADIENT_DEATH": frozenset({"gradient_vanishing", "dead_units"}),
}
_RUNMEDIC = {
    "loss_spikes": frozenset({"loss_spike"}),
    "no_learning": frozenset({"underfitting", "plateau"}),
    "constant_lr_plateau": frozenset({"plateau"}),
    "grad_spikes": frozenset({"gradient_explosion"}),
}
_STOPPING = {"no_gain": NO_GAIN}

ABOUT = {
    "NaN check": "loss, gradient norm or objective not finite",
    "3 sigma": "a loss above the mean of the last 100 by three standard deviations",
    "ReduceLROnPlateau": "torch's own, as it comes: 10 evaluations without a gain of 1e-4; its cut is its alarm",
    "Lightning EarlyStopping": "as it comes: 3 evaluations without any gain, or one not finite",
    "ARC": "Controller with a stand-in for the model that has the recorded loss, gradient and weight norm (its checks of "
    "the weights themselves are off), SilentCrashDetector and RLStabilityMonitor, as they come",
    "runmedic": "its checks on what was logged so far, at every evaluation; made for finished runs",
    "stabilityguard": "SpikeDetector on the gradient norm of the whole model, as it comes; meant for each layer",
}

_PACKAGES: tuple[tuple[str, str, Callable[[Trace], list[Finding]], dict[str, frozenset[str]]], ...] = (
    ("Lightning EarlyStopping", "pytorch_lightning", lightning, _STOPPING),
    ("ARC", "arc", arc, _ARC),
    ("runmedic", "runmedic", runmedic, _RUNMEDIC),
    ("stabilityguard", "stabilityguard", stabilityguard, {}),
)

_NEVER = {
    "TrainCheck": "infers invariants from instrumented reference runs of the same program; takes no series",
    "self-healing-trainer": "a callback inside the Hugging Face Trainer; takes no series",
    "Keras TerminateOnNaN, transformers' EarlyStoppingCallback": "the same rules as the NaN check and Lightning's",
}


def available(folder: Path | None) -> tuple[list[Peer], dict[str, str]]:
    """Return the peers that can run, and why the others cannot."""
    warnings.filterwarnings("ignore")
    if folder is not None:
        sys.path.append(str(folder))
    plain = [
        Peer("NaN check", nan_check),
        Peer("3 sigma", three_sigma),
        Peer("ReduceLROnPlateau", reduce_on_plateau, _STOPPING),
    ]
    missing = {name: f"{package} is not installed" for name, package, _, _ in _PACKAGES if find_spec(package) is None}
    found = [Peer(name, run, counts) for name, _, run, counts in _PACKAGES if name not in missing]
    return plain + found, missing | _NEVER
