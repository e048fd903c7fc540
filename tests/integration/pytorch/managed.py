"""What the tests of managed runs share: scripts of proposals, and the run's own record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

import trimtab
from trimtab.controls.envelope import Authority, Deliberation, Envelope, Objective
from trimtab.controls.safeguards import Guard, Reflex
from trimtab.decision.action import Action, Adjust, Change
from trimtab.decision.briefing import Briefing
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.decision.scripted import Line, ScriptedManager
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import ProblemNoticed
from trimtab.runtime.answer import Answer, Failure
from trimtab.runtime.supervisor import Supervisor

Found = TypeVar("Found")


def script(*lines: tuple[int, Action]) -> ScriptedManager:
    """Return a manager that proposes each action at the first question from its step on."""
    return ScriptedManager([Line(step, Proposal(action, "planned", Expectation(0.0, 1))) for step, action in lines])


def adjust(**values: float) -> Adjust:
    return Adjust(tuple(Change(name, value) for name, value in values.items()))


def free(name: str, low: float, high: float, *values: float, group: str | None = None) -> Any:
    """Return a control that may be set to any of ``values`` at any time."""
    moves = trimtab.SetTo(values)
    known: dict[str, Any] = {"moves": moves, "dwell_steps": 0}
    if name == "learning_rate":
        return trimtab.learning_rate(low, high, largest_change=1e6, cumulative_drift=1e6, group=group, **known)
    if name == "weight_decay":
        return trimtab.weight_decay(low, high, group=group, **known)
    return trimtab.dropout(low, high, largest_change=high - low, **known)


CONTROLS = (
    free("learning_rate", 1e-6, 1.0, 2e-3, 5e-3, 1e-2, 2e-2),
    free("weight_decay", 0.0, 1.0, 0.0, 0.1, 0.3),
    free("dropout", 0.0, 0.9, 0.0, 0.3, 0.5),
)


def boundary(controls: tuple[Any, ...] = CONTROLS, **changes: Any) -> Envelope:
    """An envelope of mode boundary with wide limits: the script decides, and answers count at the next step."""
    known: dict[str, Any] = {
        "authority": Authority(interventions=1000, rollbacks=1000),
        "deliberation": Deliberation(mode="boundary", deadline_seconds=20.0),
        "reflex": Reflex(),
        "guard": Guard(armed=False),  # the script decides
    }
    return Envelope(Objective("val/loss", "minimize"), controls, **(known | changes))


def records(run: Supervisor | Path, kind: type[Found]) -> list[Found]:
    """Return the run's records of one kind, from its ledger on disk."""
    path = run.run_directory.ledger if isinstance(run, Supervisor) else run / "ledger.jsonl"
    return [entry.record for entry in read_ledger(path) if isinstance(entry.record, kind)]


def problems(run: Supervisor | Path) -> list[str]:
    return [record.problem for record in records(run, ProblemNoticed)]


def a_value() -> Callable[[], float]:
    """Return an evaluation that draws random numbers, as a careless one does, and gets no better: so one may go back."""
    return lambda: 5.0 + 0.0 * float(torch.rand(()))


@dataclasses.dataclass
class SlowClient:
    """A client that asks its manager at once and hands the answer over at a poll of its choice.

    Takes the place of ManagerThread, so ``polls`` stands for a manager's speed, without a clock.
    """

    manager: Any
    polls: int = 0
    left: int = 0
    briefing: Briefing | None = None
    closed: bool = False

    def ask(self, step: int, briefing: Briefing) -> None:
        self.briefing, self.left = briefing, self.polls

    def poll(self) -> Answer | Failure | None:
        self.left -= 1
        if self.briefing is None or self.left >= 0:
            return None
        briefing, self.briefing = self.briefing, None
        return Answer(briefing.question, self.manager.propose(briefing), 0.0)

    def wait(self, seconds: float) -> Answer | Failure | None:
        return self.poll()

    def give_up(self, detail: str) -> Failure:
        assert self.briefing is not None
        question, self.briefing = self.briefing.question, None
        return Failure(question, "late", detail)

    def close(self) -> None:
        self.closed = True
