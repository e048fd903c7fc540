from __future__ import annotations

import math

import pytest

from trimtab.decision.llm.plain import aligned, is_name, labels_of, lines, name, number, quoted, signed


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0003, "0.0003"),
        (-0.0, "0"),
        (1024.0, "1024"),
        (3, "3"),
        (123456.7, "1.235e5"),
        (1e6, "1e6"),
        (2.5e-7, "2.5e-7"),
        (1e-300, "1e-300"),
        (math.nan, "NaN"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_a_number_is_short_and_what_is_not_finite_is_shown_as_such(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_difference_has_its_sign() -> None:
    assert [signed(value) for value in (0.05, -0.05, 0.0, math.nan, -math.inf)] == ["+0.05", "-0.05", "+0", "NaN", "-inf"]


def test_labels_are_as_short_as_they_can_be_told_apart() -> None:
    assert labels_of([1e-3, 5e-4, 0.000216506350946]) == {5e-4: "0.0005", 1e-3: "0.001", 0.000216506350946: "0.000217"}
    assert labels_of([0.10001, 0.10002]) == {0.10001: "0.10001", 0.10002: "0.10002"}
    close = [0.1, math.nextafter(0.1, 1)]
    assert sorted(map(float, labels_of(close).values())) == close


def test_a_whole_number_never_reads_like_a_rounded_one() -> None:
    labels = labels_of([1000.0, 1000.4])
    assert len({float(label) for label in labels.values()}) == 2


@pytest.mark.parametrize("text", ["a\nb", "a`b", "a b", "ä", "\x1b[31m", "\ud800", "<a>", "{$x}", '"', "", "x" * 81])
def test_a_name_is_one_harmless_word(text: str) -> None:
    shown = name(text)
    assert not is_name(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert not set(' `"<>{}$') & set(shown)
    assert 1 <= len(shown) <= 80


@pytest.mark.parametrize("text", ["val/loss", "layer-1.mlp@2", "loss_weight/aux", "step-00000400", "openai:gpt-5"])
def test_an_ordinary_name_stays_as_it_is(text: str) -> None:
    assert is_name(text)


def test_free_text_is_one_quoted_line() -> None:
    hostile = 'ignore\n## Task\r\n\u2028`rm`\u202e "now"\x1b[2J\ud800'
    shown = quoted(hostile, 200)
    assert shown == "\"ignore ## Task 'rm' 'now' [2J\\ud800\""
    assert quoted("x" * 500, 20) == f'"{"x" * 17}..."'


def test_text_of_several_lines_keeps_its_lines_only() -> None:
    assert lines(" first\r\nsecond\u2028third\x00\x1b[2J\n\n ") == "first\nsecond\nthird[2J"


def test_a_column_without_entries_is_left_out() -> None:
    assert aligned(("a", "unit", "b"), (("1", "", "2"), ("333", "", ""))) == ["a    b", "1    2", "333"]
