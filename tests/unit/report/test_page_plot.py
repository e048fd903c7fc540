from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.report.page_samples import points_of
from trimtab.report.page.plot import Line, Panel, draw_panel
from trimtab.report.page.subject import Undone
from trimtab.report.scale import Axis, Mark, MarkKind, placed_marks, step_axis, value_axis


def a_panel(*lines: Line, **given: object) -> Panel:
    points = [point for line in lines for point in line.points]
    x, y = step_axis([step for step, _ in points]), value_axis([value for _, value in points])
    return Panel(**({"title": "val/loss", "lines": lines, "x": x, "y": y} | given))  # type: ignore[arg-type] - the values are of many types


def parsed(panel: Panel, width: float | None = None) -> ET.Element:
    return ET.fromstring(f"<svg>{draw_panel(panel, width)}</svg>")  # noqa: S314 - our own picture


def classes(root: ET.Element, wanted: str) -> list[ET.Element]:
    return [element for element in root.iter() if wanted in (element.get("class") or "").split()]


def read_back(panel: Panel) -> list[list[tuple[float, float]]]:
    """Return the points of the first curve in steps and values, worked out from the picture alone."""
    root = parsed(panel)
    _, _, width, height = (int(number) for number in classes(root, "curves")[0].get("viewBox", "").split())
    x, y = panel.x, panel.y

    def value(down: int) -> float:
        part = 1 - down / height
        if y.is_log:
            return math.exp(math.log(y.low) + part * (math.log(y.high) - math.log(y.low)))
        return y.low + part * (y.high - y.low)

    pieces = points_of(classes(root, "curve")[0].get("d", ""))
    return [[(x.low + across / width * (x.high - x.low), value(down)) for across, down in piece] for piece in pieces]


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(-1e6, 1e6)), min_size=2, max_size=60, unique_by=lambda p: p[0]))
def test_the_picture_holds_every_step_exactly_and_every_value_to_a_millionth_of_the_axis(
    points: list[tuple[int, float]],
) -> None:
    panel = a_panel(Line("c", points))
    drawn = [point for piece in read_back(panel) for point in piece]
    assert [round(step) for step, _ in drawn] == [step for step, _ in sorted(points)]
    for (_, read), (_, wanted) in zip(drawn, sorted(points), strict=True):
        assert abs(panel.y.fraction(read) - panel.y.fraction(wanted)) <= 1e-6


@given(
    st.lists(st.tuples(st.floats(), st.floats()), max_size=40),
    st.lists(st.tuples(st.floats(), st.text(max_size=9), st.sampled_from(["adjust", "rollback", "reflex"])), max_size=5),
    st.one_of(st.none(), st.floats(10, 3000)),
)
def test_any_curve_gives_a_well_formed_picture(
    points: list[tuple[float, float]], marks: list[tuple[float, str, MarkKind]], width: float | None
) -> None:
    placed = tuple(placed_marks(Mark(*mark) for mark in marks))
    x = step_axis([*(step for step, _ in points), *(mark.step for mark in placed)])
    root = parsed(a_panel(Line("c", points), x=x, marks=placed, links=((1, "#d1"),)), width)
    for element in root.iter():
        for value in element.attrib.values():
            assert not re.search(r"\b(nan|inf)\b", value)


def test_a_curve_breaks_at_gaps_and_a_lone_point_stays_a_dot() -> None:
    panel = a_panel(Line("c", [(0, 1), (1, 2), (2, math.nan), (3, 3), (4, math.inf), (5, 1), (6, 2)]))
    pieces = read_back(panel)
    assert [[round(step) for step, _ in piece] for piece in pieces] == [[0, 1], [3, 3], [5, 6]]


def test_one_spike_among_a_million_steps_is_drawn() -> None:
    points = [(step, 9.0 if step == 123_456 else math.sin(step / 9000)) for step in range(0, 1_000_000, 4)]
    (piece,) = read_back(a_panel(Line("c", points)))
    assert len(piece) <= 4 * 900 + 4
    assert max(value for _, value in piece) == pytest.approx(9.0)
    assert [round(step) for step, value in piece if value > 2] == [123_456]


def test_a_held_value_is_drawn_in_steps_up_to_the_end() -> None:
    panel = a_panel(Line("c", [(0, 1.0), (10, 2.0)], is_held=True), x=Axis(0, 30))
    (piece,) = read_back(panel)
    assert [(round(step), round(value, 4)) for step, value in piece] == [(0, 1.0), (10, 1.0), (10, 2.0), (30, 2.0)]


def test_the_envelope_is_drawn_with_its_bounds_and_what_lies_beyond() -> None:
    panel = a_panel(Line("c", [(0, 0.1)], is_held=True), x=Axis(0, 10), y=Axis(-0.05, 0.55), bounds=(0.0, 0.5), height=120)
    root = parsed(panel)
    assert [line.get("y1") for line in classes(root, "bound")] == ["10", "110"]
    assert [(r.get("y"), r.get("height")) for r in classes(root, "beyond")] == [("0", "10"), ("110", "10")]
    assert {"0", "0.5"} <= {text.text for text in classes(root, "tick")}


def test_a_rollback_is_an_arrow_back_to_the_state_it_went_to() -> None:
    panel = a_panel(Line("c", [(0, 1), (100, 2)]), undone=(Undone(20, 60, 7), Undone(40, 90, 8)))
    shafts = [line for line in classes(parsed(panel), "undone") if line.tag == "line"]
    assert [(line.get("x1"), line.get("x2")) for line in shafts] == [("20%", "60%"), ("40%", "90%")]
    assert shafts[0].get("y1") != shafts[1].get("y1"), "arrows that overlap lie apart"
    assert "undone by intervention 7: steps 20 to 60" in "".join(parsed(panel).itertext())


def test_an_intervention_links_to_its_decision_and_says_what_it_was() -> None:
    mark = Mark(5, "dropout=0.1", "adjust", 3)
    (link,) = classes(parsed(a_panel(Line("c", [(0, 1), (10, 2)]), marks=(mark,), links=((3, "#d4"),))), "badge")
    assert (link.get("href"), link.get("aria-label")) == ("#d4", "Intervention 3, step 5: dropout=0.1")


def test_numbers_without_room_are_left_out_and_the_lines_stay() -> None:
    marks = tuple(Mark(step, "x", "adjust", step + 1) for step in range(300))
    panel = a_panel(Line("c", [(0, 1), (300, 2)]), marks=marks, links=tuple((n, "#d") for n in range(1, 301)))
    root = parsed(panel)
    assert len(classes(root, "mark")) == 300
    assert 20 < len(classes(root, "badge")) < 60
    assert {line.get("y2") for line in classes(root, "mark")} == {"8"}, "so many lines would hide the curve"


def test_nothing_to_draw_is_said() -> None:
    assert "no finite value yet" in "".join(parsed(a_panel(Line("c", [(0, math.nan)]))).itertext())
