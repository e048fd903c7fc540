"""Runs whose managers are scored: in shadow and at work, with noise that the manager was told."""

from __future__ import annotations

from typing import Any, Final

from tests.builders import OBJECTIVE, a_symptom, an_envelope
from tests.fake_run import Run
from trimtab.controller.event import AnswerReceived, EvaluationReported, RunClosed, StepTaken
from trimtab.controller.state import Phase
from trimtab.controls.envelope import Authority, Deliberation, Envelope, Objective
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.action import Action, Adjust, Change, Rollback
from trimtab.decision.consultation import Consultation
from trimtab.decision.proposal import Expectation, Proposal, hold
from trimtab.diagnosis.base import Symptom
from trimtab.ledger.record import Record
from trimtab.telemetry.snapshot import Snapshot, Summary

NOISE: Final = 0.01  # so a difference counts from 0.0283 on
LOWER_RATE: Final = Adjust((Change("learning_rate", 5e-4),))
BACK: Final = Rollback("step-00000100")
OVERFITTING: Final = a_symptom("overfitting", "warning")
PLATEAU: Final = a_symptom("plateau", "notice")
TAKEN: Final = Consultation("model-1", "v1", "aa", "bb", "cc", 2, 1200, 80, 0.0012, ("{}",))


def scored_envelope(*, shadow: bool = True, direction: Any = "minimize", fallback: Any = "no_action", **more: Any) -> Envelope:
    return an_envelope(
        authority=Authority(shadow=shadow),
        objective=Objective(OBJECTIVE.signal, direction),
        deliberation=Deliberation(**more),
        manager=ManagerSettings(fallback=fallback),
    )


class ScoredRun(Run):
    """Evaluates every 100 steps, and tells the noise of the objective from four samples on."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(scored_envelope(**settings))
        self.at = 0
        self.noise: float | None = NOISE

    def next(self, objective: float, *symptoms: Symptom) -> None:
        self.at += 100
        told = Summary(
            name="val/loss",
            kind="evaluation",
            num_samples=3 if self.noise is None else 4,
            num_non_finite=0,
            last=objective,
            last_step=self.at,
            mean=objective,
            noise=self.noise or 0.0,
            slope_per_step=0.0,
            slope_error=0.0,
            lowest=objective,
            highest=objective,
        )
        found = tuple(Symptom(s.name, s.severity, self.at, s.signal, s.evidence) for s in symptoms)
        checkpoint = self.checkpoint(self.at)
        metrics = (("val/loss", objective),)
        self.give(EvaluationReported(self.at, objective, metrics, checkpoint, Snapshot(self.at, (told,)), found))

    def reply(self, proposal: Proposal, seconds: float = 0.5, **more: Any) -> None:
        """Answer the open question and take the step at which the answer is judged."""
        self.give(AnswerReceived(self.at + 1, self.now.num_questions, proposal, seconds, **more))
        self.give(StepTaken(self.at + 10))
        if self.now.phase is Phase.ENACTING:
            self.done(self.at + 10)

    def act(self, action: Action, gain: float = 0.05, within: int = 2, **more: Any) -> None:
        self.reply(Proposal(action, "because", Expectation(gain, within)), **more)

    def hold(self) -> None:
        self.reply(hold("all is well"))

    def miss(self) -> None:
        """Let the open question grow stale."""
        self.give(StepTaken(self.at + 200))

    def close(self) -> None:
        self.give(RunClosed(self.at + 50, "finished"))


def shadow_story() -> list[Record]:
    """Return a run in shadow with a question of every kind."""
    run = ScoredRun(fallback="rules", stale_after_steps=80)
    for objective in (1.0, 1.2):
        run.next(objective, OVERFITTING)
        run.hold()
    run.next(1.3, OVERFITTING)
    run.act(BACK, approved_by="ada", consultation=TAKEN)
    run.next(1.32, OVERFITTING)
    run.act(LOWER_RATE, seconds=2.0)
    run.next(1.2)
    run.act(Adjust((Change("dropout", 0.45),)))  # no permitted move
    run.next(1.1)
    run.give(StepTaken(run.at + 80))  # late, so the rules answer
    run.give(StepTaken(run.at + 81))
    run.next(1.1)
    run.act(LOWER_RATE, objection="not today")
    run.next(1.09)
    run.close()
    return run.records
