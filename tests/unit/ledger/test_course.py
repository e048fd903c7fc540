from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.courses import counting
from tests.unit.ledger.ledger_samples import STARTED, short_record
from trimtab.errors import LedgerDamaged, LedgerError
from trimtab.ledger.course import iter_course
from trimtab.ledger.journal import Journal
from trimtab.ledger.line import GENESIS, write_line
from trimtab.ledger.record import ProblemNoticed, Record, RunResumed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def resumed(after: int) -> RunResumed:
    return RunResumed(0, None, after, ())


def write(path: Path, records: Sequence[Record]) -> None:
    # Without the journal: a resume is brought to disk, and hundreds of ledgers would take a while.
    lines: list[bytes] = []
    previous = GENESIS
    for sequence, record in enumerate(records):
        line, previous = write_line(sequence, float(sequence), previous, record)
        lines.append(line)
    path.write_bytes(b"".join(lines))


def ledger_of(resumes: dict[int, int], num_records: int) -> list[Record]:
    """Return a run's records, with a resume wherever ``resumes`` has one: by its place, the record it goes on after."""
    return [
        STARTED if place == 0 else resumed(resumes[place]) if place in resumes else short_record(place)
        for place in range(num_records)
    ]


def read(path: Path) -> list[int]:
    return [entry.sequence for entry in iter_course(path)]


@st.composite
def resumed_ledgers(draw: st.DrawFn) -> list[Record]:
    num_records = draw(st.integers(1, 30))
    places = draw(st.lists(st.integers(1, num_records), unique=True, max_size=8))
    return ledger_of({place: draw(st.integers(0, place - 1)) for place in places}, num_records)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=resumed_ledgers())
def test_the_course_is_what_a_run_would_remember_however_often_it_was_resumed(path: Path, records: list[Record]) -> None:
    write(path, records)
    assert read(path) == counting(records)


def test_a_run_that_was_never_resumed_counts_whole(path: Path) -> None:
    write(path, ledger_of({}, 12))
    assert read(path) == list(range(12))
    assert [entry.record for entry in iter_course(path)] == ledger_of({}, 12)


@pytest.mark.parametrize(
    ("resumes", "course"),
    [
        ({6: 2}, [0, 1, 2, 6, 7, 8, 9]),
        ({6: 5}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({3: 0, 7: 4}, [0, 3, 4, 7, 8, 9]),
        ({4: 1, 6: 1}, [0, 1, 6, 7, 8, 9]),
        ({4: 2, 8: 1}, [0, 1, 8, 9]),
        ({4: 3, 5: 4, 9: 0}, [0, 9]),
    ],
    ids=["once", "nothing left", "twice", "twice to the same place", "further back", "to the beginning"],
)
def test_what_a_resume_left_does_not_count(path: Path, resumes: dict[int, int], course: list[int]) -> None:
    write(path, ledger_of(resumes, 10))
    assert read(path) == course


def test_the_words_of_a_resume_in_another_record_leave_nothing(path: Path) -> None:
    words = '"kind":"run_resumed" and "after":0'
    write(path, [STARTED, short_record(1), ProblemNoticed(2, words, words), short_record(3)])
    assert read(path) == [0, 1, 2, 3]


@pytest.mark.parametrize("after", [-1, 3, 4, 1000])
def test_a_resume_after_a_record_that_was_not_there_is_damage(path: Path, after: int) -> None:
    write(path, ledger_of({3: after}, 5))
    with pytest.raises(LedgerDamaged, match="resumed after a record that is not there"):
        read(path)


def test_a_damaged_line_is_damage_also_where_it_no_longer_counts(path: Path) -> None:
    write(path, ledger_of({6: 2}, 8))
    path.write_bytes(path.read_bytes().replace(b'"seq":4', b'"seq":5'))
    with pytest.raises(LedgerDamaged, match=r"ledger\.jsonl:5"):
        read(path)


def test_a_line_that_is_still_being_written_does_not_count_and_its_length_is_known(path: Path) -> None:
    write(path, ledger_of({3: 1}, 5))
    with path.open("ab") as file:
        file.write(b'{"hash":"","record":{"after":0,"kind":"run_resumed"}')
    course = iter_course(path)
    assert [entry.sequence for entry in course] == [0, 1, 3, 4]
    assert course.reading.torn_bytes == 52


def test_what_is_appended_while_it_is_read_waits_for_the_next_reading(path: Path) -> None:
    with Journal.create(path) as journal:
        for sequence, record in enumerate(ledger_of({}, 4)):
            journal.append(record, float(sequence))
        course = iter_course(path)
        reading = iter(course)
        seen = [next(reading).sequence]
        journal.append(resumed(0), 4.0)
        seen += [entry.sequence for entry in reading]
        assert seen == [0, 1, 2, 3]
        assert [entry.sequence for entry in course] == [0, 4]


def test_a_missing_ledger_cannot_be_read(path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be read"):
        read(path)
