"""What all commands share at the terminal: text made harmless, numbers, consoles, JSON, errors.

Rules:
1. Text from a run, a manager or a file goes through `clean` before it is printed, and never through
   rich's markup: consoles are made here, with markup off.
2. With ``--json`` standard output holds one JSON object and nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final, TextIO

from rich.console import Console
from rich.text import Text

from trimtab.errors import TrimtabError
from trimtab.report.scale import Curve, Mark, TrialSpan
from trimtab.report.terminal_chart import chart_key, chart_rows
from trimtab.report.words import clean, counted, number

__all__ = [
    "CURVE_STYLES",
    "MARK_STYLES",
    "NARROWEST",
    "STATUS_STYLES",
    "WIDEST",
    "chart",
    "clean",
    "counted",
    "make_console",
    "number",
    "print_error",
    "print_json",
    "print_note",
]

NARROWEST: Final = 60
WIDEST: Final = 120
CURVE_STYLES: Final = ("dark_orange", "dodger_blue1", "green", "magenta")
STATUS_STYLES: Final = {"ended": "green", "stopped": "yellow", "not ended": "cyan", "running": "cyan", "cut off": "red"}
MARK_STYLES: Final = {"adjust": "bright_black", "rollback": "magenta", "reflex": "red", "guard": "cyan"}


def make_console(file: TextIO | None = None) -> Console:
    """Return a console for standard output, or for ``file``, on which text means only itself."""
    console = Console(file=file, markup=False, highlight=False, emoji=False, soft_wrap=False)
    if not NARROWEST <= console.width <= WIDEST:
        console = Console(
            file=file,
            markup=False,
            highlight=False,
            emoji=False,
            width=min(WIDEST, max(NARROWEST, console.width)),
        )
    return console


def chart(
    curves: list[Curve],
    marks: Sequence[Mark],
    width: int,
    height: int,
    trials: Sequence[TrialSpan] = (),
    *,
    has_key: bool = False,
) -> Text:
    """Return a chart of curves, coloured; with ``has_key``, what its marks stand for is told below."""
    rows = chart_rows(curves, marks, width, height, trials)
    if has_key and (key := chart_key(marks, trials)):
        rows.append(key)
    drawn = Text(no_wrap=True, overflow="crop")
    for row in rows:
        for span in row:
            drawn.append(span.text, _style(span.role))
        drawn.append("\n")
    drawn.right_crop(1)
    return drawn


def _style(role: str) -> str:
    kind, _, place = role.partition(" ")
    if kind == "curve":
        return CURVE_STYLES[int(place) % len(CURVE_STYLES)]
    return MARK_STYLES.get(kind, "bright_black")


def print_json(tree: dict[str, Any]) -> None:
    """Print one JSON object; ASCII, so that no character of it can act on a terminal."""
    print(json.dumps(tree, indent=2, allow_nan=False))


def print_note(text: str) -> None:
    """Print a remark on standard error, beside whatever a command prints."""
    make_console(sys.stderr).print(Text(text), soft_wrap=True)


def print_error(error: TrimtabError) -> None:
    """Print an error and what to do next on standard error."""
    console = make_console(sys.stderr)
    # An error may name several problems, one a line.
    first, *more = error.what.splitlines() or [""]
    parts = [clean(first)]
    if error.received is not None:
        received = error.received if isinstance(error.received, str) else repr(error.received)
        parts.append(f"received {clean(received)}")
    if error.allowed is not None:
        parts.append(f"allowed: {clean(error.allowed)}")
    console.print(Text.assemble(("error: ", "bold red"), ("; ".join(parts), "red")), soft_wrap=True)
    for line in more:
        console.print(Text(f"       {clean(line)}", "red"), soft_wrap=True)
    if error.next_step is not None:
        console.print(Text.assemble(("next:  ", "bold"), clean(error.next_step)), soft_wrap=True)
