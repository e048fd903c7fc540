"""Runs as they stand on disk, and a manager's client that is only listened to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.builders import a_briefing, a_run_started
from trimtab.actuation.checkpoint_files import EXTRA, write_checkpoint
from trimtab.decision.action import Adjust, Change
from trimtab.decision.briefing import Briefing, Timing
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.ledger.journal import Journal
from trimtab.ledger.record import CheckpointSaved, EvaluationRecorded, ManagerAsked, ProposalReceived, Record
from trimtab.runtime.answer import Answer, Failure
from trimtab.runtime.recorded import Listener
from trimtab.runtime.run_dir import RunDirectory


def a_proposal(value: float = 0.2) -> Proposal:
    return Proposal(Adjust((Change("dropout", value),)), "it overfits", Expectation(0.1, 2))


def briefing_at(step: int, question: int = 1) -> Briefing:
    return a_briefing(question=question, timing=Timing(step, step + 10, step + 200, None, 10))


def asked(step: int, question: int, *, sent: bool = True) -> ManagerAsked:
    return ManagerAsked(step, question, briefing_at(step, question), sent)


def received(step: int, question: int, value: float = 0.2) -> ProposalReceived:
    return ProposalReceived(step, question, a_proposal(value), 0.5)


def saved(step: int) -> CheckpointSaved:
    return CheckpointSaved(step, id_of(step))


def evaluated(step: int, objective: float = 1.0, *, checkpoint: bool = True) -> EvaluationRecorded:
    return EvaluationRecorded(step, objective, (("val/loss", objective),), id_of(step) if checkpoint else None)


def id_of(step: int) -> str:
    return f"step-{step:08d}"


@dataclass
class Kept:
    """A run directory that records are added to; with every `CheckpointSaved` comes a checkpoint that names the head."""

    path: Path
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.directory.checkpoints.mkdir(parents=True)
        self.journal = Journal.create(self.directory.ledger)
        self.add(a_run_started())

    @property
    def directory(self) -> RunDirectory:
        return RunDirectory(self.path)

    @property
    def head(self) -> int:
        return self.journal.head.sequence

    def add(self, *records: Record) -> int:
        """Append records; return the sequence number of the last."""
        for record in records:
            if isinstance(record, CheckpointSaved):
                self.checkpoint(record.checkpoint)
            self.journal.append(record, 1000.0)
        return self.head

    def checkpoint(self, id: str, head: Any = None) -> None:
        """Write a checkpoint; ``head`` is what it names as the head of the ledger."""
        named = [self.head, self.journal.head.hash] if head is None else head
        extra = json.dumps({"ledger_head": named}).encode()
        if not (self.directory.checkpoints / id).exists():
            write_checkpoint(self.directory.checkpoints, id, {EXTRA: extra, "state": id.encode()})

    def damage(self, *steps: int) -> None:
        for step in steps:
            (self.directory.checkpoints / id_of(step) / "state").write_bytes(b"not as written")


@dataclass
class Listened:
    """A client that answers nothing by itself, and writes down what it is told."""

    outcome: Answer | Failure | None = None
    calls: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])

    def ask(self, step: int, briefing: Briefing) -> None:
        self.calls.append(("ask", step, briefing.question))

    def poll(self) -> Answer | Failure | None:
        self.calls.append(("poll",))
        return self.outcome

    def wait(self, seconds: float) -> Answer | Failure | None:
        self.calls.append(("wait", seconds))
        return self.outcome

    def give_up(self, detail: str) -> Answer | Failure:
        self.calls.append(("give_up", detail))
        return Failure(0, "late", detail)

    def withdraw(self, question: int) -> None:
        self.calls.append(("withdraw", question))

    def recall(self, step: int, briefing: Briefing) -> None:
        self.calls.append(("recall", step))

    def close(self) -> None:
        self.calls.append(("close",))

    def told(self, *kinds: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] in kinds]


class Heard(Listener):
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def asked(self, asked_step: int) -> None:
        self.calls.append(("asked", asked_step))

    def given(self, asked_step: int) -> None:
        self.calls.append(("given", asked_step))


def kinds(records: Sequence[Record]) -> list[str]:
    return [record.kind for record in records]
