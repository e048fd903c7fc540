"""Runs in which the guard takes something back, and in which proposals are tried."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.builders import an_envelope
from tests.fake_run import Run
from trimtab.controller.canary import is_due
from trimtab.controller.effect import Effect, Shift
from trimtab.controller.event import RunClosed, Shifted, StepTaken, TrialCutOff
from trimtab.controller.state import Phase
from trimtab.controls.envelope import Authority
from trimtab.controls.safeguards import Canary, Guard
from trimtab.decision.action import Action, Adjust, Change
from trimtab.decision.proposal import hold


def lower(value: float) -> Action:
    return Adjust((Change("learning_rate", value),))


class GuardedRun(Run):
    """Evaluates every 100 steps; the guard gives up after two failures in a row."""

    def __init__(self, *objectives: float) -> None:
        guard = Guard(baseline_evaluations=1, failures=2, hold_evaluations=0)
        super().__init__(an_envelope(guard=guard, authority=Authority(interventions=50, rollbacks=20)))
        self.at = 0
        for objective in objectives:
            self.next(objective)

    def next(self, objective: float, *, checkpoint: bool = True) -> None:
        """Hold if a question is open, then train to the next evaluation."""
        if self.now.phase is Phase.ASKED:
            self.answer(self.at + 1, hold("wait"))
            self.give(StepTaken(self.at + 10))
        self.at += 100
        self.evaluate(self.at, objective, checkpoint=checkpoint)

    def change(self, action: Action, objective: float) -> None:
        """Change something, and train to the next evaluation."""
        self.intervene(self.at, action, within=3)
        self.checkpoint(self.at + 10)
        self.next(objective)

    def take_back(self) -> None:
        """Let the guard act."""
        self.give(StepTaken(self.at + 1))
        self.done(self.at + 1)


def guarded_run() -> GuardedRun:
    """A run in which two interventions are taken back together, then one; then the recipe is held."""
    run = GuardedRun(2.0, 1.98, 1.96, 1.94)
    run.change(lower(5e-4), 1.95)
    run.change(Adjust((Change("dropout", 0.2),)), 2.5)
    run.take_back()
    run.next(1.94)
    run.change(lower(5e-4), 2.4)
    run.take_back()
    return run


class TryingRun(Run):
    """Tries each proposal with arms of 10 steps, a look after 4 and a decay of 3."""

    def __init__(self) -> None:
        canary = Canary("win", steps=10, look_steps=4, decay_steps=3, budget=1.0)
        super().__init__(an_envelope(canary=canary, authority=Authority(interventions=50)))

    def _keep(self, effect: Effect) -> Iterable[str]:
        kept = super()._keep(effect)
        return self.give(Shifted(effect.record.step, effect.record)) if isinstance(effect, Shift) else kept

    def attempt(self, at: int, action: Action, measured: Sequence[float], until: int = 1000) -> int:
        """Propose an action after an evaluation at ``at``, and train until its trial is over or what is measured runs out.

        Args:
            at: Step of the evaluation.
            action: What is proposed.
            measured: What the arms show in order: no_action early, the candidate early, the candidate, no_action.
            until: Steps that are made at most.

        Returns:
            The step reached.
        """
        self.evaluate(at, 2.0)
        self.intervene(at, action)
        values = iter(measured)
        step = at + 10
        while self.now.trial is not None and step < at + until:
            step += 1
            self.give(StepTaken(step))
            if self.now.pending is not None:
                self.done(step)
            elif is_due(self.now, step):
                self.evaluate(step, next(values), checkpoint=False)
        return step


def tried_run() -> TryingRun:
    """A run with a trial that is won, one that is lost, one that is lost at its early look, and one that is abandoned."""
    run = TryingRun()
    run.attempt(100, lower(5e-4), (2.0, 1.9, 1.5, 1.6))
    run.attempt(200, lower(2.5e-4), (2.0, 1.9, 1.7, 1.6))
    run.attempt(300, lower(2.5e-4), (2.0, 4.0))
    step = run.attempt(400, lower(2.5e-4), (2.0,), until=16)
    run.give(TrialCutOff(step))
    run.give(RunClosed(500, "finished"))
    return run
