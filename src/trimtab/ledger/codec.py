"""Records to JSON trees and back.

Rules:
1. A tree holds JSON values only. JSON has no non-finite numbers, so these are ``{"$float": "nan"}``,
   ``"inf"`` or ``"-inf"``; all other floats are written so that they read back bit for bit.
2. Reading is strict: no unknown field, no number as text, no whole number made of a fraction.
3. Nothing is encoded that could not be decoded: a ledger that was written can be read.
4. A lone surrogate (a file name that is not UTF-8, say) is no text and is written as its escape.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Final, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from trimtab.errors import LedgerDamaged, LedgerError, LedgerVersionUnknown
from trimtab.ledger.record import SCHEMA, Record

_NON_FINITE: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode(record: Record) -> dict[str, Any]:
    """Return the record as a JSON tree.

    Raises:
        LedgerError: Build the record from plain values of the declared types.
    """
    tree = freeze(record)
    try:
        _validated(tree)
    except (ValueError, RecursionError) as error:
        raise LedgerError(
            "a record cannot be written, since it could not be read back",
            received=f"{type(record).__name__}: {_first_problem(error)}",
            allowed="plain values of the declared types",
        ) from error
    return tree


def decode(tree: object) -> Record:
    """Return the record that `encode` made ``tree`` from.

    Raises:
        LedgerVersionUnknown: Install the version of trimtab that wrote the ledger, or a newer one.
        LedgerDamaged: The tree is not a record; do not trust it.
    """
    if not isinstance(tree, dict):
        raise LedgerDamaged("a record is not a JSON object", received=repr(tree)[:80])
    fields_of = cast("dict[str, Any]", tree)
    kind, schema = fields_of.get("kind"), fields_of.get("schema")
    newer = "install a newer trimtab"
    if isinstance(kind, str) and kind not in _kinds():
        raise LedgerVersionUnknown("a kind of record is unknown", received=kind[:80], next_step=newer)
    if kind == "run_started" and isinstance(schema, str) and schema != SCHEMA:
        raise LedgerVersionUnknown("the ledger's schema is unknown", received=schema[:80], allowed=SCHEMA, next_step=newer)
    try:
        record = _validated(fields_of)
        _require_kinds(record, fields_of, "record")
    except (ValueError, RecursionError) as error:
        raise LedgerDamaged("a record is malformed", received=f"{str(kind)[:80]}: {_first_problem(error)}") from error
    return record


def canonical(tree: object) -> str:
    """Return the one JSON text of a tree: sorted keys, no spaces, ASCII.

    Raises:
        ValueError: Pass the tree through `freeze` first.
    """
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def freeze(value: Any) -> Any:
    """Return dataclasses, tuples and numbers as a JSON tree.

    Raises:
        LedgerError: Pass dataclasses, sequences, text, numbers, booleans and None only.
    """
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, (tuple, list)):
        return [freeze(item) for item in cast("list[Any]", value)]
    names = _names(cast("type[Any]", type(value)))
    if names is not None:
        return {name: freeze(getattr(value, name)) for name in names}
    raise LedgerError(
        "a value cannot be written to the ledger",
        received=type(value).__name__,
        allowed="dataclasses, sequences, text, numbers, booleans and None",
    )


def thaw(tree: Any) -> Any:
    """Return the tree with its non-finite numbers as floats."""
    if isinstance(tree, list):
        return [thaw(item) for item in cast("list[Any]", tree)]
    if isinstance(tree, dict):
        entries = cast("dict[str, Any]", tree)
        coded = entries.get("$float") if len(entries) == 1 else None
        if isinstance(coded, str) and coded in _NON_FINITE:
            return _NON_FINITE[coded]
        return {key: thaw(item) for key, item in entries.items()}
    return tree


@cache
def _adapter() -> TypeAdapter[Any]:
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=True)
    return TypeAdapter(Annotated[Record, Field(discriminator="kind")], config=config)


@cache
def _kinds() -> frozenset[str]:
    return frozenset(str(field.default) for record in Record.__args__ for field in fields(record) if field.name == "kind")


@cache
def _names(cls: type[Any]) -> tuple[str, ...] | None:
    """Return the fields of a dataclass; None for any other class."""
    return tuple(field.name for field in fields(cls)) if is_dataclass(cls) else None


def _validated(tree: dict[str, Any]) -> Record:
    # As JSON text: strict checking then still makes tuples and dataclasses of arrays and objects.
    text = json.dumps(tree)
    if '"$float"' in text:  # elsewhere there is nothing to thaw
        text = json.dumps(thaw(tree))
    return cast("Record", _adapter().validate_json(text))


def _require_kinds(value: Any, tree: Any, where: str) -> None:
    # Without its kind an action reads as whichever has the fewest fields, through their defaults.
    if isinstance(value, tuple):
        for index, (item, branch) in enumerate(zip(cast("tuple[Any, ...]", value), tree, strict=True)):
            _require_kinds(item, branch, f"{where}.{index}")
    else:
        for name in _names(cast("type[Any]", type(value))) or ():
            if name in tree:
                _require_kinds(getattr(value, name), tree[name], f"{where}.{name}")
            elif name == "kind":
                raise ValueError(f"{where}: kind is missing")


def _first_problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)[:200]
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:200]
