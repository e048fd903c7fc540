"""A run without a model: the real controller and verifier around numbers that only pretend to be a training.

Rules:
1. What is simulated is the loop, its evaluations, its faults and its failures; every decision is the controller's own.
2. The live values are a dict that nothing but an ordered action writes. `EnvelopeOracle` sees it before and after.
3. A run depends on envelope, manager and seed alone: no clock, no files.
4. There are no trials: the canary is off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final

from trimtab.controller.effect import Append, Ask, Enact
from trimtab.controller.event import (
    AnswerFailed,
    AnswerReceived,
    CheckpointWritten,
    EnactmentDone,
    EnactmentFailed,
    EvaluationReported,
    Event,
    RunBegan,
    StepTaken,
    SymptomRaised,
)
from trimtab.controller.state import State
from trimtab.controller.step import step as control
from trimtab.controls.control import Control
from trimtab.controls.envelope import Envelope
from trimtab.controls.reach import middle
from trimtab.controls.recipe import Recipe
from trimtab.controls.safeguards import Canary
from trimtab.decision.action import checkpoint_of
from trimtab.decision.briefing import Briefing
from trimtab.decision.draws import Draws
from trimtab.decision.manager import Manager
from trimtab.diagnosis.base import Evidence, Severity, Symptom, SymptomName
from trimtab.ledger.record import SCHEMA, ActionIntended, RunStarted, VerdictGiven
from trimtab.telemetry.snapshot import Snapshot
from trimtab.testing.envelope_oracle import Applied, EnvelopeOracle
from trimtab.verification.verdict import VerifiedAction

_FLOOR: Final = 0.5  # of the pretended objective
_LEARNS: Final = 0.004  # of what is left, in a step
_SUFFERS: Final = 0.02  # in a step at the end of every range
_WARNINGS: Final[tuple[SymptomName, ...]] = ("overfitting", "plateau", "underfitting")
_FAULTS: Final[tuple[SymptomName, ...]] = ("non_finite", "divergence")


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a simulated run is like.

    Args:
        steps: Steps that it takes, unless it is stopped.
        evaluate_every_steps: Steps between evaluations.
        fault_one_in: A step of so many meets a fault that the reflex answers; 0 for none.
        failure_one_in: An action of so many fails half-way; 0 for none.
        mishap_one_in: An answer of so many is lost, late, or to another question; 0 for none.
        starts_anywhere: Whether controls may start at an end of their range, as the seed says, not only in the middle.
        can_skip: Whether its loader can skip batches.
    """

    steps: int = 1000
    evaluate_every_steps: int = 50
    fault_one_in: int = 0
    failure_one_in: int = 0
    mishap_one_in: int = 0
    starts_anywhere: bool = False
    can_skip: bool = True


@dataclass
class Report:
    """What became of a simulated run.

    Args:
        breaches: What left the envelope, one sentence each; empty in a sound run.
        applied: Interventions of the manager that were applied, or tried.
        rejected: Its proposals that the verifier rejected.
        taken_back: Interventions that the guard took back.
        reflex_actions: Actions of the reflex.
        events: Events that the controller was given.
        lowest: Of each control.
        highest: Of each control.
        stopped_step: Step after which it was asked to end; None if it was not.
    """

    breaches: list[str] = field(default_factory=list[str])
    applied: int = 0
    rejected: int = 0
    taken_back: int = 0
    reflex_actions: int = 0
    events: int = 0
    lowest: dict[str, float] = field(default_factory=dict[str, float])
    highest: dict[str, float] = field(default_factory=dict[str, float])
    stopped_step: int | None = None


def simulate(envelope: Envelope, manager: Manager, seed: int, conditions: Conditions | None = None) -> Report:
    """Run ``manager`` against ``envelope`` and return what became of it."""
    run = _Run(replace(envelope, canary=Canary(mode="none")), manager, seed, conditions or Conditions())
    run.train()
    return run.report


@dataclass
class _Saved:
    """A pretended checkpoint."""

    level: float
    values: dict[str, float]


class _Run:
    def __init__(self, envelope: Envelope, manager: Manager, seed: int, conditions: Conditions) -> None:
        self.envelope, self.manager, self.conditions = envelope, manager, conditions
        self.draws = Draws(f"simulated/{seed}")
        self.report = Report()
        self.start = {one.name: self._start(one) for one in envelope.controls}
        self.live = dict(self.start)
        self.oracle = EnvelopeOracle(envelope, self.start)
        self.level = 2.0
        self.saved: dict[str, _Saved] = {}
        self.asked: Briefing | None = None
        self.answer_at = 0
        self.is_save_due = False
        self.state: State | None = None
        self._note_reach()

    def train(self) -> None:
        """Take all steps."""
        recipe = Recipe.of(self.start)
        every, steps = self.conditions.evaluate_every_steps, self.conditions.steps
        started = RunStarted(
            0, SCHEMA, "simulated", self.envelope, recipe, "adversary", "thread", steps, every, self.conditions.can_skip, (), ()
        )
        self._give(0, RunBegan(started))
        for step in range(1, steps + 1):
            self._take_step(step)
            if self.state is not None and self.state.stop_reason is not None:
                self.report.stopped_step = step
                return

    def _take_step(self, step: int) -> None:
        self.level += _SUFFERS * self._strain() - _LEARNS * (self.level - _FLOOR)
        is_evaluation = step % self.conditions.evaluate_every_steps == 0
        if self._happens(self.conditions.fault_one_in):
            self._give(step, SymptomRaised(step, self._symptom(_FAULTS, "critical", step)))
        if self.asked is not None and step >= self.answer_at:
            self._answer(step, self.asked)
        self._give(step, StepTaken(step))
        if is_evaluation or self.is_save_due or step == 1:
            self._save(step)
        if is_evaluation:
            self._evaluate(step)

    def _evaluate(self, step: int) -> None:
        value = self.level + 0.002 * (self.draws.below(11) - 5)
        objective = -value if self.envelope.objective.direction == "maximize" else value
        warning = (self._symptom(_WARNINGS, "warning", step),) if not self.draws.below(3) else ()
        metrics = ((self.envelope.objective.signal, objective),)
        self._give(step, EvaluationReported(step, objective, metrics, _id(step), Snapshot(step, ()), warning))

    def _save(self, step: int) -> None:
        self.is_save_due = False
        self.saved[_id(step)] = _Saved(self.level, dict(self.live))
        self._give(step, CheckpointWritten(step, _id(step)))

    def _answer(self, step: int, briefing: Briefing) -> None:
        """Hand over the manager's answer; now and then something happens to it."""
        self.asked = None
        number = briefing.question
        if self._happens(self.conditions.mishap_one_in):
            match self.draws.below(3):
                case 0:
                    self._give(step, AnswerFailed(step, number, "gone", "it died"))
                    return
                case 1:
                    self._give(step, AnswerReceived(step, number + 1, self.manager.propose(briefing), 0.0))
                    return
                case _:
                    self._give(step, AnswerReceived(step, number, self.manager.propose(briefing), 0.0))
        self._give(step, AnswerReceived(step, number, self.manager.propose(briefing), 0.0))

    def _give(self, step: int, event: Event) -> None:
        """Give an event to the controller, and carry out what it orders."""
        self.report.events += 1
        self.state, effects = control(self.state, event)
        for effect in effects:
            match effect:
                case Append(record):
                    if isinstance(record, VerdictGiven) and record.source == "manager":
                        self.report.rejected += not record.accepted
                    if isinstance(record, ActionIntended):
                        self.report.taken_back += record.source == "guard"
                        self.report.reflex_actions += record.source == "reflex"
                case Ask(briefing):
                    self.asked = briefing
                    self.answer_at = step + self._latency(briefing)
                case Enact(verified):
                    self._enact(step, verified)
                case _:  # files to delete: there are none
                    pass

    def _latency(self, briefing: Briefing) -> int:
        """Return after how many steps the answer comes: in time, unless something happens to it."""
        lead = briefing.timing.applies_at_step - briefing.timing.asked_step
        if self._happens(self.conditions.mishap_one_in):
            return lead + self.draws.below(2 * self.envelope.deliberation.stale_after_steps)
        return self.draws.below(lead + 1)

    def _enact(self, step: int, verified: VerifiedAction) -> None:
        before, checkpoint = dict(self.live), checkpoint_of(verified.action)
        saved = None if checkpoint is None else self.saved[checkpoint]
        fails = self._happens(self.conditions.failure_one_in)
        if saved is not None:
            self.level = saved.level
            self.live = dict(saved.values)
        if not fails:
            self.live |= dict(verified.recipe)
        restored = None if saved is None else saved.values
        self.report.applied += verified.source == "manager"
        self.report.breaches += self.oracle.see(Applied(step, verified.source, before, dict(self.live), restored))
        self._note_reach()
        self.is_save_due = verified.source == "manager" and not fails
        recipe = Recipe.of(self.live)
        self._give(step, EnactmentFailed(step, recipe, "it broke", checkpoint) if fails else EnactmentDone(step, recipe))

    def _note_reach(self) -> None:
        for name, value in self.live.items():
            self.report.lowest[name] = min(value, self.report.lowest.get(name, value))
            self.report.highest[name] = max(value, self.report.highest.get(name, value))

    def _strain(self) -> float:
        """Return how far the values are from where they started, as a mean share of the ranges."""
        shares = [_share(one, self.start[one.name], self.live[one.name]) for one in self.envelope.controls]
        return math.fsum(shares) / len(shares) if shares else 0.0

    def _start(self, one: Control) -> float:
        places = [middle(one)]
        if self.conditions.starts_anywhere:
            places += [one.bounds.low, one.bounds.high]
        fitting = [float(place) for place in places if one.admits(place)] or [float(math.ceil(one.bounds.low))]
        return fitting[self.draws.below(len(fitting))]

    def _happens(self, one_in: int) -> bool:
        return one_in > 0 and not self.draws.below(one_in)

    def _symptom(self, names: tuple[SymptomName, ...], severity: Severity, step: int) -> Symptom:
        evidence = (Evidence("pretended", 1.0),)
        return Symptom(names[self.draws.below(len(names))], severity, step, self.envelope.objective.signal, evidence)


def _share(one: Control, start: float, value: float) -> float:
    low, high = one.bounds.low, one.bounds.high
    if not one.bounds.contain(value):
        return 1.0  # it has left its range: the oracle says so
    if high <= low:
        return 0.0
    if one.scale == "ratio":
        return abs(math.log(value / start)) / math.log(high / low)
    return abs(value - start) / (high - low)


def _id(step: int) -> str:
    return f"step-{step:08d}"
