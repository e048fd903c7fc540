"""The gain table: what managers bring with and without guard and canary, beside simple baselines at equal compute.

Every run is `trimtab.bench.gain` in a process of its own with one thread, two at a time. Finished runs are kept in the
results, so that a second call makes only what is missing; a run is made again if its settings differ. The rate of the cosine
schedule is chosen first, on seeds of their own. With all defaults it takes the better part of an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from provenance import commit

import trimtab
from trimtab.bench.gain import (
    BASELINES,
    MANAGERS,
    TUNED_FACTORS,
    TUNING_SEEDS,
    Arm,
    GainRun,
    GainSpec,
    against,
    best_baseline,
    canary_of,
    final_of,
    from_tree,
    to_tree,
)
from trimtab.bench.gain_tasks import KINDS
from trimtab.bench.scoring import Effect

RESULTS = Path(__file__).parent / "results"
# By name: whether the guard is armed, and the canary's budget.
SETTINGS: dict[str, tuple[bool, float | None]] = {
    "guard off, no canary": (False, None),
    "no canary": (True, None),
    "canary 5%": (True, 0.05),
    "canary 15%": (True, 0.15),
    "canary 50%": (True, 0.5),
}
# Steps of an arm, steps of its decay, and whether it is looked at early.
FRONTIER = [(steps, decay, True) for steps in (10, 30, 60) for decay in (0, 10, 20)] + [(30, 10, False), (60, 20, False)]


Bases = tuple[dict[int, GainRun], dict[int, GainRun]]  # the baseline with the best objective, and the one with the best end


class Kept:
    """The runs that are finished, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._commit = commit()
        self.runs: dict[GainSpec, GainRun] = {}
        self.commits: dict[GainSpec, str] = {}
        trees: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
        for tree in trees:
            run = from_tree(tree["run"])
            self.runs[run.spec], self.commits[run.spec] = run, tree["commit"]

    def add(self, run: GainRun) -> None:
        with self._lock:
            self.runs[run.spec], self.commits[run.spec] = run, self._commit
            trees = [{"commit": self.commits[spec], "run": to_tree(run)} for spec, run in self.runs.items()]
            beside = self._path.with_suffix(".part")
            beside.write_text(json.dumps({"about": about(self), "runs": trees}) + "\n", encoding="utf-8")
            beside.replace(self._path)

    def of(self, specs: Iterable[GainSpec]) -> list[GainRun]:
        return [self.runs[spec] for spec in specs if spec in self.runs]


def about(kept: Kept) -> str:
    return (
        f"Commit {', '.join(sorted(set(kept.commits.values())))}, trimtab {trimtab.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, one thread a run."
    )


def make(specs: Sequence[GainSpec], kept: Kept, jobs: int) -> list[GainRun]:
    """Make what is missing, unless there are no jobs; return what is there."""
    missing = [spec for spec in specs if spec not in kept.runs] if jobs else []
    if not missing:
        return kept.of(specs)
    done = 0

    def one(spec: GainSpec) -> None:
        nonlocal done
        run = make_one(spec)
        kept.add(run)
        done += 1
        name = f"{spec.task} {spec.arm}, {setting_of(spec)}, seed {spec.seed}"
        told = f"best {run.best:.4f} final {run.final:.4f} {len(run.trials)} trials {run.seconds:.0f} s"
        print(f"{done}/{len(missing)} {name}: {told} {' '.join(run.faults)}", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, missing))
    return kept.of(specs)


def make_one(spec: GainSpec) -> GainRun:
    command = [sys.executable, "-m", "trimtab.bench.gain", json.dumps(asdict(spec))]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)  # noqa: S603 - our own interpreter
    if done.returncode:
        raise SystemExit(f"{spec} failed: {done.stderr[-3000:]}")
    return from_tree(json.loads(done.stdout))


def setting_of(spec: GainSpec) -> str:
    if spec.arm in BASELINES:
        return f"rate x{spec.rate_factor:g}"
    name = next(name for name, setting in SETTINGS.items() if setting == (spec.guard, spec.canary_budget))
    sizes = "" if spec.canary_steps is None else f" of {spec.canary_steps}+{spec.decay_steps} steps"
    return name + sizes


def tuning(task: str) -> list[GainSpec]:
    steps = KINDS[task].num_steps
    return [GainSpec(task, "cosine", seed, steps, rate_factor=by) for by in TUNED_FACTORS for seed in TUNING_SEEDS]


def tuned_factor(runs: Sequence[GainRun]) -> float:
    return min(TUNED_FACTORS, key=lambda by: fmean(run.best for run in runs if run.spec.rate_factor == by))


def wanted(task: str, seed: int, factor: float) -> list[GainSpec]:
    plain = GainSpec(task, "early stopping", seed, KINDS[task].num_steps)
    baselines = [replace(plain, arm=arm, rate_factor=factor if arm == "cosine" else 1.0) for arm in BASELINES]
    return baselines + [
        replace(plain, arm=arm, guard=guard, canary_budget=budget) for arm in MANAGERS for guard, budget in SETTINGS.values()
    ]


def frontier(task: str, seeds: Sequence[int]) -> list[GainSpec]:
    plain = GainSpec(task, "random", 0, KINDS[task].num_steps, canary_budget=SETTINGS["canary 15%"][1])
    tried = [replace(plain, canary_steps=steps, decay_steps=decay, canary_look=look) for steps, decay, look in FRONTIER]
    stopped = GainSpec(task, "early stopping", 0, plain.num_steps)
    return [replace(spec, seed=seed) for seed in seeds for spec in (stopped, *tried)]


def share(effect: Effect) -> str:
    if effect.num_pairs < 2:
        return f"{effect.mean:+.1%}, one seed"
    return f"{effect.mean:+.1%} [{effect.low:+.1%}, {effect.high:+.1%}]{' *' if effect.excludes_zero else ''}"


def row_of(name: str, of: Sequence[GainRun], bases: Bases, untried: Sequence[GainRun] = ()) -> str:
    base, final_base = bases
    without = {run.spec.seed: run for run in untried}
    is_beside = of[0] not in untried and bool(without.keys() & {run.spec.seed for run in of})
    cells = [
        name,
        f"{fmean(run.best for run in of):.4g}",
        "the baseline" if of[0] in base.values() else share(against(of, base)),
        share(against(of, without)) if is_beside else "",
        f"{fmean(run.final for run in of):.4g}",
        "the baseline" if of[0] in final_base.values() else share(against(of, final_base, final_of)),
    ]
    if of[0].spec.arm in BASELINES:
        return f"| {' | '.join([*cells, '', '', ''])} |"
    is_tried = of[0].spec.canary_budget is not None
    cells += (f"{fmean(run.share_spent for run in of):.1%}", trials_of(of)) if is_tried else ("", "")
    cells.append(f"{fmean(run.interventions for run in of):.1f} / {fmean(run.taken_back for run in of):.1f}")
    return f"| {' | '.join(cells)} |"


def trials_of(runs: Sequence[GainRun]) -> str:
    """Return how many trials a run had, and how they ended in all runs."""
    counts = [sum(run.count(outcome) for run in runs) for outcome in ("won", "lost", "abandoned")]
    return f"{sum(counts) / len(runs):.1f}: {' / '.join(map(str, counts))}"


HEAD = [
    (
        "| arm | best objective | against the best baseline | against it without canary | final objective | against the best "
        "final baseline | trial steps of all | trials a run: won / lost / abandoned in all | interventions / taken back a run |"
    ),
    "|" + "---|" * 9,
]


def table(task: str, runs: Sequence[GainRun], factor: float) -> list[str]:
    arm, base = best_baseline(runs, task)
    final_arm, final_base = best_baseline(runs, task, final_of)
    bases = (base, final_base)
    kind = KINDS[task]
    canary = canary_of(GainSpec(task, "random", 0, kind.num_steps, canary_budget=0.15))
    rows = [
        f"## {task}", "",
        (f"{kind.num_steps:,} steps, evaluated every {kind.evaluate_every_steps}; seeds {sorted(base)}; an arm of a trial "
        f"{canary.steps} steps and {canary.decay_steps} of decay. Best baseline: {arm}; by its end: "
        f"{final_arm}. Rate of the cosine schedule: {factor:g} times that of the fixed recipe."), "",
        *HEAD,
    ]  # fmt: skip
    for baseline in BASELINES:
        of = [run for run in runs if run.spec.arm == baseline]
        rows.append(row_of(baseline, of, bases))
    verdicts: dict[str, list[str]] = {"better": [], "worse": [], "not told apart": []}
    for manager in MANAGERS:
        by = {setting: [run for run in runs if is_of(run, manager, setting)] for setting in SETTINGS.values()}
        for name, setting in SETTINGS.items():
            if not by[setting]:
                continue
            rows.append(row_of(f"{manager}, {name}", by[setting], bases, by[SETTINGS["no canary"]]))
            effect = against(by[setting], base)
            verdict = "not told apart" if not effect.excludes_zero else "better" if effect.mean < 0 else "worse"
            verdicts[verdict].append(f"{manager}, {name}")
    told = [f"- {verdict}: {'; '.join(names) or 'none'}." for verdict, names in verdicts.items()]
    return [*rows, "", f"Against {arm}, by intervals that exclude zero:", *told, "", *faults_in(runs)]


def is_of(run: GainRun, manager: Arm, setting: tuple[bool, float | None]) -> bool:
    return run.spec.arm == manager and (run.spec.guard, run.spec.canary_budget) == setting


def faults_in(runs: Sequence[GainRun]) -> list[str]:
    found = [
        f"- {run.spec.arm}, {setting_of(run.spec)}, seed {run.spec.seed}: {'; '.join(run.faults)}" for run in runs if run.faults
    ]
    return ["What trimtab did that it must not do:", *found, ""] if found else []


def frontier_table(task: str, runs: Sequence[GainRun]) -> list[str]:
    stopped = {run.spec.seed: run for run in runs if run.spec.arm == "early stopping"}
    rows = [
        f"## {task}: how long a trial is, whether its rate decays, and the early look", "",
        (f"Random manager, canary 15%, seeds {sorted({run.spec.seed for run in runs})}; against early stopping. With a decay "
        "of 0 a trial is a plain short one. The early look is after a third of an arm."), "",
        ("| steps of an arm | steps of its decay | early look | best objective | against early stopping | final objective "
        "| trial steps | trials a run: won / lost / abandoned in all | rate at the end, of that at the start |"),
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for steps, decay, look in FRONTIER:
        sizes = (steps, decay, look)
        of = [run for run in runs if (run.spec.canary_steps, run.spec.decay_steps, run.spec.canary_look) == sizes]
        if of:
            rows.append(
                f"| {steps} | {decay} | {'yes' if look else 'no'} | {fmean(run.best for run in of):.4g} "
                f"| {share(against(of, stopped))} | {fmean(run.final for run in of):.4g} "
                f"| {fmean(run.share_spent for run in of):.1%} | {trials_of(of)} "
                f"| {fmean(run.rate_change for run in of):.2f} |"
            )
    return [*rows, ""]


INTRODUCTION = """\
How far down does each arm bring the validation loss, when all of them make the same number of optimizer steps? The steps of a
canary's trials are among them: what a trial spends, the run itself lacks.

- **Best objective**: the lowest at the evaluations of the run's own course, mean over seeds: what early stopping with the best
  checkpoint keeps. Those of a trial's arms do not count. The validation set that decides it also decides trials.
- **Against the best baseline**: mean paired difference of the best objectives, as a share of the baseline's mean, with
  a 95% interval after Student; below zero is better, and a star stands where the interval excludes zero. The baseline is the
  best of three by its mean over the same seeds, which favours it. Nothing is corrected for the number of rows.
- A run with many trials has fewer evaluations of its own, and the lowest of fewer noisy values is higher: that is part of
  what trials cost here. The final objective is free of it.
- **Against it without canary**: the same with the same manager, guard armed and no canary, as the baseline.
- **early stopping**: the fixed recipe. **plateau**: `ReduceLROnPlateau`, half the rate after two evaluations without gain.
  **cosine**: to zero at the end, from a rate chosen beforehand on two other seeds; those eight runs are not charged to it.
- **random** draws from what the envelope allows, **rules** is the rule base. They are waited for and may not stop a run. The
  guard is armed except where it says off. The canary is in mode `win`: what cannot be tried, since the budget does not cover
  it yet or the end is near, is not applied.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2, help="runs at once; 0 only writes the table of those that are finished")
    parser.add_argument(
        "--frontier", nargs="*", choices=list(KINDS), default=[], help="vary the trials themselves on these tasks"
    )
    parser.add_argument("--frontier-seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--name", default="gain")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    kept = Kept(RESULTS / f"{options.name}.json")
    rows: list[str] = []
    for task in KINDS:
        jobs = options.jobs if task in options.tasks else 0
        tuned = make(tuning(task), kept, jobs)
        if len(tuned) < len(tuning(task)):
            continue
        factor = tuned_factor(tuned)
        of_seeds = [wanted(task, seed, factor) for seed in options.seeds]
        make([spec for specs in of_seeds for spec in specs], kept, jobs)
        # Seeds of which an arm is missing are left out: means over different seeds cannot be compared.
        found = [run for specs in of_seeds if len(runs := kept.of(specs)) == len(specs) for run in runs]
        rows += table(task, found, factor) if found else []
    for task in KINDS:
        seeds = options.frontier_seeds
        made = make(frontier(task, seeds), kept, options.jobs if task in options.frontier else 0)
        if any(run.spec.canary_steps is not None for run in made):
            rows += frontier_table(task, made)
    text = "\n".join(["# Gain", "", about(kept), "", INTRODUCTION, *rows])
    (RESULTS / f"{options.name}.md").write_text(text, encoding="utf-8")
    print("\n" + text)


if __name__ == "__main__":
    main()
