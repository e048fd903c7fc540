"""Draw curves as one self-contained SVG: standard library only, no script, every name escaped.

The picture brings its own light background, so that it reads the same in a dark viewer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from trimtab.report.decimate import Points, ordered, pieces
from trimtab.report.scale import (
    MARK_WORDS,
    Axis,
    Curve,
    Level,
    Mark,
    MarkKind,
    drawable,
    placed_marks,
    step_axis,
    tick_label,
    value_axis,
)

# Okabe and Ito's hues, darkened for thin lines on white: they stay apart for colour-blind readers.
_COLOURS: Final = ("#d55e00", "#0072b2", "#009e73", "#aa4a86", "#8a6d00", "#3d8fc4")
_DASHES: Final = ("", "7 4", "2 3", "9 3 2 3")
_MARKS: Final[dict[MarkKind, tuple[str, str]]] = {
    "adjust": ("#6b7280", "3 4"),
    "rollback": ("#7c3aed", ""),
    "reflex": ("#c81e1e", "6 3"),
    "guard": ("#0b7285", "8 2 2 2"),
}
_INK: Final = "#1f2937"
_GREY: Final = "#5b6472"
_GRID: Final = "#e5e7eb"
_LEVEL_DASHES: Final = "1 4"

_WIDTH: Final = 900.0
_LEFT: Final = 74.0
_RIGHT: Final = 876.0
_PLOT_HEIGHT: Final = 340.0
_LINE: Final = 19.0
_FIRST_LINE: Final = 56.0  # baseline of the legend's first line
_CHARACTER: Final = 7.3  # generous mean width at 13 px
_LISTED_MARKS: Final = 16
_DRAWN_MARKS: Final = 400


def draw_curves(
    title: str,
    curves: Sequence[Curve],
    marks: Sequence[Mark],
    x_label: str,
    y_label: str,
    levels: Sequence[Level] = (),
) -> str:
    """Return an SVG of curves over steps, with numbered lines where somebody intervened.

    Args:
        title: What the picture shows.
        curves: Labelled points (step, value); a non-finite value is a gap, a lone point a dot.
        marks: Interventions; the first 16 are told in words below the picture.
        x_label: Name of the steps.
        y_label: Name and unit of the values.
        levels: Values to compare with, drawn as dotted horizontal lines.
    """
    marks = placed_marks(marks)[:_DRAWN_MARKS]
    levels = [level for level in levels if drawable(level.value)]
    series = [ordered(curve.points) for curve in curves]
    x, y = _axes(series, marks, levels)
    legend = _legend(curves, marks, levels)
    numbers = _number_rows([_LEFT + x.fraction(mark.step) * (_RIGHT - _LEFT) for mark in marks])
    top = _FIRST_LINE + _LINE * (max([row for _, row, _ in legend], default=0) + 1) + 19 * _rows_used(numbers)
    plot = _Plot(x, y, top)
    return "\n".join(
        [
            *_opening(title, plot.bottom + 54 + _captions_height(marks)),
            *plot.grid(x_label, y_label + (" (log scale)" if y.is_log else "")),
            *(plot.level(level) for level in levels),
            *([] if any(drawable(value) for points in series for _, value in points) else [plot.nothing()]),
            *(part for place, points in enumerate(series) for part in plot.curve(place, points)),
            *(part for mark, row in zip(marks, numbers, strict=True) for part in plot.mark(mark, row)),
            *(part for left, row, entry in legend for part in entry.drawn(left, _FIRST_LINE + _LINE * row)),
            *_captions(marks, plot.bottom + 68),
            "</svg>\n",
        ]
    )


def _axes(series: Sequence[Points], marks: Sequence[Mark], levels: Sequence[Level]) -> tuple[Axis, Axis]:
    ends = [step for points in series for step, _ in (*points[:1], *points[-1:])]
    values = [value for points in series for _, value in points]
    return step_axis(ends + [mark.step for mark in marks]), value_axis(values + [level.value for level in levels])


def _opening(title: str, height: float) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {height:g}" width="{_WIDTH:g}" '
        f'height="{height:g}" role="img" font-family="system-ui, Helvetica, Arial, sans-serif" font-size="13" fill="{_INK}">'
    )
    yield f"<title>{_text(title, 200)}</title>"
    yield f'<rect width="{_WIDTH:g}" height="{height:g}" rx="6" fill="#ffffff"/>'
    yield _label(_LEFT, 31, title, 68, 'font-size="17" font-weight="600"')


class _Plot:
    """The plot area: where steps and values lie on the page."""

    def __init__(self, x: Axis, y: Axis, top: float) -> None:
        self._x, self._y, self._top = x, y, top
        self.bottom = top + _PLOT_HEIGHT

    def _across(self, step: float) -> float:
        return _LEFT + self._x.fraction(step) * (_RIGHT - _LEFT)

    def _down(self, value: float) -> float:
        return self.bottom - self._y.fraction(value) * _PLOT_HEIGHT

    def grid(self, x_label: str, y_label: str) -> Iterator[str]:
        ticks = self._y.ticks(7)
        for value in ticks:
            at = self._down(value)
            yield f'<path d="M{_LEFT:g} {at:.1f}H{_RIGHT:g}" stroke="{_GRID}"/>'
            yield _label(_LEFT - 8, at + 4.5, tick_label(value, ticks), 14, f'text-anchor="end" fill="{_GREY}"')
        ticks = self._x.ticks(9)
        for step in ticks:
            at = self._across(step)
            yield f'<path d="M{at:.1f} {self.bottom:g}v5" stroke="{_GREY}"/>'
            yield _label(at, self.bottom + 20, tick_label(step, ticks), 14, f'text-anchor="middle" fill="{_GREY}"')
        yield f'<path d="M{_LEFT:g} {self.bottom:g}H{_RIGHT:g}" stroke="{_GREY}"/>'
        yield _label((_LEFT + _RIGHT) / 2, self.bottom + 41, x_label, 80, 'text-anchor="middle"')
        middle = self._top + _PLOT_HEIGHT / 2
        yield _label(19, middle, y_label, 45, f'text-anchor="middle" transform="rotate(-90 19 {middle:g})"')

    def nothing(self) -> str:
        style = f'text-anchor="middle" fill="{_GREY}"'
        return _label((_LEFT + _RIGHT) / 2, self._top + _PLOT_HEIGHT / 2 + 4.5, "no finite value yet", 40, style)

    def level(self, level: Level) -> str:
        at = self._down(level.value)
        line = f'stroke="{_INK}" stroke-width="1.6"{_dashed(_LEVEL_DASHES)}'
        return f'<path d="M{_LEFT:g} {at:.1f}H{_RIGHT:g}" {line}/>'

    def curve(self, place: int, points: Points) -> Iterator[str]:
        colour, dashes = _style(place)
        path: list[str] = []
        for piece in pieces(points, self._x, int(_RIGHT - _LEFT)):
            spots = [f"{self._across(step):.1f} {self._down(value):.1f}" for step, value in piece]
            if len(spots) == 1:
                across, down = spots[0].split()
                yield f'<circle cx="{across}" cy="{down}" r="2.6" fill="{colour}"/>'
            else:
                path.append("M" + "L".join(spots))
        if path:
            line = f'fill="none" stroke="{colour}" stroke-width="2.2" stroke-linejoin="round"'
            yield f'<path d="{"".join(path)}" {line}{_dashed(dashes)}/>'

    def mark(self, mark: Mark, row: int | None) -> Iterator[str]:
        at, lift = self._across(mark.step), 19.0 * (row or 0)
        colour, dashes = _MARKS[mark.kind]
        line = f'stroke="{colour}" stroke-width="1.4" opacity="0.8"{_dashed(dashes)}'
        title = f"<title>{mark.number}: {_text(_told(mark), 300)}</title>"
        yield f'<path d="M{at:.1f} {self._top - 6 - lift:g}V{self.bottom:g}" {line}>{title}</path>'
        if row is not None:
            yield from _numbered(at, self._top - 14 - lift, mark)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of the legend: a piece of line, and what it stands for."""

    colour: str
    dashes: str
    words: str

    def drawn(self, left: float, down: float) -> Iterator[str]:
        line = f'stroke="{self.colour}" stroke-width="2.2"{_dashed(self.dashes)}'
        yield f'<path d="M{left:g} {down - 4.5:g}h26" {line}/>'
        yield _label(left + 33, down, self.words, 48, "")


def _legend(curves: Sequence[Curve], marks: Sequence[Mark], levels: Sequence[Level]) -> list[tuple[float, int, _Entry]]:
    """Return the entries with their left edge and row."""
    entries = [_Entry(*_style(place), _short(curve.label, 48)) for place, curve in enumerate(curves)]
    entries += [_Entry(_INK, _LEVEL_DASHES, _short(level.label, 48)) for level in levels]
    kinds = {mark.kind for mark in marks}
    entries += [_Entry(*_MARKS[kind], MARK_WORDS[kind]) for kind in _MARKS if kind in kinds]
    placed: list[tuple[float, int, _Entry]] = []
    left, row = _LEFT, 0
    for entry in entries:
        width = 33 + _CHARACTER * len(entry.words)
        if left > _LEFT and left + width > _RIGHT:
            left, row = _LEFT, row + 1
        placed.append((left, row, entry))
        left += width + 20
    return placed


def _number_rows(spots: Sequence[float]) -> list[int | None]:
    """Return in which of three rows each mark's number has room; None: its tooltip has to do."""
    ends = [-math.inf] * 3
    rows: list[int | None] = []
    for at in spots:
        row = next((row for row, end in enumerate(ends) if at - end >= 20), None)
        if row is not None:
            ends[row] = at
        rows.append(row)
    return rows


def _rows_used(rows: Sequence[int | None]) -> int:
    return max((row + 1 for row in rows if row is not None), default=0)


def _captions(marks: Sequence[Mark], down: float) -> Iterator[str]:
    for mark in marks[:_LISTED_MARKS]:
        yield from _numbered(_LEFT + 9, down - 4.5, mark)
        yield _label(_LEFT + 27, down, _told(mark), 98, "")
        down += _LINE + 2
    if len(marks) > _LISTED_MARKS:
        yield _label(_LEFT + 27, down, f"and {len(marks) - _LISTED_MARKS} more", 40, f'fill="{_GREY}"')


def _captions_height(marks: Sequence[Mark]) -> float:
    lines = min(len(marks), _LISTED_MARKS) + (len(marks) > _LISTED_MARKS)
    return lines * (_LINE + 2) + 8 if lines else 0.0


def _numbered(across: float, down: float, mark: Mark) -> Iterator[str]:
    yield f'<circle cx="{across:.1f}" cy="{down:g}" r="8.5" fill="{_MARKS[mark.kind][0]}"/>'
    style = 'text-anchor="middle" font-size="10.5" font-weight="600" fill="#ffffff"'
    yield _label(across, down + 3.8, str(mark.number), 4, style)


def _told(mark: Mark) -> str:
    return f"step {mark.step:.0f}: {mark.text}"


def _style(place: int) -> tuple[str, str]:
    return _COLOURS[place % len(_COLOURS)], _DASHES[place // len(_COLOURS) % len(_DASHES)]


def _dashed(dashes: str) -> str:
    return f' stroke-dasharray="{dashes}"' if dashes else ""


def _label(across: float, down: float, words: str, most: int, style: str) -> str:
    return f'<text x="{across:.1f}" y="{down:.1f}" {style}>{_text(words, most)}</text>'


def _short(words: str, most: int) -> str:
    # Beyond printable characters lie what XML forbids and what turns the direction of a text.
    shown = " ".join("".join(c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in words).split())
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _text(words: str, most: int) -> str:
    return escape(_short(words, most), quote=True)
