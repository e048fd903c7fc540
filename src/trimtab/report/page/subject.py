"""What a report is about: one run, read from its directory into plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Checkpoint
from trimtab.ledger.record import RunResumed, RunStarted
from trimtab.ledger.verify import Verification
from trimtab.report.account import Timeline
from trimtab.report.decimate import Points
from trimtab.telemetry.snapshot import Summary

# `running` and `cut off` may both be without an end in the ledger: the lock on it tells them apart.
Standing = Literal["ended", "stopped", "running", "cut off"]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What a manager was given with a question, in short.

    Args:
        summaries: The signals that matter most for the question, of all it was given.
        num_signals: How many it was given.
        recipe: The recipe in force.
        best: The best checkpoint.
        num_values: Exact values that were executable, over all controls.
        num_rollbacks: Checkpoints that it could have gone back to.
        interventions_left: How many more interventions the envelope allowed.
        rollbacks_left: Of these, how many could roll back.
        sent: False if the question went to the fallback at once.
    """

    summaries: tuple[Summary, ...]
    num_signals: int
    recipe: Recipe
    best: Checkpoint | None
    num_values: int
    num_rollbacks: int
    interventions_left: int
    rollbacks_left: int
    sent: bool


@dataclass(frozen=True, slots=True)
class Undone:
    """A course that a rollback gave up: the steps from the checkpoint's to that of the rollback, or of its trial's fork."""

    from_step: int
    to_step: int
    intervention: int


@dataclass(frozen=True, slots=True)
class Subject:
    """A run, as a report tells it.

    Args:
        path: Its directory, as the reader named it.
        started: Its first record.
        timeline: Its decisions, problems and evaluations.
        standing: Whether it ended, goes on, or was cut off, also by an exception in its training loop.
        excerpts: What the manager was given, by question.
        watched: Signals that a proposal asked to watch, by question.
        recipes: Recipes in force, each with the step after which it came into force, by rising step.
        undone: What rollbacks gave up.
        resumes: Where another process went on.
        signals: The curves by name, sorted by name; each by rising step.
        series_problem: Why the curves come from the ledger alone; empty if they do not.
        num_entries: Records that count.
        began_seconds: When it began, since 1970.
        newest_seconds: When its newest record was written.
        verification: What the standalone verifier says of its ledger.
        torn_bytes: Length of an unfinished last line.
        damage: Why nothing was read from some line of the ledger on; empty if all was.
    """

    path: str
    started: RunStarted
    timeline: Timeline
    standing: Standing
    excerpts: Mapping[int, Excerpt]
    watched: Mapping[int, tuple[str, ...]]
    recipes: tuple[tuple[int, Recipe], ...]
    undone: tuple[Undone, ...]
    resumes: tuple[RunResumed, ...]
    signals: Mapping[str, Points]
    series_problem: str
    num_entries: int
    began_seconds: float
    newest_seconds: float
    verification: Verification
    torn_bytes: int
    damage: str
