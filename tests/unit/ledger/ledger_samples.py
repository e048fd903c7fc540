"""Ledgers to read, damage and recover: one record of every type, and a run of any length."""

from __future__ import annotations

import json
import math
from pathlib import Path

from trimtab.actuation.binding import ReadBack
from trimtab.actuation.checkpoint_files import write_checkpoint
from trimtab.controls.catalogue import dropout, learning_rate, weight_decay
from trimtab.controls.envelope import Envelope, Objective
from trimtab.controls.moves import Add
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Checkpoint
from trimtab.decision.action import Adjust, Change, NoAction, Rollback, RollbackAndAdjust, SkipBatches, Stop
from trimtab.decision.briefing import Briefing, Intervention, Timing
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.decision.surface import Options, RollbackOption, Surface
from trimtab.diagnosis.base import Evidence, Symptom
from trimtab.ledger.journal import Head, Journal
from trimtab.ledger.record import (
    SCHEMA,
    ActionApplied,
    ActionFailed,
    ActionIntended,
    AnswerDropped,
    CheckpointDeleted,
    CheckpointSaved,
    EvaluationRecorded,
    HarmFound,
    InterventionMeasured,
    ManagerAsked,
    ManagerFailed,
    Origin,
    ProblemNoticed,
    ProposalReceived,
    ReadBackRecorded,
    Record,
    RunEnded,
    RunResumed,
    RunStarted,
    SymptomObserved,
    TrialBegan,
    TrialEnded,
    TrialMeasured,
    TrialMoved,
    VerdictGiven,
)
from trimtab.telemetry.snapshot import Snapshot, Summary
from trimtab.verification.verdict import Rejection

RECIPE = Recipe.of({"learning_rate": 3e-4, "dropout": 0.1, "weight_decay": 0.0})
ENVELOPE = Envelope(
    Objective("val/loss", "minimize"),
    (learning_rate(1e-6, 3e-3), weight_decay(0.0, 0.3, moves=Add((-0.01, 0.01))), dropout(0.0, 0.5)),
)
STARTED = RunStarted(
    step=0,
    schema=SCHEMA,
    run="first",
    envelope=ENVELOPE,
    recipe=RECIPE,
    manager="rules",
    isolation="process",
    total_steps=1000,
    evaluate_every_steps=50,
    can_skip=True,
    notes=("the data position cannot be restored",),
    versions=(("trimtab", "0.1.0"), ("torch", "2.13.0")),
)
CHECKPOINT = Checkpoint("step-00000100", 100, 1.25, RECIPE)
SYMPTOM = Symptom("non_finite", "critical", 120, "loss", (Evidence("loss", math.nan), Evidence("grad_norm", math.inf)))
EXPECTATION = Expectation(gain=0.01, within_evaluations=2)
RECOVER = RollbackAndAdjust("step-00000100", (Change("learning_rate", 1.5e-4), Change("dropout", 0.2)))
BRIEFING = Briefing(
    question=1,
    version=1,
    objective=ENVELOPE.objective,
    timing=Timing(200, 210, 400, None, 100),
    recipe=RECIPE,
    initial=RECIPE,
    snapshot=Snapshot(200, (Summary("val/loss", "evaluation", 4, 1, 1.0, 200, 1.1, 0.01, -1e-3, 1e-4, 0.9, 1.3),)),
    symptoms=(SYMPTOM,),
    best=CHECKPOINT,
    interventions=(
        Intervention(1, "reflex", 120, RECOVER, ("non_finite",), "seen", RECIPE, None, 1.25, 1.2, 0.05, 1, True, None),
    ),
    surface=Surface(
        (Options("dropout", (0.0, 0.2)),), (RollbackOption("step-00000100", 100, 1.25, True, ()),), 3, 200, may_stop=True
    ),
)

ONE_OF_EACH: tuple[Record, ...] = (
    STARTED,
    CheckpointSaved(100, "step-00000100", "5" * 64),
    EvaluationRecorded(100, 1.25, (("val/accuracy", 0.5), ("val/loss", 1.25)), "step-00000100"),
    EvaluationRecorded(110, math.nan, (("val/loss", -math.inf),), None),
    SymptomObserved(120, SYMPTOM),
    VerdictGiven(120, 0, "reflex", RECOVER, accepted=True, reasons=()),
    ActionIntended(120, 1, "reflex", RECOVER, RECIPE, ("non_finite",), "non_finite in loss", None, 200),
    ActionApplied(120, 1, RECIPE),
    ReadBackRecorded(121, 1, (ReadBack("learning_rate", 1.5e-4, 1.5e-4, holds=True),)),
    InterventionMeasured(200, 1, 1.2, 0.05, 1, is_complete=True, met=None),
    TrialBegan(150, 1, 1, RECOVER, RECIPE, ("plateau",), "it überfits", None),
    TrialMoved(156, 1, "candidate", "arm", RECIPE, went_back=True),
    TrialMeasured(165, 1, "candidate", "decay", math.nan),
    TrialEnded(170, 1, "lost", "val/loss nan with it, 1.2 without", 14, RECIPE, went_back=True),
    HarmFound(200, 1, 1.4, -0.15, 0.02, 0.025, is_worse=True),
    ManagerAsked(200, 1, BRIEFING),
    ProposalReceived(201, 1, Proposal(Adjust((Change("dropout", 0.2),)), "it überfits", EXPECTATION, ("val/loss",)), 0.75),
    VerdictGiven(210, 1, "manager", SkipBatches(9), accepted=False, reasons=(Rejection("executable", "cannot skip"),)),
    ManagerFailed(300, 2, "late", "no answer within 30 s"),
    AnswerDropped(310, 2, "the question is closed"),
    ActionIntended(320, 2, "manager", Rollback("step-00000100"), RECIPE, (), "try again", EXPECTATION),
    ActionFailed(320, 2, RECIPE, "the checkpoint is damaged"),
    VerdictGiven(330, 3, "manager", NoAction(), accepted=True, reasons=()),
    VerdictGiven(340, 4, "manager", Stop(), accepted=True, reasons=()),
    CheckpointDeleted(350, "step-00000100"),
    ProblemNoticed(360, "tracker", "\u2028 \x00 \U0001f6e9 unreachable"),
    RunResumed(100, "step-00000100", 2, STARTED.versions, Origin("branch", "second", "a" * 64, 3, "nothing", 7)),
    RunResumed(0, None, 0, ()),
    RunEnded(400, "closed"),
)


def write_run(path: Path, num_records: int) -> Head:
    """Write a ledger of short records, most of them not durable."""
    with Journal.create(path) as journal:
        for sequence in range(num_records):
            journal.append(STARTED if sequence == 0 else short_record(sequence), time_seconds=1000.0 + sequence / 10)
        return journal.head


def write_anchored_run(folder: Path, num_records: int) -> Head:
    """Write the ledger of a run with a checkpoint at every tenth record that holds the head of the ledger, as runs do."""
    with Journal.create(folder / "ledger.jsonl") as journal:
        for sequence in range(num_records):
            record = STARTED if sequence == 0 else short_record(sequence)
            if isinstance(record, CheckpointSaved):
                head = journal.head
                extra = json.dumps({"step": sequence, "ledger_head": [head.sequence, head.hash]}).encode()
                files = {"extra.json": extra, "state.json": b"{}", "tensors": bytes(range(256))}
                write_checkpoint(folder / "checkpoints", record.checkpoint, files)
            journal.append(record, 1000.0 + sequence)
        return journal.head


def short_record(sequence: int) -> Record:
    if sequence % 10 == 0:
        return CheckpointSaved(sequence, f"step-{sequence:08d}")
    return EvaluationRecorded(sequence, 1 / sequence, (("val/loss", 1 / sequence),), None)
