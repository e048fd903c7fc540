from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from trimtab.report.curves import draw_curves
from trimtab.report.scale import Curve, Level, Mark, MarkKind

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>alert(1)</script>&\"'\x1b[31m\x00\ud800\ufffe\u202e"

KINDS: tuple[MarkKind, ...] = ("adjust", "rollback", "reflex", "guard")


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg.encode("utf-8"))  # noqa: S314 - our own picture


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter(f"{SVG}text")]


def paths(svg: str, colour: str) -> list[str]:
    return [path.get("d", "") for path in parsed(svg).iter(f"{SVG}path") if path.get("stroke") == colour]


@given(
    st.lists(st.tuples(st.text(max_size=20), st.lists(st.tuples(st.floats(), st.floats()), max_size=30)), max_size=3),
    st.lists(st.tuples(st.floats(), st.text(max_size=20), st.sampled_from(KINDS)), max_size=5),
    st.text(max_size=20),
    st.floats(),
)
def test_any_input_gives_a_well_formed_picture_within_its_page(
    curves: list[tuple[str, list[tuple[float, float]]]],
    marks: list[tuple[float, str, MarkKind]],
    title: str,
    level: float,
) -> None:
    svg = draw_curves(
        title, [Curve(*curve) for curve in curves], [Mark(*mark) for mark in marks], title, title, [Level(title, level)]
    )
    root = parsed(svg)
    height = float(root.get("height", "0"))
    for path in root.iter(f"{SVG}path"):
        numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", path.get("d", ""))]
        assert all(math.isfinite(number) and -1 <= number <= max(901.0, height) for number in numbers)
    assert not re.search(r"\b(nan|inf)\b", " ".join(path.get("d", "") for path in root.iter(f"{SVG}path")))


def test_hostile_names_stay_text() -> None:
    svg = draw_curves(HOSTILE, [Curve(HOSTILE, [(0, 1.0), (1, 2.0)])], [Mark(1, HOSTILE, "reflex")], HOSTILE, HOSTILE)
    assert {element.tag.removeprefix(SVG) for element in parsed(svg).iter()} == {
        "svg", "title", "rect", "text", "path", "circle",
    }  # fmt: skip
    assert any("<script>" in text for text in texts(svg))
    assert not re.search("[\x00-\x09\x0b-\x1f\ud800-\udfff\ufffe\u202e]", svg)


def test_a_curve_breaks_at_gaps_and_a_lone_point_is_a_dot() -> None:
    svg = draw_curves("t", [Curve("c", [(0, 1), (1, 2), (2, math.nan), (3, 3), (4, math.inf), (5, 1), (6, 2)])], [], "x", "y")
    line = next(path for path in paths(svg, "#d55e00") if "L" in path)
    assert (line.count("M"), line.count("L")) == (2, 2)
    assert len([circle for circle in parsed(svg).iter(f"{SVG}circle") if circle.get("r") == "2.6"]) == 1


def test_many_points_make_a_small_picture_that_keeps_the_spike() -> None:
    points = [(step, 9.0 if step == 123_456 else math.sin(step / 9000)) for step in range(200_000)]
    svg = draw_curves("t", [Curve("c", points)], [], "x", "y")
    line = max(paths(svg, "#d55e00"), key=len)
    downs = [float(spot.split()[1]) for spot in re.split("[ML]", line) if spot]
    assert len(svg) < 100_000
    # The spike is the only point near the top; the waves fill the lowest quarter.
    assert sorted(downs)[1] - sorted(downs)[0] > 200


def test_interventions_are_numbered_listed_and_told_apart() -> None:
    marks = [Mark(10, "dropout=0.1", "adjust"), Mark(20, "rollback to step-1", "rollback"), Mark(30, "cut", "reflex", 7)]
    svg = draw_curves("t", [Curve("c", [(0, 1), (40, 2)])], marks, "step", "loss")
    shown = texts(svg)
    assert [text for text in shown if text.startswith("step ")] == [
        "step 10: dropout=0.1", "step 20: rollback to step-1", "step 30: cut",
    ]  # fmt: skip
    assert [shown.count(number) for number in ("1", "2", "7")] == [2, 2, 2]
    assert {"adjusted", "rolled back", "reflex"} <= set(shown)
    assert len({path.get("stroke") for path in parsed(svg).iter(f"{SVG}path") if path.find(f"{SVG}title") is not None}) == 3


def test_more_marks_than_there_is_room_for_are_counted() -> None:
    marks = [Mark(step, "x", "adjust") for step in range(300)]
    svg = draw_curves("t", [Curve("c", [(0, 1), (300, 2)])], marks, "step", "loss")
    assert "and 284 more" in texts(svg)
    assert len(svg) < 200_000


def test_a_level_is_in_the_legend() -> None:
    levels = [Level("early stopping 1.5", 1.5), Level("no", math.nan)]
    svg = draw_curves("t", [Curve("c", [(0, 1), (1, 2)])], [], "x", "y", levels)
    assert "early stopping 1.5" in texts(svg)
    assert "no" not in texts(svg)


def test_nothing_to_draw_is_said() -> None:
    for curves in ([], [Curve("c", [])], [Curve("c", [(0, math.nan)])]):
        assert "no finite value yet" in texts(draw_curves("t", curves, [], "x", "y"))


def test_values_far_apart_are_drawn_on_a_log_scale_that_says_so() -> None:
    assert "y (log scale)" in texts(draw_curves("t", [Curve("c", [(0, 0.01), (1, 1e5)])], [], "x", "y"))
