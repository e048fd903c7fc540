from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from trimtab.report.scale import Curve, Mark, TrialSpan
from trimtab.report.terminal_chart import Span, chart_key, chart_rows

FALLING = Curve("managed", [(step, 3.0 - step / 100) for step in range(0, 101, 5)])
RISING = Curve("unmanaged", [(step, 2.0 + step / 100) for step in range(0, 101, 5)])


def shown(rows: list[list[Span]]) -> list[str]:
    return ["".join(span.text for span in row) for row in rows]


@given(
    st.lists(st.tuples(st.text(max_size=30), st.lists(st.tuples(st.floats(), st.floats()), max_size=20)), max_size=4),
    st.lists(st.floats(), max_size=20),
    st.integers(40, 120),
    st.integers(4, 20),
)
def test_any_input_keeps_to_the_width_and_is_printable(
    curves: list[tuple[str, list[tuple[float, float]]]], marks: list[float], width: int, height: int
) -> None:
    rows = shown(chart_rows([Curve(*curve) for curve in curves], [Mark(step, "", "adjust") for step in marks], width, height))
    assert height + 2 <= len(rows) <= height + 3
    assert all(len(row) <= width + 14 and row.isprintable() for row in rows)
    assert all(len(row) <= width for row in rows[: height + 1])


def test_each_curve_is_labelled_where_it_ends() -> None:
    rows = shown(chart_rows([RISING, FALLING], [], 78, 10))
    ends = {row.split()[-1]: place for place, row in enumerate(rows[:10]) if row.split()[-1] in ("managed", "unmanaged")}
    assert ends["unmanaged"] < 2
    assert ends["managed"] > 7


def test_labels_that_would_meet_get_rows_of_their_own() -> None:
    rows = shown(chart_rows([RISING, Curve("other", RISING.points)], [], 78, 10))
    assert [row.split()[-1] for row in rows[:2]] in (["unmanaged", "other"], ["other", "unmanaged"])


def test_the_roles_tell_curves_and_marks_apart() -> None:
    rows = chart_rows([RISING, FALLING], [Mark(30, "", "rollback"), Mark(60, "", "reflex")], 78, 10)
    assert {span.role for row in rows for span in row} == {"axis", "curve 0", "curve 1", "rollback", "reflex"}
    assert shown(rows)[-1].split() == ["1", "2"]


def test_numbers_of_neighbouring_marks_do_not_run_together() -> None:
    rows = shown(chart_rows([RISING], [Mark(50, "", "adjust", 12), Mark(51, "", "adjust", 13)], 60, 6))
    assert rows[-1].split() == ["12", "13"]


def test_a_gap_is_left_blank() -> None:
    gapped = Curve("c", [(step, math.nan if 40 <= step <= 60 else 1.0) for step in range(101)])
    line = next(row for row in shown(chart_rows([gapped], [], 60, 5)) if any("\u2800" < c <= "\u28ff" for c in row))
    assert any(c == " " for c in line[line.index(next(c for c in line if c > "\u2800")) : -3])


def test_the_guard_what_it_took_back_and_trials_show_without_colour() -> None:
    marks = [Mark(30, "", "adjust", is_taken_back=True), Mark(60, "", "guard"), Mark(80, "", "rollback")]
    trials = [TrialSpan(10, 29, "won", "")]
    rows = shown(chart_rows([FALLING], marks, 78, 10, trials))
    lines = {mark: {row[rows[-1].index(mark)] for row in rows[:10]} for mark in "123"}
    assert ("┊" in lines["1"], "║" in lines["2"], "│" in lines["3"]) == (True, True, True)
    assert rows[-1].split() == ["1✗", "2", "3"]
    axis = rows[10]
    first, last = rows[-1].index("1"), rows[-1].index("2")
    assert "━" in axis[:first]
    assert "━" not in axis[first + 1 : last]


def test_the_key_tells_what_is_on_the_chart_and_no_more() -> None:
    marks = [Mark(30, "", "adjust", is_taken_back=True), Mark(60, "", "guard")]
    key = "".join(span.text for span in chart_key(marks, [TrialSpan(10, 29, "won", "")]))
    assert key.split("   ")[1:] == ["┊ adjusted", "║ guard", "✗ taken back", "━━ trial"]
    assert chart_key([], []) == []
