"""The manager protocol: one method, from a briefing to a proposal."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from trimtab.decision.briefing import Briefing
from trimtab.decision.proposal import Proposal


@runtime_checkable
class Manager(Protocol):
    """Whoever proposes.

    A manager is asked one question at a time. It may be slow, may raise, and may answer anything:
    its proposal is verified against the state at the time of application.
    """

    def propose(self, briefing: Briefing) -> Proposal:
        """Return a proposal for the run that ``briefing`` describes."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A manager whose answers depend on what it was asked before: it can be brought up to date when a run is resumed."""

    def remember(self, briefing: Briefing) -> None:
        """Take note of a question that was answered from the record."""
        ...
