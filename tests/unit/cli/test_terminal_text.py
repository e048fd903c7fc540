from __future__ import annotations

import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from trimtab.cli.terminal import clean, counted, make_console, number, print_error, print_json
from trimtab.errors import UsageError


@given(st.text(st.characters()))
def test_clean_text_is_printable_and_on_one_line(text: str) -> None:
    shown = clean(text)
    assert shown.isprintable()
    assert shown == clean(shown)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("two\nlines\tand\u2028more", "two lines and more"),
        ("[red]markup[/red]", "[red]markup[/red]"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\ud800\x00\x9b", "\\ud800\\x00\\x9b"),
        ("größer 模型", "größer 模型"),
    ],
)
def test_what_acts_on_a_terminal_becomes_visible(hostile: str, shown: str) -> None:
    assert clean(hostile) == shown


def test_long_text_is_cut() -> None:
    assert clean("x" * 5000, 10) == "x" * 9 + "…"


def test_a_console_prints_markup_as_it_is() -> None:
    file = io.StringIO()
    make_console(file).print("[red]:smile:[/red] 1234")
    assert file.getvalue() == "[red]:smile:[/red] 1234\n"


@pytest.mark.parametrize(("columns", "width"), [("20", 60), ("80", 80), ("100", 100), ("400", 120)])
def test_a_console_is_neither_too_narrow_nor_too_wide(monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    console = make_console(io.StringIO())
    assert console.width == width
    console.print(Text("fits"))


def test_numbers_are_short_and_say_what_they_are() -> None:
    values = [None, 0.0015, 1.23456789, 0.0, math.nan, math.inf, -math.inf]
    assert [number(value) for value in values] == ["-", "0.0015", "1.2346", "0", "NaN", "inf", "-inf"]
    assert (counted(1, "step"), counted(2, "step"), counted(0, "step")) == ("1 step", "2 steps", "0 steps")


def test_an_error_goes_to_standard_error_with_its_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(UsageError("it is\x1b[2J wrong", received=["\x1b"], allowed="right", next_step="do\nthat"))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "error: it is\\x1b[2J wrong; received ['\\x1b']; allowed: right\nnext:  do that\n"


def test_an_error_of_several_problems_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(UsageError("a.yaml:1:1: wrong\na.yaml:2:1: wrong\x1b too", next_step="do that"))
    assert capsys.readouterr().err == "error: a.yaml:1:1: wrong\n       a.yaml:2:1: wrong\\x1b too\nnext:  do that\n"


def test_json_is_ascii_and_refuses_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": "\x1b\u202e"})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed
    assert json.loads(printed) == {"a": "\x1b\u202e"}
    with pytest.raises(ValueError, match="JSON"):
        print_json({"a": math.nan})
