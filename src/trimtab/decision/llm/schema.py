"""The schema of a reply, made from what is executable, and the way back from a reply to a proposal.

Every magnitude is an enum of labels: models and servers that ignore numeric limits cannot leave it, and a label stands for
the exact number on the surface. The reply is verified again all the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from trimtab.controls.bounds import is_finite_number
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
from trimtab.decision.briefing import Briefing
from trimtab.decision.json_text import check_size, read_json
from trimtab.decision.llm.detail import Detail, capped, details
from trimtab.decision.llm.offer import (
    MAX_WATCHED,
    WITHIN,
    Choices,
    Labels,
    Offer,
    control_labels,
    gain_labels,
    kinds_of,
    offer_of,
    skip_labels,
    watchable,
)
from trimtab.decision.llm.plain import quoted
from trimtab.decision.proposal import MAX_TEXT, Expectation, Proposal
from trimtab.decision.surface import Options
from trimtab.errors import ReplyError

# OpenAI allows 1,000 enum values in one schema.
MAX_ENUM_VALUES: Final = 900

_KEYS: Final = ("reason", "action", "expected_gain", "within_evaluations", "watch")
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,4})?")
_FENCE: Final = re.compile(r"```(?:json)?[ \t]*\r?\n(.*)\n[ \t]*```", re.DOTALL)


def reply_schema(briefing: Briefing) -> dict[str, Any]:
    """Return the JSON schema of the replies that ``briefing`` allows, as far as providers take so large a schema."""
    return schema_of(offer_of(briefing, largest_detail(briefing)))


def largest_detail(briefing: Briefing) -> Detail:
    """Return the most of the surface that can be offered, with everything else in full."""
    seen: Detail | None = None
    for detail in details():
        most = capped(Detail(), detail)
        if most != seen and num_enum_values(schema_of(offer_of(briefing, most))) <= MAX_ENUM_VALUES:
            return most
        seen = most
    raise AssertionError("no_action alone always has room")


def schema_of(offer: Offer) -> dict[str, Any]:
    """Return the JSON schema of the replies that choose from ``offer``."""
    return _closed(
        reason={"type": "string"},
        action={"anyOf": _actions(offer)},
        expected_gain=_enum(offer.gains),
        within_evaluations=_enum(WITHIN),
        watch={"type": "array", "items": _enum(offer.watchable)},
    )


def num_enum_values(schema: object) -> int:
    """Return how many enum values a schema has in all."""
    if isinstance(schema, dict):
        tree = cast("dict[str, object]", schema)
        return sum(len(cast("list[str]", one)) if key == "enum" else num_enum_values(one) for key, one in tree.items())
    return sum(map(num_enum_values, cast("list[object]", schema))) if isinstance(schema, list) else 0


def _actions(offer: Offer) -> list[dict[str, Any]]:
    actions = [_closed(kind=_enum(["no_action"]))]
    if offer.adjustable:
        actions.append(_closed(kind=_enum(["adjust"]), changes=_changes_schema(offer.adjustable)))
    if offer.returns:
        ids = [one.option.checkpoint for one in offer.returns]
        actions.append(_closed(kind=_enum(["rollback"]), checkpoint=_enum(ids)))
    for one in offer.returns:
        if one.adjustable:
            checkpoint, changes = _enum([one.option.checkpoint]), _changes_schema(one.adjustable)
            actions.append(_closed(kind=_enum(["rollback_and_adjust"]), checkpoint=checkpoint, changes=changes))
    if offer.skips:
        actions.append(_closed(kind=_enum(["skip_batches"]), count=_enum(offer.skips)))
    if offer.may_stop:
        actions.append(_closed(kind=_enum(["stop"])))
    return actions


def _changes_schema(adjustable: Iterable[Choices]) -> dict[str, Any]:
    each = [_closed(control=_enum([choices.control]), value=_enum(choices.labels)) for choices in adjustable]
    return {"type": "array", "items": {"anyOf": each}}


def _closed(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _enum(values: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def read_choice(text: str, briefing: Briefing) -> Proposal:
    """Read a reply.

    White space around it, one code fence, and a number in place of its label are let pass; nothing else is.

    Args:
        text: What the model wrote.
        briefing: What it was given.

    Raises:
        ReplyError: The reply is no choice of what was offered; the message can be shown to the model.
    """
    check_size(text)
    reply = _fields(read_json(_unfenced(text)), "the reply", _KEYS)
    reason = reply["reason"]
    if not isinstance(reason, str) or not reason.strip() or len(reason) > MAX_TEXT:
        raise _refused("reason", reason, f"text of 1 to {MAX_TEXT} characters")
    action = _action(reply["action"], briefing)
    gain = _label(reply["expected_gain"], gain_labels(briefing), "expected_gain")
    within = _label(reply["within_evaluations"], WITHIN, "within_evaluations")
    watch = _list(reply["watch"], "watch", MAX_WATCHED)
    names = watchable(briefing)
    watched = tuple(dict.fromkeys(_name(one, names, f"watch[{index}]") for index, one in enumerate(watch)))
    does_something = not isinstance(action, (NoAction, Stop))
    return Proposal(action, reason, Expectation(float(gain), int(within)) if does_something else None, watched)


def _unfenced(text: str) -> str:
    stripped = text.strip(" \t\r\n")
    fenced = _FENCE.fullmatch(stripped)
    return stripped if fenced is None else fenced[1]


def _action(tree: Any, briefing: Briefing) -> Action:
    surface = briefing.surface
    kinds = kinds_of(surface)
    kind = _name(cast("dict[str, Any]", tree).get("kind"), kinds, "action.kind") if isinstance(tree, dict) else None
    labels = control_labels(briefing)
    backs = {option.checkpoint: option.adjustable for option in surface.rollbacks}
    match kind:
        case None:
            raise _refused("action", tree, f"an object with a kind: {', '.join(kinds)}")
        case "no_action":
            _fields(tree, "action", ("kind",))
            return NoAction()
        case "adjust":
            action = _fields(tree, "action", ("kind", "changes"))
            return Adjust(_changes(action["changes"], surface.adjustable, labels, surface.max_controls))
        case "rollback":
            action = _fields(tree, "action", ("kind", "checkpoint"))
            return Rollback(_name(action["checkpoint"], list(backs), "action.checkpoint"))
        case "rollback_and_adjust":
            action = _fields(tree, "action", ("kind", "checkpoint", "changes"))
            id = _name(action["checkpoint"], [one for one, options in backs.items() if options], "action.checkpoint")
            return RollbackAndAdjust(id, _changes(action["changes"], backs[id], labels, surface.max_controls))
        case "skip_batches":
            action = _fields(tree, "action", ("kind", "count"))
            return SkipBatches(int(_label(action["count"], skip_labels(surface.max_skip), "action.count")))
        case _:
            _fields(tree, "action", ("kind",))
            return Stop()


def _changes(tree: Any, options: Iterable[Options], labels: Mapping[str, Labels], max_controls: int) -> tuple[Change, ...]:
    allowed = {option.control: {value: labels[option.control][value] for value in option.values} for option in options}
    changes: list[Change] = []
    for index, one in enumerate(_list(tree, "action.changes", max_controls, least=1)):
        field = f"action.changes[{index}]"
        change = _fields(one, field, ("control", "value"))
        control = _name(change["control"], list(allowed), f"{field}.control")
        if any(other.control == control for other in changes):
            raise _refused(f"{field}.control", control, "each control once")
        changes.append(Change(control, _value(change["value"], allowed[control], f"{field}.value")))
    return tuple(changes)


def _value(tree: Any, labels: Labels, field: str) -> float:
    """Return the value that a label stands for, or that is given as a number itself."""
    given = _as_number(tree)
    for value, label in labels.items():
        if tree == label or (given is not None and given in (value, float(label))):
            return value
    raise _refused(field, tree, ", ".join(labels.values()))


def _label(tree: Any, labels: Sequence[str], field: str) -> str:
    given = _as_number(tree)
    for label in labels:
        if tree == label or (given is not None and given == float(label)):
            return label
    raise _refused(field, tree, ", ".join(labels))


def _as_number(tree: Any) -> float | None:
    if isinstance(tree, str) and _NUMBER.fullmatch(tree):
        return float(tree)
    return float(tree) if is_finite_number(tree) else None


def _name(tree: Any, names: Sequence[str], field: str) -> str:
    if isinstance(tree, str) and tree in names:
        return tree
    raise _refused(field, tree, ", ".join(names))


def _list(tree: Any, field: str, most: int, least: int = 0) -> list[Any]:
    if isinstance(tree, list) and least <= len(cast("list[Any]", tree)) <= most:
        return cast("list[Any]", tree)
    raise _refused(field, tree, f"a list of {least} to {most}")


def _fields(tree: Any, field: str, keys: Sequence[str]) -> dict[str, Any]:
    if isinstance(tree, dict) and set(cast("dict[str, Any]", tree)) == set(keys):
        return cast("dict[str, Any]", tree)
    raise _refused(field, tree, f"an object with exactly the keys {', '.join(keys)}")


def _refused(field: str, tree: Any, allowed: str) -> ReplyError:
    what = f"{field} is missing or not allowed" if tree is None else f"{field} is not allowed"
    received = quoted(json.dumps(tree, ensure_ascii=True), 120)
    return ReplyError(what, received=received, allowed=allowed if len(allowed) <= 300 else f"{allowed[:297]}...")
