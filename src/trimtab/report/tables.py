"""A run as tables: decisions, interventions, evaluations and the curves, for a spreadsheet or a notebook.

Names, order, types and units of the columns are stable: `DECISIONS` and so on say them, and docs/export.md lists them. A
number is as it stands in the record, not rounded; what is not known is None.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from trimtab.ledger.record import EvaluationRecorded, Record
from trimtab.ledger.series import Row
from trimtab.report.account import Decision
from trimtab.report.lineage import build_lineage
from trimtab.report.timeline import build_timeline

Cell = str | int | float | bool | None
Kind = Literal["text", "whole", "number", "truth"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Args:
        name: Its name; a unit stands in it or in ``meaning``.
        kind: What its cells are.
        meaning: What it says, with the unit.
    """

    name: str
    kind: Kind
    meaning: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Args:
        name: Its name, and that of its file.
        columns: The columns.
        rows: The rows, one cell a column.
    """

    name: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


DECISIONS: Final = (
    Column("decision", "whole", "its number, from 1"),
    Column("source", "text", "who decided: manager, reflex, guard or schedule"),
    Column("question", "whole", "number of the question to the manager; empty for the others"),
    Column("step", "whole", "optimizer step after which it was asked or judged"),
    Column("symptoms", "text", "names of what was found, separated by spaces"),
    Column("answered_by", "text", "manager, or rules as its fallback; empty without an answer"),
    Column("kind", "text", "kind of the proposed action"),
    Column("action", "text", "the proposed action in words"),
    Column("reason", "text", "why"),
    Column("expected_gain", "number", "expected gain, in the unit of the objective"),
    Column("within_evaluations", "whole", "evaluations by which that should show"),
    Column("ending", "text", "what became of it"),
    Column("detail", "text", "why nothing happened, or what went wrong"),
    Column("intervention", "whole", "number of the intervention; empty if nothing was carried out"),
    Column("latency_seconds", "number", "how long the manager took, in seconds"),
    Column("model", "text", "the language model asked"),
    Column("calls", "whole", "calls to it"),
    Column("input_tokens", "whole", "tokens that it read"),
    Column("output_tokens", "whole", "tokens that it wrote"),
    Column("usd", "number", "what that cost, in US dollars; empty if not known"),
)
INTERVENTIONS: Final = (
    Column("intervention", "whole", "its number, from 1"),
    Column("decision", "whole", "number of the decision behind it"),
    Column("source", "text", "who decided: manager, reflex, guard or schedule"),
    Column("step", "whole", "optimizer step after which it was applied"),
    Column("lineage_step", "whole", "steps that the weights had been through then; empty if a rollback has left its course"),
    Column("kind", "text", "kind of the action"),
    Column("control", "text", "a control that it changed, one row each; empty if it changed none"),
    Column("before", "number", "value before, in the control's unit"),
    Column("after", "number", "value after, in the control's unit"),
    Column("in_effect", "truth", "whether the next step used what was written; empty if it could not be read back"),
    Column("objective_before", "number", "objective of the state that it started from"),
    Column("objective_after", "number", "best objective measured since"),
    Column("gain", "number", "how much better that is, in the unit of the objective"),
    Column("met", "truth", "whether the expectation was met; empty if not known"),
)
EVALUATIONS: Final = (
    Column("step", "whole", "optimizer step after which it was made"),
    Column("metric", "text", "name of the value"),
    Column("value", "number", "the value, in the metric's own unit"),
    Column("is_objective", "truth", "whether the run is about it"),
    Column("checkpoint", "text", "checkpoint of the evaluated state; empty if there is none"),
)
SERIES: Final = (
    Column("sequence", "whole", "rises with every row that was measured"),
    Column("step", "whole", "optimizer step after which it was measured"),
    Column("signal", "text", "name of the signal"),
    Column("value", "number", "its value, in the signal's own unit"),
)


def run_tables(records: Sequence[Record], series: Sequence[Row], *, wide: bool = False) -> tuple[Table, ...]:
    """Return a run as tables.

    Args:
        records: The records that count, from the first on.
        series: The rows of its curves.
        wide: Whether the curves have one column for each signal, instead of one row for each value.

    Raises:
        LedgerError: There is no record; the run was cut off before it began.
        IllegalTransition: The records are out of order; the ledger was not written by a run.
    """
    timeline = build_timeline(records)
    kept = {deed.intervention: deed.lineage_step for deed in build_lineage(records).deeds}
    objective = timeline.summary.objective.partition(" ")[2]
    changes = (row for decision in timeline.decisions for row in _interventions(decision, kept))
    measured = (row for record in records for row in _evaluations(record, objective))
    return (
        Table("decisions", DECISIONS, tuple(map(_decision, timeline.decisions))),
        Table("interventions", INTERVENTIONS, tuple(changes)),
        Table("evaluations", EVALUATIONS, tuple(measured)),
        _wide(series) if wide else _long(series),
    )


def _decision(decision: Decision) -> tuple[Cell, ...]:
    proposal, taken = decision.proposal, decision.consultation
    expectation = proposal.expectation if proposal else None
    return (
        decision.number,
        decision.source,
        decision.question,
        decision.step,
        " ".join(symptom.name for symptom in decision.symptoms),
        proposal.by if proposal and decision.source == "manager" else None,
        proposal.kind if proposal else None,
        proposal.action if proposal else None,
        proposal.reason if proposal else None,
        expectation.gain if expectation else None,
        expectation.within_evaluations if expectation else None,
        decision.ending,
        decision.detail or None,
        decision.intervention,
        proposal.latency_seconds if proposal else None,
        taken.model if taken else None,
        taken.calls if taken else None,
        taken.input_tokens if taken else None,
        taken.output_tokens if taken else None,
        taken.usd if taken else None,
    )


def _interventions(decision: Decision, kept: dict[int, int]) -> Iterator[tuple[Cell, ...]]:
    if decision.intervention is None or decision.applied_step is None:
        return
    outcome = decision.outcome
    measured = (outcome.objective_before, outcome.objective_after, outcome.gain, outcome.met) if outcome else (None,) * 4
    held = {result.control: result.holds for result in decision.read_back}
    kind = decision.proposal.kind if decision.proposal else None
    number = decision.intervention
    first = (number, decision.number, decision.source, decision.applied_step, kept.get(number), kind)
    if not decision.changes:
        yield (*first, None, None, None, None, *measured)
    for change in decision.changes:
        yield (*first, change.control, change.before, change.after, held.get(change.control), *measured)


def _evaluations(record: Record, objective: str) -> Iterator[tuple[Cell, ...]]:
    if isinstance(record, EvaluationRecorded):
        for name, value in record.metrics:
            yield (record.step, name, value, name == objective, record.checkpoint)


def _long(series: Sequence[Row]) -> Table:
    rows = ((row.sequence, row.step, name, value) for row in series for name, value in sorted(row.values.items()))
    return Table("series", SERIES, tuple(rows))


def _wide(series: Sequence[Row]) -> Table:
    names = sorted({name for row in series for name in row.values})
    columns = (*SERIES[:2], *(Column(name, "number", f"the signal {name}, in its own unit") for name in names))
    return Table("series", columns, tuple((row.sequence, row.step, *map(row.values.get, names)) for row in series))
