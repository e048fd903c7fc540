"""The report's curves and recipe as one static picture: an SVG, and from it a PNG.

The panels are drawn by the same code as the page's. resvg, in one wheel without dependencies, turns them into pixels; the
letters are Lato's, from a wheel too, so that a machine without fonts gives the same picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.util import find_spec
from typing import Final

from trimtab.errors import MissingExtraError
from trimtab.report.page.charts import charts_of, compared, labels_of
from trimtab.report.page.markup import Markup, join, tag, text
from trimtab.report.page.overview import standing_words
from trimtab.report.page.plot import COLOURS, Panel, badge_rows, draw_panel
from trimtab.report.page.subject import Subject
from trimtab.report.words import clean, number

_WIDTH: Final = 1200
_LEFT: Final = 84.0
_RIGHT: Final = 1168.0
_HEAD: Final = 108.0
_TITLE: Final = 30.0  # from a panel's title to its plot
_BADGES: Final = 24.0  # one row of numbers above the plot
_BELOW: Final = 58.0
_LEGEND: Final = 24.0
_SCALE: Final = 2  # pixels of the PNG for one of the SVG
_FONTS: Final = ("Lato-Regular.ttf", "Lato-Bold.ttf")
# Curves stand in tenths of a pixel; where non-scaling strokes are known this would be the page's own rule.
_STROKES: Final = (
    ".curve { stroke-width: 18; } .d1 { stroke-dasharray: 70 40; } .d2 { stroke-dasharray: 20 40; } "
    ".d3 { stroke-dasharray: 90 40 20 40; } .head { font-size: 24px; font-weight: 700; } "
    ".title { font-size: 15px; font-weight: 700; } .quiet { fill: var(--quiet); font-size: 13px; } "
)


def draw_picture(subjects: Sequence[Subject], chosen: Sequence[str] = ()) -> str:
    """Return an SVG of a run's curves and recipe, or of several runs laid over each other.

    Args:
        subjects: The runs, at least one.
        chosen: Signals to show; by default loss and gradient norm.
    """
    panels = _panels(subjects, chosen)
    down = _HEAD + (_LEGEND * len(subjects) if len(subjects) > 1 else 0.0)
    parts: list[Markup] = [*_head(subjects)]
    for panel in panels:
        parts.append(_placed(panel, down))
        down += _above(panel) + panel.height + _BELOW
    sheet = tag("rect", width="100%", height="100%", fill=_palette()["paper"])
    style = Markup(f"<style>{_style()}</style>")
    drawn = tag("svg", style, sheet, *parts, xmlns="http://www.w3.org/2000/svg", width=str(_WIDTH), height=str(round(down)),
                font_family="Lato, sans-serif", fill=_palette()["ink"])  # fmt: skip
    return str(drawn)


def require_png() -> None:
    """Check that pictures can be made.

    Raises:
        MissingExtraError: Install the extra ``png``.
    """
    missing = [package for package in ("font_lato", "resvg_py") if find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            f"a PNG needs {' and '.join(missing)}, not installed", next_step="pip install 'trimtab[png]', or leave --png out"
        )


def as_png(svg: str) -> bytes:
    """Return an SVG as a PNG, with two pixels for one of the SVG's.

    Raises:
        MissingExtraError: Install the extra ``png``.
    """
    require_png()
    import resvg_py

    folder = files("font_lato").joinpath("files")
    fonts = [str(folder.joinpath(file)) for file in _FONTS]
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, font_files=fonts, font_family="Lato", zoom=_SCALE))


def _panels(subjects: Sequence[Subject], chosen: Sequence[str]) -> tuple[Panel, ...]:
    if len(subjects) > 1:
        objectives, controls = compared(subjects)
        return (*objectives, *controls)
    charts = charts_of(subjects[0], "-", chosen)
    return (charts.objective, *charts.main, *charts.controls)


def _head(subjects: Sequence[Subject]) -> Iterator[Markup]:
    first = subjects[0].timeline.summary
    title = clean(first.run, 70) if len(subjects) == 1 else f"{len(subjects)} runs compared"
    yield tag("text", title, class_="head", x="28", y="46")
    if len(subjects) == 1:
        best = f"best {number(first.best.value)} at step {first.best.step:,} · " if first.best else ""
        told = f"{clean(first.manager, 40)} · {best}{clean(standing_words(subjects[0]), 110)}"
        yield tag("text", told, class_="quiet", x="28", y="70")
        return
    for place, (subject, label) in enumerate(zip(subjects, labels_of(subjects), strict=True)):
        down = 62 + _LEGEND * (place + 1)
        dashes = f" d{place // COLOURS % 4}" if place >= COLOURS else ""
        key = tag("path", class_=f"curve c{place % COLOURS}{dashes}", d="M0 0H300")
        yield tag("g", key, transform=f"translate(28 {down - 5:g}) scale(.1)")
        summary = subject.timeline.summary
        best = f" · best {number(summary.best.value)}" if summary.best else ""
        yield tag("text", f"{clean(label, 60)} · {clean(summary.manager, 40)}{best}", class_="quiet", x="70", y=down)


def _above(panel: Panel) -> float:
    return _TITLE + _BADGES * badge_rows(panel)


def _placed(panel: Panel, down: float) -> Markup:
    title = tag("text", text(panel.title, 80), class_="title", x="28", y=down + 4)
    notes = " · ".join(filter(None, (panel.note, "log scale" if panel.y.is_log else "")))
    note = tag("text", notes, class_="quiet", x=_RIGHT, y=down + 4, text_anchor="end")
    drawn = draw_panel(panel, _RIGHT - _LEFT)
    place = {"x": _LEFT, "y": down + _above(panel) - 10, "width": _RIGHT - _LEFT, "height": float(panel.height)}
    return join(title, note, tag("svg", drawn, overflow="visible", **place))


def _palette() -> dict[str, str]:
    """Return the light colours of the page by name."""
    block = re.search(r":root \{(.*?)\}", _read("palette.css"), re.DOTALL)
    assert block is not None
    return dict(re.findall(r"--([\w-]+): (#\w+);", block[1]))


def _style() -> str:
    colours = _palette()
    return re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], _read("chart.css") + _STROKES)


def _read(file: str) -> str:
    return files("trimtab.report.page").joinpath(file).read_text(encoding="utf-8")
