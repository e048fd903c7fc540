"""Tables as files: CSV, and Parquet where pyarrow is installed.

Rules:
1. Numbers are not rounded. What is not known is empty in CSV and null in Parquet; a number that is not finite is ``nan``,
   ``inf`` or ``-inf`` in CSV and itself in Parquet.
2. A text in CSV that a spreadsheet would take for a formula gets a ``'`` before it: reasons come from models and names from
   the run, and opening a table must not run them. Numbers are left alone, and Parquet needs none of this.
3. A file is written beside its place and put there whole.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from trimtab.errors import MissingExtraError, UsageError
from trimtab.report.tables import Cell, Kind, Table

# What begins a formula, or a command, in one spreadsheet or another; the last four are their wide forms.
_FORMULA: Final = ("=", "+", "-", "@", "|", "%", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_TYPES: Final[dict[Kind, str]] = {"text": "string", "whole": "int64", "number": "float64", "truth": "bool_"}


def write_csv(tables: Iterable[Table], folder: Path) -> list[Path]:
    """Write each table as ``NAME.csv``: UTF-8, commas, one header line, quotes where needed.

    Raises:
        UsageError: The folder cannot be written; name another.
    """
    return [_written(folder / f"{table.name}.csv", table, _write_csv) for table in tables]


def write_parquet(tables: Iterable[Table], folder: Path) -> list[Path]:
    """Write each table as ``NAME.parquet``; what a column means is in the metadata of its field.

    Raises:
        MissingExtraError: Install the extra that the message names.
        UsageError: The folder cannot be written; name another.
    """
    try:
        import_module("pyarrow.parquet")  # before anything is written
    except ImportError as error:
        raise MissingExtraError(
            "Parquet needs pyarrow, which is not installed", next_step='pip install "trimtab[parquet]", or write CSV'
        ) from error
    return [_written(folder / f"{table.name}.parquet", table, _write_parquet) for table in tables]


def _write_csv(table: Table, path: Path) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)  # with the line ends of RFC 4180: only then a lone carriage return is quoted
        writer.writerow([_safe(column.name) for column in table.columns])
        writer.writerows([_cell(value) for value in row] for row in table.rows)


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        return _safe(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else repr(value)


def _safe(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula; one that does not look like one is left as it is."""
    shown = text.replace("\0", "")  # for some readers a text ends there
    return f"'{shown}" if shown.lstrip(" ").startswith(_FORMULA) else shown


def _write_parquet(table: Table, path: Path) -> None:
    arrow: Any = import_module("pyarrow")
    columns = [(one, getattr(arrow, _TYPES[one.kind])()) for one in table.columns]
    fields = [arrow.field(one.name, kind, metadata={"meaning": one.meaning}) for one, kind in columns]
    cells = zip(*table.rows, strict=True) if table.rows else [()] * len(columns)
    arrays = [arrow.array([_exact(cell) for cell in of], type=field.type) for of, field in zip(cells, fields, strict=True)]
    import_module("pyarrow.parquet").write_table(arrow.Table.from_arrays(arrays, schema=arrow.schema(fields)), str(path))


def _exact(cell: Cell) -> Cell:
    """Return a cell as Parquet takes it: half a character becomes its escape."""
    return cell.encode("utf-8", "backslashreplace").decode() if isinstance(cell, str) else cell


def _written(path: Path, table: Table, write: Callable[[Table, Path], None]) -> Path:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(table, beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError("the table cannot be written", received=f"{path}: {error}", next_step="name another folder") from error
    return path
