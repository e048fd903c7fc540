"""Cost of a supervised step against a plain one, interleaved in one process.

Two identical models train side by side, one supervised with the reflex armed and the no_action
manager; blocks of steps alternate, and the order within a pair is alternated too. What is reported is the
ratio of the two within each pair of blocks, so a drift of the machine's speed cancels.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from provenance import commit
from torch import nn

import trimtab
from trimtab.bench.scenarios.text_model import CharacterGPT, TextTask, loss_of
from trimtab.runtime.supervisor import Supervisor

RESULTS = Path(__file__).parent / "results"
Step = Callable[[], float]
Built = tuple[nn.Module, torch.optim.Optimizer, Callable[[], torch.Tensor]]


def text_step(seed: int) -> Built:
    task = TextTask()
    torch.manual_seed(seed)
    model = CharacterGPT(80, task)
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.learning_rate)
    codes = torch.randint(80, (task.batch_size, task.context + 1))
    return model, optimizer, lambda: loss_of(model, codes[:, :-1], codes[:, 1:])


def small_step(seed: int) -> Built:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.0), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    inputs, labels = torch.randn(64, 64), torch.randint(10, (64,))
    return model, optimizer, lambda: nn.functional.cross_entropy(model(inputs), labels)


def stepper(optimizer: torch.optim.Optimizer, loss_of_batch: Callable[[], torch.Tensor], supervisor: Supervisor | None) -> Step:
    def one() -> float:
        begin = time.perf_counter()
        loss = loss_of_batch()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if supervisor is not None:
            supervisor.step(loss=loss)
        return time.perf_counter() - begin

    return one


def compare(name: str, build: Callable[[int], Built], blocks: int, block: int, folder: Path) -> dict[str, object]:
    _, plain_optimizer, plain_loss = build(0)
    model, optimizer, loss = build(0)
    supervisor = trimtab.supervise(
        model,
        optimizer,
        controls=[trimtab.learning_rate(1e-6, 3e-2), trimtab.weight_decay(0.0, 1.0), trimtab.dropout(0.0, 0.5)],
        objective="minimize val/loss",
        manager="no_action",
        run_dir=folder / name,
        evaluate_every_steps=10**9,
    )
    arms = [stepper(plain_optimizer, plain_loss, None), stepper(optimizer, loss, supervisor)]
    for arm in arms:
        for _ in range(50):
            arm()
    ratios: list[float] = []
    times: list[list[float]] = [[], []]
    for number in range(blocks):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        medians = {}
        for index in order:
            taken = [arms[index]() for _ in range(block)]
            times[index].extend(taken)
            medians[index] = median(taken)
        ratios.append(medians[1] / medians[0])
    supervisor.close()
    ratios.sort()
    plain, managed = (sorted(taken) for taken in times)
    return {
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "plain_median_ms": 1e3 * median(plain),
        "supervised_median_ms": 1e3 * median(managed),
        "ratio_median": median(ratios),
        "ratio_p10": ratios[len(ratios) // 10],
        "ratio_p90": ratios[-1 - len(ratios) // 10],
        "extra_microseconds": 1e6 * (median(managed) - median(plain)),
        "plain_p99_ms": 1e3 * plain[int(0.99 * len(plain))],
        "supervised_p99_ms": 1e3 * managed[int(0.99 * len(managed))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            compare("mlp-85k", small_step, options.blocks, 200, Path(folder)),
            compare("demo-gpt", text_step, options.blocks, 12, Path(folder)),
        ]
    about = f"Commit {commit()}, torch {torch.__version__}, Python {platform.python_version()}, one thread, CPU."
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "step_cost.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    lines = ["# Cost of a supervised step", "", about, ""]
    lines += [
        "| model | parameters | plain, median | supervised, median | ratio (p10 to p90) | extra |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['model']} | {r['parameters']:,} | {r['plain_median_ms']:.3f} ms | {r['supervised_median_ms']:.3f} ms "
        f"| {r['ratio_median']:.3f} ({r['ratio_p10']:.3f} to {r['ratio_p90']:.3f}) | {r['extra_microseconds']:.0f} us |"
        for r in rows
    ]
    (RESULTS / "step_cost.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
