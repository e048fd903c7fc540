"""The wire form of briefings and replies: JSON, checked strictly on the way in.

A reply is ``{"action": {"kind": ...}, "reason": ..., "expectation": {...}, "watch": [...]}``. Whatever
is not exactly that is a `ReplyError`, which the controller turns into no_action and a record.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal, Never, cast

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
from trimtab.decision.proposal import MAX_TEXT, Expectation, Proposal
from trimtab.errors import ReplyError

MAX_REPLY_BYTES: Final = 65_536
_MAX_DEPTH: Final = 16


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


def parse_reply(text: str | bytes) -> Proposal:
    """Read a reply.

    Raises:
        ReplyError: Treat it as no_action; the message says which field is wrong.
    """
    if len(text) > MAX_REPLY_BYTES:
        raise ReplyError("the reply is too long", received=f"{len(text)} bytes", allowed=f"at most {MAX_REPLY_BYTES}")
    try:
        # Left to itself, json would guess UTF-16 and 32 and let encoded surrogates pass.
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        tree = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ReplyError):
            raise
        raise ReplyError("the reply is not JSON", received=_excerpt(text), allowed="one JSON object") from error
    return proposal_from(tree)


def proposal_from(tree: object) -> Proposal:
    """Check a parsed reply and build the proposal.

    Raises:
        ReplyError: Treat it as no_action; the message says which field is wrong.
    """
    if _depth(tree) > _MAX_DEPTH:
        raise ReplyError("the reply is nested too deeply", allowed=f"at most {_MAX_DEPTH} levels")
    try:
        reply = _Reply.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the reply"
        wrong = f"{_excerpt(where)}: {_excerpt(first['msg'])}"
        raise ReplyError(f"the reply is not a proposal: {wrong}", received=_excerpt(repr(tree))) from None
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
    return json.loads(json.dumps(tree, allow_nan=False))


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


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ReplyError("the reply repeats a key", received=[key for key, _ in pairs][:10])
    return tree


def _no_constant(name: str) -> Never:
    raise ReplyError("the reply holds a non-finite number", received=name, allowed="finite numbers")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        _no_constant(digits[:40])
    return value


def _depth(tree: object) -> int:
    deepest, level = 0, [tree]
    while level and deepest <= _MAX_DEPTH:
        deepest += 1
        children: list[object] = []
        for node in level:
            if isinstance(node, dict):
                children.extend(node.values())  # pyright: ignore[reportUnknownArgumentType] - any JSON
            elif isinstance(node, list):
                children.extend(node)  # pyright: ignore[reportUnknownArgumentType] - any JSON
        level = children
    return deepest


def _excerpt(text: str | bytes) -> str:
    # A lone surrogate would break the ledger's encoding.
    shown = (text if isinstance(text, bytes) else text[:200].encode(errors="replace")).decode(errors="replace")
    return shown if len(shown) <= 120 else shown[:120] + "..."
