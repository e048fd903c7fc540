"""Compare a run with its repetition in all that is kept of both: records, states, hashes of steps, curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trimtab.ledger.record import PROCESS_ENDED, RAISED, Record, RunEnded
from trimtab.ledger.series import Row
from trimtab.report.repeat import Comparison, compare_courses, is_timed

Hashes = Mapping[int, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a run.

    Args:
        records: Its course.
        hashes: Hashes of the parts of the state, by step.
        rows: Its curves.
    """

    records: Sequence[Record]
    hashes: Hashes
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Sameness:
    """How far a repetition is the original.

    Args:
        courses: Of the records, and the states whose hashes stand in them.
        num_hashes: Steps whose hashes both have, and that agree.
        first_hash: First step whose hashes differ, and the parts of the state that do; None if none does.
        num_losses: Values of curves that both have, and that agree.
        first_loss: First step at which a curve differs, its signal and both values; None if none does.
    """

    courses: Comparison
    num_hashes: int
    first_hash: tuple[int, tuple[str, ...]] | None
    num_losses: int
    first_loss: tuple[int, str, float, float] | None

    @property
    def is_exact(self) -> bool:
        """Whether nothing differs."""
        return self.courses.difference is None and self.first_hash is None and self.first_loss is None

    @property
    def first_step(self) -> int | None:
        """First step of which it is known that something differs; None if nothing does."""
        found = [
            self.courses.difference.step if self.courses.difference else None,
            self.first_hash[0] if self.first_hash else None,
            self.first_loss[0] if self.first_loss else None,
        ]
        return min((step for step in found if step is not None), default=None)


def compare(original: Kept, repeated: Kept, timed: Iterable[str] = ()) -> Sameness:
    """Compare a run with its repetition, as far as the original goes.

    Args:
        original: The run.
        repeated: Its repetition.
        timed: Names of signals that measure the machine; they are left out.
    """
    courses = compare_courses(_whole(original.records), repeated.records)
    num_hashes, first_hash = _compare_hashes(original.hashes, repeated.hashes)
    num_losses, first_loss = _compare_rows(original.rows, repeated.rows, frozenset(timed))
    return Sameness(courses, num_hashes, first_hash, num_losses, first_loss)


def _whole(records: Sequence[Record]) -> Sequence[Record]:
    """Leave out the end of a run that was interrupted: its repetition goes on."""
    last = records[-1] if records else None
    return records[:-1] if isinstance(last, RunEnded) and last.reason.startswith((RAISED, PROCESS_ENDED)) else records


def _compare_hashes(original: Hashes, repeated: Hashes) -> tuple[int, tuple[int, tuple[str, ...]] | None]:
    num_same = 0
    for step in sorted(original.keys() & repeated.keys()):
        one, other = original[step], repeated[step]
        differing = tuple(sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name)))
        if differing:
            return num_same, (step, differing)
        num_same += 1
    return num_same, None


def _compare_rows(
    original: Sequence[Row], repeated: Sequence[Row], timed: frozenset[str]
) -> tuple[int, tuple[int, str, float, float] | None]:
    """Compare rows of the same number: a long series is thinned, and not always alike."""
    num_same = 0
    others = {row.sequence: row for row in repeated}
    for row in original:
        other = others.get(row.sequence)
        if other is None:
            continue
        for name in sorted(name for name in row.values.keys() & other.values.keys() if not is_timed(name, timed)):
            one, two = row.values[name], other.values[name]
            if repr(one) != repr(two):  # by their bits: 0.0 is not -0.0, and a NaN is one
                return num_same, (row.step, name, one, two)
            num_same += 1
    return num_same, None
