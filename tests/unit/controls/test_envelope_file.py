from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.controls.catalogue import (
    batch_size,
    declare,
    dropout,
    learning_rate,
    own_control,
    weight_decay,
)
from trimtab.controls.entries import ENTRIES
from trimtab.controls.envelope import Authority, Deliberation, Envelope, Objective
from trimtab.controls.envelope_file import SCHEMA, dump_envelope, load_envelope, parse_envelope
from trimtab.controls.moves import Add, Multiply, SetTo
from trimtab.controls.safeguards import Reflex
from trimtab.errors import EnvelopeError

SMALLEST = f"schema: {SCHEMA}\nobjective: minimize val/loss\ncontrols: {{}}\n"

FULL = """\
schema: trimtab/envelope/1
objective: maximize val/accuracy
controls:
  learning_rate:
    low: 3e-6
    high: 1E-2
    moves: {multiply: [.5, 2]}
    largest_change: 2
    cumulative_drift: 1_000
    dwell_steps: 20
  learning_rate/decoder: {low: 1e-6, high: 1}
  weight_decay:
    low: 0
    high: +0.3
    moves:
      add: [-0.01, 0.01]
  dropout: {low: 0.0, high: 0.5, moves: {set: [0, 0.5]}}
authority:
  interventions: 3
  may_stop: no
deliberation: {mode: boundary, deadline_seconds: 5}
reflex:
  armed: false
"""


def problem(text: str) -> str:
    with pytest.raises(EnvelopeError) as raised:
        parse_envelope(text, "my.yaml")
    return str(raised.value)


def test_the_smallest_file_has_all_defaults() -> None:
    assert parse_envelope(SMALLEST, "my.yaml") == Envelope(Objective("val/loss", "minimize"), ())


def test_every_section_is_read() -> None:
    assert parse_envelope(FULL, "my.yaml") == Envelope(
        Objective("val/accuracy", "maximize"),
        (
            learning_rate(3e-6, 1e-2, moves=Multiply((0.5, 2.0)), largest_change=2.0, cumulative_drift=1000.0, dwell_steps=20),
            learning_rate(1e-6, 1.0, group="decoder"),
            weight_decay(0.0, 0.3, moves=Add((-0.01, 0.01))),
            dropout(0.0, 0.5, moves=SetTo((0.0, 0.5))),
        ),
        Authority(interventions=3, may_stop=False),
        Deliberation(mode="boundary", deadline_seconds=5.0),
        Reflex(armed=False),
    )


def test_a_file_is_loaded_with_its_path_in_the_errors(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.yaml"
    path.write_text(FULL, encoding="utf-8-sig")
    assert load_envelope(path) == parse_envelope(FULL, "my.yaml")
    path.write_text("schema: 1", encoding="utf-8")
    with pytest.raises(EnvelopeError, match=r"trimtab\.yaml:1:9: schema is wrong"):
        load_envelope(path)
    path.write_bytes(b"schema: x\n# \xff\n")
    with pytest.raises(EnvelopeError, match=r"trimtab\.yaml:2:3: the file is not UTF-8"):
        load_envelope(path)
    with pytest.raises(EnvelopeError, match="cannot be read"):
        load_envelope(tmp_path)


CASES = {
    # A place in FULL, what is written there instead, and where and how it is refused.
    "schema of another version": ("envelope/1", "envelope/2", "1:9", "allowed: 'trimtab/envelope/1'"),
    "misspelt section": ("authority:", "autority:", "18:1", "did you mean 'authority'?"),
    "misspelt control": ("  dropout:", "  dropuot:", "17:3", "did you mean 'dropout'?"),
    "part of dropout without modules": ("  dropout:", "  dropout/x:", "17:14", "modules go with a named part"),
    "group without a name": ("rate/decoder", "rate/", "11:3", "unknown control"),
    "misspelt key of a control": ("    dwell_steps:", "    dwel_steps:", "10:5", "did you mean 'dwell_steps'?"),
    "misspelt kind of move": ("multiply:", "multiplied:", "7:13", "did you mean 'multiply'?"),
    "misspelt field": ("  armed:", "  armd:", "23:3", "did you mean 'armed'?"),
    "misspelt direction": ("maximize", "maximise", "2:12", 'allowed: "minimize SIGNAL"'),
    "objective of two lines": (
        "maximize val/accuracy",
        "|\n  maximize\n\n  val accuracy",
        "2:12",
        r"received 'maximize\n\nval accuracy\n'",
    ),
    "misspelt mode": ("boundary", "boundry", "21:22", "allowed: 'async' or 'boundary'"),
    "misspelt truth": ("false", "flase", "23:10", "allowed: true or false"),
    "quoted number": ("1E-2", '"1E-2"', "6:11", "next: remove the quotes"),
    "text for a number": ("1E-2", "high", "6:11", "allowed: a number"),
    "truth for a number": ("1E-2", "true", "6:11", "allowed: a number"),
    "fraction for a count": ("dwell_steps: 20", "dwell_steps: 20.5", "10:18", "allowed: a whole number"),
    "number for a mapping": ("{multiply: [.5, 2]}", "2", "7:12", "allowed: a mapping"),
    "number for a list": ("[.5, 2]", "2", "7:23", "allowed: a list"),
    "list for a mapping": ("{mode: boundary, deadline_seconds: 5}", "[1]", "21:15", "received a list"),
    "infinity": ("1E-2", ".inf", "6:11", "not a plain number"),
    "not a number": ("1E-2", ".nan", "6:11", "not a plain number"),
    "overflow": ("1E-2", "1e400", "6:11", "not a plain number"),
    "octal": ("dwell_steps: 20", "dwell_steps: 020", "10:18", "not a plain number"),
    "hexadecimal": ("dwell_steps: 20", "dwell_steps: 0x14", "10:18", "not a plain number"),
    "sexagesimal": ("dwell_steps: 20", "dwell_steps: 1:20", "10:18", "not a plain number"),
    "date": ("dwell_steps: 20", "dwell_steps: 2020-01-01", "10:18", "allowed: a whole number"),
    "nothing": ("armed: false", "armed:", "23:3", "reflex.armed has no value"),
    "repeated key": ("    dwell_steps: 20", "    low: 20", "10:5", "'low'; next: keep one of them"),
    "repeated control": ("  dropout:", "  learning_rate:", "17:3", "'learning_rate'; next: keep one of them"),
    "reversed bounds": ("low: 3e-6", "low: 3", "5:5", "the bounds are reversed"),
    "rate of zero": ("low: 3e-6", "low: 0", "5:10", "cannot reach 0"),
    "probability above one": ("high: 0.5", "high: 1.5", "17:12", "make no sense for dropout"),
    "change that forbids every change": ("largest_change: 2", "largest_change: 1", "8:21", "> 1"),
    "drift that forbids every change": ("cumulative_drift: 1_000", "cumulative_drift: 0.5", "9:23", "> 1"),
    "negative dwell": ("dwell_steps: 20", "dwell_steps: -1", "10:18", ">= 0 steps"),
    "factor without effect": ("[.5, 2]", "[1, 2]", "7:23", "allowed: > 0, not 1"),
    "no factors": ("[.5, 2]", "[]", "7:23", "at least one"),
    "no moves": ("{set: [0, 0.5]}", "{}", "17:41", "one of multiply, set, add"),
    "two kinds of moves": ("{set: [0, 0.5]}", "{set: [0], add: [0.1]}", "17:41", "one of multiply, set, add"),
    "missing bound": ("    low: 3e-6\n", "", "4:3", "controls.learning_rate.low is missing"),
    "missing controls": ("controls:", "reflex: {}\nauthority:", "1:1", "controls is missing; next: add `controls: {"),
    "budget out of range": ("interventions: 3", "interventions: -3", "19:18", "allowed: 0 to 1000000"),
    "deadline out of range": ("deadline_seconds: 5", "deadline_seconds: 0", "21:50", "> 0, at most 86400"),
    "field that does not fit a default": ("deadline_seconds: 5", "apply_after_steps: 300", "21:15", "received 200"),
    "tag": ("maximize val/accuracy", "!!python/name:os.system x", "2:12", "tags are not supported"),
    "tagged mapping": ("{mode", "!!python/object:os.x {mode", "21:15", "tags are not supported"),
    "tagged list": ("[.5, 2]", "!!set [.5, 2]", "7:23", "tags are not supported"),
    "alias": ("[.5, 2]", "&all [*all]", "7:29", "aliases are not supported"),
    "merge key": ("  armed", "  <<", "23:3", "unknown key"),
    "list as a key": ("  armed: false", "  ? [armed]\n  : false", "23:5", "a key is not a name"),
    "unclosed bracket": ("[.5, 2]", "[.5, 2", "7:29", "not valid YAML"),
    "tab": ("  armed", "\tarmed", "23:1", "not valid YAML"),
    "control character": ("accuracy", "accu\x07racy", "2:29", "not valid YAML"),
    "second document": ("reflex:", "---\nreflex:", "22:1", "not valid YAML"),
}


@pytest.mark.parametrize(("written", "instead", "position", "says"), CASES.values(), ids=CASES.keys())
def test_a_slip_is_named_with_its_line_and_column(written: str, instead: str, position: str, says: str) -> None:
    assert FULL.count(written) == 1, "the place is not clear"
    first = problem(FULL.replace(written, instead)).splitlines()
    at = [line for line in first if line.startswith(f"my.yaml:{position}: ")]
    assert len(at) == 1, first
    assert says in at[0]


def test_all_problems_are_reported_at_once_in_the_order_of_the_file() -> None:
    text = FULL
    slips = ("maximize", "best"), ("3e-6", "low"), (".5, 2", "0, 1"), ("interventions: 3", "interventions: -3\n  rollbacks: -1")
    for written, instead in (*slips, ("may_stop: no", "may_stop: never"), ("armed: false", "arms: 2\n  attempts: 0")):
        text = text.replace(written, instead)
    lines = problem(text).splitlines()
    positions = [":".join(line.split(":")[1:3]) for line in lines]
    assert positions == ["2:12", "5:10", "7:23", "19:18", "20:14", "21:13", "24:3", "25:13"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]", "text", "1", "null", "---\n"])
def test_what_is_no_mapping_is_no_envelope(text: str) -> None:
    assert problem(text).startswith("my.yaml:1:1: ")


def test_bombs_are_harmless() -> None:
    laughs = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{m}, *{m}]\n" for n, m in zip("bcdefghijk", "abcdefghij", strict=True))
    begin = time.monotonic()
    assert "aliases are not supported" in problem(laughs)
    assert "nested too deeply" in problem("a: " + "[" * 50_000)
    assert "too long" in problem("#" * 1_000_000)
    assert "not a plain number" in problem(SMALLEST + "reflex: {attempts: " + "9" * 5000 + "}")
    assert time.monotonic() - begin < 10


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.integers(0, len(FULL)))
def test_no_text_raises_anything_but_an_envelope_error(text: str, place: int) -> None:
    for whole in (text, FULL[:place] + text + FULL[place:], FULL[:place] + text):
        try:
            parse_envelope(whole, "my.yaml")
        except EnvelopeError as error:
            assert all(re.match(r"my\.yaml:\d+:\d+: ", line) for line in str(error).splitlines())


numbers = st.floats(1e-9, 1e3)
bounds = st.tuples(numbers, numbers).filter(lambda ends: ends[0] != ends[1]).map(sorted)
envelopes = st.builds(
    Envelope,
    st.builds(
        Objective, st.from_regex(r"[a-z]{1,8}(/[a-z0-9_]{1,8})?", fullmatch=True), st.sampled_from(["minimize", "maximize"])
    ),
    st.tuples(
        st.builds(
            lambda ends, factors, change, dwell: learning_rate(
                *ends, moves=Multiply(tuple(factors)), largest_change=change, dwell_steps=dwell
            ),
            bounds,
            st.lists(numbers.filter(lambda factor: factor != 1), min_size=1, max_size=4),
            st.floats(1.01, 1e6),
            st.integers(0, 10**6),
        ),
        st.builds(lambda ends, change: weight_decay(*ends, moves=Add((change,)), cumulative_drift=change), bounds, numbers),
    ),
    st.builds(Authority, st.integers(0, 99), may_stop=st.booleans()),
    st.builds(Deliberation, st.sampled_from(["async", "boundary"]), deadline_seconds=st.floats(1e-3, 86_400)),
    st.builds(Reflex, st.booleans(), st.floats(1e-6, 1)),
)


@settings(max_examples=100, deadline=None)
@given(envelopes)
def test_an_envelope_written_to_a_file_reads_back(envelope: Envelope) -> None:
    assert parse_envelope(dump_envelope(envelope), "my.yaml") == envelope


def test_the_full_file_is_written_with_every_field() -> None:
    text = dump_envelope(parse_envelope(FULL, "my.yaml"))
    assert parse_envelope(text, "my.yaml") == parse_envelope(FULL, "my.yaml")
    names = [field.name for cls in (Authority, Deliberation, Reflex) for field in dataclasses.fields(cls)]
    assert [name for name in names if f"\n  {name}: " not in text] == []


def test_an_envelope_that_no_file_can_say_is_refused() -> None:
    for changes in ({"scale": "difference", "largest_change": 2.0}, {"unit": "furlongs"}):
        other = dataclasses.replace(learning_rate(1e-5, 1e-3), **changes)
        with pytest.raises(EnvelopeError, match="cannot be written"):
            dump_envelope(Envelope(Objective("val/loss", "minimize"), (other,)))


RICH = """\
schema: trimtab/envelope/1
objective: maximize eval/return
controls:
  learning_rate: {low: 1e-5, high: 1e-2}
  batch_size: {low: 16, high: 256, rate_scaling: sqrt, when: boundary}
  dropout/encoder:
    low: 0
    high: 0.3
    modules: "encoder.*"
    max_values: 4
    effect_lag_steps: 7
  clip_range: {low: 0.03, high: 0.3}
  temperature:
    low: 0.5
    high: 2
    scale: ratio
    unit: kelvin
    moves: {multiply: [0.8, 1.25]}
  top_k: {low: 1, high: 9, scale: difference, is_whole: true, moves: {add: [-1, 1]}}
signals:
  entropy: rollout/ent
deliberation: {boundary_every_steps: 40}
"""


def test_every_key_of_a_control_is_read() -> None:
    envelope = parse_envelope(RICH, "my.yaml")
    assert envelope.controls == (
        learning_rate(1e-5, 1e-2),
        batch_size(16, 256, rate_scaling="sqrt", when="boundary"),
        dropout(0.0, 0.3, name="encoder", modules="encoder.*", max_values=4, effect_lag_steps=7),
        declare("clip_range", 0.03, 0.3),
        own_control("temperature", 0.5, 2, moves=Multiply((0.8, 1.25)), scale="ratio", unit="kelvin"),
        own_control("top_k", 1, 9, moves=Add((-1, 1)), is_whole=True),
    )
    assert envelope.signals == (("entropy", "rollout/ent"),)
    assert envelope.deliberation.boundary_every_steps == 40
    assert parse_envelope(dump_envelope(envelope), "my.yaml") == envelope


RICH_CASES = {
    "unknown moment": ("when: boundary", "when: sometimes", "5:62", "allowed: 'live' or 'boundary'"),
    "unknown scaling": ("rate_scaling: sqrt", "rate_scaling: cubic", "5:50", "'none', 'linear' or 'sqrt'"),
    "scaling of a rate that is no control": ("learning_rate: {", "learning_rate/head: {", "4:3", "takes learning_rate along"),
    "fraction of an item": ("low: 16", "low: 16.5", "5:15", "batch_size counts items"),
    "part of a control without parts": ("  clip_range:", "  clip_range/x:", "12:17", "clip_range has no parts"),
    "modules of another control": ("high: 0.3}", "high: 0.3, modules: x}", "12:47", "modules go with a named part"),
    "part without modules": ('    modules: "encoder.*"\n', "", "7:5", "modules go with a named part"),
    "no distinct value": ("max_values: 4", "max_values: 0", "10:17", ">= 1"),
    "negative lag": ("effect_lag_steps: 7", "effect_lag_steps: -7", "11:23", ">= 0 steps"),
    "own control without moves": (
        "    moves: {multiply: [0.8, 1.25]}\n",
        "",
        "13:3",
        "a control of your own needs moves and scale",
    ),
    "own control without scale": ("    scale: ratio\n", "", "13:3", "unknown control"),
    "misspelt control with moves": ("  clip_range: {", "  clip_rnge: {moves: {set: [0.1]}, ", "12:3", "'clip_range'?"),
    "own control of an unknown scale": ("scale: ratio", "scale: log", "16:12", "'ratio' or 'difference'"),
    "ratio from zero": ("low: 0.5", "low: 0", "14:10", "cannot reach 0"),
    "own control with modules": ("unit: kelvin", "modules: x", "17:5", "unknown key"),
    "own control with wrong moves": ("multiply: [0.8", "multiply: [1", "18:23", "allowed: > 0, not 1"),
    "number for a signal": ("rollout/ent", "3", "21:12", "allowed: text"),
    "boundary out of range": ("boundary_every_steps: 40", "boundary_every_steps: 0", "22:38", "1 to 10000000"),
}


@pytest.mark.parametrize(("written", "instead", "position", "says"), RICH_CASES.values(), ids=RICH_CASES.keys())
def test_a_slip_in_a_rich_control_is_named_with_its_line_and_column(
    written: str, instead: str, position: str, says: str
) -> None:
    assert RICH.count(written) == 1, "the place is not clear"
    lines = problem(RICH.replace(written, instead)).splitlines()
    at = [line for line in lines if line.startswith(f"my.yaml:{position}: ")]
    assert len(at) == 1, lines
    assert says in at[0]


@pytest.mark.parametrize("name", ENTRIES)
def test_every_control_of_the_catalogue_survives_a_file(name: str) -> None:
    low, high = (-8.0, -1.0) if name == "target_entropy" else (1.0, 8.0) if ENTRIES[name].is_whole else (0.01, 0.5)
    envelope = Envelope(Objective("val/loss", "minimize"), (declare(name, low, high, max_values=3, when="boundary"),))
    assert parse_envelope(dump_envelope(envelope), "my.yaml") == envelope
