"""Plays a run through the controller, so that its records are those a real run writes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from trimtab.actuation.binding import ReadBack
from trimtab.controller.effect import Append, Enact
from trimtab.controller.event import (
    AnswerFailed,
    AnswerReceived,
    CheckpointWritten,
    EnactmentDone,
    EnactmentFailed,
    EvaluationReported,
    Event,
    ProblemFound,
    ReadBackTaken,
    RunBegan,
    RunClosed,
    StepTaken,
    SymptomRaised,
)
from trimtab.controller.state import State
from trimtab.controller.step import step
from trimtab.controls.catalogue import dropout, learning_rate
from trimtab.controls.envelope import Envelope, Objective
from trimtab.controls.recipe import Recipe
from trimtab.controls.safeguards import Guard
from trimtab.decision.action import Action, Adjust, Change, RollbackAndAdjust
from trimtab.decision.proposal import Expectation, Proposal, hold
from trimtab.diagnosis.base import Evidence, Symptom
from trimtab.ledger.journal import Journal
from trimtab.ledger.record import Record, RunStarted
from trimtab.telemetry.snapshot import Snapshot

OVERFITTING = Symptom("overfitting", "warning", 200, "val/loss", (Evidence("objective", 2.1), Evidence("best_objective", 1.9)))
NON_FINITE = Symptom("non_finite", "critical", 330, "train/loss", (Evidence("value", math.nan),))


class Play:
    """A run under way; every event's records are kept, and every enactment succeeds unless it is told to fail."""

    def __init__(self, *, run: str = "first", manager: str = "rules", objective: str = "minimize val/loss") -> None:
        controls = (dropout(0.0, 0.5), learning_rate(1e-5, 1e-2))
        self.envelope = Envelope(Objective.parse(objective), controls, guard=Guard(armed=False))
        self.records: list[Record] = []
        self.state: State | None = None
        self.fails_with: str | None = None
        recipe = Recipe.of({"dropout": 0.0, "learning_rate": 0.003})
        started = RunStarted(
            step=0,
            schema="trimtab/ledger/1",
            run=run,
            envelope=self.envelope,
            recipe=recipe,
            manager=manager,
            isolation="process",
            total_steps=1000,
            evaluate_every_steps=50,
            can_skip=True,
            notes=(),
            versions=(("torch", "2.13.0"),),
        )
        self.feed(RunBegan(started))

    def feed(self, event: Event) -> None:
        self.state, effects = step(self.state, event)
        for effect in effects:
            if isinstance(effect, Append):
                self.records.append(effect.record)
        for effect in effects:
            if isinstance(effect, Enact):
                at = self.records[-1].step
                recipe = self.state.recipe
                failed = self.fails_with
                self.feed(EnactmentFailed(at, recipe, failed) if failed else EnactmentDone(at, effect.verified.recipe))

    def evaluate(self, at: int, objective: float, *symptoms: Symptom) -> None:
        name = f"step-{at:08}"
        self.feed(CheckpointWritten(at, name))
        found = tuple(replace(symptom, step=at) for symptom in symptoms)
        metrics = (("val/loss", objective),)
        self.feed(EvaluationReported(at, objective, metrics, name, Snapshot(at, ()), found))

    def answer(self, at: int, proposal: Proposal) -> None:
        """Answer the open question, and take the step at which the answer is judged."""
        assert self.state is not None
        assert self.state.question is not None
        self.feed(AnswerReceived(at + 1, self.state.question.number, proposal, 0.25))
        self.feed(StepTaken(at + 10))

    def propose(self, at: int, action: Action, reason: str, gain: float = 0.05) -> None:
        self.answer(at, Proposal(action, reason, Expectation(gain, 2), ("val/loss",)))


def whole_run(hostile: str = "") -> list[Record]:
    """Return a run in which everything happens that a ledger can tell; ``hostile`` is put into its free texts."""
    play = Play(run=f"first{hostile}")
    play.evaluate(50, 3.2)
    play.answer(50, hold(f"too early{hostile}"))
    play.evaluate(100, 1.9)
    play.answer(100, hold("all is well"))
    play.evaluate(200, 2.1, OVERFITTING)
    action = RollbackAndAdjust("step-00000100", (Change("dropout", 0.1),))
    play.propose(200, action, f"validation loss turned up{hostile}")
    play.feed(ReadBackTaken(211, 1, (ReadBack("dropout", 0.1, 0.1, holds=True),)))
    play.evaluate(250, 1.8)
    play.propose(250, Adjust((Change("dropout", 0.45),)), "more of it")  # not a permitted move
    play.evaluate(300, 1.7)
    play.feed(SymptomRaised(330, NON_FINITE))  # the reflex takes the question away
    play.feed(AnswerReceived(331, 5, hold("too late"), 31.0))
    play.evaluate(350, math.nan)
    play.feed(AnswerFailed(352, 6, "not a proposal", f"the reply is not JSON{hostile}"))
    play.evaluate(400, 1.75)
    play.fails_with = f"the binding broke{hostile}"
    play.propose(400, Adjust((Change("learning_rate", 0.0015),)), "calmer steps")
    play.fails_with = None
    play.evaluate(450, 1.72)
    play.propose(450, Adjust((Change("learning_rate", 0.0015),)), "calmer steps")
    play.feed(ReadBackTaken(461, 4, (ReadBack("learning_rate", 0.0015, 0.003, holds=False),)))
    play.evaluate(500, 1.74)
    play.feed(StepTaken(1000))  # nobody answered
    play.feed(ProblemFound(900, f"the disk is slow{hostile}", "a checkpoint took 12 s"))
    play.feed(RunClosed(1000, f"finished{hostile}"))
    return play.records


def write_ledger(folder: Path, records: list[Record]) -> Path:
    """Write a run directory and return it."""
    folder.mkdir(parents=True)
    journal = Journal.create(folder / "ledger.jsonl")
    for place, record in enumerate(records):
        journal.append(record, 1_000_000.0 + place)
    journal.close()
    return folder
