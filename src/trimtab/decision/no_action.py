"""The manager that never acts: with it, training is bit-identical to training without trimtab."""

from __future__ import annotations

from trimtab.decision.briefing import Briefing
from trimtab.decision.proposal import Proposal, hold


class NoActionManager:
    """Always proposes to leave the run as it is."""

    def propose(self, briefing: Briefing) -> Proposal:
        """Return no_action."""
        return hold("this manager never acts")
