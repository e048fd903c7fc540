"""Cost of telemetry per step: 5, 20 and 100 signals, beside a plain list, TensorBoard and trackio; and of each probe.

Blocks of steps take turns in an order that changes with every round, so that a drift of the machine's speed falls on
all alike. Reported are medians over blocks, and ratios within each round. TensorBoard and trackio write from threads
of their own, so each arm of the first table has a process of its own, and only one runs at a time: what is counted is
the training thread's time, in which those threads may take the interpreter lock; what they do after a block is not.

Beside the time on the clock stands the training thread's own processor time, which a busy machine disturbs less; waiting
for a lock is not in it.

The peers are no dependency of trimtab: install them beside it, and name the folder:

    pip install --target FOLDER tensorboard trackio
    PYTHONPATH=FOLDER python benchmarks/telemetry_cost.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch
from provenance import commit
from torch import nn

import trimtab
from trimtab.bench.scenarios.text_model import CharacterGPT, TextTask, loss_of
from trimtab.integrations.pytorch.probes.dead_units import DeadUnitsProbe
from trimtab.integrations.pytorch.probes.grad_norm import GradNormProbe
from trimtab.integrations.pytorch.probes.memory import MemoryProbe
from trimtab.integrations.pytorch.probes.probe_set import PROBES, ProbeSet, open_probes
from trimtab.integrations.pytorch.probes.update_ratio import UpdateRatioProbe
from trimtab.integrations.pytorch.probes.weight_norm import WeightNormProbe
from trimtab.integrations.pytorch.scalars import TorchReader
from trimtab.integrations.pytorch.training import Training
from trimtab.telemetry.telemetry import Telemetry

RESULTS: Final = Path(__file__).parent / "results"
PEERS: Final = ("tensorboard", "trackio")
SIGNALS: Final = (5, 20, 100)
# With every_steps=1 as well: what one measurement costs.
EVERY_STEP: Final[dict[str, Callable[[], Any]]] = {
    "grad_norm": lambda: GradNormProbe(1),
    "update_ratio": lambda: UpdateRatioProbe(1),
    "weight_norm": lambda: WeightNormProbe(1),
    "memory": lambda: MemoryProbe(1),
    "dead_units": lambda: DeadUnitsProbe(every_steps=2, num_batches=1),
}

Signals = dict[str, Any]
STEPS_PER_BLOCK: Final = 100
SETTLING_SECONDS: Final = 0.7  # trackio sends what was logged every half second


@dataclass(frozen=True)
class Arm:
    """What takes a step's signals, lets background work come to rest after a block, and ends."""

    take: Callable[[int, Signals], object]
    settle: Callable[[], object]
    close: Callable[[], object]


def nothing() -> None:
    pass


def now() -> tuple[float, float]:
    return time.perf_counter(), time.thread_time()


def since(begin: tuple[float, float], steps: int) -> tuple[float, float]:
    """Return microseconds a step since then: on the clock, and of this thread."""
    end = now()
    return 1e6 * (end[0] - begin[0]) / steps, 1e6 * (end[1] - begin[1]) / steps


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def supervised(folder: Path) -> Any:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return trimtab.supervise(
        model,
        optimizer,
        controls=[trimtab.learning_rate(1e-6, 1.0)],
        objective="minimize val/loss",
        manager="no_action",
        run_dir=folder,
        evaluate_every_steps=10**9,
    )


def list_arm(_: Path) -> Arm:
    rows: list[tuple[int, list[float]]] = []

    def take(step: int, signals: Signals) -> None:
        rows.append((step, [float(value) for value in signals.values()]))

    return Arm(take, nothing, rows.clear)


def windows_arm(_: Path) -> Arm:
    """Taking values into windows: what the aim of 2 us a signal is about."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    reader, telemetry = TorchReader(optimizer), Telemetry()

    def take(step: int, signals: Signals) -> None:
        for reading in reader.take(step, signals):
            telemetry.observe(reading.step, reading.values)

    return Arm(take, nothing, reader.close)


def supervisor_arm(folder: Path) -> Arm:
    """All that `Supervisor.step` does: telemetry, curves on disk, detectors, the controller."""
    supervisor = supervised(folder / "run")
    return Arm(lambda _, signals: supervisor.step(**signals), nothing, supervisor.close)


def tensorboard_arm(folder: Path) -> Arm:
    from torch.utils.tensorboard.writer import SummaryWriter

    writer = SummaryWriter(str(folder))

    def take(step: int, signals: Signals) -> None:
        for name, value in signals.items():
            writer.add_scalar(name, value, step)

    return Arm(take, writer.flush, writer.close)


def trackio_arm(folder: Path) -> Arm:
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    run: Any = trackio.init(project="telemetry-cost", name=folder.name, embed=False)

    def take(step: int, signals: Signals) -> None:
        run.log({name: float(value) for name, value in signals.items()}, step=step)

    return Arm(take, lambda: time.sleep(SETTLING_SECONDS), run.finish)


ARMS: Final[dict[str, Callable[[Path], Arm]]] = {
    "list append": list_arm,
    "trimtab, telemetry": windows_arm,
    "trimtab, whole step": supervisor_arm,
    "TensorBoard": tensorboard_arm,
    "trackio": trackio_arm,
}


def batch_of(count: int, draw: random.Random, *, tensors: bool) -> Signals:
    values = [draw.gauss(1.0, 0.1) for _ in range(count)]
    names = ["loss", *(f"metric_{index}" for index in range(1, count))]
    return dict(zip(names, map(torch.tensor, values) if tensors else values, strict=True))


def serve(orders: Connection, name: str, folder: Path, count: int, *, tensors: bool, seed: int) -> None:
    """Run one arm in this process: a block for every order, until told to end."""
    torch.set_num_threads(1)
    arm, draw, step = ARMS[name](folder), random.Random(seed), 0
    while orders.recv():
        batches = [batch_of(count, draw, tensors=tensors) for _ in range(STEPS_PER_BLOCK)]
        begin = now()
        for signals in batches:
            step += 1
            arm.take(step, signals)
        taken = since(begin, STEPS_PER_BLOCK)
        arm.settle()
        orders.send(taken)
    arm.close()


def signal_rows(count: int, *, tensors: bool, blocks: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    context, draw = get_context("spawn"), random.Random(seed)
    workers: dict[str, tuple[Any, Any]] = {}
    for index, name in enumerate(name for name in ARMS if name.lower() not in PEERS or installed(name.lower())):
        here, there = context.Pipe()
        place = folder / f"{count}-{tensors}-{index}"
        place.mkdir()
        options = {"tensors": tensors, "seed": seed}
        process = context.Process(target=serve, args=(there, name, place, count), kwargs=options)
        process.start()
        workers[name] = (process, here)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
    for number in range(blocks + 2):
        for name in draw.sample(list(workers), len(workers)):
            workers[name][1].send(True)
            microseconds: tuple[float, float] = workers[name][1].recv()
            if number >= 2:  # the first two warm up
                taken[name].append(microseconds)
    for process, orders in workers.values():
        orders.send(False)
        process.join()
    base = taken["list append"]
    return [
        {
            "signals": count,
            "given_as": "tensors" if tensors else "floats",
            "arm": name,
            "microseconds_per_step": median(clock for clock, _ in times),
            "p90_microseconds_per_step": sorted(clock for clock, _ in times)[int(0.9 * len(times))],
            "thread_microseconds_per_step": median(thread for _, thread in times),
            "thread_microseconds_per_signal": median(thread for _, thread in times) / count,
            "times_a_list": median(mine[1] / plain[1] for mine, plain in zip(times, base, strict=True)),
        }
        for name, times in taken.items()
    ]


Built = tuple[nn.Module, torch.optim.Optimizer, nn.Module, Callable[[], torch.Tensor]]


class TextLoss(nn.Module):
    """The demonstration's loss as a module, so that a probe can see it."""

    def __init__(self, model: CharacterGPT) -> None:
        super().__init__()
        self._of = lambda codes: loss_of(model, codes[:, :-1], codes[:, 1:])

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return self._of(codes)


def text_run(seed: int) -> Built:
    task = TextTask()
    torch.manual_seed(seed)
    model = CharacterGPT(80, task)
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.learning_rate)
    codes = torch.randint(80, (task.batch_size, task.context + 1))
    criterion = TextLoss(model)
    return model, optimizer, criterion, lambda: criterion(codes)


def small_run(seed: int) -> Built:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.0), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    inputs, labels = torch.randn(64, 64), torch.randint(10, (64,))
    criterion = nn.CrossEntropyLoss()
    return model, optimizer, criterion, lambda: criterion(model(inputs), labels)


def probe_steps(build: Callable[[int], Built], seed: int, make: Callable[[Training], ProbeSet] | None) -> Callable[[int], None]:
    model, optimizer, criterion, loss_of_batch = build(seed)
    probes = None if make is None else make(Training(model, optimizer, parts=(criterion,)))
    reader = TorchReader(optimizer)
    numbers = iter(range(10**9))

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of_batch().backward()
            optimizer.step()
            if probes is not None:
                number = next(numbers)
                reader.take(number, probes.collect(number))
                if faults := probes.faults():
                    raise RuntimeError(faults[0])

    return run


def opener(wanted: Any) -> Callable[[Training], ProbeSet]:
    return lambda training: open_probes(wanted, training)


def probe_rows(model: str, build: Callable[[int], Built], blocks: int, block: int, seed: int) -> list[dict[str, Any]]:
    arms: dict[str, Callable[[int], None]] = {"none": probe_steps(build, seed, None)}
    for name in PROBES:
        try:
            arms[name] = probe_steps(build, seed, opener([name]))
        except trimtab.TrimtabError as error:
            print(f"{model}: {error}")
    for name, make in EVERY_STEP.items():
        if name in arms and name != "grad_norm":
            arms[f"{name}, every step"] = probe_steps(build, seed, opener([make()]))
    arms["all"] = probe_steps(build, seed, opener("all"))
    draw = random.Random(seed)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for number in range(blocks + 1):
        for name in draw.sample(list(arms), len(arms)):
            begin = now()
            arms[name](block)
            if number:
                taken[name].append(since(begin, block))
    plain = taken["none"]
    rows: list[dict[str, Any]] = []
    for name, times in taken.items():
        ratios = sorted(mine[1] / other[1] for mine, other in zip(times, plain, strict=True))
        rows.append(
            {
                "model": model,
                "probe": name,
                "microseconds_per_step": median(clock for clock, _ in times),
                "thread_microseconds_per_step": median(thread for _, thread in times),
                "extra_thread_microseconds": median(mine[1] - other[1] for mine, other in zip(times, plain, strict=True)),
                "ratio_median": median(ratios),
                "ratio_p10": ratios[len(ratios) // 10],
                "ratio_p90": ratios[-1 - len(ratios) // 10],
            }
        )
    return rows


def report(about: str, missing: list[str], signals: list[dict[str, Any]], probes: list[dict[str, Any]]) -> str:
    lines = ["# Cost of telemetry", "", about, ""]
    if missing:
        lines += [
            f"Not measured: {', '.join(missing)}; `pip install --target FOLDER {' '.join(missing)}` and set PYTHONPATH.",
            "",
        ]
    lines += [
        "Per step, median over blocks, on the clock and of the training thread; a list keeps each value's `float()`.",
        "Ratios are of the thread's time.",
        "",
    ]
    lines += ["| signals | given as | arm | us a step | p90 | thread us a step | thread us a signal | times a list |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r['signals']} | {r['given_as']} | {r['arm']} | {r['microseconds_per_step']:.1f} "
        f"| {r['p90_microseconds_per_step']:.1f} | {r['thread_microseconds_per_step']:.1f} "
        f"| {r['thread_microseconds_per_signal']:.2f} | {r['times_a_list']:.1f} |"
        for r in signals
    ]
    lines += [
        "",
        "Each probe alone, as it comes and measuring at every step, in a training step against the same step without one.",
        "",
    ]
    lines += [
        "| model | probe | us a step | thread us a step | extra thread us | ratio (p10 to p90) |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['model']} | {r['probe']} | {r['microseconds_per_step']:.0f} | {r['thread_microseconds_per_step']:.0f} "
        f"| {r['extra_thread_microseconds']:.1f} "
        f"| {r['ratio_median']:.3f} ({r['ratio_p10']:.3f} to {r['ratio_p90']:.3f}) |"
        for r in probes
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    missing = [name for name in PEERS if installed(name) is None]
    signals: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for count in SIGNALS:
            for tensors in (False, True):
                place = Path(folder)
                signals += signal_rows(count, tensors=tensors, blocks=options.blocks, seed=options.seed, folder=place)
    probes = probe_rows("mlp-85k", small_run, options.blocks, 40, options.seed)
    probes += probe_rows("demo-gpt", text_run, options.blocks, 4, options.seed)
    peers = "".join(f", {name} {installed(name)}" for name in PEERS if installed(name))
    about = (
        f"Commit {commit()}, torch {torch.__version__}, Python {platform.python_version()}{peers}, one thread, CPU, "
        f"seed {options.seed}, {options.blocks} blocks."
    )
    RESULTS.mkdir(exist_ok=True)
    content = {"about": about, "not_measured": missing, "signals": signals, "probes": probes}
    (RESULTS / "telemetry_cost.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    text = report(about, missing, signals, probes)
    (RESULTS / "telemetry_cost.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
