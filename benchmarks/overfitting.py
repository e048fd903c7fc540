"""The overfitting rescue over seeds: managers against the fixed recipe and against early stopping.

Every arm is `trimtab.bench.arm` in a process of its own with one thread, two at a time. Early stopping
with the best checkpoint is computed from the unmanaged arm's own validation curve, at the same
evaluations; it is the best simple baseline that needs no other recipe. Every run is written down.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from provenance import commit

import trimtab
from trimtab.bench.scoring import Effect, paired_effect

RESULTS = Path(__file__).parent / "results"


def run_arm(seed: int, steps: int, manager: str | None, folder: Path, temperature: float | None = None) -> dict[str, Any]:
    arm = "unmanaged" if manager is None else "managed"
    name = folder_name(seed, manager or arm, temperature)
    spec = {"arm": arm, "seed": seed, "steps": steps, "manager": manager or "", "text": None, "run_dir": str(folder / name)}
    spec["temperature"] = temperature
    done = subprocess.run(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "trimtab.bench.arm", json.dumps(spec)], capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    result = next((line for line in lines if line["event"] == "result"), None)
    if result is None:
        raise SystemExit(f"{name} failed: {lines[-1:]} {done.stderr[-2000:]}")
    del result["run_dir"], result["event"]
    print(f"{name:24s} final {result['final']:.4f}  best {result['best']:.4f}  {result['seconds']:.0f} s", flush=True)
    return result | {"seed": seed, "manager": manager or "none"}


def folder_name(seed: int, manager: str, temperature: float | None = None) -> str:
    heat = "" if temperature is None else f"-{temperature:g}"
    return f"{seed}-{manager.replace(':', '-').replace('/', '-')}{heat}"


def say(effect: Effect) -> str:
    return f"{effect.mean:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}]"


def table(seeds: list[int], runs: list[dict[str, Any]], managers: list[str]) -> list[str]:
    by = {(run["manager"], run["seed"]): run for run in runs}
    plain = [by["none", seed] for seed in seeds]
    stopped = [run["best"] for run in plain]
    final = [run["final"] for run in plain]
    rows = [
        "| arm | final validation loss, per seed | mean | against unmanaged | lower by | against early stopping |",
        "|---|---|---|---|---|---|",
        f"| unmanaged | {' '.join(f'{x:.3f}' for x in final)} | {fmean(final):.3f} | | | |",
        (
            f"| unmanaged, early stopping | {' '.join(f'{x:.3f}' for x in stopped)} | {fmean(stopped):.3f} "
            f"| {say(paired_effect(stopped, final))} | {1 - fmean(stopped) / fmean(final):.1%} | |"
        ),
    ]
    for manager in managers:
        values = [by[manager.format(seed=seed), seed]["final"] for seed in seeds]
        rows.append(
            f"| {manager} | {' '.join(f'{x:.3f}' for x in values)} | {fmean(values):.3f} "
            f"| {say(paired_effect(values, final))} | {1 - fmean(values) / fmean(final):.1%} "
            f"| {say(paired_effect(values, stopped))} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--managers", nargs="+", default=["rules", "random:{seed}"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--name", default="overfitting")
    options = parser.parse_args()
    jobs = [(seed, None) for seed in options.seeds]
    jobs += [(seed, manager.format(seed=seed)) for seed in options.seeds for manager in options.managers]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        runs = list(pool.map(lambda job: run_arm(job[0], options.steps, job[1], Path(folder)), jobs))
    rows = table(options.seeds, runs, options.managers)
    about = (
        f"Commit {commit()}, trimtab {trimtab.__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{options.steps} steps, seeds {options.seeds}, 95% paired bootstrap intervals."
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{options.name}.json").write_text(json.dumps({"about": about, "runs": runs}) + "\n", encoding="utf-8")
    text = "\n".join(["# Overfitting rescue", "", about, "", *rows, ""])
    (RESULTS / f"{options.name}.md").write_text(text, encoding="utf-8")
    print("\n" + text)


if __name__ == "__main__":
    main()
