"""The standalone verifier: says whether a ledger file is whole, and if not, where it is not.

It shares no code with the writer and needs the standard library only, so that a defect in one is
seen by the other, and anybody can copy this file and check a ledger without trimtab.

A line is ``{"hash":H,"prev":P,"record":R,"seq":N,"time":T}`` in canonical JSON (sorted keys, no spaces,
ASCII). H is the SHA-256 of the line's bytes without the ``"hash":H,`` part; P is the H of the line
before, 64 zeros at first; N counts from 0. The first R is run_started, and no other.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from typing import Any, Final, Never, cast

KNOWN_SCHEMAS: Final = ("trimtab/ledger/1",)

_FIRST: Final = "0" * 64
_OPENING: Final = b'{"hash":"'
_CLOSING: Final = b'",'


@dataclass(frozen=True, slots=True)
class Verification:
    """What the verifier found.

    Args:
        ok: Whether every line is whole, and the expected head is there.
        records: Whole records before the first problem.
        head: Sequence number and hash of the last of them; None if there is none.
        problem: What is wrong; None if ok.
        line: Number of the line that is wrong, from 1; None if ok or if no line can be named.
        torn_bytes: Bytes after the last newline, of a write that did not end; no problem in itself.
    """

    ok: bool
    records: int
    head: tuple[int, str] | None
    problem: str | None
    line: int | None
    torn_bytes: int


def verify_file(path: str | os.PathLike[str], expected_head: tuple[int, str] | None = None) -> Verification:
    """Check a ledger file.

    Args:
        path: The file.
        expected_head: Sequence number and hash of a line that has to be there, as kept outside the
            ledger (in a checkpoint, say). Without it a tail cut off at a line's end cannot be seen.

    Returns:
        What was found; bad content, however bad, raises nothing.
    """
    hashes: list[str] = []
    torn_bytes = 0
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - any path, no import for it
            for line in file:
                if not line.endswith(b"\n"):
                    torn_bytes = len(line)
                    break
                problem = _problem_of(line[:-1], len(hashes), hashes[-1] if hashes else _FIRST)
                if problem is not None:
                    return _verification(hashes, problem, len(hashes) + 1, 0)
                hashes.append(line[len(_OPENING) : len(_OPENING) + 64].decode("ascii"))
    except OSError as error:
        return _verification(hashes, f"the file cannot be read: {error.strerror}", None, 0)
    problem, at = _problem_of_end(hashes, expected_head)
    return _verification(hashes, problem, at, torn_bytes)


def _problem_of_end(hashes: list[str], expected_head: tuple[int, str] | None) -> tuple[str | None, int | None]:
    if not hashes:
        return "there is no whole record", None
    if expected_head is None:
        return None, None
    sequence, hash_ = expected_head
    if not 0 <= sequence < len(hashes):
        return f"record {sequence} of the expected head is not there", None
    if hashes[sequence] != hash_:
        return f"record {sequence} is not the one of the expected head", sequence + 1
    return None, None


def _verification(hashes: list[str], problem: str | None, line: int | None, torn_bytes: int) -> Verification:
    head = (len(hashes) - 1, hashes[-1]) if hashes else None
    return Verification(problem is None, len(hashes), head, problem, line, torn_bytes)


def _problem_of(line: bytes, sequence: int, previous: str) -> str | None:
    """Return what is wrong with a line, or None."""
    start, end = len(_OPENING), len(_OPENING) + 64
    if not line.startswith(_OPENING) or line[end : end + len(_CLOSING)] != _CLOSING:
        return "the line does not begin with its hash"
    body = b"{" + line[end + len(_CLOSING) :]
    if hashlib.sha256(body).hexdigest().encode("ascii") != line[start:end]:
        return "the line does not match its hash"
    try:
        tree: object = json.loads(body, object_pairs_hook=_unique, parse_constant=_refuse)
        text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (ValueError, RecursionError) as error:
        return f"the line is not JSON: {str(error)[:120]}"
    if text.encode("ascii") != body:
        return "the line is not in canonical form"
    return _problem_of_body(tree, sequence, previous)


def _problem_of_body(tree: object, sequence: int, previous: str) -> str | None:
    if not isinstance(tree, dict):
        return "the line is not an object"
    body = cast("dict[str, Any]", tree)
    if sorted(body) != ["prev", "record", "seq", "time"]:
        return "the line has other keys"
    if type(body["seq"]) is not int or body["seq"] != sequence:
        return f"the line has sequence number {body['seq']!r:.40}, expected {sequence}"
    if body["prev"] != previous:
        return "the line does not follow the one before it"
    if not isinstance(body["time"], float) or not math.isfinite(body["time"]):
        return "the time is not a finite float"
    record: object = body["record"]
    if not isinstance(record, dict):
        return "the record is not an object"
    kind, schema = (cast("dict[str, Any]", record).get(key) for key in ("kind", "schema"))
    if not isinstance(kind, str):
        return "the record has no kind"
    if (sequence == 0) != (kind == "run_started"):
        return f"run_started has to be the first record and no other; this is {kind!r:.40}"
    if sequence == 0 and schema not in KNOWN_SCHEMAS:
        return f"the schema {schema!r:.40} is unknown; known: {', '.join(KNOWN_SCHEMAS)}"
    return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a key is repeated")
    return tree


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is not JSON")
