from __future__ import annotations

import math
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.report.page_samples import points_of
from trimtab.report.page.plot import Line, Panel, draw_panel
from trimtab.report.page.subject import Undone
from trimtab.report.scale import Axis, Mark, MarkKind, TrialSpan, placed_marks, step_axis, value_axis

KINDS: tuple[MarkKind, ...] = ("adjust", "rollback", "reflex", "guard")


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
    st.lists(st.tuples(st.floats(), st.text(max_size=9), st.sampled_from(KINDS)), max_size=5),
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


def test_a_trial_is_a_shaded_span_that_says_what_was_compared_and_leads_to_its_decision() -> None:
    trials = (TrialSpan(20, 45, "won", "trial 1: better", "#d1"), TrialSpan(60, 80, "lost", "trial 2: worse", "#d2"))
    root = parsed(a_panel(Line("c", [(0, 1), (100, 2)]), trials=trials))
    assert [(one.get("x"), one.get("width"), one.get("height")) for one in classes(root, "shade")] == [
        ("20%", "25%", "200"),
        ("60%", "20%", "200"),
    ]
    spans = [one for one in classes(root, "trial") if one.tag == "a"]
    assert [(one.get("class"), one.get("href")) for one in spans] == [("trial won", "#d1"), ("trial lost", "#d2")]
    assert spans[0].get("aria-label") == "Steps 20 to 45: trial 1: better"
    assert [one.get("x") for one in classes(root, "trial") if one.tag == "svg"] == ["32.5%", "70%"]


def test_how_a_trial_ended_shows_without_colour() -> None:
    trials = tuple(
        TrialSpan(20 * n, 20 * n + 9, kind, "", "#d1") for n, kind in enumerate(("won", "lost", "abandoned", "open"))
    )
    root = parsed(a_panel(Line("c", [(0, 1), (100, 2)]), trials=trials))
    assert len({one.get("d") for one in classes(root, "sign")}) == 4


def test_signs_of_trials_without_room_are_left_out_and_the_spans_stay() -> None:
    trials = tuple(TrialSpan(step, step + 1, "lost", "", "#d1") for step in range(0, 300, 2))
    root = parsed(a_panel(Line("c", [(0, 1), (300, 2)]), trials=trials))
    assert len(classes(root, "shade")) == 150
    assert 20 < len(classes(root, "sign")) < 60
    unlinked = tuple(replace(trial, link="") for trial in trials)
    assert not classes(parsed(a_panel(Line("c", [(0, 1), (300, 2)]), trials=unlinked)), "sign"), "the objective alone has them"


def test_the_guards_number_stands_on_a_square_and_what_was_taken_back_is_struck_through() -> None:
    marks = (Mark(2, "x", "adjust", 1, is_taken_back=True), Mark(5, "y", "guard", 2), Mark(8, "z", "reflex", 3))
    panel = a_panel(Line("c", [(0, 1), (10, 2)]), marks=marks, links=tuple((n, f"#d{n}") for n in (1, 2, 3)))
    back, guard, reflex = classes(parsed(panel), "badge")
    assert ([one.tag for one in guard.iter()].count("rect"), [one.tag for one in reflex.iter()].count("circle")) == (1, 1)
    assert [len(classes(one, "strike")) for one in (back, guard, reflex)] == [1, 0, 0]
    assert back.get("class") == "badge adjust back"


@pytest.mark.parametrize(("values", "at"), [((9.0, 1.0, 1.2), "12"), ((1.0, 9.0, 8.0), "187")])
def test_the_sign_of_a_trial_keeps_away_from_the_curve(values: tuple[float, float, float], at: str) -> None:
    line = Line("c", list(zip((0, 50, 100), values, strict=True)))
    panel = a_panel(line, trials=(TrialSpan(60, 90, "won", "", "#d1"),))
    assert [one.get("y") for one in classes(parsed(panel), "trial") if one.tag == "svg"] == [at]
