"""The client of a run that has nobody to ask, such as one that follows a schedule."""

from __future__ import annotations

from trimtab.decision.briefing import Briefing
from trimtab.errors import IllegalTransition
from trimtab.runtime.answer import Answer, Failure


class Nobody:
    """Has no outcome for anything; the controller asks no question of such a run."""

    def ask(self, step: int, briefing: Briefing) -> None:
        """Refuse a question: that there is one is a defect.

        Raises:
            IllegalTransition: Report it; the run holds its recipe.
        """
        raise IllegalTransition("a question was asked in a run without a manager", received=f"question {briefing.question}")

    def poll(self) -> Answer | Failure | None:
        """Return None: nothing is open."""
        return None

    def wait(self, seconds: float) -> Answer | Failure | None:
        """Return None at once: nothing is open."""
        return None

    def give_up(self, detail: str) -> Answer | Failure:
        """Return a failure; nothing is open that could be given up."""
        return Failure(0, "nobody", detail)

    def close(self) -> None:
        """End nothing."""
