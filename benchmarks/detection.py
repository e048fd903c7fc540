"""Detection on provoked trainings, false alarms on healthy ones, and the detectors of others on the same traces.

Trainings run without a supervisor and are recorded once, in --traces; the detectors are replayed over the traces, which
takes seconds. The rules of scoring are in `trimtab.bench.detection`, the faults with what answers them in
`trimtab.bench.scenarios.faults`. Seeds 0 to 4 were looked at while the detectors were written, 10 to 14 were not.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import json
import math
import platform
import sys
import tempfile
import textwrap
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peers import detectors
from provenance import commit

import trimtab
from trimtab.bench import detection
from trimtab.bench.detection import (
    Calm,
    Finding,
    Recognition,
    alarms,
    calm,
    converged_step,
    is_healthy,
    merged,
    recognise,
    replay,
)
from trimtab.bench.recording import SCENARIOS, Scenario, record
from trimtab.bench.scenarios import faults, loop
from trimtab.bench.scenarios.faults import FAULTS, Fault
from trimtab.bench.scenarios.healthy import HEALTHY
from trimtab.bench.traces import Trace, read_trace, write_trace

RESULTS = Path(__file__).parent / "results"
_BY_NAME = {fault.name: fault for fault in FAULTS}


@dataclass(frozen=True)
class Job:
    scenario: str
    seed: int
    variant: str = "base"
    settings: tuple[tuple[str, Any], ...] = ()
    fault: str | None = None

    def path(self, folder: Path) -> Path:
        """The trace's file: named after all that decides what is in it, so that a change records anew."""
        scenario = SCENARIOS[self.scenario]
        parts = [repr(self), torch.__version__, repr([getattr(scenario, name) for name in _RECORDED]), *_sources(scenario)]
        parts += _sources_of_fault(_BY_NAME[self.fault]) if self.fault else []
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        name = f"{self.scenario}-{self.variant}-{self.fault or 'none'}-{self.seed}".replace(" ", "_").replace("%", "pct")
        return folder / f"{name}-{digest}.jsonl"

    def run(self, path: Path) -> str:
        inject = _BY_NAME[self.fault].inject if self.fault else None
        settings = dict(self.settings)
        trace = record(
            SCENARIOS[self.scenario], self.seed, variant=self.variant, settings=settings, fault=self.fault, inject=inject
        )
        write_trace(path, trace)
        return path.name


_HELPERS = [name for name, thing in vars(faults).items() if getattr(thing, "__module__", "") == faults.__name__]
_SLOW = ("cart_pole", "point_mass", "text")
_RECORDED = ("num_steps", "evaluate_every_steps", "inject_step", "settings", "task")


def _sources(scenario: Scenario) -> list[str]:
    if scenario.build is not None:
        return [_code(loop), _code(inspect.getmodule(scenario.build))]
    return [_layoutless(file.read_text(encoding="utf-8")) for file in sorted(Path(loop.__file__).parent.glob("ppo*.py"))]


def _sources_of_fault(fault: Fault) -> list[str]:
    """The fault's own source and that of what it uses beside it."""
    used = fault.inject.__code__.co_names
    return [_code(fault.inject), *(_code(getattr(faults, name)) for name in used if name in _HELPERS)]


def _code(thing: Any) -> str:
    return _layoutless(textwrap.dedent(inspect.getsource(thing)))


def _layoutless(source: str) -> str:
    """Source as a tree, which layout and comments do not change."""
    return ast.dump(ast.parse(source))


@dataclass(frozen=True)
class Choice:
    """Which seeds and which trainings are run."""

    seeds: tuple[int, ...]
    scenarios: tuple[str, ...]

    @property
    def faults(self) -> list[Fault]:
        return [fault for fault in FAULTS if fault.scenario in self.scenarios]


def jobs_of(choice: Choice) -> tuple[list[Job], dict[tuple[str, int], Job], dict[tuple[str, int], Job]]:
    """Return the healthy runs, the twins by scenario and seed, and the runs with a fault by its name and seed."""
    seeds, offset = choice.seeds, 100 * min(choice.seeds)
    healthy = [
        Job(run.scenario, run.seed + offset, f"healthy{number}", tuple(sorted(run.settings.items())))
        for number, run in enumerate(HEALTHY)
        if run.scenario in choice.scenarios
    ]
    twins = {(fault.scenario, seed): Job(fault.scenario, seed) for fault in choice.faults for seed in seeds}
    faulty = {(fault.name, seed): Job(fault.scenario, seed, fault=fault.name) for fault in choice.faults for seed in seeds}
    return healthy, twins, faulty


def record_all(jobs: list[Job], folder: Path, num_processes: int) -> None:
    missing = sorted((job for job in jobs if not job.path(folder).exists()), key=lambda job: job.scenario in _SLOW)
    if not missing:
        return
    print(f"recording {len(missing)} of {len(jobs)} trainings in {folder}", flush=True)
    with ProcessPoolExecutor(num_processes) as pool:
        # Paths are made here: the sources they are named after may be edited meanwhile.
        for number, name in enumerate(pool.map(Job.run, missing, [job.path(folder) for job in missing]), 1):
            if sys.stdout.isatty() or number % 20 == 0 or number == len(missing):
                print(f"  {number}/{len(missing)} {name}", flush=True)


@dataclass(frozen=True)
class Scored:
    detector: str
    recognitions: list[Recognition]
    calms: dict[str, Calm]

    @property
    def num_found(self) -> int:
        return sum(each.num_found for each in self.recognitions)


def score(peer: detectors.Peer, traces: dict[Job, Trace], choice: Choice) -> tuple[Scored, dict[Job, list[Finding]]]:
    found = {job: peer.replay(trace) for job, trace in traces.items()}
    healthy, twins, faulty = jobs_of(choice)
    recognitions: list[Recognition] = []
    for fault in choice.faults:
        runs = [faulty[fault.name, seed] for seed in choice.seeds]
        beside = [twins[fault.scenario, seed] for seed in choice.seeds]
        recognitions.append(
            recognise(
                fault.name,
                peer.answering(fault.answers),
                [traces[job] for job in runs],
                [found[job] for job in runs],
                [(traces[job], found[job]) for job in beside],
            )
        )
    calms: dict[str, Calm] = {}
    for kind in dict.fromkeys(SCENARIOS[job.scenario].kind for job in healthy):
        runs = [job for job in healthy if SCENARIOS[job.scenario].kind == kind and is_healthy(traces[job])]
        calms[kind] = calm([traces[job] for job in runs], [found[job] for job in runs], peer.standstill)
    return Scored(peer.name, recognitions, calms), found


def counts(values: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(values.items(), key=lambda item: -item[1])) or "none"


def each(values: Iterable[int | None]) -> str:
    return " ".join("-" if value is None else str(value) for value in values)


def fault_table(scored: Scored) -> list[str]:
    rows = [
        (
            "| fault | in | answered by | found | delay per seed, steps | median, longest | first answer | in twins "
            "| any alarm: found, delays | alarms before | gain lost |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for got in scored.recognitions:
        fault = _BY_NAME[got.fault]
        middle = "" if got.median_delay is None else f"{got.median_delay:g}, {got.longest_delay}"
        by = counts({name: got.by.count(name) for name in dict.fromkeys(got.by) if name}) if got.num_found else ""
        alarmed = sum(delay is not None for delay in got.any_delays)
        rows.append(
            f"| {fault.name} | {fault.scenario} | {', '.join(fault.answers)} | {got.num_found} of {len(got.delays)} "
            f"| {each(got.delays)} | {middle} | {by} | {got.num_twins} | {alarmed}: {each(got.any_delays)} | {got.num_before} "
            f"| {'not known' if math.isnan(got.harm) else f'{got.harm:.0%}'} |"
        )
    return rows


def healthy_table(scored: Scored) -> list[str]:
    rows = [
        (
            "| healthy runs | runs, steps | false alarms per 1,000 steps | runs with one | false alarms "
            "| no progress, after convergence (true) | notices |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for kind, got in scored.calms.items():
        rows.append(
            f"| {kind} | {got.num_runs}, {got.num_steps:,} | {got.per_thousand_steps:.2f} | {got.num_alarmed_runs} "
            f"| {counts(got.alarms)} | {counts(got.standstill)} | {counts(got.notices)} |"
        )
    num_steps = sum(got.num_steps for got in scored.calms.values())
    total = sum(sum(got.alarms.values()) for got in scored.calms.values())
    num_runs = sum(got.num_runs for got in scored.calms.values())
    rows.append(f"| all | {num_runs}, {num_steps:,} | {1000 * total / num_steps:.2f} | | {total} | | |")
    return rows


def peer_table(all_scored: list[Scored]) -> list[str]:
    rows = [
        f"| | {' | '.join(scored.detector for scored in all_scored)} |",
        f"|---|{'---|' * len(all_scored)}",
    ]
    for number, got in enumerate(all_scored[0].recognitions):
        cells = [_cell(scored.recognitions[number]) for scored in all_scored]
        rows.append(f"| {got.fault} | {' | '.join(cells)} |")
    runs = sum(len(got.delays) for got in all_scored[0].recognitions)
    rows.append(f"| **found, of {runs}** | {' | '.join(str(scored.num_found) for scored in all_scored)} |")
    twins = [str(sum(got.num_twins for got in scored.recognitions)) for scored in all_scored]
    rows.append(f"| the same in twins without the fault | {' | '.join(twins)} |")
    middles = [[d for got in scored.recognitions for d in got.delays if d is not None] for scored in all_scored]
    rows.append(f"| median delay, steps | {' | '.join(f'{median(m):g}' if m else '' for m in middles)} |")
    for kind in all_scored[0].calms:
        cells = [f"{scored.calms[kind].per_thousand_steps:.2f}" for scored in all_scored]
        rows.append(f"| false alarms per 1,000 steps: {kind} | {' | '.join(cells)} |")
    return rows


def _cell(got: Recognition) -> str:
    twins = f" (twins {got.num_twins})" if got.num_twins else ""
    return f"{got.num_found}{twins}" if got.num_found else "-"


def runs_of(traces: dict[Job, Trace], found: dict[Job, list[Finding]]) -> list[dict[str, Any]]:
    """Every run with all that was found in it, merged."""
    return [
        asdict(trace.course)
        | {"settings": dict(job.settings), "healthy": is_healthy(trace), "converged_step": converged_step(trace)}
        | {"objective_values": [f"{value:.5g}" for _, value in trace.objective_values()]}
        | {"alarms": [[each.step, each.name] for each in alarms(found[job])]}
        | {"notices": [[each.step, each.name] for each in merged(f for f in found[job] if f.severity == "notice")]}
        for job, trace in traces.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    parser.add_argument("--scenarios", nargs="+", choices=[*SCENARIOS], default=[*SCENARIOS])
    parser.add_argument("--traces", type=Path, default=Path(tempfile.gettempdir()) / "trimtab-traces")
    parser.add_argument("--peers", type=Path, help="a folder with the peers' packages (pip install --target)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--name", default="detection")
    options = parser.parse_args()
    choice = Choice(tuple(options.seeds), tuple(options.scenarios))
    healthy, twins, faulty = jobs_of(choice)
    jobs = [*healthy, *twins.values(), *faulty.values()]
    record_all(jobs, options.traces, options.jobs)
    traces = {job: read_trace(job.path(options.traces)) for job in jobs}
    ours, found = score(detectors.Peer("trimtab", replay), traces, choice)
    peers, not_run = detectors.available(options.peers)
    others: list[Scored] = []
    for peer in peers:
        print(f"replaying {peer.name}", flush=True)
        others.append(score(peer, traces, choice)[0])
    about = (
        f"Commit {commit()}, trimtab {trimtab.__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"seeds {options.seeds}; {len(healthy)} healthy runs, {len(choice.faults)} faults x {len(options.seeds)} seeds, "
        f"{len(twins)} twins, of {', '.join(options.scenarios)}."
    )
    rejected = [job for job in healthy if not is_healthy(traces[job])]
    text = "\n".join(report(about, ours, others, not_run, rejected))
    RESULTS.mkdir(exist_ok=True)
    scores = [asdict(scored) for scored in (ours, *others)]
    document = {"about": about, "scores": scores, "runs": runs_of(traces, found)}
    (RESULTS / f"{options.name}.json").write_text(json.dumps(document) + "\n", encoding="utf-8")
    (RESULTS / f"{options.name}.md").write_text(text, encoding="utf-8")
    print("\n" + text)


def report(about: str, ours: Scored, others: list[Scored], not_run: dict[str, str], rejected: list[Job]) -> list[str]:
    lines = ["# Detection", "", about, "", *RULES, "", "## Faults", "", *fault_table(ours), "", "## Healthy runs", ""]
    lines += [*healthy_table(ours), ""]
    names = ", ".join(f"{job.scenario} {dict(job.settings)} seed {job.seed}" for job in rejected)
    lines += [f"Not counted, because it did not end near its best level: {names or 'none'}.", ""]
    lines += ["## Beside others, on the same traces", "", *peer_table([ours, *others]), ""]
    lines += [f"- {scored.detector}: {detectors.ABOUT[scored.detector]}" for scored in others]
    lines += [f"- {name}: not run: {reason}" for name, reason in not_run.items()]
    return [*lines, ""]


RULES = (inspect.getdoc(detection) or "").splitlines()


if __name__ == "__main__":
    main()
