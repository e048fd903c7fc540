"""Draw one panel of curves over steps, for the page and for the picture alike.

Rules:
1. All that depends on the width is given in percent or in a nested picture that is stretched, so that a panel fills
   any width and its letters keep their size.
2. Colours and strokes come from chart.css, by class.
3. A path holds whole numbers, each point relative to the one before: the page's script reads the values back from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Final

from trimtab.report.decimate import Points, ordered, pieces
from trimtab.report.page.markup import Markup, join, tag
from trimtab.report.page.signs import badge_shape, trial_sign
from trimtab.report.page.subject import Undone
from trimtab.report.scale import Axis, Mark, TrialSpan, drawable, tick_label
from trimtab.report.words import number

COLOURS: Final = 6  # classes c0 to c5; then dashes d1, d2, ... tell lines apart
_DASHES: Final = 4
_HEIGHT_UNITS: Final = 1_000_000
_BADGE: Final = 20.0  # pixels that a numbered mark takes
_SIGN: Final = 17.0  # and the sign of a trial's end
_ROWS: Final = 3
_ARROW_ROWS: Final = 5
_WIDE: Final = 900.0  # pixels of a wide plot, and of a narrow one
_NARROW: Final = 300.0
_DRAWN_MARKS: Final = 400
_DENSE: Final = 30  # beyond so many marks the curves come first: lines are short or faint, and one row of numbers is left


@dataclass(frozen=True, slots=True)
class Line:
    """One curve of a panel.

    Args:
        label: Its name.
        points: Steps and values; a value that is not drawable is a gap.
        place: Which colour and dashes.
        is_held: Whether a value holds until the next one.
    """

    label: str
    points: Points
    place: int = 0
    is_held: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """A plot.

    Args:
        title: What it shows.
        lines: The curves.
        x: The axis of steps.
        y: The axis of values.
        bounds: Inclusive bounds of the envelope, to be drawn; None for none.
        marks: Interventions.
        undone: What rollbacks gave up.
        trials: Trials of proposals.
        resumes: Steps at which another process went on.
        links: Where the decision of an intervention stands on the page, by number; empty for no badges.
        height: Height of the plot in pixels.
        columns: Columns of pixels it is drawn for.
        note: What there is to say beside the title; empty for nothing.
    """

    title: str
    lines: tuple[Line, ...]
    x: Axis
    y: Axis
    bounds: tuple[float, float] | None = None
    marks: tuple[Mark, ...] = ()
    undone: tuple[Undone, ...] = ()
    trials: tuple[TrialSpan, ...] = ()
    resumes: tuple[int, ...] = ()
    links: tuple[tuple[int, str], ...] = ()
    height: int = 200
    columns: int = 900
    note: str = ""


def draw_panel(panel: Panel, width: float | None = None) -> Markup:
    """Return the picture of a panel, without its title.

    Args:
        panel: The panel.
        width: Its width in pixels; None to fill what holds it.
    """
    drawing = _Drawing(panel, width)
    inner = tag(
        "svg",
        *drawing.curves(),
        class_="curves",
        viewBox=drawing.view_box,
        preserveAspectRatio="none",
        width="100%",
        height=str(panel.height),
    )
    nothing = join() if any(drawable(v) for line in panel.lines for _, v in line.points) else drawing.nothing()
    below = (*drawing.beyond(), *drawing.trials(), *drawing.undone(), *drawing.grid(), *drawing.lines())
    return join(*below, inner, *drawing.signs(), *drawing.badges(), nothing)


class _Drawing:
    """Where the values of a panel lie."""

    def __init__(self, panel: Panel, width: float | None) -> None:
        self._panel = panel
        self._marks = panel.marks[:_DRAWN_MARKS]
        self._trials = panel.trials[:_DRAWN_MARKS]
        # Stretched by the browser, a picture has a unit for every step; drawn for a width, one for every tenth of a pixel.
        self._across_units = max(1, round(panel.x.high - panel.x.low)) if width is None else round(10 * width)
        self._down_units = _HEIGHT_UNITS if width is None else 10 * panel.height

    @property
    def view_box(self) -> str:
        return f"0 0 {self._across_units} {self._down_units}"

    def _percent(self, step: float) -> str:
        return f"{100 * min(1.0, max(0.0, self._panel.x.fraction(step))):.4g}%"

    def _down(self, value: float) -> float:
        return round((1 - self._panel.y.fraction(value)) * self._panel.height, 1)

    def beyond(self) -> Iterator[Markup]:
        """Yield what lies outside the envelope, and its bounds."""
        if self._panel.bounds is None:
            return
        low, high = (self._down(value) for value in self._panel.bounds)
        yield tag("rect", class_="beyond", x="0", y="0", width="100%", height=max(0.0, high))
        yield tag("rect", class_="beyond", x="0", y=low, width="100%", height=max(0.0, self._panel.height - low))
        for at in (high, low):
            yield tag("line", class_="bound", x1="0", x2="100%", y1=at, y2=at)

    def trials(self) -> Iterator[Markup]:
        """Yield the steps of each trial as a shaded span with an edge below."""
        height = self._panel.height
        for trial in self._trials:
            left, wide = self._percent(trial.from_step), self._percent(self._panel.x.low + trial.to_step - trial.from_step)
            shade = tag("rect", class_="shade", x=left, y="0", width=wide, height=str(height))
            edge = tag("rect", class_="edge", x=left, y=str(height - 3), width=wide, height="3")
            words = f"Steps {trial.from_step:.0f} to {trial.to_step:.0f}: {trial.text}"
            inside, classes = (tag("title", words), shade, edge), f"trial {trial.kind}"
            if trial.link:
                yield tag("a", *inside, class_=classes, href=trial.link, aria_label=words)
            else:
                yield tag("g", *inside, class_=classes)

    def signs(self) -> Iterator[Markup]:
        """Yield how each linked trial ended as a sign at that end of its span that is farther from the curve, given room."""
        trials = [trial for trial in self._trials if trial.link]
        middles = [(trial.from_step + trial.to_step) / 2 for trial in trials]
        for trial, middle, (row, is_tight) in zip(trials, middles, self._rows(middles, _SIGN, 1), strict=True):
            if row is None:
                continue
            classes = f"trial {trial.kind}" + (" few" if is_tight else "")
            down = 12 if self._is_low(trial) else self._panel.height - 13
            at = {"x": self._percent(middle), "y": str(down), "width": "8", "height": "8"}
            yield tag("svg", trial_sign(trial.kind), class_=classes, overflow="visible", **at)

    def _is_low(self, trial: TrialSpan) -> bool:
        """Return whether the curve runs through the lower half of the plot during a trial."""
        heights: list[float] = []
        for line in self._panel.lines:
            known = [(step, self._panel.y.fraction(value)) for step, value in line.points if drawable(value)]
            heights += [height for step, height in known if trial.from_step < step < trial.to_step]
            heights += [height for step, height in known if step <= trial.from_step][-1:]
            heights += [height for step, height in known if step >= trial.to_step][:1]
        return sum(heights) < 0.5 * len(heights)

    def undone(self) -> Iterator[Markup]:
        """Yield an arrow from each rollback back to the state it went to."""
        ends: list[int] = []
        for span in sorted(self._panel.undone[:_DRAWN_MARKS], key=lambda span: span.from_step):
            row = next((row for row, end in enumerate(ends) if end <= span.from_step), len(ends))
            ends[row:] = [span.to_step, *ends[row + 1 :]]
            left, right = self._percent(span.from_step), self._percent(span.to_step)
            at = 6.0 + 9.0 * (row % _ARROW_ROWS)
            title = tag("title", f"undone by intervention {span.intervention}: steps {span.from_step} to {span.to_step}")
            shaft = tag("line", class_="undone", x1=left, x2=right, y1=at, y2=at)
            head = tag(
                "svg", tag("path", d="M7-4L0 0L7 4"), class_="undone", x=left, y=at, width="8", height="8", overflow="visible"
            )
            yield tag("g", title, shaft, head)

    def grid(self) -> Iterator[Markup]:
        panel = self._panel
        for value, label in self._heights():
            at = self._down(value)
            yield tag("line", class_="grid", x1="0", x2="100%", y1=at, y2=at)
            yield tag("text", label, class_="tick", x="-8", y=at + 4, text_anchor="end")
        ticks = panel.x.ticks(8)
        yield tag("line", class_="axis", x1="0", x2="100%", y1=str(panel.height), y2=str(panel.height))
        yield tag("text", "step", class_="tick", x="-8", y=str(panel.height + 18), text_anchor="end")
        for place, step in enumerate(ticks):
            at = self._percent(step)
            few = " few" if place % 2 else ""  # left out where there is little room
            yield tag("line", class_="axis" + few, x1=at, x2=at, y1=str(panel.height), y2=str(panel.height + 4))
            anchor = "start" if panel.x.fraction(step) < 0.03 else "end" if panel.x.fraction(step) > 0.97 else "middle"
            label = tick_label(step, ticks).replace(" ", ",")
            yield tag("text", label, class_="tick" + few, x=at, y=str(panel.height + 18), text_anchor=anchor)

    def _heights(self) -> list[tuple[float, str]]:
        """Return the values beside the axis; bounds are always among them, and what is too close to them is not."""
        panel, room = self._panel, 15 / self._panel.height
        ticks = panel.y.ticks(max(2, panel.height // 36))
        shown = [(value, f"{value:.4g}" if panel.y.is_log else tick_label(value, ticks).replace(" ", ",")) for value in ticks]
        if panel.bounds is None:
            return shown
        ends = [panel.y.fraction(value) for value in panel.bounds]
        apart = [one for one in shown if all(abs(panel.y.fraction(one[0]) - end) > room for end in ends)]
        low, high = panel.bounds
        return [*apart, (low, number(low)), *([(high, number(high))] if ends[1] - ends[0] > room else [])]

    def lines(self) -> Iterator[Markup]:
        """Yield a line where somebody intervened or went on."""
        panel = self._panel
        for step in panel.resumes:
            at = self._percent(step)
            yield tag(
                "line", tag("title", f"resumed from step {step}"), class_="resume", x1=at, x2=at, y1="0", y2=str(panel.height)
            )
        for mark in self._marks:
            at = self._percent(mark.step)
            title = tag("title", f"{mark.number}: step {mark.step:.0f}: {mark.text}")
            dense = " dense" if len(self._marks) > _DENSE else ""
            end = str(panel.height) if not dense or mark.kind != "adjust" else "8"
            back = " back" if mark.is_taken_back else ""
            yield tag("line", title, class_=f"mark {mark.kind}{back}{dense}", x1=at, x2=at, y1="-4", y2=end)

    def curves(self) -> Iterator[Markup]:
        for line in self._panel.lines:
            dashes = line.place // COLOURS % _DASHES
            classes = f"curve c{line.place % COLOURS}" + (f" d{dashes}" if dashes else "")
            yield tag("path", class_=classes, d=self._path(line), data_held=line.is_held)

    def _path(self, line: Line) -> str:
        points = ordered(line.points)
        if line.is_held:
            points = _held(points, self._panel.x.high)
        parts: list[str] = []
        last = (0, 0)
        for piece in pieces(points, self._panel.x, self._panel.columns):
            placed = [self._unit(step, value) for step, value in piece]
            moves = [(one[0] - two[0], one[1] - two[1]) for two, one in pairwise([last, *placed])]
            parts.append("m" + _numbers(moves[:1]) + "l" + (_numbers(moves[1:]) or "0 0"))
            last = placed[-1]
        # A first "m" counts from the origin, so all are relative.
        return "".join(parts)

    def _unit(self, step: float, value: float) -> tuple[int, int]:
        across = self._panel.x.fraction(step) * self._across_units
        return round(across), round((1 - self._panel.y.fraction(value)) * self._down_units)

    def badges(self) -> Iterator[Markup]:
        """Yield the numbers of the interventions above the plot, as links to their decisions."""
        links = dict(self._panel.links)
        numbered = [mark for mark in self._marks if mark.number in links]
        rows = self._rows([mark.step for mark in numbered], _BADGE, badge_rows(self._panel))
        for mark, (row, is_tight) in zip(numbered, rows, strict=True):
            if row is None:
                continue
            at, down = self._percent(mark.step), -14.0 - _BADGE * row
            words = f"Intervention {mark.number}, step {mark.step:.0f}: {mark.text}"
            shape = badge_shape(mark, at, down)
            label = tag("text", str(mark.number), x=at, y=down + 3.8, text_anchor="middle")
            long = " long" if (mark.number or 0) > 99 else ""
            back = " back" if mark.is_taken_back else ""
            classes = f"badge {mark.kind}{back}{long}" + (" few" if is_tight else "")
            yield tag("a", tag("title", words), shape, label, class_=classes, href=links[mark.number or 0], aria_label=words)

    def _rows(self, steps: Sequence[float], size: float, num_rows: int) -> Iterator[tuple[int | None, bool]]:
        """Yield the row in which something at each step has room on a wide plot, and whether it has none on a narrow one.

        Args:
            steps: Where they stand, rising.
            size: Pixels that one takes.
            num_rows: Rows there are.
        """
        wide, narrow = [-1e9] * num_rows, [-1e9] * num_rows
        for step in steps:
            part = self._panel.x.fraction(step)
            row = next((row for row in range(num_rows) if part * _WIDE - wide[row] >= size), None)
            is_tight = row is None or part * _NARROW - narrow[row] < size
            if row is not None:
                wide[row] = part * _WIDE
                narrow[row] = narrow[row] if is_tight else part * _NARROW
            yield row, is_tight

    def nothing(self) -> Markup:
        middle = str(self._panel.height // 2 + 4)
        return tag("text", "no finite value yet", class_="tick", x="50%", y=middle, text_anchor="middle")


def badge_rows(panel: Panel) -> int:
    """Return how many rows of numbers stand above a panel."""
    if not (panel.marks and panel.links):
        return 0
    return _ROWS if 6 < len(panel.marks) <= _DENSE else 1


def _held(points: Points, until: float) -> Points:
    """Return the corners of a course in steps, up to the end of the axis."""
    if not points:
        return points
    corners = chain.from_iterable(((two[0], one[1]), two) for one, two in pairwise(points))
    return [points[0], *corners, (max(until, points[-1][0]), points[-1][1])]


def _numbers(pairs: Sequence[tuple[int, int]]) -> str:
    """Return numbers in the shortest form of a path: a sign parts them as well as a space does."""
    return " ".join(str(number) for pair in pairs for number in pair).replace(" -", "-")
