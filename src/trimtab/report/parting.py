"""Where two runs part: what they started from, what they measured, what was decided on which evidence, and the recipes.

Two runs are compared as far as both go: of one that goes on, or was cut off, nothing is known beyond its last record.
That its training loop raised cuts a run off, too. Saved states are compared, but do not part two runs by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Final

from trimtab.controls.envelope import Envelope
from trimtab.errors import LedgerError
from trimtab.ledger.codec import canonical, freeze
from trimtab.ledger.record import (
    ActionApplied,
    ActionFailed,
    EvaluationRecorded,
    Origin,
    Record,
    RunEnded,
    RunResumed,
    RunStarted,
)
from trimtab.report.account import Decision, Timeline, is_raised, json_ready
from trimtab.report.repeat import Comparison, compare_courses, differing_fields, is_timed, timed_signals
from trimtab.report.scorecard import Totals, build_scorecard
from trimtab.report.timeline import build_timeline

ABSENT: Final = "none"

# What is not decided: it may differ where the same is done.
_ONLY_SAID: Final = frozenset({"evidence", "reason", "expectation"})


@dataclass(frozen=True, slots=True)
class Unlike:
    """A fact in which two runs differ: its path, and both values as JSON text, ``none`` where one has none."""

    name: str
    one: str
    other: str


@dataclass(frozen=True, slots=True)
class EvaluationParting:
    """The first evaluation that differs.

    Args:
        step: Its step in the first run; in the second where the first made none.
        values: What differs, by signal; one entry ``step`` if they were made after different steps.
    """

    step: int
    values: tuple[Unlike, ...]


@dataclass(frozen=True, slots=True)
class DecisionPair:
    """What two runs decided at the same moment.

    Args:
        step: Step after which it was asked, or somebody acted without being asked.
        one: The first run's; None if it decided nothing then.
        other: The second run's.
        differs_in: What differs, such as ``action`` or ``verdict``.
        objectives: The newest value of the objective that each had; None before its first evaluation.
    """

    step: int
    one: Decision | None
    other: Decision | None
    differs_in: tuple[str, ...]
    objectives: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class RecipeStretch:
    """Steps in a row after which a control has one value in each run, and not the same.

    Args:
        control: Its name.
        first_step: First of them.
        last_step: Last of them; None if that is as far as both go.
        one: The first run's value; None if it has no such control.
        other: The second run's.
    """

    control: str
    first_step: int
    last_step: int | None
    one: float | None
    other: float | None


@dataclass(frozen=True, slots=True)
class Seen:
    """One of the two runs.

    Args:
        timeline: The account of it.
        totals: What its manager brought and cost, in figures.
        origin: Whose course it follows; None for its own.
        has_ended: Whether it was closed in order.
    """

    timeline: Timeline
    totals: Totals
    origin: Origin | None
    has_ended: bool

    def is_known_at(self, step: int) -> bool:
        """Return whether all is known that happened after ``step``; of a run that has not ended, more may come."""
        return self.has_ended or step < self.timeline.summary.steps


@dataclass(frozen=True, slots=True)
class Parting:
    """How two runs differ.

    Args:
        runs: Both.
        start: Facts of the start that differ and bear on the run.
        versions: Packages whose versions differ.
        alike: How far their records are alike, but for the start.
        evaluation: The first evaluation that differs; None if none does as far as both go.
        evidence: The first decision before which another thing was seen.
        decisions: Decisions that differ in what was decided, oldest first.
        recipes: Where their recipes differ, by step.
        last_step: Last step that both have.
    """

    runs: tuple[Seen, Seen]
    start: tuple[Unlike, ...]
    versions: tuple[Unlike, ...]
    alike: Comparison
    evaluation: EvaluationParting | None
    evidence: DecisionPair | None
    decisions: tuple[DecisionPair, ...]
    recipes: tuple[RecipeStretch, ...]
    last_step: int

    @property
    def is_none(self) -> bool:
        """Whether the runs are identical as far as both go, but for saved states: `alike` has those."""
        return not self.start and self.alike.difference is None

    def as_json(self) -> dict[str, Any]:
        """Return the parting as JSON-ready values; of the runs, their summaries and totals."""
        tree: dict[str, Any] = json_ready(self)
        for run in tree["runs"]:
            run["summary"] = run.pop("timeline")["summary"]
        return {"identical": self.is_none, **tree}


def part(one: Sequence[Record], other: Sequence[Record]) -> Parting:
    """Compare two runs.

    Args:
        one: Records of the course of a run, from the first on.
        other: Those of the other.

    Raises:
        LedgerError: One of them holds no record.
        IllegalTransition: The records are out of order; the ledger was not written by a run.
    """
    one, other = _until_raised(one), _until_raised(other)
    runs = _seen(one), _seen(other)
    started = _started(one), _started(other)
    last_step = min(run.timeline.summary.steps for run in runs)
    pairs = tuple(_decision_pairs(runs))
    return Parting(
        runs=runs,
        start=tuple(_start(*started)),
        versions=tuple(_named("", _trees(started[0].versions), _trees(started[1].versions))),
        alike=_alike(one, other, runs),
        evaluation=_evaluation(one, other, runs),
        evidence=next((pair for pair in pairs if "evidence" in pair.differs_in), None),
        decisions=tuple(pair for pair in pairs if not _ONLY_SAID.issuperset(pair.differs_in)),
        recipes=tuple(_recipes(one, other, last_step)),
        last_step=last_step,
    )


def _until_raised(records: Sequence[Record]) -> Sequence[Record]:
    return [record for record in records if not (isinstance(record, RunEnded) and is_raised(record.reason))]


def _seen(records: Sequence[Record]) -> Seen:
    origins = [record.origin for record in records if isinstance(record, RunResumed)]
    has_ended = any(isinstance(record, RunEnded) for record in records)
    return Seen(build_timeline(records), build_scorecard(records).totals, origins[-1] if origins else None, has_ended)


def _started(records: Sequence[Record]) -> RunStarted:
    first = records[0] if records else None
    if not isinstance(first, RunStarted):
        raise LedgerError("the ledger is empty", allowed="records from run_started on", next_step="look at another run")
    return first


def _alike(one: Sequence[Record], other: Sequence[Record], runs: tuple[Seen, Seen]) -> Comparison:
    """Compare the courses from one and the same start: what differs there is told apart."""
    first = _started(one)
    found = compare_courses(one, [first, *other[1:]], with_states=False)
    turned = compare_courses([first, *other[1:]], one, with_states=False)
    # What follows the end of a run that goes on, or was cut off, is no difference, whichever of the two it is.
    return turned if found.difference is not None and turned.difference is None and not runs[1].has_ended else found


def _start(one: RunStarted, other: RunStarted) -> Iterator[Unlike]:
    for name in ("manager", "total_steps", "evaluate_every_steps", "can_skip", "schedule"):
        yield from _unlike(name, freeze(getattr(one, name)), freeze(getattr(other, name)))
    yield from _named("recipe.", _trees(one.recipe.values), _trees(other.recipe.values))
    yield from _envelopes(one.envelope, other.envelope)


def _envelopes(one: Envelope, other: Envelope) -> Iterator[Unlike]:
    trees = freeze(replace(one, controls=())), freeze(replace(other, controls=()))
    yield from _unlike("envelope", *trees)
    controls = (_trees((control.name, control) for control in envelope.controls) for envelope in (one, other))
    yield from _named("envelope.controls.", *controls)


def _trees(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    return {name: freeze(value) for name, value in pairs}


def _named(prefix: str, one: Mapping[str, object], other: Mapping[str, object]) -> Iterator[Unlike]:
    """Compare JSON trees by their names."""
    for name in (*one, *(name for name in other if name not in one)):
        if name in one and name in other:
            yield from _unlike(prefix + name, one[name], other[name])
        else:
            yield Unlike(prefix + name, *(canonical(trees[name]) if name in trees else ABSENT for trees in (one, other)))


def _unlike(path: str, one: object, other: object) -> Iterator[Unlike]:
    return (Unlike(*found) for found in differing_fields(one, other, path))


def _evaluation(one: Sequence[Record], other: Sequence[Record], runs: tuple[Seen, Seen]) -> EvaluationParting | None:
    timed = timed_signals(_started(one)) | timed_signals(_started(other))
    made = ([record for record in records if isinstance(record, EvaluationRecorded)] for records in (one, other))
    for left, right in zip_longest(*made):
        if left is None or right is None or left.step != right.step:
            step = min(record.step for record in (left, right) if record is not None)
            without = [run for run, made in zip(runs, (left, right), strict=True) if made is None or made.step != step]
            texts = [ABSENT if record is None else str(record.step) for record in (left, right)]
            return EvaluationParting(step, (Unlike("step", *texts),)) if without[0].is_known_at(step) else None
        values = (_trees(pair for pair in record.metrics if not is_timed(pair[0], timed)) for record in (left, right))
        unlike = (*_unlike("objective", freeze(left.objective), freeze(right.objective)), *_named("", *values))
        if unlike:
            return EvaluationParting(left.step, unlike)
    return None


def _decision_pairs(runs: tuple[Seen, Seen]) -> Iterator[DecisionPair]:
    """Yield the decisions made at the same moment of both runs, and those that only one of them made, by step."""
    left, right = (_by_moment(run.timeline.decisions) for run in runs)
    for moment in sorted(left.keys() | right.keys()):
        step, one, other = moment[0], left.get(moment), right.get(moment)
        without = [run for run, decision in zip(runs, (one, other), strict=True) if decision is None]
        if all(run.is_known_at(step) for run in without):
            objectives = tuple(_objective(run.timeline, step) for run in runs)
            yield DecisionPair(step, one, other, _differs_in(one, other), (objectives[0], objectives[1]))


def _by_moment(decisions: Iterable[Decision]) -> dict[tuple[int, str, int], Decision]:
    """Return decisions by when they were made, by whom, and how many of them were made before at that step."""
    found: dict[tuple[int, str, int], Decision] = {}
    for decision in decisions:
        place = 0
        while (decision.step, decision.source, place) in found:
            place += 1
        found[decision.step, decision.source, place] = decision
    return found


def _differs_in(one: Decision | None, other: Decision | None) -> tuple[str, ...]:
    if one is None or other is None:
        return ("decided",)
    facts = _facts(one), _facts(other)
    open_in = {name for name, value in (*facts[0].items(), *facts[1].items()) if value == "null"}
    is_open = "open" in (one.ending, other.ending)  # of one that goes on: what has not come yet is not known
    return tuple(name for name in facts[0] if facts[0][name] != facts[1][name] and not (is_open and name in open_in))


def _facts(decision: Decision) -> dict[str, str]:
    """Return what was seen, proposed, allowed and done, each as JSON text; ``null`` for what has not come."""
    proposal = decision.proposal
    verdict = [(judged.action, judged.accepted, judged.reasons) for judged in decision.verdicts]
    facts = {
        "evidence": [(s.name, s.severity, s.signal, s.evidence) for s in decision.symptoms],
        "action": None if proposal is None else proposal.action,
        "reason": None if proposal is None else (proposal.reason, proposal.by),
        "expectation": None if proposal is None else proposal.expectation,
        "verdict": verdict or None,
        "applied step": decision.applied_step,
        "change": decision.changes or None,
        "ending": None if decision.ending == "open" else decision.ending,
    }
    return {name: canonical(freeze(value)) for name, value in facts.items()}


def _objective(timeline: Timeline, step: int) -> float | None:
    return next((point.value for point in reversed(timeline.evaluations) if point.step <= step), None)


def _recipes(one: Sequence[Record], other: Sequence[Record], last_step: int) -> Iterator[RecipeStretch]:
    left, right = _recipe_steps(one), _recipe_steps(other)
    steps = sorted(step for step in {*left, *right} if step <= last_step)
    names = sorted({name for recipe in (*left.values(), *right.values()) for name in recipe})
    for name in names:
        rows: list[RecipeStretch] = []
        now: tuple[float | None, float | None] = (None, None)
        for step in steps:
            now = left[step].get(name) if step in left else now[0], right[step].get(name) if step in right else now[1]
            if rows and rows[-1].last_step is None and (rows[-1].one, rows[-1].other) != now:
                rows[-1] = replace(rows[-1], last_step=step - 1)
            if not _same(*now) and not (rows and rows[-1].last_step is None):
                rows.append(RecipeStretch(name, step, None, *now))
        yield from rows


def _recipe_steps(records: Sequence[Record]) -> dict[int, dict[str, float]]:
    """Return the recipe after each step at which it was set; of several at one step, the last."""
    recipes: dict[int, dict[str, float]] = {}
    for record in records:
        if isinstance(record, (RunStarted, ActionApplied, ActionFailed)):
            recipes[record.step] = dict(record.recipe.values)
    return recipes


def _same(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isnan(one) and math.isnan(other))
