"""One run of the gain table, in a process of its own: simple baselines and managers at equal compute.

Started as ``python -m trimtab.bench.gain SPEC`` with a JSON object of `GainSpec`; prints the `GainRun` as JSON.

Rules, fixed before any result was looked at:
1. Every arm makes the same number of optimizer steps in its loop, those of trials included.
2. What counts is the best objective that the run's own course shows at its evaluations; those of a trial's arms do not count.
   So early stopping with the best checkpoint is part of every arm.
3. The rate of the cosine schedule is chosen beforehand, on seeds that are not reported. Nothing else is tuned.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final, Literal

import torch

import trimtab
from trimtab.bench.gain_tasks import KINDS, OBJECTIVE, GainTask
from trimtab.bench.scoring import Effect, few_paired_effect
from trimtab.controls.safeguards import Canary
from trimtab.decision.manager import Manager
from trimtab.decision.random import RandomManager
from trimtab.decision.rules.manager import RulesManager
from trimtab.integrations.pytorch.untyped import backward
from trimtab.ledger.reading import iter_ledger
from trimtab.ledger.record import ActionIntended, EvaluationRecorded, ProblemNoticed, TrialBegan, TrialEnded
from trimtab.runtime.supervisor import Supervisor

Arm = Literal["early stopping", "plateau", "cosine", "random", "rules", "given"]

BASELINES: Final[tuple[Arm, ...]] = ("early stopping", "plateau", "cosine")
MANAGERS: Final[tuple[Arm, ...]] = ("random", "rules")
TUNING_SEEDS: Final = (100, 101)
TUNED_FACTORS: Final = (0.1, 0.3, 1.0, 3.0)
_PLATEAU_FACTOR: Final = 0.5
_PLATEAU_PATIENCE: Final = 2
_LOOKS_AT: Final = 3


@dataclass(frozen=True, slots=True)
class GainSpec:
    """What one run is.

    Args:
        task: A key of `KINDS`.
        arm: A baseline, or who manages; ``given`` is a manager that `run` is given.
        seed: Of everything drawn, the random manager's choices included.
        num_steps: Optimizer steps of the loop.
        guard: Whether the guard is armed.
        canary_budget: Share of the steps that trials may cost; None for no canary.
        canary_steps: Steps of a trial's arm; None for the task's own.
        decay_steps: Steps of its decay; None for the task's own.
        canary_look: Whether its arms are looked at early, after a third of their steps.
        rate_factor: Factor on the rate of the fixed recipe.
    """

    task: str
    arm: Arm
    seed: int
    num_steps: int
    guard: bool = True
    canary_budget: float | None = None
    canary_steps: int | None = None
    decay_steps: int | None = None
    canary_look: bool = True
    rate_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class GainRun:
    """What became of a run.

    Args:
        spec: What it was.
        curve: Steps and objectives of the run's own course.
        final: The objective at the end.
        steps_made: Steps of the loop.
        trials: Steps at which trials ended, their outcomes and what they cost.
        interventions: Of the manager, carried out.
        taken_back: Of these, by the guard.
        problems: What trimtab noticed.
        faults: What it did that it must not do; empty in a sound run.
        rate_change: The learning rate in the recipe at the end, as a multiple of that at the start.
        seconds: Of wall time.
    """

    spec: GainSpec
    curve: tuple[tuple[int, float], ...]
    final: float
    steps_made: int
    trials: tuple[tuple[int, str, int], ...] = ()
    interventions: int = 0
    taken_back: int = 0
    problems: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    rate_change: float = 1.0
    seconds: float = 0.0

    @property
    def best(self) -> float:
        """The lowest objective of the run's own course; infinite if none is finite."""
        return min((value for _, value in self.curve if math.isfinite(value)), default=math.inf)

    @property
    def share_spent(self) -> float:
        """Steps that trials cost, as a share of all."""
        return sum(spent for _, _, spent in self.trials) / self.steps_made

    def count(self, outcome: str) -> int:
        """Return how many trials ended so."""
        return sum(one == outcome for _, one, _ in self.trials)


def canary_of(spec: GainSpec) -> Canary:
    """Return the canary of a run; off where it has none."""
    if spec.canary_budget is None:
        return Canary()
    kind = KINDS[spec.task]
    steps = kind.canary_steps if spec.canary_steps is None else spec.canary_steps
    decay = kind.decay_steps if spec.decay_steps is None else spec.decay_steps
    return Canary("win", steps, steps // _LOOKS_AT if spec.canary_look else 0, decay, budget=spec.canary_budget)


def run(spec: GainSpec, manager: Manager | None = None) -> GainRun:
    """Train once.

    Args:
        spec: What the run is.
        manager: Who manages it if the arm is ``given``; None otherwise.
    """
    assert (manager is not None) == (spec.arm == "given"), f"{spec.arm} and {manager}"
    torch.set_num_threads(1)
    task = KINDS[spec.task].build(spec.seed)
    for group in task.optimizer.param_groups:
        group["lr"] *= spec.rate_factor
    begin = time.perf_counter()
    manager = _own_manager(spec) if manager is None else manager
    done = _plain(spec, task) if manager is None else _managed(spec, task, manager)
    return replace(done, seconds=time.perf_counter() - begin)


def _own_manager(spec: GainSpec) -> Manager | None:
    match spec.arm:
        case "random":
            return RandomManager(spec.seed)
        case "rules":
            return RulesManager()
        case _:
            return None


def _plain(spec: GainSpec, task: GainTask) -> GainRun:
    curve: list[tuple[int, float]] = []
    cosine = None
    plateau: Any = None  # its signature is only half typed
    if spec.arm == "cosine":
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(task.optimizer, spec.num_steps)
    if spec.arm == "plateau":
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(task.optimizer, factor=_PLATEAU_FACTOR, patience=_PLATEAU_PATIENCE)
    step, every = 0, KINDS[spec.task].evaluate_every_steps
    while step < spec.num_steps:
        for inputs, targets in task.loader:
            _take_step(task, inputs, targets)
            step += 1
            if cosine is not None:
                cosine.step()
            if step % every == 0 or step == spec.num_steps:
                curve.append((step, task.evaluate()))
                if plateau is not None:
                    plateau.step(curve[-1][1])
            if step == spec.num_steps:
                break
    return GainRun(spec, tuple(curve), curve[-1][1], step)


def _managed(spec: GainSpec, task: GainTask, manager: Manager) -> GainRun:
    guard = replace(task.envelope.guard, armed=spec.guard)
    with tempfile.TemporaryDirectory() as folder:
        supervisor = trimtab.supervise(
            task.model,
            task.optimizer,
            loader=task.loader,
            envelope=replace(task.envelope, guard=guard, canary=canary_of(spec)),
            manager=manager,
            run_dir=Path(folder) / "run",
            total_steps=spec.num_steps,
            evaluate_every_steps=KINDS[spec.task].evaluate_every_steps,
            parts=task.parts,
            tracker=None,
        )
        steps_made = _supervised(spec, task, supervisor)
        supervisor.close()
        return _account(spec, supervisor, task.evaluate(), steps_made)


def _supervised(spec: GainSpec, task: GainTask, supervisor: Supervisor) -> int:
    """Run the loop; this is the loop a user writes. Return the steps made."""
    step = 0
    while step < spec.num_steps and not supervisor.should_stop:
        for inputs, targets in task.loader:
            loss = _take_step(task, inputs, targets)
            step += 1
            supervisor.step(loss=loss, **task.signals())
            if supervisor.evaluation_due:
                supervisor.evaluated({OBJECTIVE: task.evaluate()})
            if step == spec.num_steps or supervisor.should_stop:
                break
    return step


def _take_step(task: GainTask, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    loss = task.loss(inputs, targets)
    task.optimizer.zero_grad()
    backward(loss)
    task.optimizer.step()
    return loss


def _account(spec: GainSpec, supervisor: Supervisor, final: float, steps_made: int) -> GainRun:
    """Return what the ledger tells of a run that is over."""
    records = [entry.record for entry in iter_ledger(supervisor.run_directory.ledger)]
    intended = [record.source for record in records if isinstance(record, ActionIntended)]
    done = GainRun(
        spec,
        tuple((record.step, record.objective) for record in records if isinstance(record, EvaluationRecorded)),
        final,
        steps_made,
        tuple((record.step, record.outcome, record.spent) for record in records if isinstance(record, TrialEnded)),
        intended.count("manager"),
        intended.count("guard"),
        tuple(f"{record.step}: {record.problem}: {record.detail}" for record in records if isinstance(record, ProblemNoticed)),
        rate_change=supervisor.recipe["learning_rate"] / supervisor.state.initial["learning_rate"],
    )
    began = [record.step for record in records if isinstance(record, TrialBegan)]
    return replace(done, faults=tuple(faults_of(done, began, is_held=supervisor.is_held)))


def faults_of(done: GainRun, trials_began: Sequence[int], *, is_held: bool) -> list[str]:
    """Return what trimtab did in a run that it must not do.

    Args:
        done: The run.
        trials_began: Steps at which its trials began.
        is_held: Whether trimtab failed and only held the recipe.
    """
    found: list[str] = []
    if is_held:
        found.append("trimtab failed and held the recipe")
    if len(trials_began) != len(done.trials):
        found.append(f"{len(trials_began)} trials began and {len(done.trials)} ended")
    budget = done.spec.canary_budget or 0.0
    spent = 0
    for step, _, cost in done.trials:
        spent += cost
        if spent > budget * step:
            found.append(f"trials had cost {spent} of {step} steps; the budget is {budget:.0%}")
    if done.steps_made != done.spec.num_steps:
        found.append(f"{done.steps_made} of {done.spec.num_steps} steps were made")
    return found


Value = Callable[[GainRun], float]


def best_of(run: GainRun) -> float:
    """Return the best objective: what is compared unless said otherwise."""
    return run.best


def final_of(run: GainRun) -> float:
    """Return the objective at the end."""
    return run.final


def best_baseline(runs: Sequence[GainRun], task: str, value: Value = best_of) -> tuple[Arm, dict[int, GainRun]]:
    """Return the baseline with the lowest mean of ``value``, and its runs by seed."""
    arms: dict[Arm, dict[int, GainRun]] = {
        arm: {run.spec.seed: run for run in runs if (run.spec.task, run.spec.arm) == (task, arm)} for arm in BASELINES
    }
    made: list[Arm] = [arm for arm in BASELINES if arms[arm]]
    best: Arm = min(made, key=lambda arm: fmean(value(run) for run in arms[arm].values()))
    return best, arms[best]


def against(runs: Sequence[GainRun], base: dict[int, GainRun], value: Value = best_of) -> Effect:
    """Return by which share of the baseline's mean the runs differ from it, paired by seed; below 0 is better."""
    paired = [run for run in runs if run.spec.seed in base]
    control = [value(base[run.spec.seed]) for run in paired]
    effect = few_paired_effect([value(run) for run in paired], control)
    scale = fmean(control)
    return Effect(effect.mean / scale, effect.low / scale, effect.high / scale, effect.num_pairs)


def to_tree(done: GainRun) -> dict[str, Any]:
    """Return a run as JSON can hold it: what is not finite becomes None."""
    curve = [[step, value if math.isfinite(value) else None] for step, value in done.curve]
    return asdict(done) | {"curve": curve, "final": done.final if math.isfinite(done.final) else None}


def from_tree(tree: dict[str, Any]) -> GainRun:
    """Return a run from what `to_tree` made; None becomes not a number."""
    spec, curve, trials = GainSpec(**tree["spec"]), tree["curve"], tree["trials"]
    whole: dict[str, Any] = {
        **tree,
        "spec": spec,
        "curve": tuple((int(step), _number(value)) for step, value in curve),
        "final": _number(tree["final"]),
        "trials": tuple((int(step), str(outcome), int(spent)) for step, outcome, spent in trials),
        "problems": tuple(tree["problems"]),
        "faults": tuple(tree["faults"]),
    }
    return GainRun(**whole)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def main() -> int:
    """Make the run that the first argument describes."""
    logging.getLogger("trimtab").setLevel(logging.CRITICAL)  # what it says is in the run's problems
    print(json.dumps(to_tree(run(GainSpec(**json.loads(sys.argv[1]))))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
