from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.ledger.ledger_samples import write_run
from trimtab.errors import LedgerError
from trimtab.ledger import verify
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import SCHEMA
from trimtab.ledger.verify import KNOWN_SCHEMAS, Verification, verify_file

NUM_RECORDS = 50


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def lines(path: Path) -> list[bytes]:
    write_run(path, NUM_RECORDS)
    return path.read_bytes().splitlines(keepends=True)


def refused(path: Path, content: bytes) -> Verification:
    """Check that verifier and reader both refuse, and return what the verifier found."""
    path.write_bytes(content)
    verification = verify_file(path)
    assert not verification.ok, "the verifier let it pass"
    with pytest.raises(LedgerError):
        read_ledger(path)
    return verification


def resealed(lines: Iterable[bytes]) -> bytes:
    """Forge a chain: compute every hash anew, so that only the content can tell."""
    sealed, previous = b"", "0" * 64
    for line in lines:
        body = {key: value for key, value in json.loads(line).items() if key != "hash"} | {"prev": previous}
        previous = hashlib.sha256(_text(body)).hexdigest()
        sealed += _text({**body, "hash": previous}) + b"\n"
    return sealed


def _text(tree: Any) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


def test_a_whole_ledger_is_ok(path: Path) -> None:
    head = write_run(path, NUM_RECORDS)
    found = verify_file(path, (head.sequence, head.hash))
    assert found == Verification(ok=True, records=50, head=(head.sequence, head.hash), problem=None, line=None, torn_bytes=0)
    assert verify_file(str(path)).ok


def test_it_shares_no_code_with_the_writer() -> None:
    tree = ast.parse(Path(verify.__file__).read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert "hashlib" in names
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_it_knows_the_schema_that_is_written() -> None:
    assert SCHEMA in KNOWN_SCHEMAS


def test_a_flipped_bit_is_refused(path: Path, lines: list[bytes]) -> None:
    assert _flip(path, b"".join(lines), range(0, 8 * len(b"".join(lines)), 251)) > 500


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_flipped_bit_is_refused(path: Path, lines: list[bytes]) -> None:
    assert _flip(path, b"".join(lines), range(8 * len(b"".join(lines)))) > 100_000


def _flip(path: Path, whole: bytes, bits: Iterable[int]) -> int:
    count = 0
    head = len(whole.splitlines()) - 1
    for bit in bits:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        if bit // 8 == len(whole) - 1:
            # The last newline: what is left is a write that did not end, and the head is not there.
            path.write_bytes(damaged)
            assert verify_file(path).torn_bytes > 0
            assert not verify_file(path, (head, "0" * 64)).ok
        else:
            refused(path, bytes(damaged))
        count += 1
    return count


@pytest.mark.parametrize("index", range(NUM_RECORDS))
def test_a_deleted_swapped_or_repeated_line_is_refused(path: Path, lines: list[bytes], index: int) -> None:
    doubled = refused(path, b"".join([*lines[:index], lines[index], *lines[index:]]))
    assert (doubled.line, doubled.records) == (index + 2, index + 1)
    if index + 1 < len(lines):
        deleted = refused(path, b"".join([*lines[:index], *lines[index + 1 :]]))
        assert (deleted.line, deleted.records) == (index + 1, index)
        swapped = refused(path, b"".join([*lines[:index], lines[index + 1], lines[index], *lines[index + 2 :]]))
        assert swapped.line == index + 1


def test_a_dropped_tail_is_refused_against_the_head(path: Path) -> None:
    head = write_run(path, NUM_RECORDS)
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in range(NUM_RECORDS):
        path.write_bytes(b"".join(lines[:kept]))
        found = verify_file(path, (head.sequence, head.hash))
        assert (found.ok, found.records) == (False, kept)
        assert verify_file(path).ok == (kept > 0), "without the head nothing is missing"


def test_a_head_kept_earlier_still_holds_when_the_ledger_went_on(path: Path, lines: list[bytes]) -> None:
    kept = json.loads(lines[20])["hash"]
    assert verify_file(path, (20, kept)).ok
    other = verify_file(path, (20, "f" * 64))
    assert (other.ok, other.line) == (False, 21)
    assert not verify_file(path, (-1, kept)).ok


def test_a_torn_tail_is_counted_and_no_problem(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(lines) + b'{"hash"')
    found = verify_file(path)
    assert (found.ok, found.records, found.torn_bytes) == (True, NUM_RECORDS, 7)


def renumbered(line: bytes, sequence: Any) -> bytes:
    return _text({**json.loads(line), "seq": sequence})


def with_record(line: bytes, **changes: Any) -> bytes:
    tree = json.loads(line)
    return _text({**tree, "record": {**tree["record"], **changes}})


def test_a_forged_chain_is_refused_for_its_content(path: Path, lines: list[bytes]) -> None:
    first, second = lines[:2]
    assert resealed(lines) == b"".join(lines), "the forger seals as the writer does"
    cases = {
        "sequence": resealed([first, renumbered(second, 2)]),
        "sequence number True": resealed([first, renumbered(second, sequence=True)]),
        "this is 'evaluation_recorded'": resealed([renumbered(second, 0)]),
        "run_started has to be the first record and no other": resealed([first, first.replace(b'"seq":0', b'"seq":1')]),
        "the schema 'trimtab/ledger/0' is unknown": resealed([with_record(first, schema="trimtab/ledger/0")]),
        "no kind": resealed([with_record(first, kind=None)]),
        "other keys": resealed([_text({**json.loads(first), "more": 1})]),
        "time": resealed([_text({**json.loads(first), "time": 1})]),
        "record is not": resealed([_text({**json.loads(first), "record": []})]),
    }
    for problem, content in cases.items():
        assert problem in str(refused(path, content).problem)


def sealed(body: bytes) -> bytes:
    return b'{"hash":"' + hashlib.sha256(body).hexdigest().encode() + b'",' + body[1:] + b"\n"


def test_a_forged_line_is_refused_for_its_form(path: Path, lines: list[bytes]) -> None:
    body = b"{" + lines[0][len('{"hash":"') + 64 + len('",') : -1]
    assert sealed(body) == lines[0]
    cases = {
        "repeated": body.replace(b'"seq":0', b'"seq":0,"seq":0'),
        "canonical": body.replace(b'"seq":0', b'"seq": 0'),
        "canonical form": body.replace(b"1000.0", b"1e3"),
        "NaN": body.replace(b"1000.0", b"NaN"),
        "not JSON": body[:-1],
        "is not JSON": b"{" + b"[" * 100_000,
        "Extra data": body + b"{}",
    }
    for problem, forged in cases.items():
        assert problem in str(refused(path, sealed(forged)).problem)


@pytest.mark.parametrize("content", [b"\n", b"\n\n", b"{}\n", b"null\n", b"\xff\xfe\n", b"\x00" * 100 + b"\n", b'{"hash":"\n'])
def test_what_is_no_ledger_is_refused(path: Path, content: bytes) -> None:
    found = refused(path, content)
    assert (found.records, found.head, found.line) == (0, None, 1)


def test_an_empty_or_missing_file_is_not_ok(path: Path) -> None:
    assert verify_file(path).problem == "the file cannot be read: No such file or directory"
    path.write_bytes(b"")
    assert verify_file(path).problem == "there is no whole record"
