"""Detection: replay detectors over traces as the supervisor runs them, and score what they raise.

Rules, fixed before any result was looked at:
1. A fault is recognised by the first symptom among its answers, of any severity, from the step of injection on. Beside it
   stands how often the same symptom appears after the same step in the twin: the same seed without the fault.
2. An alarm is a symptom of severity warning or critical; those of one name with at most 100 steps between them are one.
3. A healthy run is converged from the evaluation on at which the objective has made 98% of all it gains. Alarms after it
   that say that the run makes no progress are true, so they are listed apart; every other alarm is false wherever it comes.
4. A run counts as healthy only if it ends within 5% of its gain from its best level.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

from trimtab.bench.traces import Moment, Trace
from trimtab.controls.envelope import Objective
from trimtab.controls.recipe import Recipe
from trimtab.diagnosis.base import Detector, Severity, View
from trimtab.diagnosis.examine import EVALUATION_DETECTORS, STEP_DETECTORS, examine
from trimtab.telemetry.roles import Roles
from trimtab.telemetry.signal import LOSS, LOSS_AT_EVALUATION
from trimtab.telemetry.telemetry import Telemetry

MERGE_STEPS: Final = 100
CONVERGED_SHARE: Final = 0.98
TOLERATED_LOSS: Final = 0.05
STANDSTILL: Final = frozenset({"plateau", "underfitting"})
_LEVEL: Final = 4  # evaluations whose mean is a level


@dataclass(frozen=True, slots=True)
class Finding:
    """A symptom as it is scored; of any detector, so its name is free."""

    step: int
    name: str
    severity: Severity


@dataclass(frozen=True, slots=True)
class Recognition:
    """How one fault was recognised over its seeds.

    Args:
        fault: Its name.
        delays: Steps to the first answer, per seed; None where there was none.
        any_delays: Steps to the first alarm of any name.
        by: The symptoms that answered first, per seed.
        num_twins: Twins in which an answer appears after the same step.
        num_before: Alarms before the injection, over all seeds.
        harm: Objective at the end with the fault over that of the twin, median; see `harm`.
    """

    fault: str
    delays: tuple[int | None, ...]
    any_delays: tuple[int | None, ...]
    by: tuple[str | None, ...]
    num_twins: int
    num_before: int
    harm: float

    @property
    def num_found(self) -> int:
        """Seeds with an answer."""
        return sum(delay is not None for delay in self.delays)

    @property
    def median_delay(self) -> float | None:
        """Median over the seeds with an answer."""
        return median(found) if (found := _some(self.delays)) else None

    @property
    def longest_delay(self) -> int | None:
        """Largest over the seeds with an answer."""
        return max(_some(self.delays), default=None)


@dataclass(frozen=True, slots=True)
class Calm:
    """What was raised over healthy runs.

    Args:
        num_runs: Runs.
        num_steps: Steps of all.
        alarms: False alarms by symptom.
        standstill: Alarms after convergence that say the run makes no progress, by symptom.
        notices: Notices by symptom, merged like alarms.
        num_alarmed_runs: Runs with at least one false alarm.
    """

    num_runs: int
    num_steps: int
    alarms: dict[str, int]
    standstill: dict[str, int]
    notices: dict[str, int]
    num_alarmed_runs: int

    @property
    def per_thousand_steps(self) -> float:
        """False alarms per 1,000 steps."""
        return 1000 * sum(self.alarms.values()) / self.num_steps if self.num_steps else math.nan


Replay = Callable[[Trace], list[Finding]]


def replay(
    trace: Trace,
    step_detectors: tuple[Detector, ...] = STEP_DETECTORS,
    evaluation_detectors: tuple[Detector, ...] = EVALUATION_DETECTORS,
) -> list[Finding]:
    """Return what the detectors find, fed as `trimtab.runtime.supervisor` feeds them, with a manager that never acts."""
    course = trace.course
    objective, telemetry, roles = Objective.parse(course.objective), Telemetry(), Roles()
    recipe = Recipe(())
    found: list[Finding] = []
    for moment in trace.moments:
        if moment.kind == "recipe":
            recipe = Recipe.of(moment.values)
            continue
        if moment.kind == "evaluation" and objective.signal not in moment.values:
            continue
        _observe(telemetry, moment)
        detectors = step_detectors if moment.kind == "step" else evaluation_detectors
        view = View(moment.step, telemetry, objective, roles, recipe, course.evaluate_every_steps)
        found += [Finding(moment.step, each.name, each.severity) for each in examine(view, detectors)]
    return found


def _observe(telemetry: Telemetry, moment: Moment) -> None:
    assert moment.kind != "recipe", "a recipe is no signal"
    values = dict(moment.values)
    if moment.kind == "evaluation":
        window = telemetry.window(LOSS)
        if window is not None and window.count:
            values[LOSS_AT_EVALUATION] = window.slow
    telemetry.observe(moment.step, values, moment.kind)


def merged(findings: Iterable[Finding], within: int = MERGE_STEPS) -> list[Finding]:
    """Return the first finding of every row of one name with at most ``within`` steps between neighbours."""
    last: dict[str, int] = {}
    first: list[Finding] = []
    for finding in sorted(findings, key=lambda found: found.step):
        if finding.name not in last or finding.step - last[finding.name] > within:
            first.append(finding)
        last[finding.name] = finding.step
    return first


def alarms(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that call somebody, merged."""
    return merged(finding for finding in findings if finding.severity != "notice")


def converged_step(trace: Trace) -> int:
    """Return the step of the first evaluation at which the level has made 98% of its whole gain; the last step if none."""
    levels = _levels(trace)
    best = max((gain for _, gain in levels), default=0.0)
    return next((step for step, gain in levels if gain >= CONVERGED_SHARE * best), trace.course.num_steps)


def is_healthy(trace: Trace) -> bool:
    """Whether all is finite, the objective gained, and it ends near its best level."""
    finite = all(math.isfinite(value) for moment in trace.moments for value in moment.values.values())
    levels = _levels(trace)
    best = max((gain for _, gain in levels), default=0.0)
    return finite and best > 0 and levels[-1][1] >= (1 - TOLERATED_LOSS) * best


def _levels(trace: Trace) -> list[tuple[int, float]]:
    """Return by how much the mean of the newest evaluations is better than the first, at each evaluation."""
    values = trace.objective_values()
    objective = Objective.parse(trace.course.objective)
    means = [(values[n - 1][0], fmean(value for _, value in values[n - _LEVEL : n])) for n in range(_LEVEL, len(values) + 1)]
    return [(step, objective.gain(values[0][1], mean)) for step, mean in means]


def calm(traces: Sequence[Trace], found: Sequence[list[Finding]], standing: frozenset[str] = STANDSTILL) -> Calm:
    """Score what was found in healthy runs; ``standing`` names what is true of a converged run."""
    false, standstill, notices = defaultdict[str, int](int), defaultdict[str, int](int), defaultdict[str, int](int)
    num_alarmed = 0
    for trace, findings in zip(traces, found, strict=True):
        before = sum(false.values())
        converged = converged_step(trace)
        for alarm in alarms(findings):
            is_true = alarm.name in standing and alarm.step >= converged
            (standstill if is_true else false)[alarm.name] += 1
        for notice in merged(finding for finding in findings if finding.severity == "notice"):
            notices[notice.name] += 1
        num_alarmed += sum(false.values()) > before
    num_steps = sum(trace.course.num_steps for trace in traces)
    return Calm(len(traces), num_steps, dict(false), dict(standstill), dict(notices), num_alarmed)


def recognise(
    fault: str,
    answers: Iterable[str],
    traces: Sequence[Trace],
    found: Sequence[list[Finding]],
    twins: Sequence[tuple[Trace, list[Finding]]],
) -> Recognition:
    """Score one fault.

    Args:
        fault: Its name.
        answers: Names that recognise it.
        traces: Its runs.
        found: What was found in each.
        twins: The same seeds without the fault, in the same order, with what was found in them.
    """
    names = frozenset(answers)
    first: list[tuple[int | None, str | None]] = []
    any_delays: list[int | None] = []
    num_twins = num_before = 0
    for trace, findings, (_, in_twin) in zip(traces, found, twins, strict=True):
        begin = trace.course.injected_step
        assert begin is not None, "a trace with a fault knows where it was put in"
        after = [finding for finding in findings if finding.step >= begin]
        answer = min((each for each in after if each.name in names), key=lambda each: each.step, default=None)
        first.append((None, None) if answer is None else (answer.step - begin, answer.name))
        any_delays.append(min((each.step - begin for each in after if each.severity != "notice"), default=None))
        num_twins += any(each.name in names and each.step >= begin for each in in_twin)
        num_before += len(alarms(each for each in findings if each.step < begin))
    return Recognition(
        fault,
        tuple(delay for delay, _ in first),
        tuple(any_delays),
        tuple(name for _, name in first),
        num_twins,
        num_before,
        median(harm(trace, twin) for trace, (twin, _) in zip(traces, twins, strict=True)),
    )


def harm(trace: Trace, twin: Trace) -> float:
    """Return the share of the twin's gain since the first evaluation that the fault cost at the end; 0 is none, NaN unknown."""
    ours, theirs = trace.objective_values(), twin.objective_values()
    objective = Objective.parse(trace.course.objective)
    if ours[-1][0] != theirs[-1][0]:
        return math.nan  # its last evaluations never came
    gained = objective.gain(theirs[0][1], theirs[-1][1])
    return 1.0 - objective.gain(theirs[0][1], ours[-1][1]) / gained if gained > 0 else math.nan


def _some(values: Iterable[int | None]) -> list[int]:
    return [value for value in values if value is not None]
