from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.controls.bounds import Bounds
from trimtab.controls.envelope_edit import with_bounds
from trimtab.controls.envelope_file import parse_envelope
from trimtab.controls.preset import load_preset, preset_names
from trimtab.errors import ControlError, EnvelopeError

TEXT = load_preset("small_transformer").text
HEAD = "schema: trimtab/envelope/1\nobjective: minimize a\n"


def test_only_the_number_changes() -> None:
    changed = with_bounds(TEXT, "my.yaml", "learning_rate", Bounds(1e-5, 1e-3))
    assert changed == TEXT.replace("    high: 3e-3\n", "    high: 0.001\n")
    both = with_bounds(TEXT, "my.yaml", "learning_rate", Bounds(2e-5, 1e-3))
    assert both == changed.replace("    low: 1e-5\n", "    low: 2e-05\n")


def test_the_same_bounds_change_nothing() -> None:
    assert with_bounds(TEXT, "my.yaml", "learning_rate", Bounds(1e-5, 3e-3)) == TEXT


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_can_be_narrowed(name: str) -> None:
    text = load_preset(name).text
    high = parse_envelope(text, name).control("learning_rate").bounds.high
    narrowed = Bounds(high / 10, high / 3)
    after = parse_envelope(with_bounds(text, name, "learning_rate", narrowed), name)
    assert after.control("learning_rate").bounds == narrowed
    assert after.controls[1:] == parse_envelope(text, name).controls[1:]


@pytest.mark.parametrize(
    "text",
    [
        HEAD.replace("\n", "\r\n") + "controls:\r\n  learning_rate:\r\n    low: 1e-5 # x\r\n    high: .5\r\n",
        "\ufeff{schema: trimtab/envelope/1, objective: minimize a, controls: {learning_rate: {high: +0.5, low: 1E-5}}}",
        HEAD + "controls:\n  learning_rate: {low:   1.0e-5,high: 5_0.0e-2} # low: 3\n",
        "# \u00e4\u2028# b\n" + HEAD + "controls: {learning_rate: {low: 1e-5, high: 0.5}}",
    ],
    ids=["windows", "one line with a mark", "close", "odd line ends"],
)
def test_however_it_is_written(text: str) -> None:
    changed = with_bounds(text, "my.yaml", "learning_rate", Bounds(2e-5, 0.25))
    assert parse_envelope(changed, "my.yaml").control("learning_rate").bounds == Bounds(2e-5, 0.25)
    assert changed.count("\r\n") == text.count("\r\n")
    assert ("# low: 3" in changed, "# x" in changed) == ("# low: 3" in text, "# x" in text)


def test_a_number_that_does_not_stand_there_plainly_is_left_to_the_user() -> None:
    text = HEAD + "controls: {learning_rate: {low: 1e-5, high: &top 0.5}}\n"
    with pytest.raises(EnvelopeError, match=r"my\.yaml:3:45: no plain number.*write 0\.25 there by hand"):
        with_bounds(text, "my.yaml", "learning_rate", Bounds(1e-5, 0.25))


def test_what_is_no_envelope_or_no_control_of_it_is_refused() -> None:
    with pytest.raises(EnvelopeError):
        with_bounds("nothing", "my.yaml", "learning_rate", Bounds(1e-5, 1e-3))
    with pytest.raises(ControlError, match="no such control"):
        with_bounds(TEXT, "my.yaml", "clip_range", Bounds(0.1, 0.2))


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-5, 3e-3), st.floats(1e-5, 3e-3))
def test_any_bounds_read_back_exactly(one: float, other: float) -> None:
    bounds = Bounds(min(one, other), max(one, other))
    after = parse_envelope(with_bounds(TEXT, "my.yaml", "learning_rate", bounds), "my.yaml")
    assert after.control("learning_rate").bounds == bounds
