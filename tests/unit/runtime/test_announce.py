from __future__ import annotations

import logging

import pytest

from tests.builders import RECIPE
from trimtab.controls.safeguards import Canary
from trimtab.decision.action import Adjust, Change, Rollback, Stop
from trimtab.ledger.record import (
    ActionFailed,
    ActionIntended,
    CheckpointSaved,
    ManagerFailed,
    ProblemNoticed,
    Record,
    TrialBegan,
    TrialEnded,
    TrialMeasured,
    TrialMoved,
    TrialOutcome,
)
from trimtab.runtime.announce import Announcer

CANARY = Canary("win", steps=10, look_steps=4, decay_steps=3)


def intended(source: str, action: Adjust | Rollback | Stop) -> ActionIntended:
    assert source in ("manager", "reflex")
    return ActionIntended(7, 1, "manager" if source == "manager" else "reflex", action, RECIPE, (), "why", None)


def ended(outcome: TrialOutcome, reason: str) -> TrialEnded:
    return TrialEnded(37, 2, outcome, reason, 20, RECIPE, went_back=True)


@pytest.mark.parametrize(
    ("record", "level", "words"),
    [
        (intended("manager", Adjust((Change("dropout", 0.2),))), logging.INFO, "step 7: manager: dropout=0.2 (why)"),
        (intended("manager", Stop()), logging.WARNING, "step 7: manager: stop (why)"),
        (intended("reflex", Rollback("step-00000001")), logging.WARNING, "step 7: reflex: rollback to step-00000001 (why)"),
        (ActionFailed(7, 2, RECIPE, "no space"), logging.WARNING, "step 7: intervention 2 failed: no space"),
        (ProblemNoticed(7, "a thing", "more"), logging.WARNING, "step 7: a thing: more"),
        (ManagerFailed(7, 1, "died", "exit code 2"), logging.WARNING, "the manager failed (died): exit code 2"),
        (
            TrialBegan(7, 2, 1, Adjust((Change("dropout", 0.2),)), RECIPE, (), "why", None),
            logging.INFO,
            "step 7: trial 2 begins: dropout=0.2, in at most 30 steps (why)",  # two arms and decays, four evaluations
        ),
        (ended("won", "1 with it, 2 without"), logging.INFO, "step 37: trial 2 won: 1 with it, 2 without; steps spent: 20"),
        (ended("lost", "2 with it, 1 without"), logging.INFO, "step 37: trial 2 lost: 2 with it, 1 without; steps spent: 20"),
        (ended("abandoned", "no memory"), logging.WARNING, "step 37: trial 2 abandoned: no memory; steps spent: 20"),
    ],
)
def test_what_calls_for_attention_is_logged(record: Record, level: int, words: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="trimtab"):
        Announcer().tell(record, CANARY)
    (logged,) = caplog.records
    assert logged.levelno == level
    assert words in logged.getMessage()


def test_a_failure_of_one_kind_is_logged_once_and_routine_never(caplog: pytest.LogCaptureFixture) -> None:
    announcer = Announcer()
    with caplog.at_level(logging.DEBUG, logger="trimtab"):
        for question in range(3):
            announcer.tell(ManagerFailed(question, question, "late", "no answer"), CANARY)
        announcer.tell(ManagerFailed(9, 9, "superseded", "the reflex answers"), CANARY)
        announcer.tell(CheckpointSaved(9, "step-00000009"), CANARY)
        announcer.tell(TrialMoved(9, 1, "candidate", "arm", RECIPE, went_back=True), CANARY)
        announcer.tell(TrialMeasured(9, 1, "candidate", "look", 1.0), CANARY)
    assert len(caplog.records) == 1
