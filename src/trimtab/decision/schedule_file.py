"""The schedule file: YAML, checked strictly, with every problem named by its line and column.

    schema: trimtab/schedule/1
    entries:                          # by step; may be empty
      - step: 0                       # before training begins
        changes: {weight_decay: 0.1}  # the value itself
      - step: 1000                    # after this step of the model's own history
        changes:
          learning_rate: {factor: 0.5}           # of the value that the run starts with
          batch_size: {value: 96, of: 64}        # 96 in a run that starts with 64, else by the same factor
        reason: "validation loss stands still"   # may be left out
    stop_after: 5000                  # may be left out
    scale: 2                          # may be left out: multiplies all steps
    shift: 100                        # may be left out: then adds to them

An entry is applied whole or not at all. Entries of one step are applied in their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import yaml

from trimtab.controls.control import CONTROL_NAME
from trimtab.controls.yaml_tree import TreePath, YamlTree
from trimtab.decision.schedule import MOST_STEPS, Planned, Schedule, ScheduleEntry
from trimtab.errors import EnvelopeError, UsageError, nearest

SCHEMA: Final = "trimtab/schedule/1"
MOST_REASON: Final = 500

_KEYS: Final = ("schema", "entries", "stop_after", "scale", "shift")
_ENTRY_KEYS: Final = ("step", "changes", "reason")
_VALUE: Final = "a number, {factor: NUMBER}, or {value: NUMBER, of: NUMBER}"
_EXAMPLE: Final = "- {step: 1000, changes: {learning_rate: {factor: 0.5}}}"


def load_schedule(path: Path) -> Schedule:
    """Read a schedule file.

    Args:
        path: The file, UTF-8.

    Raises:
        UsageError: Correct the file at the lines and columns that the message names.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            "the schedule cannot be read", received=f"{path}: {error.strerror}", next_step="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError("the schedule is not UTF-8", received=str(path), next_step="save it as UTF-8") from error
    return parse_schedule(text, str(path))


def parse_schedule(text: str, source: str) -> Schedule:
    """Read the text of a schedule file.

    Args:
        text: The text.
        source: Where it is from, for messages.

    Raises:
        UsageError: Correct the text at the lines and columns that the message names.
    """
    try:
        document = YamlTree(text, source)
        schedule = _Reader(document).schedule() if document.tree is not None else None
        document.raise_problems()
    except EnvelopeError as error:  # the reader of YAML speaks of envelopes
        raise UsageError(error.what, received=error.received, allowed=error.allowed, next_step=error.next_step) from None
    if schedule is None:
        raise UsageError(f"{source}:1:1: not a schedule", next_step=f"begin with `schema: {SCHEMA}`")
    return schedule


def dump_schedule(schedule: Schedule, *, head: Sequence[str] = (), about: Sequence[str] = (), foot: Sequence[str] = ()) -> str:
    """Return the text of a schedule file that reads back as ``schedule``.

    Args:
        schedule: The plan.
        head: Comments before it, a line each.
        about: A comment for each entry.
        foot: Comments after it, a line each.

    Raises:
        UsageError: The schedule has what no file can say, or more than one can hold.
    """
    lines = [*(_comment(line) for line in head), f"schema: {SCHEMA}"]
    lines.append("entries:" if schedule.entries else "entries: []")
    for place, entry in enumerate(schedule.entries):
        if place < len(about) and about[place]:
            lines.append(f"  {_comment(about[place])}")
        lines.append(f"  - step: {entry.step}")
        lines.append("    changes:")
        lines.extend(f"      {planned.control}: {_value(planned)}" for planned in entry.changes)
        if entry.reason:
            lines.append(f"    reason: {_text(entry.reason)}")
    if schedule.stop_after is not None:
        lines.append(f"stop_after: {schedule.stop_after}")
    lines.extend(_comment(line) for line in foot)
    text = "\n".join(lines) + "\n"
    if parse_schedule(text, "the schedule as a file") != schedule:
        raise UsageError("the schedule cannot be written as a file", received=repr(schedule)[:200])
    return text


def _comment(text: str) -> str:
    """Return a comment of one line: what YAML takes for the end of a line would let text become part of the plan."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return f"# {shown}".rstrip()


def _text(text: str) -> str:
    """Return a text as YAML has it, quoted, on one line."""
    return str(cast("Any", yaml).safe_dump(text, default_style='"', allow_unicode=True, width=10**9)).strip()


def _value(planned: Planned) -> str:
    if planned.of is None:
        return _number(planned.value)
    if planned.of == 1:
        return f"{{factor: {_number(planned.value)}}}"
    return f"{{value: {_number(planned.value)}, of: {_number(planned.of)}}}"


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 10**15 else repr(value)


class _Reader:
    """Builds a schedule from a document and reports what is wrong with it."""

    def __init__(self, document: YamlTree) -> None:
        self._document = document

    def schedule(self) -> Schedule | None:
        root: object = self._document.tree
        if not isinstance(root, dict):
            return None
        tree = cast("dict[str, Any]", root)
        self._known_keys((), tree, _KEYS)
        if tree.get("schema") != SCHEMA:
            self._document.report(("schema",), "not a schedule that this version reads", received=_shown(tree.get("schema")),
                                  allowed=f"schema: {SCHEMA}")  # fmt: skip
        stop_after = self._whole(("stop_after",), tree["stop_after"], least=1) if "stop_after" in tree else None
        planned = Schedule(self._entries(tree.get("entries")), stop_after)
        scale = self._number(("scale",), tree.get("scale", 1.0))
        shift = self._whole(("shift",), tree.get("shift", 0), least=-MOST_STEPS)
        try:
            return planned.moved(scale, shift)
        except UsageError as error:
            self._document.report(("scale",), error.what, received=str(error.received), allowed=error.allowed)
            return planned

    def _entries(self, tree: object) -> tuple[ScheduleEntry, ...]:
        if not isinstance(tree, list):
            self._document.report(("entries",), "entries are not a list", received=_shown(tree), allowed=_EXAMPLE)
            return ()
        entries: list[ScheduleEntry] = []
        for place, item in enumerate(cast("list[object]", tree)):
            entry = self._entry(("entries", place), item)
            if entries and entry.step < entries[-1].step:
                self._document.report(("entries", place, "step"), "the steps fall", received=str(entry.step),
                                      allowed=f">= {entries[-1].step}", next_step="sort the entries by step")  # fmt: skip
            entries.append(entry)
        return tuple(entries)

    def _entry(self, path: TreePath, tree: object) -> ScheduleEntry:
        if not isinstance(tree, dict):
            self._document.report(path, "an entry is not a mapping", received=_shown(tree), allowed=_EXAMPLE)
            return ScheduleEntry(0, ())
        fields = cast("dict[str, Any]", tree)
        self._known_keys(path, fields, _ENTRY_KEYS)
        reason = fields.get("reason", "")
        if not isinstance(reason, str) or len(reason) > MOST_REASON:
            allowed = f"text of at most {MOST_REASON} characters"
            self._document.report((*path, "reason"), "the reason is wrong", received=_shown(reason), allowed=allowed)
            reason = ""
        step = self._whole((*path, "step"), fields.get("step"), least=0)
        return ScheduleEntry(step, self._changes((*path, "changes"), fields.get("changes")), reason)

    def _changes(self, path: TreePath, tree: object) -> tuple[Planned, ...]:
        if not isinstance(tree, dict) or not tree:
            allowed = "a mapping from controls to values, such as {dropout: 0.1}"
            received = _shown(cast("object", tree))
            self._document.report(path, "changes are missing", received=received, allowed=allowed)
            return ()
        return tuple(self._planned((*path, name), name, value) for name, value in cast("dict[str, object]", tree).items())

    def _planned(self, path: TreePath, name: str, tree: object) -> Planned:
        if not CONTROL_NAME.fullmatch(name):
            allowed = "lower_case or lower/case"
            self._document.report(path, "no control has such a name", received=_shown(name), allowed=allowed, at_key=True)
        if not isinstance(tree, dict):
            return Planned(name, self._number(path, tree, _VALUE))
        fields = cast("dict[str, Any]", tree)
        if fields.keys() == {"factor"}:
            return Planned(name, self._number((*path, "factor"), fields["factor"]), 1.0)
        if fields.keys() == {"value", "of"}:
            of = self._number((*path, "of"), fields["of"])
            if of <= 0:
                self._document.report((*path, "of"), "no factor leads from here", received=_shown(of), allowed="a number > 0")
            return Planned(name, self._number((*path, "value"), fields["value"]), of)
        self._document.report(path, f"the value of {name[:80]} is wrong", received=_shown(", ".join(fields)), allowed=_VALUE)
        return Planned(name, 0.0)

    def _known_keys(self, path: TreePath, tree: dict[str, Any], known: Sequence[str]) -> None:
        for key in tree.keys() - set(known):
            self._document.report((*path, key), "unknown key", received=_shown(key), next_step=nearest(key, known), at_key=True)

    def _whole(self, path: TreePath, value: object, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < MOST_STEPS:
            allowed = f"a whole number >= {least}" if least > -MOST_STEPS else "a whole number of steps"
            self._document.report(path, f"{path[-1]} is wrong", received=_shown(value), allowed=allowed)
            return max(least, 0)
        return value

    def _number(self, path: TreePath, value: object, allowed: str = "a number") -> float:
        try:
            if not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(number := float(value)):
                return number
        except OverflowError:  # a whole number that no float holds
            pass
        self._document.report(path, f"{path[-1]} is wrong", received=_shown(value), allowed=allowed)
        return 1.0


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)[:80]
