"""A fake run around the controller: it carries out nothing and keeps all records and effects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from tests.builders import RECIPE, a_run_started, a_symptom
from trimtab.controller.effect import Append, Ask, Decay, DeleteCheckpoint, Effect, Enact, Shift
from trimtab.controller.event import (
    AnswerReceived,
    CheckpointWritten,
    EnactmentDone,
    EvaluationReported,
    Event,
    RunBegan,
    StepTaken,
    SymptomRaised,
)
from trimtab.controller.state import Phase, State
from trimtab.controller.step import step
from trimtab.controller.transitions import fold
from trimtab.controls.envelope import Envelope
from trimtab.controls.recipe import Recipe
from trimtab.decision.action import Action
from trimtab.decision.briefing import Briefing
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.diagnosis.base import Symptom
from trimtab.ledger.record import Record
from trimtab.telemetry.snapshot import Snapshot
from trimtab.verification.verdict import VerifiedAction


def propose(action: Action, gain: float = 0.0, within: int = 2) -> Proposal:
    return Proposal(action, "because", Expectation(gain, within))


class Run:
    """Gives events to the controller, and checks each time that the state is the fold over the records."""

    def __init__(
        self,
        envelope: Envelope | None = None,
        *,
        can_skip: bool = False,
        recipe: Recipe = RECIPE,
        total_steps: int | None = None,
    ) -> None:
        self.records: list[Record] = []
        self.orders: list[VerifiedAction] = []
        self.briefings: list[Briefing] = []
        self.deleted: list[str] = []
        self.kinds: list[str] = []
        self.state: State | None = None
        self.refolded: State | None = None
        self.give(RunBegan(replace(a_run_started(envelope, recipe, can_skip=can_skip), total_steps=total_steps)))

    @property
    def now(self) -> State:
        assert self.state is not None
        return self.state

    @property
    def ids(self) -> list[str]:
        return [checkpoint.id for checkpoint in self.now.checkpoints]

    def give(self, event: Event) -> list[str]:
        """Give an event; return the kinds of the records it led to."""
        self.state, effects = step(self.state, event)
        self.kinds = [kind for effect in effects for kind in self._keep(effect)]
        assert self.refolded == self.state, "the state is not the fold over its records"
        return self.kinds

    def _keep(self, effect: Effect) -> Iterable[str]:
        match effect:
            case Append():
                self.records.append(effect.record)
                self.refolded = fold(self.refolded, effect.record)
                return [effect.record.kind]
            case Ask():
                self.briefings.append(effect.briefing)
            case Enact():
                self.orders.append(effect.verified)
            case Shift() | Decay():
                pass  # it has no state to try anything on; who tests trials gives `Shifted` himself
            case DeleteCheckpoint():
                self.deleted.append(effect.checkpoint)
        return []

    def checkpoint(self, at: int) -> str:
        id = f"step-{at:08d}"
        self.give(CheckpointWritten(at, id))
        return id

    def evaluate(self, at: int, objective: float, *symptoms: Symptom, checkpoint: bool = True) -> list[str]:
        id = self.checkpoint(at) if checkpoint else None
        metrics = (("val/loss", objective),)
        return self.give(EvaluationReported(at, objective, metrics, id, Snapshot(at, ()), symptoms))

    def answer(self, at: int, proposal: Proposal) -> list[str]:
        return self.give(AnswerReceived(at, self.now.num_questions, proposal, 0.5))

    def done(self, at: int) -> list[str]:
        return self.give(EnactmentDone(at, self.orders[-1].recipe))

    def fault(self, at: int, name: Any = "non_finite") -> list[str]:
        return self.give(SymptomRaised(at, a_symptom(name, "critical", at, "loss")))

    def intervene(self, at: int, action: Action, gain: float = 0.0, within: int = 2) -> list[str]:
        """Answer the open question at ``at``, and apply the answer at its step."""
        self.answer(at, propose(action, gain, within))
        kinds = self.give(StepTaken(at + 10))
        if self.now.phase is Phase.ENACTING:
            self.done(at + 10)
        return kinds
