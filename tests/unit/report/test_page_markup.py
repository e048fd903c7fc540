from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.report.page_samples import Seen
from trimtab.report.page.markup import Markup, join, name, tag, text


@given(st.text(), st.text())
def test_no_text_becomes_an_element_or_leaves_its_attribute(inside: str, attribute: str) -> None:
    seen = Seen(tag("p", inside, name(inside), title=attribute))
    assert [element for element, _ in seen.elements] == ["p", "bdi"]
    assert list(seen.elements[0][1]) == ["title"]


def test_control_and_direction_characters_become_visible_escapes() -> None:
    assert text("a\u202eb\ud800c\x00") == "a\\u202eb\\ud800c\\x00"


def test_a_space_at_either_end_is_kept() -> None:
    assert tag("p", " of ", tag("b", "x"), " ") == "<p> of <b>x</b> </p>"


def test_a_long_text_is_cut() -> None:
    assert len(text("x" * 10_000)) == 2000
    assert len(name("x" * 10_000)) < 250


def test_attributes_that_are_there_or_not_and_kept_words() -> None:
    assert (
        tag("details", open=True, hidden=False, class_="a", data_x="1", id=None)
        == '<details open="" class="a" data-x="1"></details>'
    )
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert isinstance(join("a", tag("b")), Markup)
