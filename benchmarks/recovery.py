"""The fault table: injured trainings with nobody watching, with trimtab, and with arc-training, on the same faults and seeds.

    python -m venv PEER && PEER/bin/pip install arc-training
    echo "import site; site.addsitedir('SITE_PACKAGES_OF_THIS_ENVIRONMENT')" > PEER/lib/python3.11/site-packages/shared.pth
    python benchmarks/recovery.py --peer-python PEER/bin/python

The peer (AGPL) runs in an environment of its own and is driven through its public interface as its README says:
``Controller.step(loss)`` between ``backward`` and ``optimizer.step``, and the step left out if it says so. Without it the table
says that it was not run. What counts is stated in `trimtab.bench.recovery`, which both arms and the unwatched runs go through.

The step's cost is measured interleaved: one model plain, one supervised, one under the peer, blocks of steps by turns.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from provenance import commit
from step_cost import Built, small_step, text_step
from torch import Tensor

import trimtab
from trimtab.bench.recording import SCENARIOS
from trimtab.bench.recovery import Notes, Outcome, Supervised, Unwatched, Watch, healthy, train
from trimtab.bench.scenarios.healthy import HEALTHY, HealthyRun
from trimtab.bench.scenarios.injuries import ABSORBED, PERSISTENT, TRANSIENT, Injury
from trimtab.bench.scenarios.loop import Settings
from trimtab.bench.scenarios.patients import PATIENTS, Patient

RESULTS = Path(__file__).parent / "results"
ARMS = ("neither", "ours", "peer")
GROUPS: dict[str, tuple[Injury, ...]] = {"transient": TRANSIENT, "absorbed": ABSORBED, "persistent": PERSISTENT}
HEALTHY_OFFSETS = (0, 100)
HEALTHY_SEEDS = 7
Row = dict[str, Any]


class Peer:
    """arc-training watches."""

    should_stop = False

    def __init__(self, patient: Patient) -> None:
        arc: Any = import_module("arc")
        config = arc.ControllerConfig(verbose=False)
        self._controller = arc.Controller(patient.model, patient.optimizer, scheduler=patient.scheduler, config=config)
        self._step = 0
        self._rollbacks: list[int] = []
        self.is_unrecoverable = False

    def may_update(self, loss: Tensor) -> bool:
        self._step += 1
        action = self._controller.step(loss)
        if action.rolled_back:
            self._rollbacks.append(self._step)
        self.is_unrecoverable |= bool(action.unrecoverable)
        return not action.should_skip

    def updated(self, loss: Tensor, grad_norm: Tensor) -> None:
        pass

    def evaluated(self, held_out_loss: float) -> None:
        pass

    def close(self) -> Notes:
        self._controller.close()
        return Notes(tuple(self._rollbacks))


def watch_of(arm: str, run_dir: Path, kept: list[Watch], patient: Patient) -> Watch:
    """Return who watches, and keep it for what its notes do not say."""
    kept.append(Unwatched() if arm == "neither" else Supervised(patient, run_dir) if arm == "ours" else Peer(patient))
    return kept[-1]


def run_arm(arm: str, seed: int, folder: Path) -> list[Row]:
    rows: list[Row] = []
    for patient in PATIENTS:
        cases = [("none", None), *((group, injury) for group, injuries in GROUPS.items() for injury in injuries)]
        for group, injury in cases:
            if injury is not None and patient not in injury.patients:
                continue
            place = folder / patient / f"{group}-{injury.name if injury else ''}".replace(" ", "-")
            kept: list[Watch] = []
            row = as_row(arm, group, train(patient, injury, seed, partial(watch_of, arm, place, kept)))
            is_named = isinstance(kept[0], Peer) and kept[0].is_unrecoverable
            rows.append(row | {"said": "unrecoverable"} if is_named else row)
        print(f"{arm}, seed {seed}: {patient} done", file=sys.stderr, flush=True)
    return rows


def as_row(arm: str, group: str, outcome: Outcome) -> Row:
    notes = asdict(outcome.notes)
    kept = {key: value for key, value in asdict(outcome).items() if key != "notes"}
    numbers = {"before": finite(outcome.before), "end": finite(outcome.end)}
    return {
        "arm": arm,
        "group": group,
        **kept,
        **notes,
        **numbers,
        "recovered": outcome.is_recovered,
        "whole": outcome.is_whole,
    }


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def healthy_rows(arm: str, folder: Path) -> list[Row]:
    rows: list[Row] = []
    for offset in HEALTHY_OFFSETS:
        for number, run in enumerate(HEALTHY):
            if arm == "peer" and SCENARIOS[run.scenario].build is None:
                continue
            notes = healthy(run, offset, folder / f"{offset}-{number}") if arm == "ours" else peer_healthy(run, offset)
            rows.append({"arm": arm, "run": f"{run.scenario}-{number}", "seed": run.seed + offset, **asdict(notes)})
    for patient in PATIENTS:
        for seed in range(100, 100 + HEALTHY_SEEDS):
            notes = train(patient, None, seed, partial(watch_of, arm, folder / f"{patient}-{seed}", [])).notes
            rows.append({"arm": arm, "run": patient, "seed": seed, **asdict(notes)})
    print(f"{arm}: healthy runs done", file=sys.stderr, flush=True)
    return rows


def peer_healthy(run: HealthyRun, offset: int) -> Notes:
    """Train a healthy run under the peer. What it does is counted; it cannot leave a step of this loop out."""
    scenario, seed = SCENARIOS[run.scenario], run.seed + offset
    assert scenario.build is not None
    loop = scenario.build(Settings(**{**scenario.settings, **run.settings}), seed, scenario.num_steps)
    arc: Any = import_module("arc")
    controller = arc.Controller(loop.model, loop.optimizer, config=arc.ControllerConfig(verbose=False))
    losses: list[Tensor] = []
    rollbacks: list[int] = []
    loop.on_loss = lambda loss: losses.append(loss) or loss

    def after_backward(_: torch.nn.Module) -> None:
        if controller.step(losses[-1]).rolled_back:
            rollbacks.append(len(losses))
        losses[-1] = losses[-1].detach()

    loop.on_gradients = after_backward
    for step in range(1, scenario.num_steps + 1):
        loop.take_step(step)
    controller.close()
    return Notes(tuple(rollbacks))


def cost_rows(with_peer: bool, folder: Path, blocks: int) -> list[Row]:
    return [
        cost("mlp-85k", small_step, blocks, 100, folder, with_peer=with_peer),
        cost("demo-gpt", text_step, blocks, 10, folder, with_peer=with_peer),
    ]


def cost(name: str, build: Callable[[int], Built], blocks: int, block: int, folder: Path, *, with_peer: bool) -> Row:
    arms: list[Callable[[], float]] = []
    for arm in ARMS if with_peer else ARMS[:2]:
        model, optimizer, loss_of = build(0)
        arms.append(stepper(arm, model, optimizer, loss_of, folder / f"cost-{name}"))
    for arm in arms:
        for _ in range(60):  # past the peer's calibration
            arm()
    ratios: list[list[float]] = [[] for _ in arms]
    for number in range(blocks):
        order = [(number + place) % len(arms) for place in range(len(arms))]
        taken = {index: median(arms[index]() for _ in range(block)) for index in order}
        for index, value in taken.items():
            ratios[index].append(value / taken[0])
    found = {arm: sorted(of_arm) for arm, of_arm in zip(ARMS, ratios, strict=False)}
    return {
        "model": name,
        **{arm: [median(of_arm), of_arm[len(of_arm) // 10], of_arm[-1 - len(of_arm) // 10]] for arm, of_arm in found.items()},
    }


def stepper(
    arm: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss_of: Callable[[], Tensor], folder: Path
) -> Callable[[], float]:
    supervisor = controller = None
    if arm == "ours":
        controls = [trimtab.learning_rate(1e-6, 3e-2), trimtab.weight_decay(0.0, 1.0)]
        supervisor = trimtab.supervise(
            model,
            optimizer,
            controls=controls,
            objective="minimize val/loss",
            manager="no_action",
            run_dir=folder,
            evaluate_every_steps=10**9,
            tracker=None,
        )
    elif arm == "peer":
        arc: Any = import_module("arc")
        controller = arc.Controller(model, optimizer, config=arc.ControllerConfig(verbose=False))

    def one() -> float:
        begin = time.perf_counter()
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        if controller is None or not controller.step(loss).should_skip:
            optimizer.step()
        if supervisor is not None:
            supervisor.step(loss=loss)
        return time.perf_counter() - begin

    return one


def work(options: argparse.Namespace) -> None:
    """Do one part, and write its rows into a file."""
    with tempfile.TemporaryDirectory() as folder:
        if options.part == "faults":
            rows = run_arm(options.arm, options.seed, Path(folder))
        elif options.part == "healthy":
            rows = healthy_rows(options.arm, Path(folder))
        else:
            rows = cost_rows(options.arm == "peer", Path(folder), options.blocks)
    made = {"rows": rows, "peer": version("arc-training") if options.arm == "peer" else None}
    Path(options.into).write_text(json.dumps(made, allow_nan=False), encoding="utf-8")


def counted(rows: Iterable[Row], what: str) -> str:
    found = [bool(row[what]) for row in rows]
    return f"{sum(found)} of {len(found)}" if found else "not run"


def of(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def with_needless(rows: list[Row]) -> list[Row]:
    """Say of each run that was rolled back whether it had been whole without a watch, too."""
    whole = {(row["patient"], row["injury"], row["seed"]): row["whole"] for row in of(rows, arm="neither")}
    return [row | {"needless": bool(row["rollbacks"]) and whole[row["patient"], row["injury"], row["seed"]]} for row in rows]


def tables(rows: list[Row], calm: list[Row], costs: list[Row]) -> list[str]:
    lines = ["## Transient faults, recovered of injected", ""]
    lines += ["Recovered: held-out loss at the end at most twice that before the fault. In brackets: at most 5% above it.", ""]
    lines += ["| fault | nobody | trimtab | arc-training |", "|---|---|---|---|"]

    def cell(found: list[Row]) -> str:
        return f"{counted(found, 'recovered')} ({sum(row['whole'] for row in found)})" if found else "not run"

    for injury in TRANSIENT:
        cells = [cell(of(rows, arm=arm, injury=injury.name)) for arm in ARMS]
        lines.append(f"| {injury.name} | " + " | ".join(cells) + " |")
    for name, wanted in (("**all**", {}), *((f"all, {patient}", {"patient": patient}) for patient in PATIENTS)):
        cells = [cell(of(rows, arm=arm, group="transient", **wanted)) for arm in ARMS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "## Rollbacks that were not needed, and what never ends", "", "| | trimtab | arc-training |", "|---|---|---|"]
    watched = ARMS[1:]

    def add(what: str, cells: Iterable[str]) -> None:
        lines.append(f"| {what} | " + " | ".join(cells) + " |")

    spikes = {arm: of(rows, arm=arm, group="absorbed") for arm in watched}
    add("a spike x10 to x100 that Adam absorbs: runs rolled back", (counted(spikes[arm], "rollbacks") for arm in watched))
    transient = {arm: of(rows, arm=arm, group="transient") for arm in watched}
    add(
        "faults after which the unwatched run is whole, too: runs rolled back",
        (counted(transient[arm], "needless") for arm in watched),
    )
    add("healthy runs that were rolled back", (counted(of(calm, arm=arm), "rollbacks") for arm in watched))
    for injury in PERSISTENT:
        found = [of(rows, arm=arm, injury=injury.name) for arm in watched]
        add(f"{injury.name}: named; rollbacks at most", (ended(each) for each in found))
    lines += ["", "## A watched step over a plain one", "", "Median of blocks by turns (p10 to p90).", ""]
    lines += ["| model | trimtab | arc-training |", "|---|---|---|"]
    lines += [f"| {row['model']} | {ratio(row, 'ours')} | {ratio(row, 'peer')} |" for row in costs]
    return lines


def ended(rows: list[Row]) -> str:
    return f"{counted(rows, 'said')}; {max(len(row['rollbacks']) for row in rows)}" if rows else "not run"


def ratio(row: Row, arm: str) -> str:
    return f"{row[arm][0]:.3f} ({row[arm][1]:.3f} to {row[arm][2]:.3f})" if arm in row else "not run"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--peer-python", help="python of an environment with arc-training, torch and trimtab")
    parser.add_argument("--parts", type=Path, help="folder in which finished parts are kept, and taken from")
    parser.add_argument(
        "--part", choices=("faults", "healthy", "cost"), help="do this part alone, of --arm, and write it --into"
    )
    parser.add_argument("--arm", choices=ARMS, default="ours")
    parser.add_argument("--seed", type=int, default=0, help="of --part faults")
    parser.add_argument("--into")
    options = parser.parse_args()
    logging.getLogger("trimtab").setLevel(logging.CRITICAL)
    torch.set_num_threads(1)
    if options.part is not None:
        work(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        publish(options, options.parts or Path(folder))


def publish(options: argparse.Namespace, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Row]] = defaultdict(list)
    peer = None
    arms = ARMS if options.peer_python else ARMS[:2]
    jobs = [(f"faults-{arm}-{seed}", arm, ["--seed", str(seed)]) for seed in range(options.seeds) for arm in arms]
    jobs += [(f"healthy-{arm}", arm, []) for arm in arms[1:]]
    jobs += [("cost", arms[-1], ["--blocks", str(options.blocks)])]
    for name, arm, given in jobs:
        into, part = folder / f"{name}.json", name.partition("-")[0]
        if not into.exists():
            python = options.peer_python if arm == "peer" else sys.executable
            words = [python, __file__, "--part", part, "--arm", arm, *given, "--into", str(into)]
            subprocess.run(words, check=True)  # noqa: S603 - our own words, no shell
        made = json.loads(into.read_text(encoding="utf-8"))
        found[part] += made["rows"]
        peer = peer or made["peer"]
    rows = with_needless(found["faults"])
    beside = f"arc-training {peer}" if peer else "arc-training was not run: no --peer-python was given"
    about = f"Commit {commit()}, torch {torch.__version__}, Python {platform.python_version()}, one thread, CPU; {beside}."
    seeds = f"Seeds 0 to {options.seeds - 1}; trainings: {', '.join(PATIENTS)}."
    RESULTS.mkdir(exist_ok=True)
    held = {"about": about, "faults": rows, "healthy": found["healthy"], "cost": found["cost"]}
    (RESULTS / "recovery.json").write_text(json.dumps(held, indent=0, allow_nan=False) + "\n", encoding="utf-8")
    lines = ["# Recovery from faults", "", about, seeds, "", *tables(rows, found["healthy"], found["cost"]), ""]
    (RESULTS / "recovery.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
