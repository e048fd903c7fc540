"""A question as an envelope's manager would be asked it, made up by playing a short run through the real controller."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from trimtab.controller.effect import Ask, Enact
from trimtab.controller.event import (
    AnswerReceived,
    CheckpointWritten,
    EnactmentDone,
    EvaluationReported,
    Event,
    RunBegan,
    StepTaken,
)
from trimtab.controller.state import State
from trimtab.controller.step import step
from trimtab.controls.envelope import Envelope
from trimtab.controls.reach import middle
from trimtab.controls.recipe import Recipe
from trimtab.controls.safeguards import Canary, Guard
from trimtab.decision.action import Adjust, Change
from trimtab.decision.briefing import Briefing
from trimtab.decision.proposal import Expectation, Proposal, hold
from trimtab.diagnosis.base import Evidence, Symptom
from trimtab.errors import UsageError
from trimtab.ledger.record import SCHEMA, RunStarted
from trimtab.telemetry.telemetry import Telemetry

_LEVELS: Final = (2.9, 2.31, 2.14, 2.02, 2.05, 2.11)  # of the objective; turned round where it is maximized
_LEAST_STEPS: Final = 100


class _Play:
    """The run: every action succeeds at once, and what is asked is kept."""

    def __init__(self, started: RunStarted) -> None:
        self.asked: Briefing | None = None
        self.state: State | None = None
        self.feed(RunBegan(started))

    def feed(self, event: Event) -> None:
        self.state, effects = step(self.state, event)
        for effect in effects:
            if isinstance(effect, Ask):
                self.asked = effect.briefing
            elif isinstance(effect, Enact):
                self.feed(EnactmentDone(event.step if isinstance(event, StepTaken) else 0, effect.verified.recipe))

    def answer(self, proposal: Proposal) -> None:
        assert self.asked is not None
        self.feed(AnswerReceived(self.asked.timing.asked_step, self.asked.question, proposal, 1.0))
        self.feed(StepTaken(self.asked.timing.applies_at_step))


def example_question(envelope: Envelope) -> Briefing:
    """Return a plausible question: a run that has begun to overfit after one intervention.

    Raises:
        UsageError: The envelope never lets a manager act, so it is never asked.
    """
    # The guard would take the question away; the canary would keep it until the budget covers a trial.
    envelope = replace(envelope, guard=Guard(armed=False), canary=Canary())
    waits = 2 * (envelope.applies_at(_LEAST_STEPS) - _LEAST_STEPS)
    every = max(_LEAST_STEPS, waits, *(control.effect_lag_steps for control in envelope.controls))
    play = _Play(_started(envelope, every))
    telemetry = Telemetry()
    has_acted = False
    for place, level in enumerate(_LEVELS, start=1):
        before, at = play.asked, every * place
        _observe(telemetry, envelope, every, place, level)
        _evaluate(play, telemetry, envelope, at, is_last=place == len(_LEVELS))
        if play.asked is before or play.asked is None or place == len(_LEVELS):
            continue
        options = play.asked.surface.adjustable
        if options and place > 1 and not has_acted:
            change = Change(options[0].control, options[0].values[len(options[0].values) // 2])
            play.answer(Proposal(Adjust((change,)), "an example", Expectation(0.02, 2)))
            has_acted = True
        else:
            play.answer(hold("an example"))
    if play.asked is None:
        raise UsageError(
            "the envelope never lets a manager act, so there is no question to show",
            next_step="allow interventions under authority, and a control, rollbacks or stopping",
        )
    return play.asked


def _started(envelope: Envelope, every: int) -> RunStarted:
    return RunStarted(
        step=0,
        schema=SCHEMA,
        run="example",
        envelope=envelope,
        recipe=Recipe.of({control.name: middle(control) for control in envelope.controls}),
        manager="example",
        isolation="process",
        total_steps=30 * every,
        evaluate_every_steps=every,
        can_skip=True,
        notes=(),
        versions=(),
    )


def _observe(telemetry: Telemetry, envelope: Envelope, every: int, place: int, level: float) -> None:
    """Take in the signals of the steps up to an evaluation."""
    for at in range(every * (place - 1) + 1, every * place + 1, max(1, every // 50)):
        noise = math.sin(at * 12.9898) * 0.08
        progress = at / every
        rate = next((middle(control) for control in envelope.controls if control.name == "learning_rate"), 1e-3)
        values = {"loss": 1.2 + 1.8 * math.exp(-progress / 2) + noise, "grad_norm": 0.9 + noise, "learning_rate": rate}
        telemetry.observe(at, {name: value for name, value in values.items() if name != envelope.objective.signal})
    telemetry.observe(every * place, {envelope.objective.signal: _turned(envelope, level)}, "evaluation")


def _evaluate(play: _Play, telemetry: Telemetry, envelope: Envelope, at: int, *, is_last: bool) -> None:
    id, name = f"step-{at:08d}", envelope.objective.signal
    best, newest = _turned(envelope, min(_LEVELS)), _turned(envelope, _LEVELS[-1])
    found = Symptom("overfitting", "warning", at, name, (Evidence("objective", newest), Evidence("best_objective", best)))
    summary = telemetry.snapshot(at)
    newest_objective = summary.get(name)
    assert newest_objective is not None
    play.feed(CheckpointWritten(at, id))
    objective = newest_objective.last
    play.feed(EvaluationReported(at, objective, ((name, objective),), id, summary, (found,) if is_last else ()))


def _turned(envelope: Envelope, level: float) -> float:
    return level if envelope.objective.direction == "minimize" else round(max(_LEVELS) + 0.2 - level, 6)
