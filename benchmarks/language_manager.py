"""A language model as manager: what it does to a run, what it does to a step's time, and how long its briefings are.

Three parts, each with its own table in results/language_manager.md:
- outcomes: the demonstration without a manager, with rules and with the model, over seeds. The ceiling was stated before the
  first run: with the model's mean final loss no more than 5% above the unmanaged one. Early stopping stands beside it.
- steps: times of the demonstration's steps while a call is pending, in a process of its own and in a thread; blocks of the
  arms alternate in one process.
- tokens: of the prompt, for the demonstration, for PPO and for a run that reports 100 signals.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from overfitting import RESULTS, folder_name, run_arm, say
from provenance import commit

import trimtab
from trimtab.bench.arm import demo_envelope
from trimtab.bench.recording import SCENARIOS, record
from trimtab.bench.scenarios.text_model import CharacterGPT, TextTask, loss_of, prepare, read_prose
from trimtab.bench.scoring import paired_effect
from trimtab.controls.envelope import Envelope
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.controls.preset import load_preset
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Checkpoint, Standing
from trimtab.decision.briefing import Briefing, ControlLimits, Timing
from trimtab.decision.llm.prompt import Prompt, count_prompt, decision_prompt
from trimtab.decision.surface import build_surface
from trimtab.diagnosis.base import View
from trimtab.diagnosis.examine import EVALUATION_DETECTORS, STEP_DETECTORS, examine
from trimtab.ledger.reading import iter_ledger
from trimtab.ledger.record import ManagerAsked, ManagerFailed, ProposalReceived, VerdictGiven
from trimtab.runtime.clock import SystemClock
from trimtab.runtime.language_model import build_language_model
from trimtab.runtime.manager_process import ManagerProcess
from trimtab.runtime.manager_spec import ManagerSpec
from trimtab.runtime.manager_thread import ManagerThread
from trimtab.runtime.worker_setup import WorkerSetup
from trimtab.telemetry.telemetry import Telemetry
from trimtab.testing.provider_server import Misbehaviour, ProviderServer

CEILING = 1.05


# ------------------------------------------------------------------------------------------- outcomes


def outcomes(options: argparse.Namespace) -> tuple[list[str], list[dict[str, Any]]]:
    """Run the demonstration's arms; the model once as it is, and once sampled, when it chooses more widely and worse."""
    model: list[tuple[str, float | None]] = [(options.manager, None), (options.manager, 1.0)]
    arms: list[tuple[str | None, float | None]] = [(None, None), ("rules", None), *model]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        jobs = [(seed, *arm) for seed in options.seeds for arm in arms]
        runs = list(pool.map(lambda job: run_arm(job[0], options.steps, job[1], Path(folder), job[2]), jobs))
        for run, (seed, manager, temperature) in zip(runs, jobs, strict=True):
            run["temperature"] = temperature
            if (manager, temperature) in model:
                run.update(deliberations(Path(folder) / folder_name(seed, manager or "", temperature)))
    of = {arm: [run for run, job in zip(runs, jobs, strict=True) if job[1:] == arm] for arm in arms}
    final = {arm: [run["final"] for run in of[arm]] for arm in arms}
    plain = final[arms[0]]
    rows = [
        "| arm | final validation loss, per seed | mean | against unmanaged | of it, worst seed |",
        "|---|---|---|---|---|",
        f"| unmanaged | {per_seed(plain)} | {fmean(plain):.3f} | | |",
    ]
    others = {"early stopping": [run["best"] for run in of[arms[0]]]} | {named(arm): final[arm] for arm in arms[1:]}
    for name, values in others.items():
        ratios = [one / other for one, other in zip(values, plain, strict=True)]
        against = f"{say(paired_effect(values, plain))}, x{fmean(values) / fmean(plain):.3f}"
        rows.append(f"| {name} | {per_seed(values)} | {fmean(values):.3f} | {against} | x{max(ratios):.3f} |")
    rows += ["", f"The ceiling, stated beforehand: no more than x{CEILING:.2f} of the unmanaged loss, in the mean.", ""]
    return [*rows, *account({named(arm): of[arm] for arm in model})], runs


def named(arm: tuple[str | None, float | None]) -> str:
    return f"{arm[0]}" if arm[1] is None else f"{arm[0]}, temperature {arm[1]:g}"


def per_seed(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def deliberations(folder: Path) -> dict[str, Any]:
    """Count what a run's manager was asked, what it answered, and what became of it."""
    kinds: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    found: dict[str, Any] = {"questions": 0, "accepted": 0, "retries": 0, "latency": [], "input": [], "output": []}
    for entry in iter_ledger(folder / "ledger.jsonl"):
        match entry.record:
            case ManagerAsked():
                found["questions"] += 1
            case ManagerFailed() as failure:
                failed[failure.problem] += 1
            case ProposalReceived() as answer:
                kinds[answer.proposal.action.kind] += 1
                taken = answer.consultation
                assert taken is not None
                found["latency"].append(answer.latency_seconds)
                found["input"].append(taken.input_tokens)
                found["output"].append(taken.output_tokens)
                found["retries"] += taken.calls - 1
            case VerdictGiven(source="manager") as verdict:
                found["accepted"] += verdict.accepted
                rejected.update(reason.constraint for reason in verdict.reasons)
            case _:
                pass
    return found | {"kinds": dict(kinds), "rejected": dict(rejected), "failed": dict(failed)}


def account(arms: dict[str, list[dict[str, Any]]]) -> list[str]:
    def total(runs: list[dict[str, Any]], name: str) -> str:
        counts = sum((Counter(run[name]) for run in runs), Counter[str]())
        return ", ".join(f"{kind} {count}" for kind, count in counts.most_common()) or "none"

    def every(runs: list[dict[str, Any]], name: str) -> list[float]:
        return [value for run in runs for value in run[name]]

    said: dict[str, Callable[[list[dict[str, Any]]], str]] = {
        "questions": lambda runs: str(sum(run["questions"] for run in runs)),
        "proposals": lambda runs: total(runs, "kinds"),
        "accepted by the verifier": lambda runs: str(sum(run["accepted"] for run in runs)),
        "rejected, by reason": lambda runs: total(runs, "rejected"),
        "failed": lambda runs: total(runs, "failed"),
        "asked again for a reply that could not be read": lambda runs: str(sum(run["retries"] for run in runs)),
        "seconds an answer, median": lambda runs: f"{median(every(runs, 'latency')):.1f}",
        "seconds an answer, longest": lambda runs: f"{max(every(runs, 'latency')):.1f}",
        "tokens read an answer, median": lambda runs: f"{median(every(runs, 'input')):.0f}",
        "tokens written an answer, median": lambda runs: f"{median(every(runs, 'output')):.0f}",
    }
    rows = [f"| over all runs | {' | '.join(arms)} |", "|---|" + "---|" * len(arms)]
    return rows + [f"| {what} | {' | '.join(tell(runs) for runs in arms.values())} |" for what, tell in said.items()]


# ---------------------------------------------------------------------------------------------- steps


def step_times(options: argparse.Namespace) -> tuple[list[str], dict[str, list[float]]]:
    """Time the demonstration's steps in blocks that alternate between arms."""
    torch.set_num_threads(1)
    take = demo_step()
    folder = Path(tempfile.mkdtemp())
    briefing = demo_briefing()
    times: dict[str, list[float]] = {}
    with ProviderServer(lambda _: Misbehaviour.SILENCE) as server:
        remote = ManagerSpec("url", f"{server.url()}#silent")
        local = ManagerSpec.parse(options.manager)
        clients = {
            "no call": None,
            "silent server, own process": lambda: in_process(remote, folder),
            "silent server, thread": lambda: in_thread(remote, folder),
            "local model, own process": lambda: in_process(local, folder),
            "local model, thread": lambda: in_thread(local, folder),
        }
        opened = {name: make() if make is not None else None for name, make in clients.items()}
        for client in opened.values():
            if client is not None:  # loaded and warm before anything is timed
                client.ask(0, replace(briefing, question=10_000))
                client.wait(20.0)
        question = 0
        for _ in range(options.blocks):
            for name, client in opened.items():
                question += 1
                seconds = block(take, client, replace(briefing, question=question), options.block_steps)
                times.setdefault(name, []).extend(seconds)
                if client is not None and name.startswith("local"):
                    client.wait(60.0)  # or it would still be at work during the blocks of the others
        for client in opened.values():
            if client is not None:
                client.close()
    return step_rows(times), times


def block(take: Callable[[], None], client: Any, briefing: Briefing, num_steps: int) -> list[float]:
    """Return the seconds of steps during which the client's call is pending."""
    seconds: list[float] = []
    if client is not None:
        client.ask(0, briefing)
    for _ in range(num_steps):
        begin = time.perf_counter()
        take()
        outcome = client.poll() if client is not None else None
        seconds.append(time.perf_counter() - begin)
        if outcome is not None:  # a fast answer: ask again, so that a call stays pending
            briefing = replace(briefing, question=briefing.question + 100_000)
            client.ask(0, briefing)
    return seconds


def in_process(spec: ManagerSpec, folder: Path) -> ManagerProcess:
    return ManagerProcess(spec, folder / "manager.log", 600.0, SystemClock(), a_setup(folder))


def in_thread(spec: ManagerSpec, folder: Path) -> ManagerThread:
    return ManagerThread(build_language_model(spec.kind, spec.argument, a_setup(folder)), 600.0, SystemClock())


def a_setup(folder: Path) -> WorkerSetup:
    settings = ManagerSettings(briefing_tokens=2000, reply_tokens=300)
    return WorkerSetup(settings, "0" * 64, str(folder / f"spending-{threading.get_ident()}.sqlite"), 600.0)


def demo_step() -> Callable[[], None]:
    task = TextTask()
    data = prepare(read_prose(None, task), task)
    torch.manual_seed(0)
    model = CharacterGPT(data.num_characters, task)
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.learning_rate)
    batches = iter([])

    def take() -> None:
        nonlocal batches
        pair = next(batches, None)
        if pair is None:
            batches = iter(trimtab.ResumableLoader(data.train, batch_size=task.batch_size, seed=0))
            pair = next(batches)
        loss = loss_of(model, *pair)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return take


def step_rows(times: dict[str, list[float]]) -> list[str]:
    base = sorted(times["no call"])
    rows = ["| while pending | steps | p50 ms | p99 ms | longest ms | p50 ratio | p99 ratio |", "|---|---|---|---|---|---|---|"]
    for name, seconds in times.items():
        ordered = sorted(seconds)
        p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
        ratios = f"{p50 / base[len(base) // 2]:.3f} | {p99 / base[int(len(base) * 0.99)]:.3f}"
        rows.append(f"| {name} | {len(seconds)} | {p50 * 1e3:.2f} | {p99 * 1e3:.2f} | {ordered[-1] * 1e3:.1f} | {ratios} |")
    return rows


# --------------------------------------------------------------------------------------------- tokens


def tokens(options: argparse.Namespace) -> list[str]:
    exact = tokenizer(options.manager)
    rows = [
        "| briefing | signals | allowed | estimated | SmolLM2's tokenizer | bytes | left out |",
        "|---|---|---|---|---|---|---|",
    ]
    briefings = {"demonstration": demo_briefing(), "PPO CartPole": ppo_briefing(), "100 signals": wide_briefing()}
    for name, briefing in briefings.items():
        for allowed in (1000, 2000, 6000):
            prompt = decision_prompt(briefing, ManagerSettings(briefing_tokens=allowed))
            text = "\n".join(message.text for message in prompt.messages)
            cells = (
                len(briefing.snapshot.summaries),
                allowed,
                count_prompt(prompt),
                exact(text),
                len(text.encode()),
                said(prompt),
            )
            rows.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return rows


def said(prompt: Prompt) -> str:
    return ", ".join(prompt.left_out) or "nothing"


def tokenizer(manager: str) -> Callable[[str], int]:
    from transformers import AutoTokenizer

    from trimtab.decision.llm.local import find_model

    files = find_model(ManagerSpec.parse(manager).argument)
    made = AutoTokenizer.from_pretrained(files.directory, gguf_file=files.gguf_file, local_files_only=True)
    return lambda text: len(made(text, add_special_tokens=False).input_ids)


def demo_briefing() -> Briefing:
    return replayed("text", demo_envelope("rules"))


def ppo_briefing() -> Briefing:
    return replayed("cart_pole", load_preset("ppo").envelope())


def wide_briefing() -> Briefing:
    return replayed("text", load_preset("transformer_pretraining").envelope(), more_signals=100)


def replayed(scenario: str, envelope: Envelope, more_signals: int = 0) -> Briefing:
    """Return the briefing at the last evaluation of a run that was recorded now."""
    trace = record(SCENARIOS[scenario], 0)
    telemetry = Telemetry()
    last = 0
    for moment in trace.moments:
        if moment.kind == "recipe":
            continue
        extra = {f"layer_{i}/gradient_norm": 0.01 * (i + 1) + 1e-4 * (moment.step % 7) for i in range(more_signals)}
        telemetry.observe(moment.step, {**moment.values, **(extra if moment.kind == "step" else {})}, moment.kind)
        last = moment.step
    view = View(last, telemetry, envelope.objective, evaluate_every_steps=trace.course.evaluate_every_steps)
    recipe = Recipe.of({control.name: middle(control) for control in envelope.controls})
    checkpoints = tuple(
        Checkpoint(f"step-{last - back:08d}", last - back, 1.0 + back / last, recipe) for back in (200, 100, 0) if back < last
    )
    standing = Standing(last, recipe, recipe, (), 0, 0, 0, 0, checkpoints, can_skip=True)
    return Briefing(
        question=1,
        version=0,
        objective=envelope.objective,
        timing=Timing(last, last + 10, last + 200, 2 * last, trace.course.evaluate_every_steps),
        recipe=recipe,
        initial=recipe,
        snapshot=telemetry.snapshot(last),
        symptoms=(*examine(view, STEP_DETECTORS), *examine(view, EVALUATION_DETECTORS)),
        best=standing.best_checkpoint(envelope),
        interventions=(),
        surface=build_surface(envelope, standing),
        limits=tuple(
            ControlLimits(c.name, c.unit, c.bounds.low, c.bounds.high, c.effect_lag_steps, None, 0) for c in envelope.controls
        ),
        interventions_left=envelope.authority.interventions,
        rollbacks_left=envelope.authority.rollbacks,
    )


def middle(control: Any) -> float:
    low, high = control.bounds.low, control.bounds.high
    value = (low * high) ** 0.5 if low > 0 else (low + high) / 2
    return float(round(value)) if control.is_whole else value


# ------------------------------------------------------------------------------------------------ main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manager", default="local", help="the model: local, local:PATH, ...")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--block-steps", type=int, default=200)
    parser.add_argument("--parts", nargs="+", default=["tokens", "steps", "outcomes"])
    options = parser.parse_args()
    import llguidance
    import transformers

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, llguidance {llguidance.__version__}"
    about = (
        f"Commit {commit()}, trimtab {trimtab.__version__}, {versions}, Python {platform.python_version()}, "
        f"manager {options.manager}."
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "language_manager.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for part in options.parts:
        rows: list[str] = []
        data: Any = None
        match part:
            case "outcomes":
                about_part = f"{about} {options.steps} steps, seeds {options.seeds}, 95% paired bootstrap intervals."
                rows, data = outcomes(options)
            case "steps":
                about_part = f"{about} One thread for training; blocks of {options.block_steps} steps."
                rows, data = step_times(options)
            case _:
                about_part = about
                rows = tokens(options)
        kept[part] = {"about": about_part, "rows": rows, "data": data}
        print("\n".join(["", f"## {part}", "", about_part, "", *rows]), flush=True)
    path.write_text(json.dumps(kept) + "\n", encoding="utf-8")
    titles = {
        "outcomes": "What it does to a run",
        "steps": "What a pending call does to a step",
        "tokens": "Tokens per briefing",
    }
    text = ["# A language model as manager", ""]
    for part, title in titles.items():
        if part in kept:
            text += [f"## {title}", "", kept[part]["about"], "", *kept[part]["rows"], ""]
    (RESULTS / "language_manager.md").write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
