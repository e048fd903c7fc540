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
from trimtab.bench.scenarios.text_model import CharacterGPT, TextTask, loss_of, prepare, standard_library_prose, validation_loss
from trimtab.bench.scoring import few_paired_effect
from trimtab.controls.envelope import Envelope
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.controls.preset import load_preset
from trimtab.decision.llm.manager import LlmManager
from trimtab.decision.manager import Manager
from trimtab.integrations.pytorch.untyped import backward, seed_torch
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import ActionIntended
from trimtab.testing.adversaries import ADVERSARIES
from trimtab.testing.random_model import RandomModel
from trimtab.testing.small_training import fitted, train
from trimtab.testing.stress import SETTINGS, Setting, guarded

RESULTS = Path(__file__).parent / "results"
STEPS = {"perceptron": 1000, "text": 1500}
RANDOM_MODEL = "random language model"


class NoLimit:
    """An account without caps, for a model that costs nothing."""

    def reserve(self, input_tokens: int, output_tokens: int) -> int:
        return 0

    def settle(self, reservation: int, input_tokens: int, output_tokens: int) -> None:
        pass

    def usd(self, input_tokens: int, output_tokens: int) -> float | None:
        return None


@dataclass(frozen=True)
class Run:
    task: str
    manager: str | None
    setting: Setting
    seed: int
    steps: int
    final: float = math.nan
    best: float = math.nan
    interventions: int = 0
    taken_back: int = 0
    seconds: float = 0.0


def manager_of(name: str, seed: int) -> Manager:
    if name in ADVERSARIES:
        return ADVERSARIES[name](seed)
    settings = ManagerSettings(briefing_tokens=20_000)
    return LlmManager(RandomModel(seed), settings, NoLimit(), "", 10.0, lambda: 0.0)


def envelope_of(setting: Setting) -> Envelope:
    envelope = load_preset("small_transformer").envelope()
    envelope = replace(envelope, authority=replace(envelope.authority, may_stop=False))
    allowed, left_out = fitted(envelope)
    assert allowed is not None and not left_out
    return guarded(allowed, setting)


def train_text(envelope: Envelope, manager: Manager | None, seed: int, steps: int, run_dir: Path) -> list[float]:
    """The loop of the demonstration; return the validation losses."""
    task, every = TextTask(), 100
    data = prepare(standard_library_prose(), task)
    seed_torch(seed)
    model = CharacterGPT(data.num_characters, task)
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.learning_rate)
    loader = trimtab.ResumableLoader(data.train, batch_size=task.batch_size, seed=seed)
    supervisor = None
    if manager is not None:
        supervisor = trimtab.supervise(
            model, optimizer, loader=loader, envelope=envelope, manager=manager, run_dir=run_dir, total_steps=steps,
            evaluate_every_steps=every, tracker=None,
        )  # fmt: skip
    losses: list[float] = []
    step = 0
    while step < steps:
        for inputs, targets in loader:
            loss = loss_of(model, inputs, targets)
            optimizer.zero_grad()
            backward(loss)
            optimizer.step()
            step += 1
            if supervisor is not None:
                supervisor.step(loss=loss)
            due = supervisor.evaluation_due if supervisor is not None else step % every == 0
            if due or step == steps:
                losses.append(validation_loss(model, data.validation))
                if supervisor is not None and due:
                    supervisor.evaluated({"val/loss": losses[-1]})
            if step == steps:
                break
    if supervisor is not None:
        assert not supervisor.is_held
        supervisor.close()
    return losses


def make(run: Run) -> Run:
    """Train once, in a process of its own with one thread."""
    torch.set_num_threads(1)
    logging.getLogger("trimtab").setLevel(logging.CRITICAL)
    manager = None if run.manager is None else manager_of(run.manager, run.seed)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        if run.task == "text":
            losses = train_text(envelope_of(run.setting), manager, run.seed, run.steps, run_dir)
        else:
            done = train(envelope_of(run.setting), manager, run.seed, run.steps, run_dir)
            assert not done.is_held and not done.breaches, done
            losses = [loss for _, loss in done.curve]
        intended = [] if manager is None else [one.record for one in read_ledger(run_dir / "ledger.jsonl")]
    sources = [record.source for record in intended if isinstance(record, ActionIntended)]
    return replace(
        run, final=losses[-1], best=min(filter(math.isfinite, losses), default=math.inf),
        interventions=sources.count("manager"), taken_back=sources.count("guard"), seconds=time.perf_counter() - begin,
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
        "| manager | " + " | ".join(f"{setting}: final | best" for setting in SETTINGS) + " | made / taken back |",
        "|---|" + "---|---|" * len(SETTINGS) + "---|",
    ]  # fmt: skip
    for name in dict.fromkeys(run.manager for run in runs if run.task == task and run.manager is not None):
        cells: list[str] = []
        counts: list[str] = []
        for setting in SETTINGS:
            of = [run for run in runs if (run.task, run.manager, run.setting) == (task, name, setting)]
            cells += [harm(of, plain, lambda run: run.final), harm(of, plain, lambda run: run.best)]
            counts.append(f"{sum(run.interventions for run in of)} / {sum(run.taken_back for run in of)}")
        rows.append(f"| {name} | {' | '.join(cells)} | {'; '.join(counts)} |")
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
