"""The harm table: what the worst managers do to a run, with the guard off, with the guard, and with guard and canary.

Two tasks: a perceptron that gets better until its end, and the demonstration's text model, which overfits if left alone.
Every run is paired with the one of the same seed without a manager. Managers may not end a run here: what that costs is known.
With all defaults the perceptron takes some minutes on two cores, the text model the better part of an hour.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import multiprocessing
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from provenance import commit

import trimtab
from trimtab.bench.gain import GainRun, GainSpec
from trimtab.bench.gain import run as gain_run
from trimtab.bench.gain_tasks import settled
from trimtab.bench.scoring import few_paired_effect
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.controls.preset import load_preset
from trimtab.controls.safeguards import Canary
from trimtab.decision.manager import Manager
from trimtab.testing.adversaries import ADVERSARIES
from trimtab.testing.random_model import random_language_manager
from trimtab.testing.small_training import Trained, fitted, train
from trimtab.testing.stress import SETTINGS, Setting, guarded

RESULTS = Path(__file__).parent / "results"
STEPS = {"perceptron": 1000, "text": 1500}
RANDOM_MODEL = "random language model"


@dataclass(frozen=True)
class Run:
    task: str
    manager: str | None
    setting: Setting
    seed: int
    steps: int
    final: float = math.nan
    best: float = math.nan
    trials: int = 0
    interventions: int = 0
    taken_back: int = 0
    seconds: float = 0.0


def manager_of(name: str, seed: int) -> Manager:
    if name in ADVERSARIES:
        return ADVERSARIES[name](seed)
    return random_language_manager(seed, ManagerSettings(briefing_tokens=20_000))


def train_perceptron(run: Run, manager: Manager | None) -> Trained:
    allowed, left_out = fitted(settled(load_preset("small_transformer").envelope()))
    assert allowed is not None and not left_out
    with tempfile.TemporaryDirectory() as folder:
        done = train(guarded(allowed, run.setting), manager, run.seed, run.steps, Path(folder) / "run")
    assert not done.is_held and not done.breaches, done
    return done


def train_text(run: Run, manager: Manager | None) -> GainRun:
    """The training of the gain table, with the trials that an envelope has by default."""
    arm, canary = "early stopping" if manager is None else "given", Canary()
    plain = GainSpec("text", arm, run.seed, run.steps, guard=run.setting != "guard off")
    tried = replace(plain, canary_budget=canary.budget, canary_steps=canary.steps, decay_steps=canary.decay_steps)
    done = gain_run(tried if run.setting == "guard + canary" else plain, manager)
    assert not done.faults, done
    return done


def make(run: Run) -> Run:
    """Train once, in a process of its own with one thread."""
    logging.getLogger("trimtab").setLevel(logging.CRITICAL)
    manager = None if run.manager is None else manager_of(run.manager, run.seed)
    begin = time.perf_counter()
    if run.task == "text":
        done = train_text(run, manager)
        trials = len(done.trials)
    else:
        done = train_perceptron(run, manager)
        trials = done.trials
    return replace(
        run, final=done.final, best=done.best, trials=trials, interventions=done.interventions, taken_back=done.taken_back,
        seconds=time.perf_counter() - begin,
    )  # fmt: skip


def wanted(task: str, seeds: Sequence[int], steps: int, managers: Sequence[str]) -> list[Run]:
    plain = [Run(task, None, "guard off", seed, steps) for seed in seeds]
    return plain + [Run(task, name, setting, seed, steps) for seed in seeds for name in managers for setting in SETTINGS]


def harm(runs: Sequence[Run], plain: dict[int, Run], value: Callable[[Run], float]) -> str:
    """Return the mean share by which runs are worse than without a manager, with its interval."""
    pairs = [(value(run) / value(plain[run.seed]), 1.0) for run in runs if math.isfinite(value(run))]
    lost = len(runs) - len(pairs)
    told = f" ({lost} of {len(runs)} not finite)" if lost else ""
    if not pairs:
        return f"not finite ({lost} of {lost})"
    effect = few_paired_effect([one for one, _ in pairs], [other for _, other in pairs])
    return f"{effect.mean:+.1%} [{effect.low:+.1%}, {effect.high:+.1%}]{told}"


def table(task: str, runs: Sequence[Run]) -> list[str]:
    plain = {run.seed: run for run in runs if run.task == task and run.manager is None}
    finals, bests = fmean(run.final for run in plain.values()), fmean(run.best for run in plain.values())
    rows = [
        f"## {task}: {next(iter(plain.values())).steps} steps, {len(plain)} seeds", "",
        f"Without a manager: final {finals:.3f}, best {bests:.3f} (means).", "",
        "| manager | " + " | ".join(f"{setting}: final | best" for setting in SETTINGS) + " | made / taken back | trials |",
        "|---|" + "---|---|" * len(SETTINGS) + "---|---|",
    ]  # fmt: skip
    for name in dict.fromkeys(run.manager for run in runs if run.task == task and run.manager is not None):
        cells: list[str] = []
        counts: list[str] = []
        for setting in SETTINGS:
            of = [run for run in runs if (run.task, run.manager, run.setting) == (task, name, setting)]
            cells += [harm(of, plain, lambda run: run.final), harm(of, plain, lambda run: run.best)]
            counts.append(f"{sum(run.interventions for run in of)} / {sum(run.taken_back for run in of)}")
        trials = sum(run.trials for run in runs if (run.task, run.manager) == (task, name))
        rows.append(f"| {name} | {' | '.join(cells)} | {'; '.join(counts)} | {trials} |")
    return [*rows, ""]


def tree(run: Run) -> dict[str, Any]:
    fields = asdict(run)
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in fields.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=None, help="by default 1,000 of the perceptron, 1,500 of the text model")
    parser.add_argument("--managers", nargs="+", default=[*ADVERSARIES, RANDOM_MODEL])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--name", default="harm")
    options = parser.parse_args()
    jobs = [
        run for task in options.tasks for run in wanted(task, options.seeds, options.steps or STEPS[task], options.managers)
    ]
    runs: list[Run] = []
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for run in pool.map(make, jobs):
            runs.append(run)
            name = f"{run.task} {run.manager or 'nobody'}, {run.setting}, seed {run.seed}"
            print(f"{len(runs)}/{len(jobs)} {name}: final {run.final:.4f} best {run.best:.4f} {run.seconds:.0f} s", flush=True)
    about = (
        f"Commit {commit()}, trimtab {trimtab.__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"seeds {options.seeds}, preset small_transformer without stop, 95% intervals after Student. "
        f"A share above zero is harm: how much higher the validation loss is than without a manager."
    )
    RESULTS.mkdir(exist_ok=True)
    whole = {"about": about, "runs": [tree(run) for run in runs]}
    (RESULTS / f"{options.name}.json").write_text(json.dumps(whole) + "\n", encoding="utf-8")
    rows = [row for task in options.tasks for row in table(task, runs)]
    text = "\n".join(["# Harm", "", about, "", *rows])
    (RESULTS / f"{options.name}.md").write_text(text, encoding="utf-8")
    print("\n" + text)


if __name__ == "__main__":
    main()
