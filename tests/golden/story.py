"""The run of the golden ledger: the controller lives through everything that a ledger can hold, without a clock or chance."""

from __future__ import annotations

import math

from tests.builders import an_envelope
from tests.courses import counting
from tests.fake_run import Run
from trimtab.actuation.binding import ReadBack
from trimtab.controller.event import (
    AnswerFailed,
    CheckpointWritten,
    EnactmentFailed,
    ProblemFound,
    ReadBackTaken,
    RunClosed,
    RunWentOn,
    Shifted,
    StepTaken,
)
from trimtab.controller.state import State
from trimtab.controller.transitions import fold
from trimtab.controls.envelope import Authority
from trimtab.controls.safeguards import Canary
from trimtab.decision.action import Adjust, Change, Rollback
from trimtab.ledger.record import Origin, Record, RunResumed, TrialBegan, TrialEnded, TrialMoved


def records_of_a_run() -> list[Record]:
    """Return the records of a run that is answered, rejected, rolled back, fails, is resumed and ends."""
    canary = Canary(steps=60, look_steps=20, decay_steps=20)  # of its own: what is the default must not change the story
    run = Run(an_envelope(authority=Authority(may_stop=True), canary=canary), can_skip=True)
    run.give(CheckpointWritten(0, "step-00000000", "5" * 64))
    _answered(run)
    _troubled(run)
    _resumed(run, origin=None)
    run.evaluate(500, 1.4)
    run.intervene(500, Rollback("step-00000100"))  # that checkpoint is gone: rejected
    run.evaluate(600, -0.0)
    _resumed(run, origin=Origin("branch", "another", "a" * 64, 2, "nothing", 7))
    run.evaluate(600, 5e-324)
    _harmed(run)
    _tried(run)
    run.give(RunClosed(900, "finished"))
    return run.records


def _harmed(run: Run) -> None:
    option = next(option for option in run.briefings[-1].surface.adjustable if option.control == "weight_decay")
    run.intervene(600, Adjust((Change("weight_decay", option.values[0]),)), within=3)
    run.evaluate(700, 3.0)
    run.give(StepTaken(701))
    run.done(701)


def _tried(run: Run) -> None:
    recipe, action = run.now.recipe, Adjust((Change("dropout", 0.3),))
    run.give(Shifted(710, TrialBegan(710, 1, run.now.num_questions, action, recipe, ("plateau",), "perhaps", None)))
    run.give(Shifted(770, TrialMoved(770, 1, "candidate", "arm", recipe, went_back=True)))
    run.give(Shifted(830, TrialMoved(830, 1, "candidate", "decay", recipe, went_back=False)))
    run.evaluate(850, math.inf, checkpoint=False)
    run.give(Shifted(851, TrialEnded(851, 1, "lost", "not better", 81, recipe, went_back=True)))


def _answered(run: Run) -> None:
    run.evaluate(100, 2.0)
    option = next(option for option in run.briefings[-1].surface.adjustable if option.control == "dropout")
    run.intervene(100, Adjust((Change("dropout", option.values[-1]),)), gain=0.01)
    value = run.now.recipe["dropout"]
    run.give(ReadBackTaken(111, 1, (ReadBack("dropout", value, value, holds=True),)))
    run.evaluate(200, 1.5)
    run.give(AnswerFailed(205, run.now.num_questions, "late", "no answer within 30 s"))
    run.give(AnswerFailed(206, 1, "error", "not JSON"))


def _troubled(run: Run) -> None:
    run.fault(210)
    run.done(210)
    run.give(ProblemFound(220, "disk", "\u2028 \x00 \U0001f6e9 full"))
    run.evaluate(300, math.nan)
    run.evaluate(400, 1.45)
    run.fault(410, "divergence")
    run.give(EnactmentFailed(410, run.now.recipe, "the checkpoint is damaged", unusable=run.ids[-1]))


def _resumed(run: Run, origin: Origin | None) -> None:
    """Let another process go on from the newest checkpoint: what was recorded after it is left."""
    saved = run.ids[-1]
    course = [(number, run.records[number]) for number in counting(run.records)]
    after = max(number for number, record in course if record.kind == "checkpoint_saved" and record.checkpoint == saved)
    state: State | None = None
    for number, record in course:
        state = fold(state, record) if number <= after else state
    assert state is not None
    run.state, run.refolded = None, state
    resumed = RunResumed(int(saved.removeprefix("step-")), saved, after, (("trimtab", "0.1.0"),), origin=origin)
    run.give(RunWentOn(resumed, state))
