"""The golden ledgers: one for each schema, frozen, and what reading them has to give.

A folder ``schema-1`` holds ``ledger.jsonl``; ``reading.json``, which is the state that its fold gives, the places of the
records that count, and what the verifier finds; and ``digests.json`` of both. Nothing in it is ever edited. While a schema
is not released yet, its folder is made anew by

    python -m tests.golden.regenerate --replace

and once it is released, ``RELEASED`` names it, and nothing regenerates it any more.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from trimtab.controller.state import State
from trimtab.controller.transitions import fold
from trimtab.ledger.codec import freeze
from trimtab.ledger.course import iter_course
from trimtab.ledger.verify import verify_file

HERE: Final = Path(__file__).parent
RELEASED: Final[tuple[str, ...]] = ()
LEDGER: Final = "ledger.jsonl"
READING: Final = "reading.json"
DIGESTS: Final = "digests.json"


def folder_of(schema: str) -> Path:
    """Return the folder of a schema such as ``trimtab/ledger/1``."""
    return HERE / f"schema-{schema.rpartition('/')[2]}"


def folders() -> list[Path]:
    """Return the folders of all schemas."""
    return sorted(HERE.glob("schema-*"))


def reading_of(ledger: Path) -> dict[str, Any]:
    """Return what reading a ledger gives, as a JSON tree."""
    entries = list(iter_course(ledger))
    state: State | None = None
    for entry in entries:
        state = fold(state, entry.record)
    verification = asdict(verify_file(ledger))
    return json.loads(
        json.dumps(
            {"course": [entry.sequence for entry in entries], "state": freeze(state), "verification": verification},
            allow_nan=False,
        )
    )


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def holds(tree: Any, expected: Any) -> bool:
    """Return whether ``tree`` has all that ``expected`` has; a newer version may have more fields."""
    if isinstance(expected, dict):
        return isinstance(tree, dict) and all(key in tree and holds(tree[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        return (
            isinstance(tree, list)
            and len(tree) == len(expected)
            and all(holds(one, other) for one, other in zip(tree, expected, strict=True))
        )
    return repr(tree) == repr(expected)  # 1 is not 1.0, and -0.0 is not 0.0
