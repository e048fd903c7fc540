from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.errors import RunDirectoryError
from trimtab.runtime.run_dir import (
    Leftovers,
    RunDirectory,
    choose_run_directory,
    create_run_directory,
    next_free,
    open_run_directory,
)


def test_without_a_path_runs_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [str(create_run_directory(None).path) for _ in range(3)] == ["runs/run-1", "runs/run-2", "runs/run-3"]


def test_a_new_directory_has_its_folders_and_paths(tmp_path: Path) -> None:
    directory = create_run_directory(tmp_path / "deep" / "first")
    assert directory.checkpoints.is_dir()
    names = [directory.ledger, directory.series, directory.envelope, directory.manager_log]
    assert [path.name for path in names] == ["ledger.jsonl", "series.jsonl", "envelope.yaml", "manager.log"]
    assert all(path.parent == directory.path for path in names)


def test_a_directory_without_a_ledger_is_free(tmp_path: Path) -> None:
    create_run_directory(tmp_path / "first")
    assert create_run_directory(tmp_path / "first").path == tmp_path / "first"


def test_a_taken_directory_is_refused_and_a_free_one_named(tmp_path: Path) -> None:
    create_run_directory(tmp_path / "first").ledger.touch()
    (tmp_path / "first-1").mkdir()
    with pytest.raises(RunDirectoryError, match=f"already holds a run; .*for example {tmp_path}/first-2"):
        create_run_directory(tmp_path / "first")
    assert next_free(tmp_path, "first") == tmp_path / "first-2"


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunDirectoryError, match=r"the run directory cannot be created; received .*file/run"):
        create_run_directory(tmp_path / "file" / "run")


def test_a_run_is_opened_by_path_or_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    create_run_directory(Path("runs/first")).ledger.touch()
    assert open_run_directory(Path("first")).path == Path("runs/first")
    assert open_run_directory(tmp_path / "runs" / "first").path == tmp_path / "runs" / "first"
    with pytest.raises(RunDirectoryError, match="there is no run here; received second; next: list runs with: trimtab runs"):
        open_run_directory(Path("second"))


def _start(path: Path) -> Leftovers:
    leftovers = Leftovers.before(choose_run_directory(path))
    directory = create_run_directory(path)
    for file in (directory.series, directory.manager_log, directory.ledger):
        file.touch()
    return leftovers


def test_a_start_that_failed_leaves_nothing(tmp_path: Path) -> None:
    _start(tmp_path / "deep" / "run").close()
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_failed_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    directory.envelope.write_text("mine")
    leftovers = _start(directory.path)
    (directory.checkpoints / "mine").touch()
    leftovers.close()
    found = sorted(path.relative_to(directory.path).as_posix() for path in directory.path.rglob("*"))
    assert found == ["checkpoints", "checkpoints/mine", "envelope.yaml"]


def test_a_ledger_with_a_record_is_never_removed_but_a_torn_one_is(tmp_path: Path) -> None:
    leftovers = _start(tmp_path / "run")
    leftovers.directory.ledger.write_bytes(b"half a rec")
    leftovers.close()
    assert not (tmp_path / "run").exists()
    leftovers = _start(tmp_path / "run")
    leftovers.directory.ledger.write_bytes(b"a record\n")
    leftovers.close()
    assert leftovers.directory.manager_log.exists()
    assert leftovers.directory.checkpoints.is_dir()


def test_to_choose_a_directory_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [str(choose_run_directory(None).path) for _ in range(2)] == ["runs/run-1", "runs/run-1"]
    assert list(tmp_path.iterdir()) == []
