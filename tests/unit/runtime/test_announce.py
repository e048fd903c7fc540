from __future__ import annotations

import logging

import pytest

from tests.builders import RECIPE
from trimtab.decision.action import Adjust, Change, Rollback, Stop
from trimtab.ledger.record import ActionFailed, ActionIntended, CheckpointSaved, ManagerFailed, ProblemNoticed, Record
from trimtab.runtime.announce import Announcer


def intended(source: str, action: Adjust | Rollback | Stop) -> ActionIntended:
    assert source in ("manager", "reflex")
    return ActionIntended(7, 1, "manager" if source == "manager" else "reflex", action, RECIPE, (), "why", None)


@pytest.mark.parametrize(
    ("record", "level", "words"),
    [
        (intended("manager", Adjust((Change("dropout", 0.2),))), logging.INFO, "step 7: manager: dropout=0.2 (why)"),
        (intended("manager", Stop()), logging.WARNING, "step 7: manager: stop (why)"),
        (intended("reflex", Rollback("step-00000001")), logging.WARNING, "step 7: reflex: rollback to step-00000001 (why)"),
        (ActionFailed(7, 2, RECIPE, "no space"), logging.WARNING, "step 7: intervention 2 failed: no space"),
        (ProblemNoticed(7, "a thing", "more"), logging.WARNING, "step 7: a thing: more"),
        (ManagerFailed(7, 1, "died", "exit code 2"), logging.WARNING, "the manager failed (died): exit code 2"),
    ],
)
def test_what_calls_for_attention_is_logged(record: Record, level: int, words: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="trimtab"):
        Announcer().tell(record)
    (logged,) = caplog.records
    assert logged.levelno == level
    assert words in logged.getMessage()


def test_a_failure_of_one_kind_is_logged_once_and_routine_never(caplog: pytest.LogCaptureFixture) -> None:
    announcer = Announcer()
    with caplog.at_level(logging.DEBUG, logger="trimtab"):
        for question in range(3):
            announcer.tell(ManagerFailed(question, question, "late", "no answer"))
        announcer.tell(ManagerFailed(9, 9, "superseded", "the reflex answers"))
        announcer.tell(CheckpointSaved(9, "step-00000009"))
    assert len(caplog.records) == 1
