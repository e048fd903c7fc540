from __future__ import annotations

import csv
import math
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.report.sample_run import whole_run
from trimtab.errors import MissingExtraError, UsageError
from trimtab.ledger.series import Row
from trimtab.report.table_files import write_csv, write_parquet
from trimtab.report.tables import DECISIONS, EVALUATIONS, INTERVENTIONS, SERIES, Column, Table, run_tables

CURVES = [Row(1, 10, {"loss": 2.5, "grad_norm": math.inf}), Row(2, 20, {"loss": math.nan}), Row(3, 15, {"val/loss": -1.0})]
TYPES = {"text": str, "whole": int, "number": float, "truth": bool}
DOCS = Path(__file__).parents[3] / "docs"


def tables(**options: Any) -> dict[str, Table]:
    return {table.name: table for table in run_tables(whole_run(), CURVES, **options)}


def rows(table: Table) -> list[dict[str, Any]]:
    names = [column.name for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in table.rows]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("wide", [False, True])
def test_every_cell_is_of_its_columns_kind(wide: bool) -> None:
    for table in tables(wide=wide).values():
        assert table.rows
        for row in table.rows:
            for column, cell in zip(table.columns, row, strict=True):
                assert cell is None or type(cell) is TYPES[column.kind], (table.name, column.name, cell)


def test_a_decision_is_a_row_with_what_became_of_it() -> None:
    found = rows(tables()["decisions"])
    assert [row["ending"] for row in found].count("applied") == 3
    third = next(row for row in found if row["question"] == 3)
    assert third["kind"] == "rollback_and_adjust"
    assert (third["symptoms"], third["expected_gain"], third["intervention"]) == ("overfitting", 0.05, 1)
    assert [row["answered_by"] for row in found if row["source"] == "reflex"] == [None]


def test_an_intervention_is_a_row_for_each_control_with_its_step_and_what_was_measured() -> None:
    found = rows(tables()["interventions"])
    assert [(row["intervention"], row["source"], row["step"], row["control"]) for row in found] == [
        (1, "manager", 210, "dropout"), (2, "reflex", 330, None), (4, "manager", 460, "learning_rate"),
    ]  # fmt: skip
    first, _, last = found
    assert (first["before"], first["after"], first["in_effect"], first["gain"]) == (0.0, 0.1, True, pytest.approx(0.1))
    assert (last["before"], last["after"], last["in_effect"]) == (0.003, 0.0015, False)
    assert [row["lineage_step"] for row in found] == [100, None, 320]  # 110 steps were undone, and then 30


def test_the_curves_come_long_or_wide() -> None:
    assert rows(tables()["series"])[:2] == [
        {"sequence": 1, "step": 10, "signal": "grad_norm", "value": math.inf},
        {"sequence": 1, "step": 10, "signal": "loss", "value": 2.5},
    ]
    wide = tables(wide=True)["series"]
    assert [column.name for column in wide.columns] == ["sequence", "step", "grad_norm", "loss", "val/loss"]
    assert wide.rows[2] == (3, 15, None, None, -1.0)


def test_csv_gives_numbers_back_bit_for_bit(tmp_path: Path) -> None:
    third = 1 / 3
    table = Table("t", (Column("a", "number", ""), Column("b", "truth", ""), Column("c", "whole", "")), (
        (third, True, -5), (math.nan, False, None), (-math.inf, None, 0),
    ))  # fmt: skip
    (path,) = write_csv([table], tmp_path / "new" / "folder")
    assert path.read_text(encoding="utf-8") == f"a,b,c\n{third!r},true,-5\nnan,false,\n-inf,,0\n"
    assert float(read_csv(path)[0]["a"]) == third
    assert [file.name for file in path.parent.iterdir()] == ["t.csv"]


@given(
    st.text(max_size=20),
    st.sampled_from(("", " ", "=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "=cmd|'/c calc'!A1", "\uff1d")),
)
def test_no_text_in_csv_begins_as_a_formula(tmp_path_factory: pytest.TempPathFactory, text: str, start: str) -> None:
    table = Table("t", (Column("a", "text", ""), Column("b", "text", "")), ((start + text, "x"),))
    (path,) = write_csv([table], tmp_path_factory.mktemp("csv"))
    (row,) = read_csv(path)
    shown, meant = row["a"], (start + text).replace("\0", "")
    assert not shown.lstrip(" ").startswith(tuple("=+-@|%\t\r\n\uff1d\uff0b\uff0d\uff20"))
    assert shown in (meant, f"'{meant}")
    assert row["b"] == "x"


def test_a_text_that_is_no_formula_is_left_alone(tmp_path: Path) -> None:
    texts = ("a = b", "1-2", "", "it's", 'he said "no", twice', "two\nlines")
    (path,) = write_csv([Table("t", (Column("a", "text", ""),), tuple((text,) for text in texts))], tmp_path)
    with path.open(encoding="utf-8", newline="") as file:
        assert [row[0] if row else "" for row in csv.reader(file)][1:] == list(texts)


def test_parquet_gives_everything_back_with_types_and_meanings(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    written = write_parquet(tables().values(), tmp_path)
    assert [path.name for path in written] == [
        "decisions.parquet",
        "interventions.parquet",
        "evaluations.parquet",
        "series.parquet",
    ]
    for path, table in zip(written, tables().values(), strict=True):
        found = import_module("pyarrow.parquet").read_table(path)
        back = [tuple(row.values()) for row in found.to_pylist()]
        assert repr(back) == repr(list(table.rows))  # as text, since a NaN is not itself
        for column in table.columns:
            assert found.schema.field(column.name).metadata[b"meaning"].decode() == column.meaning


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    table = Table("t", SERIES, ())
    (path,) = write_parquet([table], tmp_path)
    assert import_module("pyarrow.parquet").read_table(path).schema.names == [column.name for column in SERIES]
    assert write_csv([table], tmp_path)[0].read_text() == "sequence,step,signal,value\n"


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r'pip install "trimtab\[parquet\]", or write CSV'):
        write_parquet(tables().values(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"the table cannot be written; received .*file/decisions\.csv"):
        write_csv(tables().values(), tmp_path / "file")


@pytest.mark.parametrize("columns", [DECISIONS, INTERVENTIONS, EVALUATIONS, SERIES])
def test_every_column_is_on_its_page(columns: tuple[Column, ...]) -> None:
    page = (DOCS / "export.md").read_text(encoding="utf-8")
    for column in columns:
        assert f"| `{column.name}` | {column.kind} | {column.meaning} |" in page
