"""A small chart of braille dots for the terminal, as rows of text with a role for each piece.

Our own instead of plotext: that has no stable interface (6 renamed all of 5's), keeps its plot in
module state, puts ticks at odd values and cannot label curves where they end. Roles are left to the
caller to colour; without any colour the labels at the ends still tell the curves apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from trimtab.report.decimate import ordered, pieces
from trimtab.report.scale import (
    MARK_WORDS,
    Axis,
    Curve,
    Mark,
    MarkKind,
    TrialSpan,
    drawable,
    placed_marks,
    step_axis,
    tick_label,
    value_axis,
)

# Bits of the dots in a braille cell, by row and column.
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_LINES: Final[dict[MarkKind, str]] = {"adjust": "┊", "rollback": "│", "reflex": "┊", "guard": "║"}
_TRIAL: Final = "━"
_TAKEN_BACK: Final = "✗"


@dataclass(frozen=True, slots=True)
class Span:
    """Text to print in one style; ``role`` is ``axis``, a kind of mark, or ``curve N`` with N from 0."""

    text: str
    role: str


def chart_rows(
    curves: Sequence[Curve], marks: Sequence[Mark], width: int, height: int, trials: Sequence[TrialSpan] = ()
) -> list[list[Span]]:
    """Return the rows of a chart with ticks, curves labelled at their ends, and numbered marks.

    Args:
        curves: Labelled points (step, value); labels longer than 16 characters are cut.
        marks: Interventions; their numbers stand below the axis, that of one that was taken back with a cross.
        width: Columns in all, at least 40.
        height: Rows of the plot; the axis and the numbers take three more.
        trials: Trials; the axis is thick along them.
    """
    series = [ordered(curve.points) for curve in curves]
    marks = placed_marks(marks)
    x = step_axis([step for points in series for step, _ in (*points[:1], *points[-1:])] + [mark.step for mark in marks])
    y = value_axis([value for points in series for _, value in points])
    ticks = y.ticks(max(2, height // 3))
    labels = {_row(y, value, height): tick_label(value, ticks) for value in ticks}
    left = max((len(label) for label in labels.values()), default=1)
    right = max((len(_end_label(curve)) for curve in curves), default=0)
    canvas = _Canvas(max(10, width - left - right - 3), height)
    canvas.lines(marks, x)
    for place, points in enumerate(series):
        canvas.curve(place, pieces(points, x, 2 * canvas.columns), x, y)
    ends = _ends(curves, series, y, height)
    rows = [
        [Span(f"{labels.get(row, ''):>{left}} {'┤' if row in labels else '│'}", "axis"), *canvas.row(row), *ends.get(row, [])]
        for row in range(height)
    ]
    return [*rows, *_below(x, marks, trials, left, canvas.columns)]


def chart_key(marks: Sequence[Mark], trials: Sequence[TrialSpan]) -> list[Span]:
    """Return what the marks of a chart stand for; empty if there are none."""
    kinds = {mark.kind for mark in marks}
    key = [Span(f"{_LINES[kind]} {words}", kind) for kind, words in MARK_WORDS.items() if kind in kinds]
    if any(mark.is_taken_back for mark in marks):
        key.append(Span(f"{_TAKEN_BACK} taken back", "axis"))
    if trials:
        key.append(Span(f"{_TRIAL * 2} trial", "axis"))
    return [part for one in key for part in (Span("   ", "axis"), one)]


class _Canvas:
    """Cells of braille dots, each with the role of what was drawn there last."""

    def __init__(self, columns: int, height: int) -> None:
        self.columns, self._height = columns, height
        self._dots = [[0] * columns for _ in range(height)]
        self._roles = [["axis"] * columns for _ in range(height)]
        self._lines: dict[int, MarkKind] = {}

    def lines(self, marks: Sequence[Mark], x: Axis) -> None:
        for mark in marks:
            self._lines[_column(x, mark.step, self.columns)] = mark.kind

    def curve(self, place: int, parts: Sequence[Sequence[tuple[float, float]]], x: Axis, y: Axis) -> None:
        wide, high = 2 * self.columns, 4 * self._height
        for part in parts:
            spots = [(_column(x, step, wide), _row(y, value, high)) for step, value in part]
            for (one_across, one_down), (across, down) in zip(spots, [*spots[1:], spots[-1]], strict=True):
                length = max(abs(across - one_across), abs(down - one_down), 1)
                for step in range(length + 1):
                    share = step / length
                    at = round(one_across + share * (across - one_across)), round(one_down + share * (down - one_down))
                    self._dot(*at, f"curve {place}")

    def _dot(self, across: int, down: int, role: str) -> None:
        row, column = down // 4, across // 2
        self._dots[row][column] |= _DOTS[down % 4][across % 2]
        self._roles[row][column] = role

    def row(self, row: int) -> list[Span]:
        spans: list[Span] = []
        for column, (dots, role) in enumerate(zip(self._dots[row], self._roles[row], strict=True)):
            if dots:
                cell = Span(chr(0x2800 + dots), role)
            elif column in self._lines:
                cell = Span(_LINES[self._lines[column]], self._lines[column])
            else:
                cell = Span(" ", "axis")
            if spans and spans[-1].role == cell.role:
                cell = Span(spans.pop().text + cell.text, cell.role)
            spans.append(cell)
        return spans


def _row(y: Axis, value: float, rows: int) -> int:
    return min(rows - 1, max(0, int((1 - y.fraction(value)) * rows)))


def _column(x: Axis, step: float, columns: int) -> int:
    return min(columns - 1, max(0, int(x.fraction(step) * columns)))


def _end_label(curve: Curve) -> str:
    label = " ".join("".join(c if c.isprintable() else " " for c in curve.label).split())
    return f" {label if len(label) <= 16 else label[:15] + '…'}"


def _ends(
    curves: Sequence[Curve], series: Sequence[Sequence[tuple[float, float]]], y: Axis, height: int
) -> dict[int, list[Span]]:
    """Return for each row the label of the curve that ends there, or near there if two would meet."""
    ends: dict[int, list[Span]] = {}
    for place, (curve, points) in enumerate(zip(curves, series, strict=True)):
        last = next((value for _, value in reversed(points) if drawable(value)), None)
        if last is None:
            continue
        wanted = _row(y, last, height)
        free = [row for row in range(height) if row not in ends]
        if free:
            ends[min(free, key=lambda row: abs(row - wanted))] = [Span(_end_label(curve), f"curve {place}")]
    return ends


def _below(x: Axis, marks: Sequence[Mark], trials: Sequence[TrialSpan], left: int, columns: int) -> list[list[Span]]:
    ticks = x.ticks(max(2, columns // 10))
    line, words = ["─"] * columns, [" "] * (columns + 12)
    for trial in trials:
        first, last = (_column(x, step, columns) for step in (trial.from_step, trial.to_step))
        line[first : last + 1] = _TRIAL * (last + 1 - first)
    for value in ticks:
        at, label = _column(x, value, columns), tick_label(value, ticks)
        line[at] = "┯" if line[at] == _TRIAL else "┬"
        start = max(0, at - len(label) // 2)
        words[start : start + len(label)] = label
    margin = " " * (left + 1)
    rows = [[Span(f"{margin}└{''.join(line)}", "axis")], [Span(f"{margin} {''.join(words).rstrip()}", "axis")]]
    numbers: list[Span] = []
    used = 0
    for mark in marks:
        # Numbers that would touch move to the right, and end where the chart does.
        at, label = max(_column(x, mark.step, columns), used + bool(used)), f"{mark.number}{_TAKEN_BACK * mark.is_taken_back}"
        if at < columns + 10:
            numbers.append(Span(" " * (at - used) + label, mark.kind))
            used = at + len(label)
    return [*rows, [Span(f"{margin} ", "axis"), *numbers]] if numbers else rows
