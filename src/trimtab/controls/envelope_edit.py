"""Change a control's bounds in the text of an envelope file and leave everything else, comments included, as it is."""

from __future__ import annotations

import re
from typing import Final

from trimtab.controls.bounds import Bounds
from trimtab.controls.envelope_file import parse_envelope
from trimtab.controls.yaml_tree import TreePath, YamlTree
from trimtab.errors import EnvelopeError

# What YAML counts as the end of a line.
_LINE_END: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_NUMBER: Final = re.compile(r"[-+.0-9][-+.0-9_eE]*")


def with_bounds(text: str, source: str, control: str, bounds: Bounds) -> str:
    """Return the text with other bounds for a control; a bound that is the same is not touched.

    Args:
        text: The text of a valid envelope file.
        source: Where it is from, for messages.
        control: The control's name.
        bounds: The new bounds.

    Raises:
        EnvelopeError: The text is no envelope, or the numbers do not stand there plainly: edit them by hand.
        ControlError: The envelope has no such control.
    """
    before = parse_envelope(text, source).control(control).bounds
    tree = YamlTree(text, source)
    places: list[tuple[int, float, TreePath]] = []
    for side, old, new in (("low", before.low, bounds.low), ("high", before.high, bounds.high)):
        if old != new:
            path = ("controls", control, side)
            places.append((_offset(text, tree.position(path)), new, path))
    for start, value, path in sorted(places, reverse=True):  # from the end, so that the other place stays where it is
        number = _NUMBER.match(text, start)
        if number is None:
            line, column = tree.position(path)
            raise EnvelopeError(f"{source}:{line}:{column}: no plain number", next_step=f"write {value!r} there by hand")
        text = text[:start] + repr(value) + text[number.end() :]
    if parse_envelope(text, source).control(control).bounds != bounds:
        raise EnvelopeError("the bounds could not be written", received=source, next_step=f"write {bounds!r} by hand")
    return text


def _offset(text: str, position: tuple[int, int]) -> int:
    """Return the index of a line and column, both counted from 1; a byte order mark has no column."""
    line, column = position
    starts = [1 if text.startswith("\ufeff") else 0, *(end.end() for end in _LINE_END.finditer(text))]
    return starts[line - 1] + column - 1
