"""Counts what the check of a promise really tried.

Rules:
1. A case is counted after it was tried and held, one by one: what was not run is not counted.
2. A check says beforehand how many cases it has to try, fewer in every test run than on demand (`Tally.goal`); a check that
   counted fewer, or nothing at all, has failed, however green its asserts.
3. A promise is one file of this folder: ``test_l3_damage.py`` is the check of L3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

HERE: Final = Path(__file__).parent
PROPERTY: Final = "tally"  # under which a test report carries what was tried
PROMISES: Final[Mapping[str, str]] = {
    "B1": "no applied value leaves its envelope",
    "B2": "the worst manager does bounded harm",
    "B3": "a manager that dies or hangs changes nothing",
    "R3": "faults are recovered, and health is left alone",
    "R4": "a visible checkpoint is complete",
    "R5": "rollback and resume restore everything",
    "L1": "no change without a durable record",
    "L2": "a torn tail recovers to the longest valid prefix",
    "L3": "damage is refused, never skipped",
    "L4": "the record gives the run again",
    "L5": "a fork differs by one entry",
    "L6": "old ledgers stay readable",
}

Case = TypeVar("Case")


@dataclass
class Tally:
    """The cases that one check tried.

    Args:
        promise: The promise it is a check of.
        is_full: Whether all cases are tried, or the portion of every test run.
    """

    promise: str
    is_full: bool
    tried: Counter[str] = field(default_factory=Counter[str])
    goals: Counter[str] = field(default_factory=Counter[str])
    seeds: set[int] = field(default_factory=set[int])

    def goal(self, what: str, *, portion: int, full: int) -> int:
        """Return how many cases this check has to try; it fails if it counts fewer.

        Args:
            what: What they are, in the plural: ``SIGKILLs``.
            portion: In every test run.
            full: On demand.
        """
        number = full if self.is_full else portion
        self.goals[what] += number
        return number

    def choose(self, what: str, cases: Sequence[Case], *, portion: int) -> Sequence[Case]:
        """Return all cases, or a portion of them at even distances with the first and the last; all it returns is a goal."""
        number = self.goal(what, portion=min(portion, len(cases)), full=len(cases))
        if number < 2 or number == len(cases):
            return cases[:number]
        return [cases[index * (len(cases) - 1) // (number - 1)] for index in range(number)]

    def count(self, what: str, number: int = 1) -> None:
        """Say that cases were tried and held."""
        self.tried[what] += number

    def seed(self, seed: int) -> int:
        """Return ``seed``, and name it in the summary."""
        self.seeds.add(seed)
        return seed

    def shortfall(self) -> str:
        """Return what was not tried though it had to be; empty if nothing."""
        missing = [f"{self.tried[what]} of {goal} {what}" for what, goal in self.goals.items() if self.tried[what] < goal]
        if not sum(self.tried.values()):
            return "no case was counted"
        return f"too few cases were tried: {', '.join(missing)}" if missing else ""

    def as_tree(self) -> dict[str, Any]:
        """Return the tally as plain values, which can be sent from one process to another."""
        return {"promise": self.promise, "tried": dict(self.tried), "seeds": sorted(self.seeds)}


@dataclass
class Kept:
    """What is known of one promise after its checks."""

    promise: str
    tried: Counter[str] = field(default_factory=Counter[str])
    seeds: set[int] = field(default_factory=set[int])
    seconds: float = 0.0
    failed: list[str] = field(default_factory=list[str])

    @property
    def is_kept(self) -> bool:
        """Whether no check failed, and something was tried."""
        return not self.failed and sum(self.tried.values()) > 0

    def add(self, tree: Mapping[str, Any]) -> None:
        """Add what one check tried."""
        self.tried.update(tree["tried"])
        self.seeds.update(tree["seeds"])

    def line(self) -> str:
        """Return the line of the summary."""
        cases = ", ".join(f"{number:,} {what}" for what, number in self.tried.items()) or "nothing was tried"
        result = "kept" if self.is_kept else "BROKEN"
        seeds = f"; seeds {spans(self.seeds)}" if self.seeds else ""
        broken = f"; failed: {', '.join(self.failed)}" if self.failed else ""
        return f"{self.promise}  {result:6}  {PROMISES[self.promise]}: {cases}{seeds}; {self.seconds:.1f} s{broken}"


def promise_of(path: Path) -> str | None:
    """Return the promise that a file of checks is about; None for any other file."""
    name = path.stem.split("_")
    return name[1].upper() if path.parent == HERE and name[0] == "test" and name[1].upper() in PROMISES else None


def spans(numbers: Iterable[int]) -> str:
    """Return ``0 to 4, 9`` for 0, 1, 2, 3, 4 and 9."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
