"""HTML and SVG that cannot be broken by what is put into it.

Rules:
1. Only `tag` and `join` make `Markup`; all other text is cleaned and escaped on its way in.
2. What an attribute holds is escaped too; no attribute is a script or a style.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape
from typing import Final

from trimtab.report.words import clean

LONGEST: Final = 2000  # characters of one text from a run; a proposal's reason is no longer

Attribute = str | float | bool | None
_EMPTY: Final = ("br", "col", "hr", "input", "meta")  # elements without an end in HTML
_SHAPES: Final = ("circle", "line", "path", "rect")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(words: str, most: int = LONGEST) -> Markup:
    """Return words of any origin as text on one line; a space at either end is kept."""
    shown = clean(words, most)
    if not shown:
        return Markup(" " if words else "")
    first, last = (" " if words[place].isspace() else "" for place in (0, -1))
    return Markup(escape(f"{first}{shown}{last}", quote=True))


def tag(element: str, *inside: str, **attributes: Attribute) -> Markup:
    """Return an element.

    Args:
        element: Its name.
        *inside: What it holds; text that is not `Markup` is escaped.
        **attributes: ``class_`` and ``for_`` stand for names that Python keeps, ``_`` for a hyphen; None and False leave an
            attribute out, True gives it an empty value.
    """
    given = "".join(_attribute(name, value) for name, value in attributes.items())
    if element in _SHAPES and not inside:
        return Markup(f"<{element}{given}/>")
    if element in _EMPTY:
        return Markup(f"<{element}{given}>")
    return Markup(f"<{element}{given}>{join(*inside)}</{element}>")


def join(*parts: str) -> Markup:
    """Return the parts one after another; what is not `Markup` is escaped."""
    return Markup("".join(part if isinstance(part, Markup) else text(part) for part in parts))


def name(words: str, most: int = 200) -> Markup:
    """Return a name from a run, kept apart from what stands around it whatever its direction of writing."""
    return tag("bdi", text(words, most))


def headings(titles: Sequence[str], texts: Collection[str]) -> Markup:
    """Return the first row of a table; what is not among ``texts`` stands above numbers."""
    return tag("tr", *(tag("th", title, scope="col", class_=None if title in texts else "num") for title in titles))


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    known = name.removesuffix("_").replace("_", "-")
    if value is True:
        return f' {known}=""'
    shown = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f' {known}="{escape(clean(shown, 100_000_000), quote=True)}"'
