"""The wire form of briefings and replies: JSON, checked strictly on the way in.

A reply is ``{"action": {"kind": ...}, "reason": ..., "expectation": {...}, "watch": [...]}``. Whatever
is not exactly that is a `ReplyError`, which the controller turns into no_action and a record.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
from trimtab.decision.json_text import MAX_REPLY_BYTES, check_depth, excerpt, read_json
from trimtab.decision.proposal import MAX_TEXT, Expectation, Proposal
from trimtab.errors import ReplyError

__all__ = ["MAX_REPLY_BYTES", "encode_proposal", "parse_reply", "proposal_from"]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Change(_Message):
    control: Annotated[str, Field(min_length=1, max_length=80)]
    value: float


_Changes = Annotated[list[_Change], Field(min_length=1, max_length=3)]
_CheckpointId = Annotated[str, Field(min_length=1, max_length=80)]


class _NoAction(_Message):
    kind: Literal["no_action"]


class _Adjust(_Message):
    kind: Literal["adjust"]
    changes: _Changes


class _Rollback(_Message):
    kind: Literal["rollback"]
    checkpoint: _CheckpointId


class _RollbackAndAdjust(_Message):
    kind: Literal["rollback_and_adjust"]
    checkpoint: _CheckpointId
    changes: _Changes


class _SkipBatches(_Message):
    kind: Literal["skip_batches"]
    count: Annotated[int, Field(ge=1, le=1_000_000)]


class _Stop(_Message):
    kind: Literal["stop"]


class _Expectation(_Message):
    gain: float
    within_evaluations: Annotated[int, Field(ge=1, le=3)]


class _Reply(_Message):
    action: Annotated[_NoAction | _Adjust | _Rollback | _RollbackAndAdjust | _SkipBatches | _Stop, Field(discriminator="kind")]
    reason: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    expectation: _Expectation | None = None
    watch: Annotated[list[Annotated[str, Field(max_length=80)]], Field(max_length=16)] = []


_KINDS: Final[dict[str, type[_Message]]] = {
    "no_action": _NoAction,
    "adjust": _Adjust,
    "rollback": _Rollback,
    "rollback_and_adjust": _RollbackAndAdjust,
    "skip_batches": _SkipBatches,
    "stop": _Stop,
}


def parse_reply(text: str | bytes) -> Proposal:
    """Read a reply.

    Raises:
        ReplyError: Treat it as no_action; the message says which field is wrong.
    """
    return proposal_from(read_json(text))


def proposal_from(tree: object) -> Proposal:
    """Check a parsed reply and build the proposal.

    Raises:
        ReplyError: Treat it as no_action; the message says which field is wrong.
    """
    check_depth(tree)
    try:
        reply = _Reply.model_validate(tree)
    except ValidationError as error:
        wrong, allowed = _said(error)
        raise ReplyError(f"the reply is not a proposal: {wrong}", received=excerpt(repr(tree)), allowed=allowed) from None
    expectation = reply.expectation
    return Proposal(
        action=_action(reply.action),
        reason=reply.reason,
        expectation=None if expectation is None else Expectation(expectation.gain, expectation.within_evaluations),
        watch=tuple(reply.watch),
    )


def encode_proposal(proposal: object) -> dict[str, Any]:
    """Return the reply that `proposal_from` reads back as ``proposal``; a reply in wire form stays as it is.

    Raises:
        ReplyError: Return a `Proposal`, or a mapping in the wire form.
    """
    if not isinstance(proposal, (Proposal, dict)):
        raise ReplyError(
            "a manager returned something else than a proposal",
            received=type(proposal).__name__,
            allowed="trimtab.decision.proposal.Proposal, or a mapping in the wire form",
        )
    tree: Any = asdict(proposal) if isinstance(proposal, Proposal) else cast("Any", proposal)
    return json.loads(json.dumps(tree))  # a number that is not finite is refused with its place, by who reads it back


def _said(error: ValidationError) -> tuple[str, str | None]:
    """Return what is wrong first in a reply, and what is allowed there where pydantic does not say so."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = excerpt(".".join(str(part) for part in first["loc"]) or "the reply")
    match first["type"]:
        case "union_tag_not_found":
            return f"{where}: it has no kind", f"kind is one of {', '.join(_KINDS)}"
        case "union_tag_invalid":
            return f"{where}: there is no such kind", f"kind is one of {', '.join(_KINDS)}"
        case "missing":
            return f"{where}: it is missing", _fields_beside(first["loc"])
        case "extra_forbidden":
            return f"{where}: there is no such field", _fields_beside(first["loc"])
        case _:
            return f"{where}: {excerpt(first['msg'])}", None


def _fields_beside(place: tuple[int | str, ...]) -> str:
    """Return the fields that the object around a place may have."""
    match place[:-1]:
        case ("action", str() as kind):
            fields = _KINDS[kind].model_fields
        case ("action", *_):
            fields = _Change.model_fields
        case ("expectation",):
            fields = _Expectation.model_fields
        case _:
            fields = _Reply.model_fields
    return ", ".join(f"{name}{'' if field.is_required() else ' (may be left out)'}" for name, field in fields.items())


def _action(message: Any) -> Action:
    match message:
        case _Adjust():
            return Adjust(_changes(message.changes))
        case _Rollback():
            return Rollback(message.checkpoint)
        case _RollbackAndAdjust():
            return RollbackAndAdjust(message.checkpoint, _changes(message.changes))
        case _SkipBatches():
            return SkipBatches(message.count)
        case _Stop():
            return Stop()
        case _:
            return NoAction()


def _changes(messages: list[_Change]) -> tuple[Change, ...]:
    return tuple(Change(message.control, message.value) for message in messages)
