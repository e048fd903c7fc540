"""One line of a ledger: a record, sealed with the hash of the line before it.

A line is the canonical JSON of ``{"seq": n, "time": t, "prev": hash, "record": tree, "hash": hash}``; its
hash is the SHA-256 of the canonical JSON without "hash". Only the canonical text is accepted: other
texts with the same meaning (``1E-05`` for ``1e-05``) would let a changed bit pass.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, cast

from trimtab.errors import LedgerDamaged, LedgerError, LedgerVersionUnknown
from trimtab.ledger.codec import canonical, decode, encode
from trimtab.ledger.record import Record, RunStarted

GENESIS: Final = "0" * 64

_OPENING: Final = b'{"hash":"'
_CLOSING: Final = b'",'
_BODY: Final = slice(len(_OPENING) + 64 + len(_CLOSING), None)


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it stands in the ledger.

    Args:
        sequence: Its number, from 0.
        time_seconds: When it was appended, as told by the runtime's clock.
        hash: Hash of its line, hexadecimal.
        record: The record.
    """

    sequence: int
    time_seconds: float
    hash: str
    record: Record


def write_line(sequence: int, time_seconds: float, previous: str, record: Record) -> tuple[bytes, str]:
    """Return the line of a record, with its newline, and the line's hash.

    Raises:
        LedgerError: Give a finite time, and a record of plain values; begin with run_started.
    """
    if not math.isfinite(time_seconds):
        raise LedgerError("the time of a record is not a finite number", received=time_seconds, allowed="seconds")
    if (sequence == 0) != isinstance(record, RunStarted):
        raise LedgerError("a ledger begins with run_started, once", received=f"{record.kind} as record {sequence}")
    body = {"seq": sequence, "time": float(time_seconds), "prev": previous, "record": encode(record)}
    text = canonical(body).encode("ascii")
    hash_ = sha256(text).hexdigest()
    # "hash" is the first key in order, so the canonical line is the text with the hash before it.
    return _OPENING + hash_.encode("ascii") + _CLOSING + text[1:] + b"\n", hash_


def read_line(line: bytes, sequence: int, previous: str, where: str) -> Entry:
    """Return the entry of a line, if it is record ``sequence`` and follows the line of hash ``previous``.

    Args:
        line: The line without its newline.
        sequence: The number it has to have.
        previous: The hash it has to name as the one before.
        where: File and line, for the message.

    Raises:
        LedgerDamaged: Do not trust this line nor what follows it.
        LedgerVersionUnknown: Install the version that wrote it, or a newer one.
    """
    tree = _parse(line, where)
    if type(tree["seq"]) is not int or tree["seq"] != sequence:
        raise _damaged(where, "a line is out of order", str(tree["seq"]), f"sequence {sequence}")
    if tree["prev"] != previous:
        raise _damaged(where, "a line does not follow the one before it", str(tree["prev"]), f"prev {previous}")
    if not isinstance(tree["time"], float):
        raise _damaged(where, "the time of a line is not a float", str(tree["time"]), "seconds")
    try:
        record = decode(tree["record"])
    except (LedgerDamaged, LedgerVersionUnknown) as error:
        raise type(error)(
            f"{where}: {error.what}", received=error.received, allowed=error.allowed, next_step=error.next_step
        ) from error
    if (sequence == 0) != isinstance(record, RunStarted):
        raise _damaged(where, "a ledger begins with run_started, once", record.kind, "run_started as the first record only")
    return Entry(sequence, tree["time"], tree["hash"], record)


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        parsed: object = json.loads(line)
        same = canonical(parsed).encode("ascii") == line
    except (ValueError, RecursionError) as error:
        raise _damaged(where, "a line is not JSON", repr(line[:80]), "one record") from error
    if not same or not isinstance(parsed, dict):
        raise _damaged(where, "a line is not in canonical form", repr(line[:80]), "the bytes that were written")
    tree = cast("dict[str, Any]", parsed)
    if set(tree) != {"seq", "time", "prev", "record", "hash"}:
        raise _damaged(where, "a line has other keys", ", ".join(sorted(tree)), "hash, prev, record, seq, time")
    # The line is canonical, so its bytes without the hash are the canonical text of what was hashed.
    if sha256(b"{" + line[_BODY]).hexdigest() != tree["hash"]:
        raise _damaged(where, "a line does not match its hash", str(tree["hash"]), "the hash of its content")
    return tree


def _damaged(where: str, what: str, received: str, allowed: str) -> LedgerDamaged:
    return LedgerDamaged(
        f"{where}: {what}", received=received[:80], allowed=allowed, next_step="restore the ledger from a copy; never edit it"
    )
