"""L6: old ledgers stay readable, and one of an unknown version is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.golden import regenerate
from tests.golden.frozen import DIGESTS, LEDGER, READING, digest, folder_of, folders, holds, reading_of
from tests.promises.counting import Tally
from trimtab.errors import LedgerDamaged, LedgerVersionUnknown
from trimtab.ledger.codec import decode, encode
from trimtab.ledger.course import iter_course
from trimtab.ledger.journal import Journal
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import SCHEMA
from trimtab.ledger.verify import KNOWN_SCHEMAS, verify_file

FOLDERS = folders()
EVERY_SCHEMA = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def trees(ledger: Path) -> list[Any]:
    return [json.loads(line)["record"] for line in ledger.read_bytes().splitlines()]


def sealed(records: list[Any]) -> bytes:
    """Chain records as the writer does, whatever is in them."""
    lines, previous = b"", "0" * 64
    for sequence, record in enumerate(records):
        body = {"prev": previous, "record": record, "seq": sequence, "time": 1.0}
        text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        previous = hashlib.sha256(text).hexdigest()
        lines += b'{"hash":"' + previous.encode() + b'",' + text[1:] + b"\n"
    return lines


def test_there_is_a_golden_ledger_for_every_known_schema(tally: Tally) -> None:
    assert {folder_of(schema) for schema in KNOWN_SCHEMAS} == set(FOLDERS)
    assert SCHEMA in KNOWN_SCHEMAS
    tally.count("schemas", len(FOLDERS))


@EVERY_SCHEMA
def test_a_golden_ledger_is_as_it_was_frozen(folder: Path, tally: Tally) -> None:
    digests = json.loads((folder / DIGESTS).read_bytes())
    assert set(digests) == {LEDGER, READING}
    assert {name: digest(folder / name) for name in digests} == digests, "a golden ledger is never edited"
    tally.count("frozen files", len(digests))


@EVERY_SCHEMA
def test_reading_a_golden_ledger_gives_every_record_with_every_value(folder: Path, tally: Tally) -> None:
    written = trees(folder / LEDGER)
    entries = read_ledger(folder / LEDGER)
    assert len(entries) == len(written)
    for entry, tree in zip(entries, written, strict=True):
        assert holds(encode(entry.record), tree), f"record {entry.sequence} reads as another"
        assert repr(decode(encode(entry.record))) == repr(entry.record)
        tally.count("records read")


@EVERY_SCHEMA
def test_folding_a_golden_ledger_gives_the_state_that_it_gave(folder: Path, tally: Tally) -> None:
    expected = json.loads((folder / READING).read_bytes())
    found = reading_of(folder / LEDGER)
    assert found["course"] == expected["course"]
    for name, value in expected["state"].items():
        assert holds(found["state"].get(name), value), f"{name} is another"
        tally.count("fields of the state")
    assert holds(found["verification"], expected["verification"])


@EVERY_SCHEMA
def test_a_run_of_an_old_schema_can_be_gone_on_with(folder: Path, tmp_path: Path, tally: Tally) -> None:
    shutil.copyfile(folder / LEDGER, tmp_path / LEDGER)
    last = read_ledger(tmp_path / LEDGER)[-1]
    with Journal.open(tmp_path / LEDGER) as journal:
        assert (journal.head.sequence, journal.head.hash) == (last.sequence, last.hash)
        journal.append(last.record, 2000.0)
    assert verify_file(tmp_path / LEDGER, (last.sequence, last.hash)).records == last.sequence + 2
    tally.count("ledgers gone on with")


def _of_another_schema(records: list[Any]) -> list[Any]:
    return [{**records[0], "schema": "trimtab/ledger/999"}, *records[1:]]


def _with_an_unknown_kind(records: list[Any]) -> list[Any]:
    return [*records[:5], {"kind": "teleported", "step": 1}, *records[5:]]


def _with_an_unknown_field(records: list[Any]) -> list[Any]:
    return [*records[:5], {**records[5], "more": 1}, *records[6:]]


@EVERY_SCHEMA
@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (
            _of_another_schema,
            LedgerVersionUnknown,
            r":1: the ledger.s schema is unknown; received trimtab/ledger/999",
        ),
        (_with_an_unknown_kind, LedgerVersionUnknown, r"ledger\.jsonl:6: a kind of record is unknown; received teleported"),
        (_with_an_unknown_field, LedgerDamaged, r"ledger\.jsonl:6: a record is malformed"),
    ],
)
def test_what_another_version_wrote_is_refused_and_the_next_step_named(
    folder: Path, tmp_path: Path, tally: Tally, change: Callable[[list[Any]], list[Any]], error: type[Exception], told: str
) -> None:
    path = tmp_path / LEDGER
    path.write_bytes(sealed(change(trees(folder / LEDGER))))
    before = path.read_bytes()
    for read in (read_ledger, lambda path: tuple(iter_course(path)), Journal.open):
        with pytest.raises(error, match=told) as raised:
            read(path)
        assert ("install a newer trimtab" in str(raised.value)) == (error is LedgerVersionUnknown)
        tally.count("readings of what another version wrote, refused")
    assert path.read_bytes() == before
    if change is _of_another_schema:
        assert "'trimtab/ledger/999' is unknown" in str(verify_file(path).problem)


def test_a_golden_ledger_is_made_anew_only_with_intent(
    tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "schema-1"
    monkeypatch.setattr(regenerate, "folder_of", lambda _: made)
    assert regenerate.main([]) == 0
    assert reading_of(made / LEDGER) == json.loads((made / READING).read_bytes())
    before = digest(made / LEDGER)
    (made / READING).write_text("touched")
    assert regenerate.main([]) == 1
    assert (made / READING).read_text() == "touched"
    assert regenerate.main(["--replace"]) == 0
    assert digest(made / LEDGER) == before, "the same run gives the same bytes"
    monkeypatch.setattr(regenerate, "RELEASED", (SCHEMA,))
    (made / READING).write_text("touched")
    assert regenerate.main(["--replace"]) == 1
    assert (made / READING).read_text() == "touched"
    assert "is released" in capsys.readouterr().err
    tally.count("ways to make one anew", 4)
