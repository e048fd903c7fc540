"""Where the operations of one step, traced in two repetitions, part: which operation, and why it can have parted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

_KEYS: Final = frozenset(("op", "at", "inputs", "random", "outputs"))


def parted_operation(one: Path, other: Path) -> str:
    """Say which operation of a step first differs between two traces, and what that means; empty if none does.

    Args:
        one: Trace of the step, as `trimtab.integrations.pytorch.tracing` writes it.
        other: Trace of the same step in another repetition.

    Raises:
        OSError: A trace is not there: the repetition did not reach the step.
        ValueError: A file is no trace.
    """
    lines, others = _lines(one), _lines(other)
    for number, (line, again) in enumerate(zip(lines, others, strict=False), start=1):
        why = _difference(line, again)
        if why:
            return f"operation {number}, {_named(line)}: {why}"
    if len(lines) == len(others):
        return ""
    more = max(lines, others, key=len)[min(len(lines), len(others))]
    return f"operation {min(len(lines), len(others)) + 1}, {_named(more)}: only one of the two repetitions does it"


def _difference(line: dict[str, Any], again: dict[str, Any]) -> str:
    if line["op"] != again["op"]:
        return f"the other repetition does {_named(again)} in its place"
    if line["random"] != again["random"]:
        return "its random numbers are not the same: something has drawn or seeded otherwise"
    if line["inputs"] != again["inputs"]:
        return "it was given other values, which no operation of torch had made: data, the time, or another source of chance"
    if line["outputs"] != again["outputs"]:
        return "it gives other results for the same values, so it is not deterministic; see torch.use_deterministic_algorithms"
    return ""


def _lines(path: Path) -> list[dict[str, Any]]:
    lines: list[Any] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if not isinstance(line, dict) or not line.keys() >= _KEYS:
            raise ValueError(f"{path} is no trace: {line!r}"[:300])
    return lines


def _named(line: dict[str, Any]) -> str:
    where = f" at {line['at']}" if line["at"] else ", in the backward pass or outside the script"
    return f"{line['op']}{where}"
