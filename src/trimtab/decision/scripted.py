"""The manager that reads its proposals from a list: for tests, demonstrations and fixed plans."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.decision.briefing import Briefing
from trimtab.decision.proposal import Proposal, hold
from trimtab.decision.wire import proposal_from
from trimtab.errors import ReplyError, UsageError


@dataclass(frozen=True, slots=True)
class Line:
    """Propose ``proposal`` at the first question asked at or after ``step``."""

    step: int
    proposal: Proposal


class ScriptedManager:
    """Proposes each line once, in order, and no_action otherwise.

    Args:
        lines: Lines with steps that do not fall.

    Raises:
        UsageError: Sort the lines by step.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        steps = [line.step for line in lines]
        if steps != sorted(steps):
            raise UsageError("the script's steps fall", received=steps, next_step="sort the lines by step")
        self._left = list(lines)

    @classmethod
    def from_file(cls, path: Path) -> ScriptedManager:
        """Read a script: a JSON list of ``{"step": N, "proposal": REPLY}``.

        Raises:
            UsageError: Correct the file as the message says.
        """
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            lines = [Line(int(entry["step"]), proposal_from(entry["proposal"])) for entry in entries]
        except (OSError, ValueError, TypeError, KeyError, OverflowError, ReplyError) as error:
            raise UsageError(
                "the script cannot be read",
                received=f"{path}: {error!r}",
                allowed='a JSON list of {"step": N, "proposal": {"action": {...}, "reason": "..."}}',
                next_step="correct the file",
            ) from error
        return cls(lines)

    def propose(self, briefing: Briefing) -> Proposal:
        """Return the next line that is due."""
        if self._left and self._left[0].step <= briefing.timing.asked_step:
            return self._left.pop(0).proposal
        return hold("the script has no line for this step")
