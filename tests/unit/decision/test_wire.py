"""Promise B4: bad output is a ReplyError and nothing else."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.decision.action import (
    Action,
    Adjust,
    Change,
    NoAction,
    Rollback,
    RollbackAndAdjust,
    SkipBatches,
    Stop,
)
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.decision.wire import MAX_REPLY_BYTES, encode_proposal, parse_reply, proposal_from
from trimtab.errors import ReplyError

CHANGE = '{"control":"learning_rate","value":0.001}'
HOLD = '{"action":{"kind":"no_action"},"reason":"calm"}'
EXPECTATION = '"expectation":{"gain":0.1,"within_evaluations":2}'


def adjusting(value: str) -> str:
    return (
        f'{{"action":{{"kind":"adjust","changes":[{{"control":"learning_rate","value":{value}}}]}},"reason":"r",{EXPECTATION}}}'
    )


def acting(action: str) -> str:
    return f'{{"action":{action},"reason":"r",{EXPECTATION}}}'


def expecting(expectation: str) -> str:
    return f'{{"action":{{"kind":"rollback","checkpoint":"a"}},"reason":"r","expectation":{expectation}}}'


GOOD: dict[str, tuple[str | bytes, Action]] = {
    "no action": (HOLD, NoAction()),
    "bytes": (HOLD.encode(), NoAction()),
    "white space around": (f"\n\t {HOLD} \r\n", NoAction()),
    "adjust": (adjusting("0.001"), Adjust((Change("learning_rate", 0.001),))),
    "an integer value": (adjusting("1"), Adjust((Change("learning_rate", 1.0),))),
    "an exponent": (adjusting("1E-3"), Adjust((Change("learning_rate", 0.001),))),
    "an underflow to zero": (adjusting("1e-400"), Adjust((Change("learning_rate", 0.0),))),
    "rollback": (acting('{"kind":"rollback","checkpoint":"step-1"}'), Rollback("step-1")),
    "both": (
        acting(f'{{"kind":"rollback_and_adjust","checkpoint":"step-1","changes":[{CHANGE}]}}'),
        RollbackAndAdjust("step-1", (Change("learning_rate", 0.001),)),
    ),
    "skip": (acting('{"kind":"skip_batches","count":3}'), SkipBatches(3)),
    "stop": (acting('{"kind":"stop"}'), Stop()),
    "an unescaped letter": ('{"action":{"kind":"no_action"},"reason":"größer 学"}', NoAction()),
}

BAD: dict[str, str | bytes] = {
    # not JSON
    "empty": "",
    "empty bytes": b"",
    "white space": " \n",
    "a refusal": "I cannot help with that.",
    "a code fence": f"```json\n{HOLD}\n```",
    "prose before": f"Here it is: {HOLD}",
    "prose after": f"{HOLD} I hope this helps.",
    "two replies": HOLD + HOLD,
    "two lines of replies": f"{HOLD}\n{HOLD}",
    "cut off": HOLD[:-1],
    "cut off in a string": HOLD[:20],
    "single quotes": HOLD.replace('"', "'"),
    "a trailing comma": '{"action":{"kind":"no_action"},"reason":"r",}',
    "a comment": '{"action":{"kind":"no_action"},/* calm */"reason":"r"}',
    "bare keys": '{action:{kind:"no_action"},reason:"r"}',
    "a control character in a string": '{"action":{"kind":"no_action"},"reason":"a\nb"}',
    "a NUL byte": HOLD + "\0",
    "a bad escape": '{"action":{"kind":"no_action"},"reason":"\\x41"}',
    "half an escape": '{"action":{"kind":"no_action"},"reason":"\\u00"}',
    "a Python literal": "{'action': None}",
    "XML": "<action>no_action</action>",
    "deep lists": "[" * 10_000,
    "deep closed lists": "[" * 10_000 + "]" * 10_000,
    "deep objects": '{"a":' * 10_000,
    "17 levels": "[" * 17 + "]" * 17,
    "deep inside a reply": f'{{"action":{"[" * 900}{"]" * 900},"reason":"r"}}',
    "one byte too long": HOLD + " " * (MAX_REPLY_BYTES - len(HOLD) + 1),
    "a hundred times too long": "x" * (100 * MAX_REPLY_BYTES),
    "em spaces after it": HOLD + "\u2003",
    # bytes
    "a byte that is not UTF-8": b"\xff" + HOLD.encode(),
    "Latin-1": '{"action":{"kind":"no_action"},"reason":"gr\u00f6sser"}'.encode("latin-1"),
    "UTF-16": HOLD.encode("utf-16"),
    "UTF-16 without a mark": HOLD.encode("utf-16-le"),
    "UTF-32": HOLD.encode("utf-32"),
    "a byte order mark in bytes": HOLD.encode("utf-8-sig"),
    "a byte order mark": "\ufeff" + HOLD,
    "an encoded surrogate": b'{"action":{"kind":"no_action"},"reason":"\xed\xa0\x80"}',
    "an overlong encoding": b"\xc0\xbb" + HOLD.encode(),
    "a cut letter": HOLD.encode()[:-2] + b"\xe5\xad",
    "a surrogate": "\ud800",
    "a surrogate in the reason": '{"action":{"kind":"no_action"},"reason":"\ud800"}',
    "an escaped surrogate in the reason": '{"action":{"kind":"no_action"},"reason":"\\ud800"}',
    "an escaped surrogate as kind": '{"action":{"kind":"\\ud800"},"reason":"r"}',
    "an escaped surrogate as key": '{"action":{"kind":"no_action"},"reason":"r","\\ud800":1}',
    "an escaped surrogate as control": acting('{"kind":"adjust","changes":[{"control":"\\udfff","value":1.0}]}'),
    # numbers
    "NaN": adjusting("NaN"),
    "Infinity": adjusting("Infinity"),
    "-Infinity": adjusting("-Infinity"),
    "nan in lower case": adjusting("nan"),
    "1e400": adjusting("1e400"),
    "-1e400": adjusting("-1e400"),
    "10**400": adjusting("1" + "0" * 400),
    "-(10**400)": adjusting("-1" + "0" * 400),
    "5000 digits": adjusting("7" * 5000),
    "a number as a string": adjusting('"0.001"'),
    "NaN as a string": adjusting('"NaN"'),
    "Unicode digits as a string": adjusting('"\u0661\u0662"'),
    "Unicode digits": adjusting("\u0661\u0662"),
    "full-width digits": adjusting("0.00\uff11"),
    "true as a value": adjusting("true"),
    "null as a value": adjusting("null"),
    "a list as a value": adjusting("[0.001]"),
    "an object as a value": adjusting('{"value":0.001}'),
    "hexadecimal": adjusting("0x10"),
    "a leading zero": adjusting("01"),
    "a leading plus": adjusting("+1"),
    "a bare point": adjusting(".5"),
    "an underscore": adjusting("1_000"),
    "a thousands comma": adjusting("1,000"),
    "a percentage": adjusting("50%"),
    "an expression": adjusting("1e-3*0.5"),
    # the reply's shape
    "null": "null",
    "a number": "42",
    "a string": '"no_action"',
    "a list": f"[{HOLD}]",
    "an empty object": "{}",
    "no action field": '{"reason":"r"}',
    "no reason": '{"action":{"kind":"no_action"}}',
    "an empty reason": '{"action":{"kind":"no_action"},"reason":""}',
    "a blank reason": '{"action":{"kind":"no_action"},"reason":" \\n\\t"}',
    "a null reason": '{"action":{"kind":"no_action"},"reason":null}',
    "a reason of 2001 letters": json.dumps({"action": {"kind": "no_action"}, "reason": "r" * 2001}),
    "a reason that is a list": '{"action":{"kind":"no_action"},"reason":["r"]}',
    "a repeated key": '{"action":{"kind":"no_action"},"action":{"kind":"stop"},"reason":"r"}',
    "a repeated inner key": '{"action":{"kind":"no_action","kind":"stop"},"reason":"r"}',
    "a repeated value": adjusting('0.001,"value":0.5'),
    "a key repeated by escape": '{"reason":"r","\\u0072eason":"s","action":{"kind":"no_action"}}',
    "an unknown field": '{"action":{"kind":"no_action"},"reason":"r","confidence":1}',
    "a very long unknown field": f'{{"action":{{"kind":"no_action"}},"reason":"r","{"k" * 60_000}":1}}',
    "an unknown field in the action": '{"action":{"kind":"no_action","force":true},"reason":"r"}',
    "fields of another action": '{"action":{"kind":"stop","checkpoint":"a"},"reason":"r"}',
    "two actions": '{"action":[{"kind":"stop"},{"kind":"no_action"}],"reason":"r"}',
    "an action by name only": '{"action":"no_action","reason":"r"}',
    "a null action": '{"action":null,"reason":"r"}',
    "no kind": acting("{}"),
    "an unknown kind": acting('{"kind":"run_shell","command":"rm -rf /"}'),
    "a kind in capitals": acting('{"kind":"NO_ACTION"}'),
    "a kind with a space": acting('{"kind":"stop "}'),
    "a very long kind": acting(f'{{"kind":"{"k" * 60_000}"}}'),
    "a kind that is a list": acting('{"kind":["stop"]}'),
    "a kind that is a number": acting('{"kind":1}'),
    "tool-call wrapping": f'{{"tool":"propose","arguments":{HOLD}}}',
    # the action's parts
    "no changes": acting('{"kind":"adjust"}'),
    "empty changes": acting('{"kind":"adjust","changes":[]}'),
    "four changes": acting(f'{{"kind":"adjust","changes":[{",".join([CHANGE] * 4)}]}}'),
    "changes as an object": acting('{"kind":"adjust","changes":{"learning_rate":0.001}}'),
    "a change without a value": acting('{"kind":"adjust","changes":[{"control":"learning_rate"}]}'),
    "a change without a control": acting('{"kind":"adjust","changes":[{"value":1.0}]}'),
    "a control without a name": acting('{"kind":"adjust","changes":[{"control":"","value":1.0}]}'),
    "a control that is a number": acting('{"kind":"adjust","changes":[{"control":7,"value":1.0}]}'),
    "a control of 81 letters": acting(f'{{"kind":"adjust","changes":[{{"control":"{"c" * 81}","value":1.0}}]}}'),
    "an unknown field in a change": acting('{"kind":"adjust","changes":[{"control":"c","value":1.0,"unit":"x"}]}'),
    "a null change": acting('{"kind":"adjust","changes":[null]}'),
    "no checkpoint": acting('{"kind":"rollback"}'),
    "an empty checkpoint": acting('{"kind":"rollback","checkpoint":""}'),
    "a checkpoint that is a number": acting('{"kind":"rollback","checkpoint":400}'),
    "a checkpoint of 81 letters": acting(f'{{"kind":"rollback","checkpoint":"{"c" * 81}"}}'),
    "rollback with changes": acting(f'{{"kind":"rollback","checkpoint":"a","changes":[{CHANGE}]}}'),
    "both without changes": acting('{"kind":"rollback_and_adjust","checkpoint":"a","changes":[]}'),
    "skip nothing": acting('{"kind":"skip_batches","count":0}'),
    "skip backwards": acting('{"kind":"skip_batches","count":-1}'),
    "skip true": acting('{"kind":"skip_batches","count":true}'),
    "skip a fraction": acting('{"kind":"skip_batches","count":1.5}'),
    "skip a whole float": acting('{"kind":"skip_batches","count":1.0}'),
    "skip 10**30": acting('{"kind":"skip_batches","count":1' + "0" * 30 + "}"),
    "an expectation that is a number": expecting("0.1"),
    "an expectation without a gain": expecting('{"within_evaluations":1}'),
    "an expected NaN": expecting('{"gain":NaN,"within_evaluations":1}'),
    "an expected 10**400": expecting('{"gain":1' + "0" * 400 + ',"within_evaluations":1}'),
    "expected within no evaluation": expecting('{"gain":0.1,"within_evaluations":0}'),
    "expected within four evaluations": expecting('{"gain":0.1,"within_evaluations":4}'),
    "expected within 1.5 evaluations": expecting('{"gain":0.1,"within_evaluations":1.5}'),
    "watch as a string": '{"action":{"kind":"no_action"},"reason":"r","watch":"loss"}',
    "watch 17 signals": json.dumps({"action": {"kind": "no_action"}, "reason": "r", "watch": ["loss"] * 17}),
    "watch a number": '{"action":{"kind":"no_action"},"reason":"r","watch":[1]}',
    "watch a name of 81 letters": json.dumps({"action": {"kind": "no_action"}, "reason": "r", "watch": ["w" * 81]}),
}

PROPOSALS = (
    Proposal(NoAction(), "calm"),
    Proposal(Stop(), "done"),
    Proposal(Adjust((Change("dropout", 0.1), Change("learning_rate", 1e-5))), "r", Expectation(0.25, 3), ("loss", "val/loss")),
    Proposal(Rollback("step-1"), "r", Expectation(-0.5, 1)),
    Proposal(RollbackAndAdjust("step-1", (Change("dropout", 0.0),)), "r", Expectation(0.0, 2)),
    Proposal(SkipBatches(200), "r", Expectation(0.0, 1)),
)


def outcome(text: str | bytes) -> Proposal | ReplyError:
    try:
        return parse_reply(text)
    except ReplyError as error:
        return error


@pytest.mark.parametrize("name", GOOD)
def test_a_good_reply_is_read(name: str) -> None:
    text, action = GOOD[name]
    assert parse_reply(text).action == action


def test_there_are_at_least_sixty_classes_of_bad_output() -> None:
    assert len(BAD) >= 100


@pytest.mark.parametrize("name", BAD)
def test_bad_output_is_a_reply_error_that_can_be_recorded(name: str) -> None:
    error = outcome(BAD[name])
    assert isinstance(error, ReplyError)
    message = str(error)
    assert 0 < len(message) < 1000
    assert message.encode("utf-8")


def test_the_error_names_the_field_that_is_wrong() -> None:
    assert "action.adjust.changes.0.value" in str(outcome(adjusting("true")))
    assert "repeats a key" in str(outcome(BAD["a repeated key"]))
    for number in ("1e400", "NaN", "-Infinity"):
        assert "non-finite" in str(outcome(adjusting(number)))


def test_a_reply_of_exactly_the_longest_length_is_read() -> None:
    assert parse_reply(HOLD + " " * (MAX_REPLY_BYTES - len(HOLD))).action == NoAction()


@pytest.mark.parametrize("tree", [None, 1, [], "x", {1: 2}, {"action": object()}, {"action": {"kind": b"stop"}, "reason": "r"}])
def test_a_tree_that_no_json_gives_is_a_reply_error(tree: Any) -> None:
    with pytest.raises(ReplyError):
        proposal_from(tree)


@pytest.mark.parametrize("proposal", PROPOSALS, ids=lambda proposal: proposal.action.kind)
def test_encoding_and_reading_gives_the_same_proposal(proposal: Proposal) -> None:
    tree = encode_proposal(proposal)
    assert proposal_from(tree) == proposal
    assert parse_reply(json.dumps(tree)) == proposal


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_any_text_is_a_proposal_or_a_reply_error(text: str | bytes) -> None:
    assert isinstance(outcome(text), ReplyError)


@settings(max_examples=100)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda t: st.lists(t) | st.dictionaries(st.text(), t),
    )
)
def test_any_json_is_a_proposal_or_a_reply_error(tree: Any) -> None:
    assert isinstance(outcome(json.dumps(tree)), ReplyError)


def mutated(draw: random.Random, text: str) -> bytes:
    data = bytearray(text.encode())
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(4):
            case 0:
                del data[at : at + draw.randint(1, 8)]
            case 1:
                data[at:at] = draw.choice((b'"', b"{", b"}", b"0", b"e999", b"\xff", b"-", b"NaN", b",", b"\\ud800", b"null"))
            case 2:
                data[at : at + 1] = bytes([draw.randrange(256)])
            case _:
                data[at:at] = data[draw.randrange(len(data) + 1) :][: draw.randint(1, 30)]
    return bytes(data)


def check_mutants(count: int) -> None:
    draw, read = random.Random(7), 0
    originals = [json.dumps(encode_proposal(proposal)) for proposal in PROPOSALS]
    for _ in range(count):
        result = outcome(mutated(draw, draw.choice(originals)))
        if isinstance(result, Proposal):
            read += 1
            assert proposal_from(encode_proposal(result)) == result
        else:
            str(result).encode("utf-8")
    assert 0 < read < count / 2


def test_mutated_replies_are_proposals_or_reply_errors() -> None:
    check_mutants(3000)


@pytest.mark.slow
def test_a_hundred_thousand_mutated_replies_are_proposals_or_reply_errors() -> None:
    check_mutants(100_000)


_KINDS = "kind is one of no_action, adjust, rollback, rollback_and_adjust, skip_batches, stop"


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ({"action": {"type": "stop"}, "reason": "x"}, f"action: it has no kind; received .*; allowed: {_KINDS}"),
        ({"action": {"kind": "ajust"}, "reason": "x"}, f"action: there is no such kind; received .*; allowed: {_KINDS}"),
        ({"reason": "x"}, r"action: it is missing; .*allowed: action, reason, expectation \(may be left out\), watch"),
        ({"action": {"kind": "stop"}, "reason": "x", "why": 1}, "why: there is no such field; .*allowed: action, reason, "),
        (
            {"action": {"kind": "adjust", "changes": {"learning_rate": 1}}, "reason": "x"},
            "action.adjust.changes: Input should be a valid list",
        ),
        (
            {"action": {"kind": "adjust", "changes": [{"control": "a", "to": 1}]}, "reason": "x"},
            "changes.0.value: it is missing; .*allowed: control, value$",
        ),
        ({"action": {"kind": "rollback", "to": "a"}, "reason": "x"}, "checkpoint: it is missing; .*allowed: kind, checkpoint$"),
        (
            {"action": {"kind": "stop"}, "reason": "x", "expectation": {"gain": 1}},
            "within_evaluations: it is missing; .*allowed: gain, within_evaluations$",
        ),
    ],
)
def test_what_is_wrong_is_said_with_what_is_allowed(reply: dict[str, Any], says: str) -> None:
    with pytest.raises(ReplyError, match=says):
        proposal_from(reply)
