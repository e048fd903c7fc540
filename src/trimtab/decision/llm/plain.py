"""Making what goes into a prompt harmless: names, numbers and free text.

Rules:
1. A name keeps to a harmless alphabet; whatever else is in it becomes a question mark.
2. Free text of a run is one line, cut and quoted. It cannot hold a newline, a backtick or a control character.
3. The same value gives the same text, before and after it went through the ledger.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final

_STRANGE: Final = re.compile(r"[^A-Za-z0-9_./@:+=,-]")
_EXPONENT: Final = re.compile(r"e([+-]?)0*(\d)")
_MAX_NAME: Final = 80


def name(text: str) -> str:
    """Return a registered name as it may stand in a prompt: one word of harmless signs."""
    return _STRANGE.sub("?", plain(text)[:_MAX_NAME]) or "?"


def is_name(text: str) -> bool:
    """Return whether a name may stand in a prompt as it is, so that a reply can repeat it."""
    return name(text) == text


def quoted(text: str, most: int) -> str:
    """Return free text on one line, in quotes, of at most ``most`` characters."""
    shown = "".join(c if c.isprintable() else " " for c in plain(text))
    shown = " ".join(shown.replace('"', "'").replace("`", "'").split())
    return f'"{shown if len(shown) <= most else shown[: most - 3] + "..."}"'


def lines(text: str) -> str:
    """Return text of one or more lines without control characters; what stands at the ends is stripped."""
    kept = "\n".join(plain(text).splitlines())
    return "".join(c for c in kept if c == "\n" or c.isprintable()).strip()


def plain(text: str) -> str:
    """Return the text as the ledger keeps it: a lone surrogate is written as its escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def number(value: float, digits: int = 4) -> str:
    """Return a number in a few digits; a whole one below a million in full."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if float(value).is_integer() and abs(value) < 1e6:
        return str(int(value))
    return _EXPONENT.sub(lambda found: f"e{'-' if found[1] == '-' else ''}{found[2]}", f"{value:.{digits}g}")


def signed(value: float, digits: int = 4) -> str:
    """Return a difference with its sign."""
    shown = number(value, digits)
    return shown if shown.startswith(("-", "NaN")) else f"+{shown}"


def labels_of(values: Iterable[float]) -> dict[float, str]:
    """Return a short text for each of some finite values, such that no two of the texts are the same number."""
    distinct = sorted(set(values))
    for digits in range(3, 18):
        texts = [number(value, digits) for value in distinct]
        if len({float(text) for text in texts}) == len(texts):
            return dict(zip(distinct, texts, strict=True))
    raise AssertionError("seventeen digits tell all floats apart")


def aligned(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return a table as lines; a column without any entry is left out."""
    cells = [list(header), *(list(row) for row in rows)]
    kept = [column for column in zip(*cells, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in kept]
    padded = ([cell.ljust(width) for cell in column] for column, width in zip(kept, widths, strict=True))
    return ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]
