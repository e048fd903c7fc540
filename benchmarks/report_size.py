"""How large a report is and how soon it is painted: runs of 10,000, 100,000 and 1,000,000 steps.

Each run is played to the controller as a training loop would report it, with an evaluation every 100 steps, a question at
each, and an intervention at every 25th; nothing is trained. Its report is made by `trimtab report`, and opened in headless
Chromium, warm, several times: what is told is the first contentful paint, and when the page was loaded, from the start of the
navigation.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

from provenance import commit

import trimtab
from trimtab.controller.effect import Append, Enact
from trimtab.controller.event import (
    AnswerReceived,
    CheckpointWritten,
    EnactmentDone,
    EvaluationReported,
    Event,
    RunBegan,
    RunClosed,
    StepTaken,
)
from trimtab.controller.state import State
from trimtab.controller.step import step as advance
from trimtab.controls.catalogue import dropout, learning_rate, weight_decay
from trimtab.controls.envelope import Authority, Envelope, Objective
from trimtab.controls.recipe import Recipe
from trimtab.decision.action import Adjust, Change
from trimtab.decision.proposal import Expectation, Proposal, hold
from trimtab.diagnosis.base import Evidence, Symptom
from trimtab.ledger.journal import Journal
from trimtab.ledger.record import RunStarted
from trimtab.ledger.series import SeriesFile
from trimtab.telemetry.signal import Kind
from trimtab.telemetry.telemetry import Telemetry

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = Path(__file__).parent / "results"
EVALUATE_EVERY: Final = 100
SIGNALS: Final = 8
TIMES: Final = """
new Promise((done) => new PerformanceObserver((list) => {
  const paint = list.getEntriesByName("first-contentful-paint")[0];
  if (paint) done([paint.startTime, performance.getEntriesByType("navigation")[0].loadEventEnd]);
}).observe({ type: "paint", buffered: true }))
"""


class Recording:
    """A run's directory, filled by feeding the controller what a training loop would report."""

    def __init__(self, folder: Path, steps: int, seed: int) -> None:
        folder.mkdir(parents=True)
        self.steps, self.draw = steps, random.Random(seed)
        self.journal = Journal.create(folder / "ledger.jsonl")
        self.series = SeriesFile(folder / "series.jsonl")
        self.telemetry = Telemetry()
        self.state: State | None = None
        self.event = 0
        controls = (learning_rate(1e-5, 1e-2), weight_decay(0.0, 0.3), dropout(0.0, 0.5))
        most = Authority(interventions=1_000_000, rollbacks=1_000_000)
        recipe = Recipe.of({"learning_rate": 1e-3, "weight_decay": 0.01, "dropout": 0.1})
        envelope = Envelope(Objective("val/loss", "minimize"), controls, most)
        versions = (("trimtab", trimtab.__version__),)
        started = RunStarted(
            step=0,
            schema="trimtab/ledger/1",
            run=folder.name,
            envelope=envelope,
            recipe=recipe,
            manager="scripted",
            isolation="thread",
            total_steps=steps,
            evaluate_every_steps=EVALUATE_EVERY,
            can_skip=False,
            notes=(),
            versions=versions,
        )
        self.feed(RunBegan(started))

    def feed(self, event: Event) -> None:
        self.state, effects = advance(self.state, event)
        for effect in effects:
            if isinstance(effect, Append):
                self.journal.append(effect.record, 1e9 + 0.01 * effect.record.step)
        for effect in effects:
            if isinstance(effect, Enact):
                self.feed(EnactmentDone(self.state.step, effect.verified.recipe))

    def measure(self, step: int, values: dict[str, float], kind: Kind) -> None:
        self.event += 1
        self.telemetry.observe(step, values, kind)
        self.series.append(self.event, step, values)

    def loss(self, step: int) -> float:
        return 0.8 + 3.0 / math.sqrt(1 + step / 50) + self.draw.gauss(0.0, 0.05)

    def make(self) -> None:
        for step in range(1, self.steps + 1):
            others = {f"signal_{place}": self.draw.gauss(place, 1.0) for place in range(SIGNALS)}
            self.measure(step, {"loss": self.loss(step), **others}, "step")
            if step % EVALUATE_EVERY == 0:
                self.evaluate(step)
            elif step % EVALUATE_EVERY == 10 and step > 10:
                self.feed(StepTaken(step))
        self.feed(RunClosed(self.steps, "finished"))
        self.series.flush()
        self.journal.close()

    def evaluate(self, step: int) -> None:
        objective = self.loss(step)
        self.measure(step, {"val/loss": objective}, "evaluation")
        checkpoint = f"step-{step:08}"
        self.feed(CheckpointWritten(step, checkpoint))
        evidence = (Evidence("slope", self.draw.random()), Evidence("noise", self.draw.random()))
        symptoms = (Symptom("plateau", "notice", step, "val/loss", evidence),)
        metrics = (("val/loss", objective),)
        self.feed(EvaluationReported(step, objective, metrics, checkpoint, self.telemetry.snapshot(step), symptoms))
        question = self.state.question if self.state is not None else None
        if question is not None:  # none is asked at the very end
            self.feed(AnswerReceived(step + 1, question.number, self.answer(question.number), 0.5))

    def answer(self, number: int) -> Proposal:
        """Change something at every 25th question, as far as that is possible, and hold at the others."""
        assert self.state is not None
        assert self.state.question is not None
        options = self.state.question.briefing.surface.adjustable
        if number % 25 or not options:
            return hold("the objective still falls, and nothing that was found calls for a change of the recipe")
        chosen = self.draw.choice(options)
        change = Change(chosen.control, self.draw.choice(chosen.values))
        return Proposal(Adjust((change,)), "the slope is within the noise: try another value", Expectation(0.0, 2), ("loss",))


def figures(run: Path, repeats: int, browser: Any) -> dict[str, Any]:
    begin = time.perf_counter()
    command = [sys.executable, "-m", "trimtab", "report", str(run), "--json"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own command
    seconds = time.perf_counter() - begin
    page = Path(json.loads(made.stdout)["report"]["path"])
    opened: list[list[float]] = []
    for number in range(repeats + 1):
        browser.open(page)
        browser.frames()
        if number:  # the first one warms up
            opened.append(browser.evaluate(TIMES))
    told = subprocess.run([*command[:3], "show", str(run), "--json"], capture_output=True, check=True)  # noqa: S603 - our own command
    shown = json.loads(told.stdout)
    return {
        "steps": shown["summary"]["steps"],
        "decisions": len(shown["decisions"]),
        "interventions": shown["summary"]["interventions"],
        "ledger_bytes": (run / "ledger.jsonl").stat().st_size,
        "series_bytes": (run / "series.jsonl").stat().st_size,
        "report_bytes": page.stat().st_size,
        "make_seconds": seconds,
        "first_paint_ms": median(one[0] for one in opened),
        "first_paint_worst_ms": max(one[0] for one in opened),
        "loaded_ms": median(one[1] for one in opened),
    }


def table(about: str, rows: list[dict[str, Any]]) -> str:
    lines = ["# Size of a report, and when it is painted", "", about, ""]
    lines += ["| steps | decisions | interventions | ledger | series | report | made in | first paint (worst) | loaded |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r['steps']:,} | {r['decisions']:,} | {r['interventions']} | {r['ledger_bytes'] / 1e6:.1f} MB "
        f"| {r['series_bytes'] / 1e6:.1f} MB | {r['report_bytes'] / 1e3:,.0f} kB | {r['make_seconds']:.1f} s "
        f"| {r['first_paint_ms']:.0f} ms ({r['first_paint_worst_ms']:.0f} ms) | {r['loaded_ms']:.0f} ms |"
        for r in rows
    ]
    lines += [
        "",
        "The curves are bounded by the width they are drawn for; what grows with the run is the table of its decisions, which",
        "holds each of them.",
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, help="folder to keep the runs in; those that are there are not made again")
    options = parser.parse_args()
    sys.path.append(str(ROOT))  # the driver of the browser is the tests' own
    from tests.chromium import Browser, find_chromium

    chromium = find_chromium()
    if chromium is None:
        print("Not measured: no Chromium is installed.")
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = options.runs or Path(scratch)
        runs = [folder / f"steps-{steps}" for steps in options.steps]
        for run, steps in zip(runs, options.steps, strict=True):
            if not (run / "ledger.jsonl").exists():
                Recording(run, steps, options.seed).make()
        with Browser(chromium, Path(scratch) / "profile") as browser:
            program = browser.order("Browser.getVersion")["product"]
            rows = [figures(run, options.repeats, browser) for run in runs]
    about = (
        f"Commit {commit()}, Python {platform.python_version()}, {program}, headless, 1280 x 900, "
        f"seed {options.seed}, {SIGNALS + 2} signals, an evaluation every {EVALUATE_EVERY} steps; "
        f"times are medians of {options.repeats}."
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "report_size.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    text = table(about, rows)
    (RESULTS / "report_size.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
