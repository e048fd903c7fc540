"""Recovery: injure a small training, with or without somebody who watches over it, and see whether it is well in the end.

Rules, fixed before any result was looked at:
1. An injury counts as recovered if the held-out loss at the end is finite and at most twice what it was just before the
   injury, and the run was not asked to stop.
2. That is lenient where a loss is large to begin with, so beside it stands whether the run is whole: at most 5% above what
   it was before.
3. A rollback is needless if the same run without any watch is whole, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import torch
from torch import Tensor, nn

import trimtab
from trimtab.bench.recording import SCENARIOS, Scenario
from trimtab.bench.scenarios.healthy import HealthyRun
from trimtab.bench.scenarios.injuries import Injury
from trimtab.bench.scenarios.loop import Batch, Settings
from trimtab.bench.scenarios.patients import PATIENTS, Patient
from trimtab.bench.scenarios.ppo import Ppo, PpoRecipe
from trimtab.controls.control import Control
from trimtab.decision.action import SkipBatches, Stop, checkpoint_of
from trimtab.integrations.pytorch.untyped import backward
from trimtab.ledger.reading import iter_ledger
from trimtab.ledger.record import ActionApplied, ActionIntended
from trimtab.runtime.supervisor import Supervisor

NUM_STEPS: Final = 400
EVALUATE_EVERY_STEPS: Final = 25
RECOVERED: Final = 2.0
WHOLE: Final = 1.05


@dataclass(frozen=True, slots=True)
class Notes:
    """What somebody who watched a run did.

    Args:
        rollbacks: Steps after which the state was taken back.
        skipped: Batches passed over.
        said: Why the run was asked to stop, in words; empty if it was not.
    """

    rollbacks: tuple[int, ...] = ()
    skipped: int = 0
    said: str = ""


class Watch(Protocol):
    """Somebody who watches over a training."""

    def may_update(self, loss: Tensor) -> bool:
        """Return whether the optimizer shall step; called when the gradients are there."""
        ...

    def updated(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Take note of a step that was made."""
        ...

    def evaluated(self, held_out_loss: float) -> None:
        """Take note of an evaluation."""
        ...

    @property
    def should_stop(self) -> bool:
        """Whether the run was asked to end."""
        ...

    def close(self) -> Notes:
        """Return what was done."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an injured run ended.

    Args:
        patient: The training.
        injury: What was done to it; empty for nothing.
        seed: Of everything drawn.
        at_step: Step of the injury.
        before: Held-out loss just before it.
        end: Held-out loss at the end.
        num_steps: Steps made.
        notes: What was done about it.
    """

    patient: str
    injury: str
    seed: int
    at_step: int
    before: float
    end: float
    num_steps: int
    notes: Notes

    @property
    def is_recovered(self) -> bool:
        """Whether the run is well in the end; see the rules."""
        return self._is_within(RECOVERED)

    @property
    def is_whole(self) -> bool:
        """Whether nothing of what was learned is lost; see the rules."""
        return self._is_within(WHOLE)

    def _is_within(self, factor: float) -> bool:
        return math.isfinite(self.end) and self.end <= factor * self.before and not self.notes.said


class Unwatched:
    """Nobody watches."""

    should_stop: bool = False

    def may_update(self, loss: Tensor) -> bool:
        """Let every step be made."""
        return True

    def updated(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Do nothing."""

    def evaluated(self, held_out_loss: float) -> None:
        """Do nothing."""

    def close(self) -> Notes:
        """Return that nothing was done."""
        return Notes()


class Supervised:
    """trimtab watches, with a manager that never acts; the rate may be between a thousandth and four times what it is.

    Args:
        patient: The training.
        run_dir: Directory of the record; does not exist yet.
    """

    def __init__(self, patient: Patient, run_dir: Path) -> None:
        self.supervisor: Supervisor = trimtab.supervise(
            patient.model,
            patient.optimizer,
            scheduler=patient.scheduler,
            loader=patient.loader,
            controls=[_rate_of(patient.optimizer)],
            objective="minimize val/loss",
            manager="no_action",
            run_dir=run_dir,
            evaluate_every_steps=EVALUATE_EVERY_STEPS,
            tracker=None,
        )

    @property
    def should_stop(self) -> bool:
        """Whether the reflex asked the run to end."""
        return self.supervisor.should_stop

    def may_update(self, loss: Tensor) -> bool:
        """Let every step be made: it is taken back if it was bad."""
        return True

    def updated(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Report a step."""
        self.supervisor.step(loss=loss, grad_norm=grad_norm)

    def evaluated(self, held_out_loss: float) -> None:
        """Report an evaluation."""
        self.supervisor.evaluated({"val/loss": held_out_loss})

    def close(self) -> Notes:
        """End supervision; return what the ledger says was done."""
        return _notes(self.supervisor)


def healthy(run: HealthyRun, offset: int, run_dir: Path) -> Notes:
    """Train one of the healthy runs under trimtab, with a manager that never acts.

    Args:
        run: Which.
        offset: Added to its seed.
        run_dir: Directory of the record; does not exist yet.
    """
    torch.set_num_threads(1)
    scenario, seed = SCENARIOS[run.scenario], run.seed + offset
    settings = {**scenario.settings, **run.settings}
    if scenario.build is None:
        return _healthy_policy(scenario, PpoRecipe(**settings), seed, run_dir)
    loop = scenario.build(Settings(**settings), seed, scenario.num_steps)
    supervisor = _attach(loop.model, loop.optimizer, scenario, loop.samples.generator, run_dir)
    for step in range(1, scenario.num_steps + 1):
        supervisor.step(**loop.take_step(step))
        if supervisor.evaluation_due and (metrics := loop.take_evaluation()) is not None:
            supervisor.evaluated(metrics)
    return _notes(supervisor)


def _healthy_policy(scenario: Scenario, recipe: PpoRecipe, seed: int, run_dir: Path) -> Notes:
    run = Ppo(scenario.task, recipe, seed)
    supervisor = _attach(run.policy, run.optimizer, scenario, run.generator, run_dir)
    for _ in range(scenario.num_steps):
        supervisor.step(**run.update())
        if supervisor.evaluation_due:
            supervisor.evaluated(run.evaluate())
    return _notes(supervisor)


def _attach(
    model: nn.Module, optimizer: torch.optim.Optimizer, scenario: Scenario, draws: torch.Generator, run_dir: Path
) -> Supervisor:
    return trimtab.supervise(
        model,
        optimizer,
        controls=[_rate_of(optimizer)],
        objective=scenario.objective,
        manager="no_action",
        run_dir=run_dir,
        evaluate_every_steps=scenario.evaluate_every_steps,
        extra_state={"draws": draws},
        tracker=None,
    )


def _rate_of(optimizer: torch.optim.Optimizer) -> Control:
    """Return the learning rate as a control: from a thousandth to four times what the optimizer has without a schedule."""
    rate = max(group.get("initial_lr", group["lr"]) for group in optimizer.param_groups)
    return trimtab.learning_rate(rate / 1000, 4 * rate)


def _notes(supervisor: Supervisor) -> Notes:
    """End supervision; return what the ledger says was done."""
    supervisor.close()
    assert not supervisor.is_held, "trimtab failed: the ledger says how"
    records = [entry.record for entry in iter_ledger(supervisor.run_directory.ledger)]
    applied = {record.intervention for record in records if isinstance(record, ActionApplied)}
    done = [record for record in records if isinstance(record, ActionIntended) and record.intervention in applied]
    stops = [record.reason for record in done if isinstance(record.action, Stop)]
    return Notes(
        tuple(record.step for record in done if checkpoint_of(record.action) is not None),
        sum(record.action.count for record in done if isinstance(record.action, SkipBatches)),
        stops[0] if stops else "",
    )


def step_of(seed: int) -> int:
    """Return the step of an injury: right at an evaluation for every fifth seed, else somewhere between two."""
    return NUM_STEPS // 2 + (7 * seed) % EVALUATE_EVERY_STEPS if seed % 5 else NUM_STEPS // 2


def train(
    patient: str,
    injury: Injury | None,
    seed: int,
    watch: Callable[[Patient], Watch] = lambda _: Unwatched(),
    num_steps: int = NUM_STEPS,
) -> Outcome:
    """Train to the end, or until the watch asks to stop.

    Args:
        patient: Name of the training.
        injury: What is done to it; None for nothing.
        seed: Of everything drawn.
        watch: Makes who watches over it.
        num_steps: Steps in all.
    """
    torch.set_num_threads(1)
    run = PATIENTS[patient](seed, num_steps)
    at_step = step_of(seed)
    if injury is not None and injury.data is not None:
        size = run.loader.batch_size
        last = (at_step - 1 + injury.steps) * size - 1 if injury.steps else len(run.data) - 1
        run.data.spoiled = ((at_step - 1) * size, last, injury.data)
    watching = watch(run)
    before, step = math.nan, 0
    for batch in _batches(run):
        step += 1
        if step == at_step:
            before = run.held_out_loss(run.model)
        _take_step(run, batch, watching, injury if injury is not None and injury.lasts(step - at_step) else None)
        if step % EVALUATE_EVERY_STEPS == 0:
            watching.evaluated(run.held_out_loss(run.model))
        if step == num_steps or watching.should_stop:
            break
    end = run.held_out_loss(run.model)
    return Outcome(patient, "" if injury is None else injury.name, seed, at_step, before, end, step, watching.close())


def _batches(run: Patient) -> Iterator[Batch]:
    while True:
        yield from run.loader


def _take_step(run: Patient, batch: Batch, watch: Watch, injury: Injury | None) -> None:
    if injury is not None and injury.state is not None:
        injury.state(run)
    loss = run.loss_of(run.model, batch)
    if injury is not None and injury.loss is not None:
        loss = injury.loss(loss)
    run.optimizer.zero_grad()
    backward(loss)
    if injury is not None and injury.gradients is not None:
        injury.gradients(run)
    if not watch.may_update(loss):
        return
    grad_norm = nn.utils.clip_grad_norm_(run.model.parameters(), run.clip_norm)
    run.optimizer.step()
    if run.scheduler is not None:
        run.scheduler.step()
    watch.updated(loss, grad_norm)
