from __future__ import annotations

import io
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import LedgerDamaged, UsageError
from trimtab.ledger.codec import canonical, freeze
from trimtab.ledger.series import BUFFERED_ROWS, Row, SeriesFile, read_series


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "series.jsonl"


def test_rows_read_back_with_non_finite_values(path: Path) -> None:
    series = SeriesFile(path)
    series.append(0, 10, {"loss": 1.0, "grad_norm": math.nan})
    series.append(1, 5, {"loss": 2, "grad_norm": -math.inf})
    series.flush()
    rows = read_series(path)
    assert repr(rows[0].values) == "{'grad_norm': nan, 'loss': 1.0}"
    assert rows[1] == Row(1, 5, {"grad_norm": -math.inf, "loss": 2.0})


def test_rows_are_buffered_until_there_are_enough(path: Path) -> None:
    series = SeriesFile(path)
    for n in range(BUFFERED_ROWS - 1):
        series.append(n, n, {"loss": 1.0})
    assert not path.exists()
    series.append(BUFFERED_ROWS, 1, {"loss": 1.0})
    assert len(read_series(path)) == BUFFERED_ROWS
    series.flush()
    assert len(read_series(path)) == BUFFERED_ROWS


def test_the_size_is_bounded_and_the_far_past_gets_coarser(path: Path) -> None:
    series = SeriesFile(path, max_points=100)
    for n in range(5000):
        series.append(n, n, {"loss": float(n)})
        if n % 64 == 63:
            assert len(read_series(path)) <= 100
    series.flush()
    kept = [row.sequence for row in read_series(path)]
    gaps = [later - earlier for earlier, later in pairwise(kept)]
    assert kept[0] == 0
    assert kept[-1] == 4999
    assert gaps[-20:] == [1] * 20
    assert all(earlier >= later for earlier, later in pairwise(gaps))
    assert list(path.parent.iterdir()) == [path]


def test_a_long_run_is_kept_from_its_beginning_to_its_end(path: Path) -> None:
    series = SeriesFile(path, max_points=400)
    for n in range(1, 50_001):
        series.append(n, n, {"loss": 1.0})
    series.flush()
    kept = [row.sequence for row in read_series(path)]
    tenths = [sum(low < sequence <= low + 5000 for sequence in kept) for low in range(0, 50_000, 5000)]
    assert min(tenths) >= 4
    assert max(tenths[:-1]) <= 2 * min(tenths), "the past is spread evenly"
    assert kept[0] == 1


def test_rows_that_cannot_be_told_apart_are_thinned_all_the_same(path: Path) -> None:
    path.write_text('{"n":7,"step":1,"v":{}}\n' * 90 + "no row\n" * 90)
    SeriesFile(path, max_points=50)
    assert len(path.read_text().splitlines()) <= 50


def test_a_series_of_many_signals_is_bounded_in_bytes(path: Path) -> None:
    series = SeriesFile(path, max_bytes=50_000)
    values = {f"signal_{index}": 0.123456789 for index in range(100)}
    for n in range(700):
        series.append(n, n, values)
        if n % 64 == 63:
            assert path.stat().st_size <= 50_000
    rows = read_series(path)
    assert len(rows) > 10
    assert (rows[0].sequence, rows[-1].sequence) == (0, 639)
    assert len(read_series(path)) == len(rows)
    SeriesFile(path, max_bytes=10)
    assert 1 < len(read_series(path)) <= 4, "a few rows stay, however long they are"


def test_a_series_goes_on_after_a_torn_line(path: Path) -> None:
    first = SeriesFile(path, max_points=100)
    first.append(0, 1, {"loss": 1.0})
    first.flush()
    with path.open("ab") as file:
        file.write(b'{"n":1,"st')
    assert [row.sequence for row in read_series(path)] == [0]
    second = SeriesFile(path, max_points=100)
    second.append(1, 2, {"loss": 1.0})
    second.flush()
    assert [row.sequence for row in read_series(path)] == [0, 1]


def test_a_series_that_is_too_long_is_thinned_when_it_is_opened(path: Path) -> None:
    series = SeriesFile(path)
    for n in range(200):
        series.append(n, n, {"loss": 1.0})
    series.flush()
    SeriesFile(path, max_points=50)
    assert len(read_series(path)) <= 50


def test_a_failed_write_is_reported_and_the_next_one_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = SeriesFile(path)
    series.append(0, 1, {"loss": 1.0})
    series.flush()
    opened = Path.open

    class Half(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data)[:5])

    def half(self: Path, mode: str = "r", **_: Any) -> Any:
        return Half(self, "ab")

    monkeypatch.setattr(Path, "open", half)
    series.append(1, 2, {"loss": 1.0})
    with pytest.raises(OSError, match="wrote 5 of"):
        series.flush()
    monkeypatch.setattr(Path, "open", opened)
    assert [row.sequence for row in read_series(path)] == [0]
    series.append(2, 3, {"loss": 1.0})
    series.flush()
    assert [row.sequence for row in read_series(path)] == [0, 2]


def test_a_folder_that_is_gone_is_an_os_error_and_takes_no_memory(tmp_path: Path) -> None:
    series = SeriesFile(tmp_path / "gone" / "series.jsonl")
    failures = 0
    for n in range(10 * BUFFERED_ROWS):
        try:
            series.append(n, n, {"loss": 1.0})
        except OSError:
            failures += 1
    assert failures == 10
    assert series._buffer == []


@pytest.mark.parametrize(
    "line", [b"{}", b"[]", b"nonsense", b'{"n":1,"step":2,"v":{"a":"b"}}', b'{"n":1,"step":Infinity,"v":{}}']
)
def test_a_malformed_row_before_the_end_is_named(path: Path, line: bytes) -> None:
    path.write_bytes(b'{"n":0,"step":1,"v":{}}\n' + line + b"\n")
    with pytest.raises(LedgerDamaged, match=r"series\.jsonl:2: .*delete the file"):
        read_series(path)


def test_a_missing_series_cannot_be_read_and_a_tiny_one_not_made(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_series(path)
    with pytest.raises(UsageError, match="max_points >= 4"):
        SeriesFile(path, max_points=3)


def test_rows_are_written_in_canonical_form(tmp_path: Path) -> None:
    values = {"loss": 0.1, 'odd "name"\n\u2028': math.inf, "zero": -0.0, "whole": 3.0, "tiny": 5e-324, "nan": math.nan}
    series = SeriesFile(tmp_path / "series.jsonl")
    series.append(7, 42, values)
    series.flush()
    coded = {name: freeze(value) for name, value in values.items()}
    written = (tmp_path / "series.jsonl").read_text(encoding="ascii")
    assert written == canonical({"n": 7, "step": 42, "v": coded}) + "\n"


@pytest.mark.parametrize("back_to", [-1, 0, 5, 9, 50])
def test_after_going_back_only_rows_up_to_there_are_left_and_others_follow(path: Path, back_to: int) -> None:
    series = SeriesFile(path)
    for n in range(10):
        series.append(n, 100 - n, {"loss": float(n)})
    series.rewind(back_to)
    assert [row.sequence for row in read_series(path)] == [n for n in range(10) if n <= back_to]
    series.append(11, 1, {"loss": 0.5})
    series.flush()
    assert read_series(path)[-1] == Row(11, 1, {"loss": 0.5})
    assert len(read_series(path)) == min(back_to + 1, 10) + 1


def test_going_back_cuts_off_a_torn_last_row_and_needs_no_file(path: Path) -> None:
    SeriesFile(path).rewind(3)
    assert not path.exists()
    path.write_bytes(b'{"n":1,"step":1,"v":{}}\n{"n":2,"st')
    series = SeriesFile(path)
    series.rewind(5)
    series.append(3, 3, {})
    series.flush()
    assert [row.sequence for row in read_series(path)] == [1, 3]


def test_a_damaged_row_does_not_keep_a_run_from_going_back_and_is_still_told_to_its_reader(path: Path) -> None:
    path.write_bytes(b'{"n":1,"step":1,"v":{}}\nnonsense\n{"n":3,"step":3,"v":{}}\n')
    SeriesFile(path).rewind(1)
    assert path.read_bytes() == b'{"n":1,"step":1,"v":{}}\nnonsense\n'
    with pytest.raises(LedgerDamaged, match=r":2: a row"):
        read_series(path)
