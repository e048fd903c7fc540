"""Was a run repeated? Two courses, record by record, and the first field in which they differ.

    first_difference(original, repeated) -> Difference | None
    compare_courses(original, repeated, with_states=True) -> Comparison

Rules:
1. All that a record says is compared, numbers by their bits, but for what may differ between two runs that train alike:
   the run's name, where its manager ran, versions and notes; how long an answer took and what asking cost; signals that
   measure time or memory.
2. A `RunResumed` is left out: pass the entries that count (`trimtab.ledger.course.iter_course`). So is a
   `CheckpointDeleted`: a resume finds some gone already, and what could be gone back to stands in the briefings. And an
   `AnswerDropped`, which came when it did not count any more, and what is noticed at a resume.
3. A state's hash that one of the two does not have says nothing, and agrees with any. Nor does one part the courses without
   ``with_states``: two runs of their own train alike though generators differ that neither has seeded nor uses.
4. What follows an original that was cut off has nothing to be compared with. A repetition that ends first is a difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final, cast

from trimtab.ledger.codec import canonical, freeze
from trimtab.ledger.record import (
    NOTICED_AT_RESUME,
    AnswerDropped,
    CheckpointDeleted,
    CheckpointSaved,
    ProblemNoticed,
    Record,
    RunResumed,
    RunStarted,
)
from trimtab.telemetry.roles import MEMORY, THROUGHPUT, USUAL_NAMES

ENDED: Final = "nothing: it ends before"

_LEFT_OUT: Final[Mapping[str, tuple[str, ...]]] = {
    "run_started": ("run", "isolation", "notes", "versions"),
    "proposal_received": ("latency_seconds", "consultation"),
    "manager_failed": ("consultation",),
}
HOUSEKEEPING: Final = (AnswerDropped, CheckpointDeleted, RunResumed)
_OF_THE_MACHINE: Final = (THROUGHPUT, MEMORY)
# What trackers and trainers call their timings, such as eval_runtime and eval_samples_per_second.
_TIMED_ENDINGS: Final = ("_seconds", "/seconds", "_per_second", "/per_second", "_runtime", "/runtime")
_MOST_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two courses part.

    Args:
        place: Records that both have alike before it, without those that are left out.
        step: Step of the original's record; of the repetition's where the original has none.
        kind: Kind of that record.
        field: Path of the first field that differs, such as ``metrics.val/loss``; ``kind`` where the records are of
            different kinds, or one of the courses has ended.
        original: The original's value, as JSON text.
        repeated: The repetition's.
    """

    place: int
    step: int
    kind: str
    field: str
    original: str
    repeated: str

    def __str__(self) -> str:
        return f"step {self.step}, {self.kind}.{self.field}: {_cut(self.original)} in one, {_cut(self.repeated)} in the other"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What comparing two courses has brought.

    Args:
        num_records: Records that both have alike, from the first on.
        step: Step of the last of these; 0 if there is none.
        num_states: Hashes of whole states among them that both have, and that agree.
        difference: Where they part; None if they do not, as far as the original goes.
        num_unlike_states: Hashes among them that both have, and that do not agree; 0 where such a hash parts the courses.
        unlike_state_step: Step of the first of these; None if there is none.
    """

    num_records: int
    step: int
    num_states: int
    difference: Difference | None
    num_unlike_states: int = 0
    unlike_state_step: int | None = None


def first_difference(original: Iterable[Record], repeated: Iterable[Record]) -> Difference | None:
    """Return where a repetition first differs from the original; None if it repeats it as far as that goes.

    Args:
        original: Records of a course, from the first on; it may be cut off.
        repeated: Records of the course to be compared with it.
    """
    return compare_courses(original, repeated).difference


def compare_courses(original: Iterable[Record], repeated: Iterable[Record], *, with_states: bool = True) -> Comparison:
    """Compare two courses record by record, up to their first difference.

    Args:
        original: Records of a course, from the first on; it may be cut off.
        repeated: Records of the course to be compared with it.
        with_states: Whether another hash of a saved state is a difference; without, it is only counted.
    """
    timed: frozenset[str] = frozenset()
    num_records = step = num_states = 0
    unlike: list[int] = []  # steps of the states whose hashes do not agree
    for one, other in zip_longest(_told(original), _told(repeated)):
        if one is None:  # cut off: after `run_ended` there is nothing, and both courses have it or differ there
            break
        if isinstance(one, RunStarted):
            timed = timed_signals(one)
        found = _between(one, other, timed, with_states=with_states)
        if found is not None:
            difference = Difference(num_records, one.step, one.kind, *found)
            return Comparison(num_records, step, num_states, difference, len(unlike), min(unlike, default=None))
        num_records, step = num_records + 1, max(step, one.step)
        if isinstance(one, CheckpointSaved) and isinstance(other, CheckpointSaved) and one.state_hash and other.state_hash:
            agrees = one.state_hash == other.state_hash
            num_states += agrees
            unlike += [] if agrees else [one.step]
    return Comparison(num_records, step, num_states, None, len(unlike), min(unlike, default=None))


def _told(records: Iterable[Record]) -> Iterator[Record]:
    for record in records:
        is_of_resume = isinstance(record, ProblemNoticed) and record.problem in NOTICED_AT_RESUME
        if not isinstance(record, HOUSEKEEPING) and not is_of_resume:
            yield record


def _has_state(record: Record | None) -> bool:
    return isinstance(record, CheckpointSaved) and bool(record.state_hash)


def timed_signals(started: RunStarted) -> frozenset[str]:
    """Return the names under which a run reports what its machine did, not its training."""
    named = {name for role, name in started.envelope.signals if role in _OF_THE_MACHINE}
    return frozenset(named.union(*(USUAL_NAMES[role] for role in _OF_THE_MACHINE)))


def _between(one: Record, other: Record | None, timed: frozenset[str], *, with_states: bool) -> tuple[str, str, str] | None:
    """Return field and both values of the first difference between two records."""
    if other is None:
        return "kind", canonical(one.kind), ENDED
    if one.kind != other.kind:
        return "kind", canonical(one.kind), canonical(other.kind)
    trees = _compared(one, timed), _compared(other, timed)
    if isinstance(one, CheckpointSaved) and not (with_states and _has_state(one) and _has_state(other)):
        for tree in trees:
            del tree["state_hash"]
    if canonical(trees[0]) == canonical(trees[1]):
        return None
    return next(differing_fields(*trees), None)


def _compared(record: Record, timed: frozenset[str]) -> dict[str, Any]:
    tree = cast("dict[str, Any]", freeze(record))
    for name in _LEFT_OUT.get(record.kind, ()):
        del tree[name]
    if record.kind == "manager_asked":
        snapshot = tree["briefing"]["snapshot"]
        snapshot["summaries"] = [one for one in snapshot["summaries"] if not is_timed(one["name"], timed)]
    elif record.kind == "evaluation_recorded":
        tree["metrics"] = [pair for pair in tree["metrics"] if not is_timed(pair[0], timed)]
    return tree


def is_timed(name: str, timed: frozenset[str]) -> bool:
    """Return whether a signal measures the machine: one of `timed_signals`, or one that its name says it of."""
    return name in timed or name.endswith(_TIMED_ENDINGS)


def differing_fields(one: object, other: object, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield path and both values of every leaf that differs between two JSON trees; of branches of two forms, all at once.

    Args:
        one: Such as what `trimtab.ledger.codec.freeze` returns.
        other: Likewise.
        path: What the paths begin with.
    """
    ours, theirs = _branches(one), _branches(other)
    if ours is None or theirs is None or ours.form != theirs.form:
        texts = canonical(one), canonical(other)
        if texts[0] != texts[1]:
            yield path, *texts
        return
    for place, (name, other_name) in enumerate(zip(ours.names, theirs.names, strict=True)):
        key = name if name == other_name else str(place)
        yield from differing_fields(ours.items[place], theirs.items[place], f"{path}.{key}" if path else key)


@dataclass(frozen=True, slots=True)
class _Branches:
    """What a tree holds, each item under its key, its name or its place; trees of one form can be compared item by item."""

    form: tuple[object, ...]
    names: list[str]
    items: list[object]


def _branches(tree: object) -> _Branches | None:
    """Return the branches of a tree; None for a leaf."""
    if isinstance(tree, dict):
        known = cast("dict[str, object]", tree)
        return None if list(known) == ["$float"] else _Branches(("object", *known), list(known), list(known.values()))
    if isinstance(tree, list):
        items = cast("list[object]", tree)
        names = [_name(item) or str(place) for place, item in enumerate(items)]
        return _Branches(("array", len(items)), names, items)
    return None


def _name(item: object) -> str | None:
    """Return how an item of a list calls itself: the first of a pair, or its ``name`` or ``control``."""
    if isinstance(item, list):
        pair = cast("list[object]", item)
        name = pair[0] if len(pair) == 2 else None
    else:
        known = cast("dict[str, object]", item) if isinstance(item, dict) else {}
        name = known.get("name", known.get("control"))
    return name if isinstance(name, str) else None


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"
