"""JSON as managers write it: read strictly, whoever wrote it, before anything is made of it."""

from __future__ import annotations

import json
import math
from typing import Any, Final, Never, cast

from trimtab.errors import ReplyError

MAX_REPLY_BYTES: Final = 65_536
_MAX_DEPTH: Final = 16


def read_json(text: str | bytes) -> object:
    """Read one JSON value.

    Raises:
        ReplyError: It is too long, not JSON, nested too deeply, repeats a key or holds a number that is not finite.
    """
    check_size(text)
    try:
        # Left to itself, json would guess UTF-16 and 32 and let encoded surrogates pass.
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        tree = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ReplyError):
            raise
        raise ReplyError("the reply is not JSON", received=excerpt(text), allowed="one JSON object") from error
    check_depth(tree)
    return tree


def check_size(text: str | bytes) -> None:
    """Check that a text is short enough to be looked at.

    Raises:
        ReplyError: Write less.
    """
    if len(text) > MAX_REPLY_BYTES:
        raise ReplyError("the reply is too long", received=f"{len(text)} bytes", allowed=f"at most {MAX_REPLY_BYTES}")


def check_depth(tree: object) -> None:
    """Check that a tree can be walked without exhausting the stack.

    Raises:
        ReplyError: Nest it less deeply.
    """
    if _depth(tree) > _MAX_DEPTH:
        raise ReplyError("the reply is nested too deeply", allowed=f"at most {_MAX_DEPTH} levels")


def excerpt(text: str | bytes) -> str:
    """Return the beginning of a text, as text that can be written anywhere."""
    # A lone surrogate would break the ledger's encoding.
    shown = (text if isinstance(text, bytes) else text[:200].encode(errors="replace")).decode(errors="replace")
    return shown if len(shown) <= 120 else shown[:120] + "..."


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
                children.extend(cast("dict[str, object]", node).values())
            elif isinstance(node, list):
                children.extend(cast("list[object]", node))
        level = children
    return deepest
