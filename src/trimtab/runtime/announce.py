"""What a person at the console is told: one line for each record that calls for attention.

Through the logger ``trimtab``: warnings, which Python prints unless told otherwise, for what went wrong
and what reflex and guard did; infos for what a manager did, and for its trials.
"""

from __future__ import annotations

import logging
from typing import Final

from trimtab.controller.canary import length
from trimtab.controls.safeguards import Canary
from trimtab.decision.action import Stop, describe
from trimtab.ledger.record import (
    SUPERSEDED,
    ActionFailed,
    ActionIntended,
    ManagerFailed,
    ProblemNoticed,
    ProposalReceived,
    Record,
    TrialBegan,
    TrialEnded,
)

LOG: Final = logging.getLogger("trimtab")


class Announcer:
    """Logs records; a manager's failures once for each kind, since they may come at every question."""

    def __init__(self) -> None:
        self._failures: set[str] = set()

    def tell(self, record: Record, canary: Canary) -> None:
        """Log ``record`` if it calls for attention; ``canary`` says how long a trial may be."""
        match record:
            case TrialBegan():
                tried = f"{describe(record.action)}, in at most {length(canary)} steps"
                LOG.info("step %d: trial %d begins: %s (%s)", record.step, record.trial, tried, record.reason)
            case TrialEnded():
                level = logging.WARNING if record.outcome == "abandoned" else logging.INFO
                ended = f"trial {record.trial} {record.outcome}"
                LOG.log(level, "step %d: %s: %s; steps spent: %d", record.step, ended, record.reason, record.spent)
            case ActionIntended():
                is_calm = record.source not in ("reflex", "guard") and not isinstance(record.action, Stop)
                level = logging.INFO if is_calm else logging.WARNING
                LOG.log(level, "step %d: %s: %s (%s)", record.step, record.source, describe(record.action), record.reason)
            case ActionFailed():
                LOG.warning("step %d: intervention %d failed: %s", record.step, record.intervention, record.problem)
            case ProblemNoticed():
                LOG.warning("step %d: %s: %s", record.step, record.problem, record.detail)
            case ManagerFailed() if record.problem != SUPERSEDED and self._is_new(record.problem):
                LOG.warning("step %d: the manager failed (%s): %s; no action", record.step, record.problem, record.detail)
            case ProposalReceived() if record.failure and self._is_new(record.failure.partition(":")[0]):
                LOG.warning("step %d: the manager failed (%s); %s answered for it", record.step, record.failure, record.by)
            case _:
                pass

    def _is_new(self, failure: str) -> bool:
        is_new = failure not in self._failures
        self._failures.add(failure)
        return is_new
