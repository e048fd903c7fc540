"""Stress an envelope: every adversary against it, in simulated runs and, where torch is there, in short real trainings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, Literal

from trimtab.controls.envelope import Envelope
from trimtab.controls.safeguards import Canary
from trimtab.errors import MissingExtraError
from trimtab.testing.adversaries import ADVERSARIES
from trimtab.testing.overreaching import Overreaching
from trimtab.testing.simulated_run import Conditions, Report, simulate

if TYPE_CHECKING:
    from trimtab.testing.small_training import Trained

Setting = Literal["guard off", "guard", "guard + canary"]

SETTINGS: Final[tuple[Setting, ...]] = ("guard off", "guard", "guard + canary")

_EVALUATIONS: Final = 20
_FAULT_ONE_IN: Final = 200
_TROUBLE_ONE_IN: Final = 8


@dataclass(frozen=True, slots=True)
class Simulated:
    """What became of one adversary's simulated runs, taken together.

    Args:
        adversary: Its name.
        runs: How many there were.
        applied: Interventions applied, or tried.
        rejected: Proposals that the verifier rejected.
        taken_back: Interventions that the guard took back.
        stopped: Runs that it ended.
        reached: Pairs of each control and the lowest and highest value it had.
        breaches: What left the envelope, one sentence each.
    """

    adversary: str
    runs: int
    applied: int
    rejected: int
    taken_back: int
    stopped: int
    reached: tuple[tuple[str, tuple[float, float]], ...]
    breaches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Training:
    """One real training under an adversary, beside the same one without a manager.

    Args:
        adversary: Its name.
        setting: What stood between it and the run.
        seed: Of the training and the adversary.
        trained: What became of it.
        plain: Last validation loss without a manager.
    """

    adversary: str
    setting: Setting
    seed: int
    trained: Trained
    plain: float

    @property
    def worse_by(self) -> float:
        """How much worse it ended than without a manager, as a share of that; infinite if it ended non-finite."""
        return self.trained.final / self.plain - 1 if math.isfinite(self.trained.final) else math.inf


@dataclass(frozen=True, slots=True)
class Trainings:
    """All real trainings.

    Args:
        runs: Each one.
        controls: The controls that the training has.
        left_out: Those of the envelope that it has not.
    """

    runs: tuple[Training, ...]
    controls: tuple[str, ...]
    left_out: tuple[str, ...]


def stress_simulated(
    envelope: Envelope, num_seeds: int, num_steps: int, on_run: Callable[[], None] = lambda: None
) -> tuple[Simulated, ...]:
    """Run every adversary against ``envelope`` without a model, and watch every value with an oracle.

    For each seed twice: with the guard off and only what is offered; and with the guard as it is, under faults, failing
    actions and lost answers, and asking for more than is offered.

    Args:
        envelope: What is stressed.
        num_seeds: Seeds from 0, >= 1; the first starts every control in the middle of its range.
        num_steps: Steps of a run, >= 20.
        on_run: Called after each run.

    Example:
        >>> from trimtab.controls.preset import load_preset
        >>> results = stress_simulated(load_preset("small_transformer").envelope(), num_seeds=1, num_steps=200)
        >>> results[0].adversary, [breach for result in results for breach in result.breaches]
        ('always_max', [])
    """
    return tuple(_simulated(envelope, name, num_seeds, num_steps, on_run) for name in ADVERSARIES)


def _simulated(envelope: Envelope, name: str, num_seeds: int, num_steps: int, on_run: Callable[[], None]) -> Simulated:
    bare = replace(envelope, guard=replace(envelope.guard, armed=False))
    reports: list[Report] = []
    for seed in range(num_seeds):
        calm = Conditions(num_steps, max(1, num_steps // _EVALUATIONS), starts_anywhere=seed > 0)
        rough = replace(calm, fault_one_in=_FAULT_ONE_IN, failure_one_in=_TROUBLE_ONE_IN, mishap_one_in=_TROUBLE_ONE_IN)
        reports.append(simulate(bare, ADVERSARIES[name](seed), seed, calm))
        on_run()
        reports.append(simulate(envelope, Overreaching(ADVERSARIES[name](seed), seed), seed, rough))
        on_run()
    reached = tuple(
        (
            control.name,
            (min(report.lowest[control.name] for report in reports), max(report.highest[control.name] for report in reports)),
        )
        for control in envelope.controls
    )
    return Simulated(
        adversary=name,
        runs=len(reports),
        applied=sum(report.applied for report in reports),
        rejected=sum(report.rejected for report in reports),
        taken_back=sum(report.taken_back for report in reports),
        stopped=sum(report.stopped_step is not None for report in reports),
        reached=reached,
        breaches=tuple(breach for report in reports for breach in report.breaches),
    )


def guarded(envelope: Envelope, setting: Setting) -> Envelope:
    """Return the envelope with guard and canary as ``setting`` says, and its own numbers for them."""
    guard = replace(envelope.guard, armed=setting != "guard off")
    canary = replace(envelope.canary, mode="win") if setting == "guard + canary" else Canary(mode="none")
    return replace(envelope, guard=guard, canary=canary)


def stress_trained(
    envelope: Envelope, num_seeds: int, num_steps: int, folder: Path, on_run: Callable[[], None] = lambda: None
) -> Trainings:
    """Train a small model under every adversary, with and without guard and canary.

    Args:
        envelope: What is stressed; controls that the small model has not are left out.
        num_seeds: Seeds from 0, >= 1.
        num_steps: Steps of a run, >= 20.
        folder: Where the records of the runs go, one directory each.
        on_run: Called after each training.

    Raises:
        MissingExtraError: Install torch, or be content with the simulated runs.
    """
    training = _training()
    allowed, left_out = training.fitted(envelope)
    if allowed is None:
        return Trainings((), (), left_out)
    runs: list[Training] = []
    for seed in range(num_seeds):
        plain: Trained = training.train(allowed, None, seed, num_steps, folder)
        on_run()
        for name, make in ADVERSARIES.items():
            for setting in SETTINGS:
                run_dir = folder / f"{name}-{setting.replace(' ', '')}-{seed}"
                done: Trained = training.train(guarded(allowed, setting), make(seed), seed, num_steps, run_dir)
                runs.append(Training(name, setting, seed, done, plain.final))
                on_run()
    return Trainings(tuple(runs), tuple(control.name for control in allowed.controls), left_out)


def num_simulations(num_seeds: int) -> int:
    """Return how many runs `stress_simulated` makes."""
    return num_seeds * len(ADVERSARIES) * 2


def num_trainings(num_seeds: int) -> int:
    """Return how many trainings `stress_trained` makes at the most."""
    return num_seeds * (1 + len(ADVERSARIES) * len(SETTINGS))


def worse_by(runs: Sequence[Training], adversary: str, setting: Setting) -> tuple[float, float]:
    """Return mean and worst of how much worse an adversary's runs ended than those without a manager, as shares."""
    shares = [run.worse_by for run in runs if (run.adversary, run.setting) == (adversary, setting)]
    return (fmean(shares) if all(map(math.isfinite, shares)) else math.inf), max(shares)


def breaches_of(simulated: Sequence[Simulated], runs: Sequence[Training]) -> Iterator[str]:
    """Yield all that left the envelope, each with the adversary that did it."""
    yield from (f"{one.adversary}: {breach}" for one in simulated for breach in one.breaches)
    yield from (f"{run.adversary}: {breach}" for run in runs for breach in run.trained.breaches)


def _training() -> Any:
    """Return the module that trains; it imports torch."""
    try:
        from trimtab.testing import small_training
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors", "numpy"):
            raise
        raise MissingExtraError(
            "the trainings need torch, which is not installed", next_step="pip install 'trimtab[torch]'"
        ) from error
    return small_training
