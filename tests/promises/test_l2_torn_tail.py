"""L2: a torn tail recovers to the longest valid prefix."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.promises.counting import Tally
from tests.unit.ledger.ledger_samples import ONE_OF_EACH, STARTED, short_record, write_run
from trimtab.ledger.journal import Journal
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.verify import verify_file

NUM_RECORDS = 50
SHARES = 4
WHAT = "lengths at which a ledger was cut off"


def _write_one_of_each(path: Path) -> None:
    with Journal.create(path) as journal:
        for number, record in enumerate(ONE_OF_EACH):
            journal.append(record, 10.0 + number)


@pytest.mark.parametrize("share", range(SHARES))
def test_a_ledger_that_ends_anywhere_is_gone_on_with(tmp_path: Path, tally: Tally, share: int) -> None:
    path = tmp_path / "ledger.jsonl"
    write_run(path, NUM_RECORDS)
    _recover(path, tally, share, portion=60)


@pytest.mark.parametrize("share", range(SHARES))
def test_a_ledger_of_every_kind_of_record_that_ends_anywhere_is_gone_on_with(tmp_path: Path, tally: Tally, share: int) -> None:
    path = tmp_path / "ledger.jsonl"
    _write_one_of_each(path)
    _recover(path, tally, share, portion=20)


def _recover(path: Path, tally: Tally, share: int, portion: int) -> None:
    whole = path.read_bytes()
    ends = [0, *(n + 1 for n, byte in enumerate(whole) if byte == ord("\n"))]
    near = sorted({cut for end in ends for cut in (end - 1, end, end + 1) if 0 <= cut <= len(whole)})
    # Both sides of every record's end first, so that the portion is where it matters.
    cuts = [*near, *sorted(set(range(len(whole) + 1)) - set(near))][share::SHARES]
    for cut in cuts[: tally.goal(WHAT, portion=portion, full=len(cuts))]:
        path.write_bytes(whole[:cut])
        kept = max(end for end in ends if end <= cut)
        num_records = ends.index(kept)
        with Journal.open(path) as journal:
            assert journal.recovered_bytes == cut - kept
            assert journal.head.sequence == num_records - 1
            journal.append(short_record(51) if num_records else STARTED, 3000.0)
        assert path.read_bytes().startswith(whole[:kept]), f"cut at {cut}: a whole record was lost"
        verification = verify_file(path)
        assert (verification.ok, verification.records, verification.torn_bytes) == (True, num_records + 1, 0)
        assert len(read_ledger(path)) == num_records + 1
        tally.count(WHAT)
