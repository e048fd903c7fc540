from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.report.parted_trace import parted_operation


def line(op: str = "aten.add", **changes: str) -> dict[str, str]:
    return {"op": op, "at": "/run/train.py:12", "inputs": "i", "random": "", "outputs": "o", **changes}


def said(tmp_path: Path, one: list[dict[str, str]], other: list[dict[str, str]]) -> str:
    for name, lines in (("one", one), ("other", other)):
        (tmp_path / name).write_text("".join(json.dumps(each) + "\n" for each in lines))
    return parted_operation(tmp_path / "one", tmp_path / "other")


ALIKE = [line("aten.mm"), line("aten.relu")]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (line("aten.sub"), "the other repetition does aten.sub at /run/train.py:12 in its place"),
        (line(random="r"), "its random numbers are not the same"),
        (line(inputs="x"), "it was given other values"),
        (line(outputs="x"), "other results for the same values, so it is not deterministic"),
        (line(inputs="x", random="r", outputs="x"), "its random numbers are not the same"),
        (line(inputs="x", outputs="x"), "it was given other values"),
    ],
)
def test_the_first_difference_is_told_with_its_number_its_place_and_the_nearest_reason(
    tmp_path: Path, other: dict[str, str], reason: str
) -> None:
    found = said(tmp_path, [*ALIKE, line(), line("aten.mul")], [*ALIKE, other, line("aten.mul", outputs="x")])
    assert found.startswith("operation 3, aten.add at /run/train.py:12: ")
    assert reason in found


def test_where_an_operation_stands_in_the_script_is_no_difference(tmp_path: Path) -> None:
    assert said(tmp_path, ALIKE, [{**each, "at": "/elsewhere.py:1"} for each in ALIKE]) == ""
    assert said(tmp_path, [], []) == ""


@pytest.mark.parametrize("turned", [False, True])
def test_an_operation_that_only_one_does_is_told(tmp_path: Path, turned: bool) -> None:
    longer, shorter = [*ALIKE, line("aten.mul", at="")], ALIKE
    found = said(tmp_path, shorter, longer) if turned else said(tmp_path, longer, shorter)
    assert found.startswith("operation 3, aten.mul, in the backward pass or outside the script: only one")


@pytest.mark.parametrize("content", ["nonsense\n", "[]\n", "1\n", "null\n", "{}\n", '{"op": "aten.mm"}\n'])
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "one").write_text(json.dumps(line()) + "\n")
    (tmp_path / "other").write_text(content)
    with pytest.raises(ValueError, match=r".+"):
        parted_operation(tmp_path / "one", tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        parted_operation(tmp_path / "one", tmp_path / "none")
