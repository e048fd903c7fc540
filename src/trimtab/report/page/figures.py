"""A panel as a figure of the page: its title, a key with the newest values, and the plot.

The page's script writes the values under the pointer into the key; without it they stay the newest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from trimtab.report.page.markup import Markup, join, name, tag
from trimtab.report.page.plot import COLOURS, Line, Panel, badge_rows, draw_panel
from trimtab.report.page.signs import badge_shape, trial_sign
from trimtab.report.scale import MARK_WORDS, Mark, TrialKind, drawable
from trimtab.report.words import clean, counted, number

_TRIALS: Final[dict[TrialKind, str]] = {
    "won": "trial won",
    "lost": "trial lost",
    "abandoned": "trial abandoned",
    "open": "trial under way",
}


def figure(panel: Panel, *, size: str = "") -> Markup:
    """Return a panel as a figure; ``size`` is a class of the page's style."""
    title = clean(panel.title, 120)
    notes = [panel.note, "log scale" if panel.y.is_log else ""]
    note = tag("span", " · ".join(filter(None, notes)), class_="note")
    read = tag("span", class_="at", aria_live="polite")
    caption = tag("figcaption", tag("h4", name(title)), tag("span", *_key(panel), class_="key"), note, read)
    plot = tag(
        "svg",
        draw_panel(panel),
        class_=f"plot rows{badge_rows(panel)}",
        height=str(panel.height),
        role="group",
        aria_label=_summary(panel),
        data_x=_span(panel.x.low, panel.x.high),
        data_y=_span(panel.y.low, panel.y.high),
        data_log=panel.y.is_log,
    )
    return tag("figure", caption, plot, class_=f"chart {size}".strip(), tabindex="0")


def legend(panels: Sequence[Panel]) -> Markup:
    """Return what the lines across the panels stand for."""
    kinds = {mark.kind for panel in panels for mark in panel.marks}
    # The guard is known by the square of its number more than by its line.
    entries = [
        _badge(Mark(0, "", kind), words) if kind == "guard" else _sample(f"mark {kind}", words)
        for kind, words in MARK_WORDS.items()
        if kind in kinds
    ]
    if any(mark.is_taken_back for panel in panels for mark in panel.marks):
        entries.append(_badge(Mark(0, "", "adjust", is_taken_back=True), "taken back"))
    if any(panel.undone for panel in panels):
        entries.append(_sample("undone", "undone by a rollback", is_flat=True))
    ends = {trial.kind for panel in panels for trial in panel.trials}
    for kind, words in _TRIALS.items():
        if kind in ends:
            shade = tag("rect", class_="shade", width="16", height="14")
            sign = tag("g", trial_sign(kind), transform="translate(8 7)")
            entries.append(_drawn(tag("g", shade, sign, class_=f"trial {kind}"), words))
    if any(panel.resumes for panel in panels):
        entries.append(_sample("resume", "resumed by another process"))
    if any(panel.bounds for panel in panels):
        entries.append(tag("li", tag("i", class_="swatch beyond"), "outside the envelope"))
    return tag("ul", *entries, class_="legend") if entries else join()


def _sample(class_: str, words: str, *, is_flat: bool = False) -> Markup:
    ends = {"x1": "1", "x2": "15", "y1": "7", "y2": "7"} if is_flat else {"x1": "8", "x2": "8", "y1": "0", "y2": "14"}
    line = tag("line", class_=class_, **ends)
    return _drawn(line, words)


def _badge(mark: Mark, words: str) -> Markup:
    classes = f"badge {mark.kind}" + (" back" if mark.is_taken_back else "")
    return _drawn(tag("g", badge_shape(mark, "0", 0.0), class_=classes, transform="translate(8 7) scale(.7)"), words)


def _drawn(shapes: Markup, words: str) -> Markup:
    picture = tag("svg", shapes, class_="sample", width="16", height="14", overflow="visible", aria_hidden="true")
    return tag("li", picture, words)


def _key(panel: Panel) -> Iterator[Markup]:
    for line in panel.lines:
        label = join() if len(panel.lines) == 1 else tag("span", name(line.label, 60), class_="of")
        swatch = tag("i", class_=f"swatch c{line.place % COLOURS}")
        yield tag("span", swatch, label, tag("b", number(_newest(line))), class_="value")


def _newest(line: Line) -> float | None:
    return line.points[-1][1] if line.points else None


def _summary(panel: Panel) -> str:
    """Say in words what the plot shows."""
    values = [value for line in panel.lines for _, value in line.points if drawable(value)]
    shown = f"from {number(min(values))} to {number(max(values))}" if values else "no finite value yet"
    marks = f", {counted(len(panel.marks), 'intervention')}" if panel.marks else ""
    trials = f", {counted(len(panel.trials), 'trial')}" if panel.trials else ""
    return f"{clean(panel.title, 120)}: {shown}{marks}{trials}"


def _span(low: float, high: float) -> str:
    return f"{low!r} {high!r}"
