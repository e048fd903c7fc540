"""A short real training for adversaries: a perceptron that learns a noisy rule, with what an envelope has in common with it.

Left alone it gets better until its end, so that whatever is done to it can be seen as harm. It depends on the seed alone: one
thread computes it, which for matrices as small as these is also several times as fast as more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from trimtab.controls.bounds import Bounds
from trimtab.controls.control import Control
from trimtab.controls.envelope import Envelope, Objective
from trimtab.controls.reach import middle
from trimtab.decision.action import NoAction, SkipBatches, checkpoint_of
from trimtab.decision.manager import Manager
from trimtab.integrations.pytorch.attach import supervise
from trimtab.integrations.pytorch.data.loader import ResumableLoader
from trimtab.integrations.pytorch.parts.gradient_clip import GradientClip
from trimtab.integrations.pytorch.untyped import backward, seed_torch
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import ActionIntended, ProposalReceived, TrialBegan
from trimtab.runtime.supervisor import Supervisor
from trimtab.testing.envelope_oracle import Applied, EnvelopeOracle
from trimtab.testing.live_values import READABLE, LiveValues

_INPUTS: Final = 20
_CLASSES: Final = 5
_TRAIN: Final = 8192
_HELD_OUT: Final = 1024
_LARGEST_BATCH: Final = 512
_LABEL_NOISE: Final = 0.05
_ROUNDING: Final = 1e-6  # a rate is a factor on a rate
# What one would start with; moved into the bounds of the envelope.
_USUAL: Final = {
    "batch_size": 32.0,
    "beta2": 0.99,
    "dropout": 0.1,
    "gradient_clip_norm": 1.0,
    "label_smoothing": 0.0,
    "learning_rate": 2e-3,
    "momentum": 0.9,
    "weight_decay": 0.01,
}


Curve = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Trained:
    """What became of a training.

    Args:
        curve: Steps and validation losses of the run's own course; those of a trial's arms are left out.
        proposals: Of the manager, no_action left out.
        trials: Of the canary, begun.
        interventions: Of the manager: proposals that were carried out.
        taken_back: Interventions that the guard took back.
        breaches: What left the envelope, one sentence each; empty in a sound run, and where a canary is: nobody watches trials.
        stopped_step: Step after which it was asked to end; None if it was not.
        is_held: Whether trimtab failed and only held the recipe.
    """

    curve: Curve
    proposals: int = 0
    trials: int = 0
    interventions: int = 0
    taken_back: int = 0
    breaches: tuple[str, ...] = ()
    stopped_step: int | None = None
    is_held: bool = False

    @property
    def final(self) -> float:
        """The last validation loss."""
        return self.curve[-1][1]

    @property
    def best(self) -> float:
        """The lowest validation loss; infinite if none is finite."""
        return min((loss for _, loss in self.curve if math.isfinite(loss)), default=math.inf)


def fitted(envelope: Envelope) -> tuple[Envelope | None, tuple[str, ...]]:
    """Return the envelope with the controls that this training has, and the names of those that it has not.

    None if none is left. The objective becomes the validation loss; a manager is waited for, so that a run can be repeated.
    """
    kept = tuple(_narrowed(control) for control in envelope.controls if _has(control))
    left_out = tuple(control.name for control in envelope.controls if not _has(control))
    if not kept:
        return None, left_out
    deliberation = replace(envelope.deliberation, mode="boundary", deadline_seconds=60.0)
    objective = Objective("val/loss", "minimize")
    return replace(envelope, objective=objective, controls=kept, deliberation=deliberation, signals=()), left_out


def _has(control: Control) -> bool:
    is_small_enough = control.name != "batch_size" or control.bounds.low <= _LARGEST_BATCH
    return control.name in READABLE and control.modules is None and is_small_enough


def _narrowed(control: Control) -> Control:
    if control.name != "batch_size":
        return control
    return replace(control, bounds=Bounds(control.bounds.low, min(control.bounds.high, _LARGEST_BATCH)))


def start_of(control: Control) -> float:
    """Return what a training begins with: the usual value where the envelope allows it, else the nearest bound."""
    value = min(control.bounds.high, max(control.bounds.low, _USUAL[control.name]))
    return value if control.admits(value) else middle(control)


class SmallTraining:
    """Model, data, optimizer and loop.

    Args:
        envelope: As `fitted` returns it; decides what the training starts with.
        seed: Of the weights, the rule, the labels' noise and the order of the data.
    """

    def __init__(self, envelope: Envelope, seed: int) -> None:
        start = _USUAL | {control.name: start_of(control) for control in envelope.controls}
        self._envelope = envelope
        train, self._held_out = _data(seed)
        seed_torch(seed)
        self.model = nn.Sequential(
            nn.Linear(_INPUTS, 64), nn.ReLU(), nn.Dropout(start["dropout"]), nn.Linear(64, 64), nn.ReLU(),
            nn.Dropout(start["dropout"]), nn.Linear(64, _CLASSES),
        )  # fmt: skip
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=start["learning_rate"],
            betas=(start["momentum"], start["beta2"]),
            weight_decay=start["weight_decay"],
        )
        self.loader = ResumableLoader(TensorDataset(*train), batch_size=int(start["batch_size"]), seed=seed)
        self.loss = nn.CrossEntropyLoss(label_smoothing=start["label_smoothing"])
        self.clip = GradientClip(self.model.parameters(), max_norm=start["gradient_clip_norm"])

    def supervise(self, manager: Manager, run_dir: Path, steps: int, evaluate_every_steps: int) -> Supervisor:
        """Attach trimtab."""
        return supervise(
            self.model,
            self.optimizer,
            loader=self.loader,
            envelope=self._envelope,
            manager=manager,
            run_dir=run_dir,
            total_steps=steps,
            evaluate_every_steps=evaluate_every_steps,
            parts=(self.loss, self.clip),
            tracker=None,
        )

    def live_values(self) -> LiveValues:
        """Return what reads the values in effect; call it after `supervise`."""
        return LiveValues(
            self.model,
            self.optimizer,
            batch_size=lambda: self.loader.batch_size,
            label_smoothing=lambda: self.loss.label_smoothing,
            gradient_clip_norm=lambda: self.clip.max_norm,
        )

    def evaluate(self) -> float:
        """Return the loss on what is held out."""
        self.model.eval()
        with torch.no_grad():
            loss = F.cross_entropy(self.model(self._held_out[0]), self._held_out[1])
        self.model.train()
        return float(loss)

    def take_step(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Take one optimizer step; return the loss and the gradient norm."""
        loss = self.loss(self.model(inputs), targets)
        self.optimizer.zero_grad()
        backward(loss)
        norm = self.clip()
        self.optimizer.step()
        return loss, norm


@contextmanager
def _one_thread() -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
def train(envelope: Envelope, manager: Manager | None, seed: int, steps: int, run_dir: Path) -> Trained:
    """Train once.

    Args:
        envelope: As `fitted` returns it.
        manager: Who manages it; None for nobody, then trimtab is not attached.
        seed: Of the training.
        steps: Its length, >= 20.
        run_dir: Where its record goes.
    """
    every = max(1, steps // 20)
    training = SmallTraining(envelope, seed)
    if manager is None:
        return Trained(_loop(training, None, lambda: None, steps, every))
    used: list[dict[str, float]] = [{}]  # by step
    with ExitStack() as stack:
        supervisor = stack.enter_context(training.supervise(manager, run_dir, steps, every))
        live = training.live_values()
        stack.callback(live.close)
        curve = _loop(training, supervisor, lambda: used.append(live.read()), steps, every)
    records = [entry.record for entry in read_ledger(run_dir / "ledger.jsonl")]
    intended = [record for record in records if isinstance(record, ActionIntended)]
    proposals = [record.proposal for record in records if isinstance(record, ProposalReceived)]
    is_watched = envelope.canary.mode == "none"  # the arms of a trial are not the run
    return Trained(
        curve,
        proposals=sum(not isinstance(proposal.action, NoAction) for proposal in proposals),
        trials=sum(isinstance(record, TrialBegan) for record in records),
        interventions=sum(record.source == "manager" for record in intended),
        taken_back=sum(record.source == "guard" for record in intended),
        breaches=tuple(watch(envelope, used, intended)) if is_watched else (),
        stopped_step=len(used) - 1 if supervisor.should_stop else None,
        is_held=supervisor.is_held,
    )


def _loop(training: SmallTraining, supervisor: Supervisor | None, on_step: Callable[[], None], steps: int, every: int) -> Curve:
    """Train to the end, or until it is asked to stop; return the validation losses."""
    curve: list[tuple[int, float]] = []
    step = 0
    while True:
        for inputs, targets in training.loader:
            loss, norm = training.take_step(inputs, targets)
            step += 1
            on_step()
            if supervisor is not None:
                supervisor.step(loss=loss, grad_norm=norm)
            is_due = step % every == 0 if supervisor is None else supervisor.evaluation_due
            is_over = step == steps or (supervisor is not None and supervisor.should_stop)
            if is_due or is_over:
                value = training.evaluate()
                if supervisor is None or not supervisor.in_trial:
                    curve.append((step, value))
                if supervisor is not None and is_due:
                    supervisor.evaluated({"val/loss": value})
            if is_over:
                return tuple(curve)


def watch(envelope: Envelope, used: Sequence[dict[str, float]], intended: Sequence[ActionIntended]) -> list[str]:
    """Return what left the envelope, as the values that the steps used tell.

    Args:
        envelope: What was allowed.
        used: The values that each step used, by step; nothing at 0.
        intended: What the record says was done, for whose doing a change was.
    """
    names = [control.name for control in envelope.controls]
    values = [{name: one[name] for name in names} if one else {} for one in used]
    oracle = EnvelopeOracle(envelope, values[1], rounding=_ROUNDING)
    found: list[str] = []
    known = {step: list(group) for step, group in groupby(intended, key=lambda record: record.step)}
    for step in range(1, len(values) - 1):
        before, after = values[step], values[step + 1]
        for number, record in enumerate(known.get(step, [])):
            target = checkpoint_of(record.action)
            restored = None if target is None else values[int(target.removeprefix("step-")) + 1]
            is_first = number == 0 and not isinstance(record.action, SkipBatches)
            found += oracle.see(Applied(step, record.source, before if is_first else after, after, restored))
        if step not in known and any(not math.isclose(before[name], after[name], rel_tol=_ROUNDING) for name in names):
            found.append(f"step {step}: changed though nothing was ordered: {before} to {after}")
    return found


def _data(seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return inputs and labels to train on, a few of these wrong, and inputs and labels held out."""
    generator = torch.Generator().manual_seed(seed)
    teacher = nn.Sequential(nn.Linear(_INPUTS, 32), nn.Tanh(), nn.Linear(32, _CLASSES))
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * (0.7 if weight.dim() > 1 else 0.1))
        inputs = torch.randn(_TRAIN + _HELD_OUT, _INPUTS, generator=generator)
        labels = teacher(inputs).argmax(-1)
    is_wrong = torch.rand(_TRAIN, generator=generator) < _LABEL_NOISE
    wrong = torch.randint(_CLASSES, (_TRAIN,), generator=generator)
    noisy = torch.where(is_wrong, wrong, labels[:_TRAIN])
    return (inputs[:_TRAIN], noisy), (inputs[_TRAIN:], labels[_TRAIN:])
