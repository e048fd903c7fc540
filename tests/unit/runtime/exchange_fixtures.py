"""A clock that is set by hand, and shortcuts for both ends of an exchange."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.builders import a_briefing
from trimtab.decision.action import Adjust, Change
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.ledger.record import ManagerAsked
from trimtab.runtime.exchange_form import ANSWERED, OpenQuestion, answer_name

HOLD = '{"action":{"kind":"no_action"},"reason":"calm"}'
ADJUST = Proposal(Adjust((Change("dropout", 0.2),)), "it overfits", Expectation(0.1, 2))


class HandClock:
    """Time passes only in `sleep`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def wall_seconds(self) -> float:
        return 1_700_000_000.0 + self.now

    def monotonic_seconds(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


def a_question(number: int = 3, **changes: Any) -> OpenQuestion:
    asked = ManagerAsked(400, number, a_briefing(question=number))
    known: dict[str, Any] = {"run": "first", "asked": asked, "deadline_seconds": 60.0, "asked_at_seconds": 1_700_000_000.0}
    return OpenQuestion(**(known | changes))


def put(folder: Path, content: str | bytes | dict[str, Any], number: int = 3) -> Path:
    """Hand in an answer as the documentation says: written under another name, then renamed."""
    if isinstance(content, dict):
        content = json.dumps(content)
    temporary = folder / "mine.tmp"
    temporary.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return temporary.rename(folder / answer_name(number))


def notes(folder: Path) -> list[str]:
    """Return what the notes beside refused answers say, in the order in which those came."""
    return [path.read_text() for path in sorted((folder / ANSWERED).glob("*.refused"))]


def open_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ANSWERED)
