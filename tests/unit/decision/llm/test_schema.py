"""The schema offers exactly what is executable; a reply is read back exactly or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import RECIPE, a_briefing
from tests.unit.decision.llm.briefings import demo_briefing, wide_briefing
from trimtab.controls.recipe import Recipe
from trimtab.decision.action import Action, Adjust, Change, NoAction, Rollback, RollbackAndAdjust, SkipBatches, Stop
from trimtab.decision.llm.offer import control_labels
from trimtab.decision.llm.schema import MAX_ENUM_VALUES, num_enum_values, read_choice, reply_schema
from trimtab.decision.proposal import Expectation
from trimtab.decision.surface import Options, RollbackOption, Surface
from trimtab.errors import ReplyError

BRIEFING = demo_briefing()
FORBIDDEN = {"minimum", "maximum", "const", "format", "pattern", "minItems", "maxItems", "default", "oneOf", "$ref"}


def reply(action: Any, **changes: Any) -> dict[str, Any]:
    known = {
        "reason": "the objective turned up",
        "action": action,
        "expected_gain": "0.05",
        "within_evaluations": "2",
        "watch": ["val/loss"],
    }
    return known | changes


def adjusting(*changes: tuple[str, Any]) -> dict[str, Any]:
    return {"kind": "adjust", "changes": [{"control": control, "value": value} for control, value in changes]}


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for one in schema.values():
            yield from nodes(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from nodes(one)


@pytest.mark.parametrize("briefing", [BRIEFING, wide_briefing(), a_briefing()], ids=["demo", "wide", "bare"])
def test_every_object_is_closed_and_every_magnitude_an_enum_of_texts(briefing: Any) -> None:
    schema = reply_schema(briefing)
    assert list(schema["properties"]) == ["reason", "action", "expected_gain", "within_evaluations", "watch"]
    for node in nodes(schema):
        assert not FORBIDDEN & set(node)
        if node.get("type") == "object":
            assert node["required"] == list(node["properties"])
            assert node["additionalProperties"] is False
        if "enum" in node:
            assert node["enum"]
            assert all(isinstance(value, str) for value in node["enum"])
            assert len(set(node["enum"])) == len(node["enum"])
    kinds = {node.get("type", "any") for node in nodes(schema) if "type" in node and isinstance(node["type"], str)}
    assert kinds == {"object", "string", "array"}


def test_only_what_is_executable_is_in_it() -> None:
    actions = reply_schema(BRIEFING)["properties"]["action"]["anyOf"]
    assert [one["properties"]["kind"]["enum"][0] for one in actions] == [
        "no_action", "adjust", "rollback", "rollback_and_adjust", "rollback_and_adjust", "skip_batches", "stop",
    ]  # fmt: skip
    controls = [one["properties"]["control"]["enum"] for one in actions[1]["properties"]["changes"]["items"]["anyOf"]]
    assert controls == [["learning_rate"], ["weight_decay"]]  # the dropout must still stand
    held = replace(BRIEFING, surface=Surface((), (), 0, 0, may_stop=False))
    assert [one["properties"]["kind"]["enum"] for one in reply_schema(held)["properties"]["action"]["anyOf"]] == [["no_action"]]


def test_a_checkpoint_has_its_own_values() -> None:
    actions = reply_schema(BRIEFING)["properties"]["action"]["anyOf"]
    rates = [
        one["properties"]["value"]["enum"][-1]
        for action in actions[3:5]
        for one in action["properties"]["changes"]["items"]["anyOf"]
        if one["properties"]["control"]["enum"] == ["learning_rate"]
    ]
    assert rates == ["0.004", "0.002"]


def many_controls(num: int, num_values: int) -> Any:
    names = [f"loss_weight/term_{n}" for n in range(num)]
    values = tuple(1.0 + 0.01 * n for n in range(1, num_values + 1))
    options = tuple(Options(name, values) for name in names)
    back = tuple(RollbackOption(f"step-{n}", n, 2.0, n == 1, options) for n in (1, 2, 3))
    recipe = Recipe.of(dict.fromkeys(names, 1.0))
    return replace(BRIEFING, recipe=recipe, surface=Surface(options, back, 3, 200, may_stop=True))


@pytest.mark.parametrize(("num", "num_values"), [(30, 20), (100, 8), (300, 6), (1, 2000)])
def test_a_large_schema_is_cut_to_what_providers_take(num: int, num_values: int) -> None:
    briefing = many_controls(num, num_values)
    schema = reply_schema(briefing)
    assert 100 < num_enum_values(schema) <= MAX_ENUM_VALUES or num == 1
    assert schema["properties"]["action"]["anyOf"][1]["properties"]["kind"]["enum"] == ["adjust"]
    assert reply_schema(briefing) == schema
    # What was left out for want of room is still executable, and is read.
    last = briefing.surface.adjustable[-1]
    read = read_choice(json.dumps(reply(adjusting((last.control, repr(last.values[-1]))))), briefing)
    assert read.action == Adjust((Change(last.control, last.values[-1]),))


GOOD: dict[str, tuple[Any, Action]] = {
    "no_action": ({"kind": "no_action"}, NoAction()),
    "adjust": (adjusting(("learning_rate", "0.0005")), Adjust((Change("learning_rate", 5e-4),))),
    "two": (
        adjusting(("weight_decay", "0"), ("learning_rate", "0.002")),
        Adjust((Change("weight_decay", 0.0), Change("learning_rate", 2e-3))),
    ),
    "rollback": ({"kind": "rollback", "checkpoint": "step-00000400"}, Rollback("step-00000400")),
    "both": (
        adjusting(("learning_rate", "0.003")) | {"kind": "rollback_and_adjust", "checkpoint": "step-00000200"},
        RollbackAndAdjust("step-00000200", (Change("learning_rate", 3e-3),)),
    ),
    "skip": ({"kind": "skip_batches", "count": "50"}, SkipBatches(50)),
    "stop": ({"kind": "stop"}, Stop()),
    "a number for a label": (adjusting(("learning_rate", 0.0005)), Adjust((Change("learning_rate", 5e-4),))),
    "a label written otherwise": (adjusting(("learning_rate", "5.0E-4")), Adjust((Change("learning_rate", 5e-4),))),
    "a whole number": (adjusting(("weight_decay", 1)), Adjust((Change("weight_decay", 1.0),))),
    "a count as a number": ({"kind": "skip_batches", "count": 50}, SkipBatches(50)),
}


@pytest.mark.parametrize(("action", "expected"), GOOD.values(), ids=GOOD)
def test_a_choice_is_read_back_exactly(action: Any, expected: Action) -> None:
    proposal = read_choice(json.dumps(reply(action)), BRIEFING)
    assert proposal.action == expected
    holds = isinstance(expected, (NoAction, Stop))
    assert proposal.expectation == (None if holds else Expectation(0.05, 2))
    assert proposal.watch == ("val/loss",)


def test_an_awkward_value_is_read_back_to_the_last_bit() -> None:
    value = RECIPE["learning_rate"] / 3
    surface = replace(BRIEFING.surface, adjustable=(Options("learning_rate", (value, 2 * value)),))
    briefing = replace(BRIEFING, surface=surface)
    assert control_labels(briefing)["learning_rate"][value] == "0.000333"
    for given in ("0.000333", 0.000333, value, repr(value)):
        read = read_choice(json.dumps(reply(adjusting(("learning_rate", given)))), briefing)
        assert read.action == Adjust((Change("learning_rate", value),))


@pytest.mark.parametrize("frame", ["{}", " \n{}\r\n\t", "```json\n{}\n```", "```\n{}\n```", "\n```json\r\n{}\n```\n"])
def test_white_space_and_one_fence_are_let_pass(frame: str) -> None:
    assert read_choice(frame.replace("{}", json.dumps(reply({"kind": "no_action"}))), BRIEFING).action == NoAction()


HOLD = json.dumps(reply({"kind": "no_action"}))
ADJUST = adjusting(("learning_rate", "0.0005"))
BAD: dict[str, str] = {
    "empty": "",
    "prose before": f"Here it is: {HOLD}",
    "prose after": f"{HOLD} I hope this helps",
    "two replies": HOLD + HOLD,
    "two fences": f"```json\n{HOLD}\n```\n```json\n{HOLD}\n```",
    "a fence of something else": f"```yaml\n{HOLD}\n```",
    "an open fence": f"```json\n{HOLD}",
    "a byte order mark": f"\ufeff{HOLD}",
    "cut off": HOLD[:-1],
    "a list": f"[{HOLD}]",
    "null": "null",
    "a key twice": HOLD[:-1] + ', "reason": "another"}',
    "NaN": HOLD.replace('"0.05"', "NaN"),
    "1e400": HOLD.replace('"0.05"', "1e400"),
    "an endless number": HOLD.replace('"0.05"', "9" * 5000),
    "nested deeply": HOLD.replace('"0.05"', "[" * 500 + "]" * 500),
    "nested without end": HOLD.replace('"0.05"', "[" * 30_000),
    "a hundred megabytes": HOLD + " " * 1_000_000,
    "a missing key": json.dumps({key: value for key, value in reply({"kind": "no_action"}).items() if key != "watch"}),
    "an unknown key": json.dumps(reply({"kind": "no_action"}, confidence="1")),
    "no reason": json.dumps(reply({"kind": "no_action"}, reason=" ")),
    "a long reason": json.dumps(reply({"kind": "no_action"}, reason="x" * 2001)),
    "a reason that is none": json.dumps(reply({"kind": "no_action"}, reason=3)),
    "an action as text": json.dumps(reply("no_action")),
    "no kind": json.dumps(reply({})),
    "an unknown kind": json.dumps(reply({"kind": "explode"})),
    "a kind in capitals": json.dumps(reply({"kind": "No_Action"})),
    "more than its kind needs": json.dumps(reply({"kind": "no_action", "changes": []})),
    "no change": json.dumps(reply(adjusting())),
    "a control twice": json.dumps(reply(adjusting(("learning_rate", "0.0005"), ("learning_rate", "0.0005")))),
    "a control that must stand": json.dumps(reply(adjusting(("dropout", "0.2")))),
    "an unknown control": json.dumps(reply(adjusting(("temperature", "1")))),
    "a value beside the labels": json.dumps(reply(adjusting(("learning_rate", "0.0006")))),
    "the present value": json.dumps(reply(adjusting(("learning_rate", "0.001")))),
    "a value of the checkpoint's": json.dumps(reply(adjusting(("learning_rate", "0.004")))),
    "a value with its unit": json.dumps(reply(adjusting(("learning_rate", "0.0005 (x0.5)")))),
    "a true value": json.dumps(reply(adjusting(("weight_decay", True)))),
    "Unicode digits": json.dumps(reply(adjusting(("learning_rate", "\u0660.\u0660\u0660\u0660\u0665")))),
    "an infinite text": json.dumps(reply(adjusting(("learning_rate", "inf")))),
    "an unknown checkpoint": json.dumps(reply({"kind": "rollback", "checkpoint": "step-00000300"})),
    "a count between": json.dumps(reply({"kind": "skip_batches", "count": "51"})),
    "a gain beside the labels": json.dumps(reply(ADJUST, expected_gain="0.07")),
    "too many evaluations": json.dumps(reply(ADJUST, within_evaluations="4")),
    "an unknown signal": json.dumps(reply(ADJUST, watch=["val/accuracy"])),
    "a signal that is a list": json.dumps(reply(ADJUST, watch=[["loss"]])),
    "watching as text": json.dumps(reply(ADJUST, watch="loss")),
    "watching too much": json.dumps(reply(ADJUST, watch=["loss"] * 17)),
}  # fmt: skip


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_everything_else_is_refused_in_words_for_the_model(text: str) -> None:
    with pytest.raises(ReplyError) as refused:
        read_choice(text, BRIEFING)
    assert 10 < len(str(refused.value)) < 1000


def test_a_refusal_names_the_field_what_came_and_what_is_allowed() -> None:
    with pytest.raises(ReplyError) as refused:
        read_choice(BAD["a value beside the labels"], BRIEFING)
    assert refused.value.what == "action.changes[0].value is not allowed"
    assert refused.value.received == "\"'0.0006'\""
    assert refused.value.allowed == "0.00025, 0.0005, 0.00075, 0.00125, 0.0015, 0.002"


def test_too_many_controls_are_refused() -> None:
    briefing = replace(BRIEFING, surface=replace(BRIEFING.surface, max_controls=1))
    with pytest.raises(ReplyError, match="list of 1 to 1"):
        read_choice(json.dumps(reply(GOOD["two"][0])), briefing)


def test_signals_to_watch_are_named_once() -> None:
    assert read_choice(json.dumps(reply(ADJUST, watch=["loss", "loss"])), BRIEFING).watch == ("loss",)
