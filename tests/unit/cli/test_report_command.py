"""`report`, as a user calls it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.report.page_samples import HOSTILE
from tests.unit.report.sample_run import whole_run, write_ledger
from trimtab.cli.app import main
from trimtab.ledger.series import SeriesFile

PNG_MARK = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def in_a_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    folder = write_ledger(tmp_path / "runs" / "first", whole_run())
    series = SeriesFile(folder / "series.jsonl")
    for step in range(1, 200):
        series.append(step, step, {"loss": 1 / step, "aux": float(step)})
    series.flush()
    write_ledger(tmp_path / "runs" / "second", whole_run()[:30])


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["report", *arguments])
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def test_the_report_of_a_run_goes_into_its_directory(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "first")
    page = Path("runs/first/report.html").read_text(encoding="utf-8")
    assert code == 0
    assert "runs/first/report.html" in out
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")


def test_the_report_of_several_runs_goes_here(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = call(capsys, "first", "second")
    assert code == 0
    assert "2 runs compared" in Path("report.html").read_text(encoding="utf-8")


def test_another_file_is_chosen_and_an_earlier_report_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert call(capsys, "first", "--output", "mine.html")[0] == 0
    assert {path.name for path in Path().iterdir()} == {"runs", "mine.html"}, "nothing is left beside it"


@pytest.mark.parametrize("option", ["--output", "--png"])
def test_another_file_is_never_overwritten(capsys: pytest.CaptureFixture[str], option: str) -> None:
    Path("notes.txt").write_text("mine")
    code, _, err = call(capsys, "first", option, "notes.txt")
    assert code == 2
    assert "left alone" in err
    assert Path("notes.txt").read_text() == "mine"
    assert not Path("runs/first/report.html").exists()


@pytest.mark.parametrize("target", ["runs", "nowhere/report.html"])
def test_a_place_that_cannot_hold_it_is_named(capsys: pytest.CaptureFixture[str], target: str) -> None:
    code, _, err = call(capsys, "first", "--output", target)
    assert code == 2
    assert target in err
    assert "--output" in err


def test_as_json_it_says_where_and_how_large(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "first", "--json", "--png", "first.png")
    tree: dict[str, Any] = json.loads(out, parse_constant=pytest.fail)
    assert tree["damaged"] == []
    for made in (tree["report"], tree["png"]):
        assert Path(made["path"]).stat().st_size == made["bytes"] > 1000


@pytest.mark.parametrize("runs", [["first"], ["first", "second"]])
def test_the_picture_is_a_png_of_some_size(capsys: pytest.CaptureFixture[str], runs: list[str]) -> None:
    assert call(capsys, *runs, "--png", "it.png")[0] == 0
    data = Path("it.png").read_bytes()
    assert data.startswith(PNG_MARK)
    assert int.from_bytes(data[16:20], "big") == 2400


def test_hostile_names_make_a_page_and_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    write_ledger(Path("runs/evil\x1b[2J"), whole_run(HOSTILE))
    code, out, err = call(capsys, "evil\x1b[2J", "first", "--png", "evil.png")
    assert code == 0
    assert "\x1b[2J" not in out + err
    assert Path("evil.png").read_bytes().startswith(PNG_MARK)


def test_without_the_extra_the_error_names_it_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("trimtab.report.page.picture.find_spec", lambda name: None if name == "resvg_py" else found(name))
    code, _, err = call(capsys, "first", "--png", "it.png")
    assert code == 2
    assert "resvg_py" in err
    assert "trimtab[png]" in err
    assert not Path("runs/first/report.html").exists()


def test_a_chosen_signal_has_to_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "first", "--signal", "aux")[0] == 0
    code, _, err = call(capsys, "first", "--signal", "auxx")
    assert code == 2
    assert "did you mean 'aux'?" in err


def test_a_damaged_ledger_is_reported_up_to_the_damage_and_the_command_fails(capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Path("runs/first/ledger.jsonl")
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join([*lines[:20], lines[20].replace(b'"step":', b'"step":1'), *lines[21:]]))
    code, out, _ = call(capsys, "first")
    assert code == 1
    assert "is damaged" in out
    assert "nothing from there on is shown" in Path("runs/first/report.html").read_text(encoding="utf-8")


def test_a_run_without_a_record_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/empty").mkdir()
    Path("runs/empty/ledger.jsonl").touch()
    code, _, err = call(capsys, "empty")
    assert code == 2
    assert "empty" in err
