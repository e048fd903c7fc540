"""The manager that reads its proposals from a list: for tests, demonstrations and fixed plans."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from trimtab.decision.briefing import Briefing
from trimtab.decision.proposal import Proposal, hold
from trimtab.decision.wire import proposal_from
from trimtab.errors import ReplyError, UsageError

_FORM: Final = 'a JSON list of {"step": N, "proposal": {"action": {"kind": ...}, "reason": "..."}}; see docs/scripted.md'


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
        except (OSError, ValueError, RecursionError) as error:
            raise _unreadable("the script cannot be read", f"{path}: {error}") from error
        if not isinstance(entries, list):
            raise _unreadable("the script is not a list", f"{path}: {type(entries).__name__}")
        return cls([_line(entry, f"{path}, entry {at}") for at, entry in enumerate(cast("list[object]", entries), start=1)])

    def propose(self, briefing: Briefing) -> Proposal:
        """Return the next line that is due."""
        if self._left and self._left[0].step <= briefing.timing.asked_step:
            return self._left.pop(0).proposal
        return hold("the script has no line for this step")

    def remember(self, briefing: Briefing) -> None:
        """Pass over the line that this question was answered with."""
        self.propose(briefing)


def _line(entry: object, where: str) -> Line:
    if not isinstance(entry, dict) or entry.keys() != {"step", "proposal"}:
        raise _unreadable("an entry of the script has not the fields step and proposal", f"{where}: {entry!r}"[:200])
    fields = cast("dict[str, Any]", entry)
    step = fields["step"]
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise _unreadable("the step of an entry of the script is not a whole number >= 0", f"{where}: {step!r}"[:200])
    try:
        return Line(step, proposal_from(fields["proposal"]))
    except ReplyError as error:
        raise UsageError(f"{where}: {error.what}", received=error.received, allowed=error.allowed or _FORM) from error


def _unreadable(what: str, received: str) -> UsageError:
    return UsageError(what, received=received, allowed=_FORM, next_step="correct the file")
