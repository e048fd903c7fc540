"""Run directories for the report, and a reader that sees a page as a browser does."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from tests.unit.report.sample_run import whole_run, write_ledger
from trimtab.ledger.record import Record
from trimtab.ledger.series import SeriesFile
from trimtab.report.page.document import render
from trimtab.report.page.reading import read_subject
from trimtab.report.page.subject import Subject
from trimtab.runtime.run_dir import RunDirectory

MADE: Final = 1_700_000_000.0
# Every way out of where a text of a run may stand, and what runs where one is found.
HOSTILE: Final = (
    "</title></style></script></textarea></svg><script>document.title='executed'</script>"
    "<img src=http://example.test/x onerror=\"document.title='executed'\">"
    "<svg onload=\"document.title='executed'\"><a href=\"javascript:document.title='executed'\">x</a>"
    "<iframe srcdoc='<script>parent.document.title=1</script>'></iframe><style>*{display:none}</style>"
    "&lt;&#60;script\u202e\u2066\ud800\x00\x1b[31m\"'`{{7*7}}" + "w" * 300
)


def a_run(folder: Path, records: Sequence[Record] | None = None, rows: int = 0, signals: Sequence[str] = ("loss",)) -> Subject:
    """Write a run with ``rows`` steps of curves, and read it."""
    write_ledger(folder, list(records) if records is not None else whole_run())
    if rows:
        series = SeriesFile(folder / "series.jsonl")
        for step in range(1, rows + 1):
            series.append(step, step, {name: 1.0 / step + place for place, name in enumerate(signals)})
        series.flush()
    return read_subject(RunDirectory(folder))


def page_of(*subjects: Subject, chosen: Sequence[str] = ()) -> str:
    return render(subjects, made_seconds=MADE, version="0.1.0", chosen=chosen)


class Seen(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._inside = ""
        self.feed(page)
        self.close()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def values(self, attribute: str) -> list[str]:
        return [given[attribute] or "" for _, given in self.elements if attribute in given]

    def tags(self) -> set[str]:
        return {name for name, _ in self.elements}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        match self._inside:
            case "script":
                self.scripts.append(data)
            case "style":
                self.styles.append(data)
            case _:
                self.texts.append(data)


def hash_of(content: str) -> str:
    return "sha256-" + base64.b64encode(sha256(content.encode()).digest()).decode()


def points_of(path: str) -> list[list[tuple[int, int]]]:
    """Read a path of relative whole numbers back into pieces of points, as the page's script does."""
    pieces: list[list[tuple[int, int]]] = []
    x = y = 0
    for move, given in re.findall(r"([ml])([^ml]*)", path):
        numbers = [int(number) for number in re.findall(r"-?\d+", given)]
        if move == "m":
            pieces.append([])
        for across, down in zip(numbers[::2], numbers[1::2], strict=True):
            x, y = x + across, y + down
            pieces[-1].append((x, y))
    return pieces
