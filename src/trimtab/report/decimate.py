"""Fewer points that draw the same curve: the first, lowest, highest and last of each column of pixels."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.report.scale import Axis, drawable

Points = Sequence[tuple[float, float]]


def ordered(points: Points) -> Points:
    """Return the points by rising step, without those whose step has no place on an axis."""
    return sorted((point for point in points if drawable(point[0])), key=lambda point: point[0])


def pieces(points: Points, axis: Axis, columns: int) -> list[list[tuple[float, float]]]:
    """Split a curve at its gaps and thin it out where it has more points than the picture has columns.

    Args:
        points: By rising step; a value that is not drawable is a gap.
        axis: The axis of the steps.
        columns: Columns of pixels the axis is wide.

    Returns:
        Lists of points to be joined by lines, at most about 4 points per column in all. In a thinned
        curve a gap narrower than a column is not seen.
    """
    if len(points) > 4 * columns:
        points = _thinned(points, axis, columns)
    split: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if drawable(point[1]):
            split[-1].append(point)
        elif split[-1]:
            split.append([])
    return [piece for piece in split if piece]


def _thinned(points: Points, axis: Axis, columns: int) -> Points:
    kept: list[tuple[float, float]] = []
    column: list[tuple[float, float]] = []
    place = -1
    for point in points:
        here = int(axis.fraction(point[0]) * columns)
        if here != place and column:
            kept.extend(_outline(column))
            column = []
        place = here
        column.append(point)
    return [*kept, *_outline(column)]


def _outline(column: Points) -> Points:
    """Return what a column of pixels shows of its points, in their order; a gap if it shows none."""
    shown = [point for point in column if drawable(point[1])]
    if not shown:
        return column[:1]
    lowest = min(range(len(shown)), key=lambda place: shown[place][1])
    highest = max(range(len(shown)), key=lambda place: shown[place][1])
    return [shown[place] for place in sorted({0, lowest, highest, len(shown) - 1})]
