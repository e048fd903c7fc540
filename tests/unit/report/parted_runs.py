"""Runs that part where they are told to, played through the controller."""

from __future__ import annotations

from collections.abc import Sequence

from tests.unit.report.sample_run import OVERFITTING, Play
from trimtab.controller.event import RunClosed
from trimtab.decision.action import Action, Adjust, Change, RollbackAndAdjust
from trimtab.decision.proposal import hold
from trimtab.diagnosis.base import Evidence, Symptom
from trimtab.ledger.record import Record

BACK = RollbackAndAdjust("step-00000100", (Change("dropout", 0.1),))
SLOWER = Adjust((Change("learning_rate", 0.0015),))


def a_run(
    action: Action = BACK,
    *,
    run: str = "one",
    manager: str = "rules",
    objective: str = "minimize val/loss",
    measured: float = 0.0,
    evidence: float = 2.1,
    reason: str = "validation loss turned up",
    last: int = 500,
    ends: bool = True,
) -> list[Record]:
    """Return a run of evaluations every 50 steps, with one intervention after step 200.

    Args:
        action: What is done then.
        run: Its name.
        manager: Its manager.
        objective: Its objective.
        measured: Added to the objective from step 200 on.
        evidence: The number behind the symptom found then.
        reason: Why it is done.
        last: Its last step.
        ends: Whether it is closed.
    """
    play = Play(run=run, manager=manager, objective=objective)
    play.evaluate(50, 3.2)
    play.answer(50, hold("too early"))
    play.evaluate(100, 1.9)
    play.answer(100, hold("all is well"))
    found = Symptom(OVERFITTING.name, "warning", 200, "val/loss", (Evidence("objective", evidence),))
    play.evaluate(200, 2.1 + measured, found)
    play.propose(200, action, reason)
    for step in range(250, last, 50):
        play.evaluate(step, 1.8 - 0.0005 * step + measured)
        play.answer(step, hold("all is well"))
    if ends:
        play.feed(RunClosed(last, "finished"))
    return play.records


def up_to(records: Sequence[Record], step: int) -> list[Record]:
    """Return the records of a run that was cut off after ``step``."""
    return [record for record in records if record.step <= step and record.kind != "run_ended"]
