"""Cost of the record: a record, a decision, a whole run; verifying it, folding it, and the curves beside it.

Records are those of the controller itself, driven without a training loop: an evaluation every 100 steps with one question
each, nearly all of them answered with no_action, and a dozen with a change that is applied. Appending with and
without fsync takes turns in one process, in an order that changes with every round, and their ratio is that within a round.
What reads a ledger runs in a process of its own, whose peak memory is then its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final

from provenance import commit

from trimtab.actuation.binding import ReadBack
from trimtab.controller.effect import Append, Enact
from trimtab.controller.event import (
    AnswerReceived,
    CheckpointWritten,
    EnactmentDone,
    EvaluationReported,
    Event,
    ReadBackTaken,
    RunBegan,
    StepTaken,
)
from trimtab.controller.state import State
from trimtab.controller.step import step
from trimtab.controller.transitions import fold
from trimtab.controls.catalogue import dropout, learning_rate, weight_decay
from trimtab.controls.envelope import Authority, Envelope, Objective
from trimtab.controls.recipe import Recipe
from trimtab.decision.action import Adjust, Change, NoAction
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.ledger.course import iter_course
from trimtab.ledger.journal import Journal
from trimtab.ledger.line import GENESIS, write_line
from trimtab.ledger.reading import iter_ledger
from trimtab.ledger.record import DURABLE, SCHEMA, Record, RunStarted
from trimtab.ledger.series import SeriesFile
from trimtab.ledger.verify import verify_file
from trimtab.telemetry.snapshot import Snapshot, Summary

RESULTS: Final = Path(__file__).parent / "results"
EVERY: Final = 100
NUM_DECISIONS: Final = 12
STEPS_PER_MILLION: Final = 1_000_000
OF_A_DECISION: Final = (
    "manager_asked", "proposal_received", "verdict_given", "action_intended", "action_applied", "read_back_recorded",
    "intervention_measured",
)  # fmt: skip
SIGNALS: Final = ("loss", "grad_norm", "val/loss", "val/accuracy", "throughput")


class TypicalRun:
    """The controller over a run that goes well; yields its records."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._state: State | None = None
        self._pending: list[Record] = []
        self._recipe: Recipe | None = None

    def records(self) -> Iterator[Record]:
        """Yield records for as long as they are asked for."""
        controls = (learning_rate(1e-6, 1e-2), weight_decay(0.0, 1.0), dropout(0.0, 0.5))
        envelope = Envelope(Objective("val/loss", "minimize"), controls, authority=Authority(interventions=16))
        recipe = Recipe.of({"learning_rate": 1e-3, "weight_decay": 0.01, "dropout": 0.1})
        started = RunStarted(0, SCHEMA, "typical", envelope, recipe, "rules", "process", None, EVERY, False, (), ())
        yield from self._give(RunBegan(started))
        at = 0
        while True:
            at += EVERY
            yield from self._evaluated(at, 1.0 + 1.0 / at + self._draw.gauss(0.0, 0.01))

    def _evaluated(self, at: int, objective: float) -> Iterator[Record]:
        id = f"step-{at:08d}"
        yield from self._give(CheckpointWritten(at, id, "5" * 64))
        rows = tuple(
            Summary(name, "step", 400, 400, objective, at, objective, 0.01, -1e-3, 1e-4, 0.9, 1.3, 0.8, at - 7)
            for name in SIGNALS
        )
        metrics = (("val/accuracy", self._draw.random()), ("val/loss", objective))
        yield from self._give(EvaluationReported(at, objective, metrics, id, Snapshot(at, rows), ()))
        state = self._state
        if state is None or state.question is None:
            return
        surface = state.question.briefing.surface
        action: Any = NoAction()
        # Within the budget: nobody is asked once it is spent.
        if surface.adjustable and state.interventions_used < NUM_DECISIONS and self._draw.random() < 0.05:
            option = self._draw.choice(surface.adjustable)
            action = Adjust((Change(option.control, self._draw.choice(option.values)),))
        expectation = None if isinstance(action, NoAction) else Expectation(0.0, 1)
        proposal = Proposal(action, "the loss falls as it should, so nothing is changed", expectation)
        yield from self._give(AnswerReceived(at + 1, state.num_questions, proposal, self._draw.random()))
        yield from self._give(StepTaken(at + 10))
        if self._recipe is not None:
            recipe, self._recipe = self._recipe, None
            yield from self._give(EnactmentDone(at + 10, recipe))
            results = tuple(ReadBack(name, value, value, holds=True) for name, value in recipe.values)
            assert self._state is not None
            yield from self._give(ReadBackTaken(at + 11, self._state.num_interventions, results))

    def _give(self, event: Event) -> Iterator[Record]:
        self._state, effects = step(self._state, event)
        for effect in effects:
            if isinstance(effect, Append):
                yield effect.record
            elif isinstance(effect, Enact):
                self._recipe = effect.verified.recipe


def first_of_each(seed: int, most: int = 2000) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for _, record in zip(range(most), TypicalRun(seed).records(), strict=False):
        found.setdefault(record.kind, record)
    return found


@dataclass
class Arm:
    """A journal whose appends are timed."""

    journal: Journal
    syncs: bool

    def take(self, records: list[Record]) -> float:
        """Return microseconds a record."""
        real = os.fsync
        if not self.syncs:
            os.fsync = lambda _: None
        try:
            begin = time.perf_counter()
            for record in records:
                self.journal.append(record, 1000.0)
            return 1e6 * (time.perf_counter() - begin) / len(records)
        finally:
            os.fsync = real


def append_rows(rounds: int, block: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    found, draw = first_of_each(seed), random.Random(seed)
    rows: list[dict[str, Any]] = []
    arms = {name: Arm(Journal.create(folder / f"{name}.jsonl"), name == "synced") for name in ("synced", "not synced")}
    for arm in arms.values():
        arm.journal.append(found["run_started"], 1000.0)
    cases: dict[str, list[Record]] = {kind: [found[kind]] * block for kind in found if kind != "run_started"}
    decision = [found[kind] for kind in OF_A_DECISION]
    cases["one decision"] = decision * block
    for kind, records in cases.items():
        taken: dict[str, list[float]] = {name: [] for name in arms}
        for number in range(rounds + 1):
            for name in draw.sample(list(arms), len(arms)):
                microseconds = arms[name].take(records)
                if number:  # the first warms up
                    taken[name].append(microseconds)
        per = len(decision) if kind == "one decision" else 1
        ratios = sorted(a / b for a, b in zip(taken["synced"], taken["not synced"], strict=True))
        size = sum(len(write_line(1, 1000.0, GENESIS, record)[0]) for record in records[:per])
        rows.append(
            {
                "record": kind,
                "durable": sum(isinstance(record, DURABLE) for record in records[:per]),
                "bytes": size,
                "microseconds": per * median(taken["not synced"]),
                "microseconds_synced": per * median(taken["synced"]),
                "ratio_median": median(ratios),
                "ratio_p10": ratios[len(ratios) // 10],
                "ratio_p90": ratios[-1 - len(ratios) // 10],
            }
        )
    for arm in arms.values():
        arm.journal.close()
    return rows


def sync_cost(folder: Path, rounds: int) -> float:
    """Return microseconds of one fsync after 600 bytes: of the disk alone."""
    taken: list[float] = []
    with (folder / "bare").open("ab", buffering=0) as file:
        for _ in range(rounds):
            file.write(b"x" * 600)
            begin = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(1e6 * (time.perf_counter() - begin))
    return median(taken)


def write_ledger(path: Path, num_records: int, seed: int) -> tuple[float, dict[str, float]]:
    """Write a ledger without fsync; return seconds, and the megabytes and records of the run's first million steps."""
    previous, size = GENESIS, 0
    million: dict[str, float] = {}
    begin = time.perf_counter()
    with path.open("wb") as file:
        for sequence, record in zip(range(num_records), TypicalRun(seed).records(), strict=False):
            if record.step > STEPS_PER_MILLION and not million:
                million = {"megabytes": size / 1e6, "records": sequence}
            line, previous = write_line(sequence, 1000.0 + sequence, previous, record)
            size += file.write(line)
    return time.perf_counter() - begin, million


def verify(path: Path) -> int:
    found = verify_file(path)
    if not found.ok:
        raise RuntimeError(found.problem)
    return found.records


def read(path: Path) -> int:
    return sum(1 for _ in iter_ledger(path))


def fold_course(path: Path) -> int:
    state: State | None = None
    count = 0
    for entry in iter_course(path):
        state = fold(state, entry.record)
        count += 1
    return count


READERS: Final[dict[str, Callable[[Path], int]]] = {
    "verify, standalone": verify,
    "read": read,
    "read what counts, and fold": fold_course,
}


def serve(answer: Connection, name: str, path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin, own = time.perf_counter(), time.process_time()
    count = READERS[name](path)
    taken = (time.perf_counter() - begin, time.process_time() - own)
    kilobytes = 1 / 1024 if sys.platform == "darwin" else 1
    answer.send((count, *taken, before * kilobytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobytes))


def reading_rows(path: Path) -> list[dict[str, Any]]:
    context, size = get_context("spawn"), path.stat().st_size / 1e6
    rows: list[dict[str, Any]] = []
    for name in READERS:
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, name, path))
        process.start()
        count, seconds, own, before, after = here.recv()
        process.join()
        rows.append(
            {
                "reading": name,
                "records": count,
                "seconds": seconds,
                "processor_seconds": own,
                "records_per_second": count / own,
                "megabytes_per_second": size / own,
                "peak_megabytes": after / 1024,
                "peak_megabytes_more_than_before": (after - before) / 1024,
            }
        )
    return rows


def series_row(count: int, num_rows: int, seed: int, folder: Path) -> dict[str, Any]:
    draw, path = random.Random(seed), folder / f"series-{count}.jsonl"
    series, names = SeriesFile(path), [f"signal_{index}" for index in range(count)]
    values = [{name: draw.gauss(1.0, 0.1) for name in names} for _ in range(100)]
    taken: list[float] = []
    largest = 0
    for number in range(num_rows):
        begin = time.perf_counter()
        series.append(number, number, values[number % 100])
        taken.append(1e3 * (time.perf_counter() - begin))
        if number % 640 == 0 and path.exists():
            largest = max(largest, path.stat().st_size)
    series.flush()
    longest = sorted(taken)
    return {
        "signals": count,
        "rows": num_rows,
        "megabytes": path.stat().st_size / 1e6,
        "largest_megabytes": largest / 1e6,
        "p50_milliseconds": longest[len(longest) // 2],
        "p99_milliseconds": longest[int(0.99 * len(longest))],
        "longest_milliseconds": longest[-1],
        "appends_over_10_milliseconds": sum(one > 10.0 for one in longest),
    }


def report(content: dict[str, Any]) -> str:
    lines = ["# Cost of the record", "", content["about"], ""]
    lines += [
        "Appending one record, and all of one decision from question to outcome; without fsync, and with it for the kinds that",
        "are on disk before the run goes on.",
        f"The disk alone ({content['disk']}) takes {content['fsync_microseconds']:.0f} us for one.",
        "",
        "| record | durable records | bytes | us, no fsync | us | ratio (p10 to p90) |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['record']} | {r['durable']} | {r['bytes']:,} | {r['microseconds']:.0f} | {r['microseconds_synced']:.0f} "
        f"| {r['ratio_median']:.2f} ({r['ratio_p10']:.2f} to {r['ratio_p90']:.2f}) |"
        for r in content["appends"]
    ]
    million, ledger = content["million_steps"], content["ledger"]
    lines += [
        "",
        f"A million steps, with an evaluation and a question every {EVERY} of them: {million['records']:,.0f} records,",
        f"{million['megabytes']:.1f} MB.",
        "",
        f"A ledger of {ledger['records']:,} records ({ledger['megabytes']:.0f} MB), written without fsync at",
        f"{ledger['records'] / ledger['seconds']:,.0f} records/s, the controller's work included. By processor time:",
        "",
        "| reading | records/s | MB/s | seconds | peak memory, MB | of that for reading, MB |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['reading']} | {r['records_per_second']:,.0f} | {r['megabytes_per_second']:.1f} | {r['processor_seconds']:.1f} "
        f"| {r['peak_megabytes']:.0f} | {r['peak_megabytes_more_than_before']:.1f} |"
        for r in content["readings"]
    ]
    lines += [
        "",
        "The curves beside it: one append a step, rows given up as they age, so that the file stays bounded.",
        "",
        "| signals | rows appended | MB at the end | MB at most | p50 ms | p99 ms | longest ms | appends over 10 ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['signals']} | {r['rows']:,} | {r['megabytes']:.1f} | {r['largest_megabytes']:.1f} | {r['p50_milliseconds']:.4f} "
        f"| {r['p99_milliseconds']:.3f} | {r['longest_milliseconds']:.1f} | {r['appends_over_10_milliseconds']} |"
        for r in content["series"]
    ]
    return "\n".join([*lines, ""])


def disk_of(folder: Path) -> str:
    try:
        command = ["stat", "-f", "-c", "%T", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - our own words, no shell
    except (OSError, subprocess.CalledProcessError):
        return "unknown file system"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="where to write (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        appends = append_rows(options.rounds, 20, options.seed, folder)
        fsync, disk = sync_cost(folder, 200), disk_of(folder)
        ledger = folder / "ledger.jsonl"
        seconds, million = write_ledger(ledger, options.records, options.seed)
        size = ledger.stat().st_size / 1e6
        readings = reading_rows(ledger)
        series = [series_row(count, options.rows, options.seed, folder) for count in (5, 100)]
    content = {
        "about": f"Commit {commit()}, Python {platform.python_version()}, one thread, seed {options.seed}, "
        f"{options.rounds} rounds.",
        "disk": disk,
        "fsync_microseconds": fsync,
        "appends": appends,
        "million_steps": million or {"megabytes": float("nan"), "records": float("nan")},
        "ledger": {"records": options.records, "megabytes": size, "seconds": seconds},
        "readings": readings,
        "series": series,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ledger_cost.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    text = report(content)
    (RESULTS / "ledger_cost.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
