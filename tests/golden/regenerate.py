"""Makes the golden ledger of the present schema: ``python -m tests.golden.regenerate``, with ``--replace`` anew.

To be run by hand and with intent: whoever replaces a golden ledger says that no ledger written so far has to stay readable.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tests.golden.frozen import DIGESTS, LEDGER, READING, RELEASED, digest, folder_of, reading_of
from tests.golden.story import records_of_a_run
from trimtab.ledger.journal import Journal
from trimtab.ledger.record import SCHEMA, Record


def kinds() -> set[str]:
    """Return every kind of record there is."""
    return {str(field.default) for record in Record.__args__ for field in fields(record) if field.name == "kind"}


def write(folder: Path) -> None:
    """Write the ledger and what reading it gives; each file is replaced."""
    records = records_of_a_run()
    if missing := kinds() - {record.kind for record in records}:
        raise ValueError(f"tests/golden/story.py tells of no {', '.join(sorted(missing))}")
    folder.mkdir(exist_ok=True)
    ledger = folder / LEDGER
    ledger.unlink(missing_ok=True)
    with Journal.create(ledger) as journal:
        for number, record in enumerate(records):
            journal.append(record, 1000.0 + number / 8)
    _dump(folder / READING, reading_of(ledger))
    _dump(folder / DIGESTS, {name: digest(folder / name) for name in (LEDGER, READING)})


def _dump(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="ascii")


def main(arguments: Sequence[str]) -> int:
    """Write the golden ledger; return 1 where that is not allowed."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.regenerate", description=__doc__)
    parser.add_argument("--replace", action="store_true", help="replace the one that is there")
    options = parser.parse_args(arguments)
    folder = folder_of(SCHEMA)
    if SCHEMA in RELEASED:
        sys.stderr.write(f"error: {SCHEMA} is released: its golden ledger stays as it is; give the new records a new schema\n")
        return 1
    if folder.exists() and not options.replace:
        sys.stderr.write(f"error: {folder.name} is there; with --replace, ledgers written before may become unreadable\n")
        return 1
    write(folder)
    sys.stdout.write(f"{folder.name}: {(folder / LEDGER).stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
