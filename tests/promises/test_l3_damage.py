"""L3: damage in the middle of a ledger is refused, never skipped; both by the reader and by the standalone verifier."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damage import refused
from tests.promises.counting import Tally
from tests.unit.ledger.ledger_samples import ONE_OF_EACH, write_anchored_run, write_run
from trimtab.errors import LedgerError
from trimtab.ledger.course import iter_course
from trimtab.ledger.journal import Journal
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.verify import verify_file, verify_run

NUM_RECORDS = 50
SHARES = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


@pytest.mark.parametrize("share", range(SHARES))
def test_every_flipped_bit_is_refused(path: Path, tally: Tally, share: int) -> None:
    write_run(path, NUM_RECORDS)
    _flip_bits(path, tally, share, portion=60)


@pytest.mark.parametrize("share", range(SHARES))
def test_every_flipped_bit_is_refused_in_every_kind_of_record(path: Path, tally: Tally, share: int) -> None:
    with Journal.create(path) as journal:
        for number, record in enumerate(ONE_OF_EACH):
            journal.append(record, 10.0 + number)
    _flip_bits(path, tally, share, portion=20)


def _flip_bits(path: Path, tally: Tally, share: int, portion: int) -> None:
    whole = path.read_bytes()
    last = len(read_ledger(path)) - 1
    for bit in tally.choose("bits flipped", range(share, 8 * len(whole), SHARES), portion=portion):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        if bit // 8 < len(whole) - 1:
            refused(path, bytes(damaged))
        else:
            # The last newline: what is left is a write that did not end, and the head is not there.
            path.write_bytes(damaged)
            assert verify_file(path).torn_bytes > 0
            assert not verify_file(path, (last, "0" * 64)).ok
            assert len(read_ledger(path)) == last
        tally.count("bits flipped")


def test_every_deleted_swapped_and_repeated_record_is_refused(path: Path, tally: Tally) -> None:
    head = write_run(path, NUM_RECORDS)
    lines = path.read_bytes().splitlines(keepends=True)
    for index in tally.choose("records repeated", range(NUM_RECORDS), portion=NUM_RECORDS):
        doubled = refused(path, b"".join([*lines[:index], lines[index], *lines[index:]]))
        assert (doubled.line, doubled.records) == (index + 2, index + 1)
        tally.count("records repeated")
    for index in tally.choose("records deleted", range(NUM_RECORDS), portion=NUM_RECORDS):
        content = b"".join([*lines[:index], *lines[index + 1 :]])
        if index + 1 < NUM_RECORDS:
            deleted = refused(path, content)
            assert (deleted.line, deleted.records) == (index + 1, index)
        else:
            path.write_bytes(content)
            assert not verify_file(path, (head.sequence, head.hash)).ok, "the last one is missed by the head only"
        tally.count("records deleted")
    pairs = [(a, b) for a in range(NUM_RECORDS) for b in range(a + 1, NUM_RECORDS)]
    for first, second in tally.choose("pairs of records swapped", pairs, portion=100):
        swapped = list(lines)
        swapped[first], swapped[second] = lines[second], lines[first]
        assert refused(path, b"".join(swapped)).line == first + 1
        tally.count("pairs of records swapped")


def test_every_record_from_another_ledger_is_refused(path: Path, tally: Tally) -> None:
    """Whole in itself and of the right number, it does not follow the one before it."""
    write_run(path, NUM_RECORDS)
    other = path.with_name("other.jsonl")
    with Journal.create(other) as journal:
        for entry in read_ledger(path):
            journal.append(entry.record, entry.time_seconds + 1.0)
    lines, others = (file.read_bytes().splitlines(keepends=True) for file in (path, other))
    for index in tally.choose("records of another ledger", range(NUM_RECORDS), portion=NUM_RECORDS):
        found = refused(path, b"".join([*lines[:index], others[index], *lines[index + 1 :]]))
        assert found.line == max(index + 1, 2)
        tally.count("records of another ledger")


def test_a_dropped_tail_is_refused_by_the_head_that_a_checkpoint_holds(path: Path, tally: Tally) -> None:
    write_anchored_run(path.parent, NUM_RECORDS)
    lines = path.read_bytes().splitlines(keepends=True)
    anchored = max(n for n in range(NUM_RECORDS) if n % 10 == 0)
    for kept in tally.choose("tails dropped, against the checkpoint's head", range(anchored), portion=anchored):
        path.write_bytes(b"".join(lines[:kept]))
        found = verify_run(path.parent)
        assert (found.ok, found.records) == (False, kept)
        assert verify_file(path).ok == (kept > 0), "without the checkpoint nothing is missing"
        tally.count("tails dropped, against the checkpoint's head")


def test_a_dropped_tail_is_refused_by_a_head_that_was_kept(path: Path, tally: Tally) -> None:
    head = write_run(path, NUM_RECORDS)
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in tally.choose("tails dropped, against a head that was kept", range(NUM_RECORDS), portion=NUM_RECORDS):
        path.write_bytes(b"".join(lines[:kept]))
        found = verify_file(path, (head.sequence, head.hash))
        assert (found.ok, found.records) == (False, kept)
        tally.count("tails dropped, against a head that was kept")


def test_what_counts_is_read_as_strictly_as_the_whole(path: Path, tally: Tally) -> None:
    """Damage in a course that was left is refused too: whoever reads for the meaning does not skip it."""
    with Journal.create(path) as journal:
        for number, record in enumerate(ONE_OF_EACH):
            journal.append(record, 10.0 + number)
    whole = path.read_bytes()
    what = "bits flipped before a reading for the meaning"
    for bit in tally.choose(what, range(0, 8 * (len(whole) - 1), 64), portion=60):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        with pytest.raises(LedgerError):
            tuple(iter_course(path))
        tally.count(what)
