"""Does a change of a control change a real run as it should?

Digits are classified and reconstructed by one small network. For each control and seed two runs are made that differ by
one intervention, applied by trimtab half-way from a script; what the intervention should do was written down beforehand,
in the table `EFFECTS`, and is measured in the second half of both runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch
from provenance import commit
from torch import Tensor, nn

import trimtab
from trimtab.bench.scenarios.digits import load_digits, split
from trimtab.bench.scoring import Effect, paired_effect
from trimtab.controls.control import Control
from trimtab.decision.action import Adjust, Change
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.decision.scripted import Line, ScriptedManager
from trimtab.telemetry.snapshot import noise_of

RESULTS = Path(__file__).parent / "results"
STEPS = 800
CHANGE_AFTER = 400
SETTLE = 100


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
        self.classes, self.pixels = nn.Linear(64, 10), nn.Linear(64, 64)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(images.flatten(1))
        return self.classes(hidden), self.pixels(hidden)


@dataclass
class Curves:
    """What one run showed, step by step."""

    loss: list[float] = field(default_factory=list)
    items: list[float] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    weight_norm: list[float] = field(default_factory=list)
    applied_norm: list[float] = field(default_factory=list)
    held_pixels: list[float] = field(default_factory=list)

    def late(self, name: str) -> list[float]:
        return getattr(self, name)[CHANGE_AFTER + SETTLE :]


@dataclass(frozen=True)
class Expected:
    """What a change should do to a measured quantity, fixed before it was measured."""

    control: Control
    value: float
    quantity: str
    measure: Callable[[Curves], float]
    should: str
    holds: Callable[[float, float, Effect], bool]  # means without and with the change, and the paired effect


def lower(_: float, __: float, effect: Effect) -> bool:
    return effect.high < 0


EFFECTS = (
    Expected(
        trimtab.batch_size(8, 128),
        64.0,
        "items per step",
        lambda curves: fmean(curves.late("items")),
        "be exactly 64 instead of 16",
        lambda without, with_it, _: (without, with_it) == (16.0, 64.0),
    ),
    Expected(
        trimtab.batch_size(8, 128),
        64.0,
        "noise of the loss between steps, over its mean",
        lambda curves: noise_of(curves.late("loss")) / fmean(curves.late("loss")),
        "fall to about 1/2, as 1/sqrt(4): between 0.4 and 0.65",
        lambda without, with_it, _: 0.4 <= with_it / without <= 0.65,
    ),
    Expected(
        trimtab.loss_weight("pixels", 0.01, 10.0, moves=trimtab.SetTo((4.0,)), largest_change=8.0),
        4.0,
        "held-out reconstruction error",
        lambda curves: fmean(curves.late("held_pixels")),
        "fall",
        lower,
    ),
    Expected(
        trimtab.label_smoothing(0.0, 0.3),
        0.2,
        "confidence in the likeliest class, on training batches",
        lambda curves: fmean(curves.late("confidence")),
        "fall to about the optimum 1 - 0.2 + 0.2/10 = 0.82: between 0.72 and 0.86",
        lambda _, with_it, effect: 0.72 <= with_it <= 0.86 and effect.high < 0,
    ),
    Expected(
        trimtab.weight_decay(0.0, 1.0),
        1.0,
        "norm of all weights",
        lambda curves: curves.weight_norm[-1],
        "fall",
        lower,
    ),
    Expected(
        trimtab.gradient_clip_norm(0.1, 10.0, moves=trimtab.SetTo((0.25,)), largest_change=100.0),
        0.25,
        "largest gradient norm that reached the optimizer",
        lambda curves: max(curves.late("applied_norm")),
        "be at most 0.25 at every step, which it is not without",
        lambda without, with_it, _: with_it <= 0.25 * (1 + 1e-6) < without,
    ),
)


def run(expected: Expected, seed: int, folder: Path, *, changes: bool) -> Curves:
    torch.manual_seed(seed)
    (inputs, labels), held = split(*load_digits(), seed)
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    loader = trimtab.ResumableLoader(torch.utils.data.TensorDataset(inputs, labels), batch_size=16, seed=seed)
    criterion = nn.CrossEntropyLoss()
    weights = trimtab.LossWeights(classes=1.0, pixels=0.5)
    clip = trimtab.GradientClip(model.parameters(), max_norm=5.0)
    action = Adjust((Change(expected.control.name, expected.value),))
    script = [Line(CHANGE_AFTER, Proposal(action, "as planned", Expectation(0.0, 3)))] if changes else []
    supervisor = trimtab.supervise(
        model,
        optimizer,
        loader=loader,
        parts=[criterion, weights, clip],
        controls=[expected.control],
        objective="minimize val/loss",
        manager=ScriptedManager(script),
        mode="boundary",
        evaluate_every_steps=CHANGE_AFTER,
        run_dir=folder / f"{expected.control.name.replace('/', '-')}-{seed}-{changes}",
    )
    curves = Curves()
    while len(curves.loss) < STEPS:
        for images, targets in loader:
            logits, pixels = model(images)
            terms = {"classes": criterion(logits, targets), "pixels": nn.functional.mse_loss(pixels, images.flatten(1))}
            loss = weights(**terms)
            optimizer.zero_grad()
            loss.backward()
            norm = clip()
            curves.applied_norm.append(
                float(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
            )
            optimizer.step()
            curves.loss.append(float(nn.functional.cross_entropy(logits.detach(), targets)))
            curves.items.append(float(len(images)))
            curves.confidence.append(float(logits.detach().softmax(-1).amax(-1).mean()))
            curves.weight_norm.append(float(nn.utils.parameters_to_vector(model.parameters()).detach().norm()))
            with torch.no_grad():
                found = model(held[0])
            curves.held_pixels.append(float(nn.functional.mse_loss(found[1], held[0].flatten(1))))
            supervisor.step(loss=loss, grad_norm=norm, **weights.signals())
            if supervisor.evaluation_due:
                supervisor.evaluated({"val/loss": nn.functional.cross_entropy(found[0], held[1])})
            if len(curves.loss) == STEPS:
                break
    done = [step for name, step in supervisor.state.changed_at if name == expected.control.name]
    assert done == ([CHANGE_AFTER + 1] if changes else []), f"the change was not applied as planned: {done}"
    supervisor.close()
    return curves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    rows = []
    for number, expected in enumerate(EFFECTS):
        with tempfile.TemporaryDirectory() as folder:
            pairs = [
                [expected.measure(run(expected, seed, Path(folder), changes=changes)) for changes in (False, True)]
                for seed in seeds
            ]
        without, with_it = fmean(pair[0] for pair in pairs), fmean(pair[1] for pair in pairs)
        effect = paired_effect([pair[1] for pair in pairs], [pair[0] for pair in pairs])
        rows.append(
            {
                "change": f"{expected.control.name} to {expected.value:g}",
                "quantity": expected.quantity,
                "should": expected.should,
                "without": without,
                "with": with_it,
                "effect": [effect.mean, effect.low, effect.high],
                "as_it_should": expected.holds(without, with_it, effect),
                "runs": pairs,
            }
        )
        print(f"{number + 1}/{len(EFFECTS)}: {rows[-1]}")
    about = (
        f"Commit {commit()}, seeds {', '.join(map(str, seeds))}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, one thread, CPU. {STEPS} steps; the change is applied after step "
        f"{CHANGE_AFTER + 1} and measured from step {CHANGE_AFTER + SETTLE} on, against the same run without it."
    )
    RESULTS.mkdir(exist_ok=True)
    report = {"about": about, "rows": rows}
    (RESULTS / "control_effects.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    lines = ["# What a change of a control does to a run", "", about, ""]
    lines += [
        "| change | measured | should | without | with | difference, 95% interval | as it should |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['change']} | {r['quantity']} | {r['should']} | {r['without']:.4g} | {r['with']:.4g} "
        f"| {r['effect'][0]:+.3g} [{r['effect'][1]:+.3g}, {r['effect'][2]:+.3g}] | {'yes' if r['as_it_should'] else '**no**'} |"
        for r in rows
    ]
    (RESULTS / "control_effects.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
