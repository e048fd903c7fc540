from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.failing_calls import failing
from trimtab.actuation import checkpoint_files
from trimtab.actuation.checkpoint_files import (
    MANIFEST,
    delete_checkpoint,
    list_checkpoints,
    open_checkpoint,
    read_manifest,
    write_checkpoint,
)
from trimtab.errors import CheckpointError

FILES = {"state.json": b'{"a": 1}' * 20, "empty": b"", "weights.bin": lambda path: path.write_bytes(b"w" * 500)}


def names(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir())


def test_a_checkpoint_is_found_verified_and_removed(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "checkpoints"
    assert list_checkpoints(root) == ()
    directory = write_checkpoint(root, "step-2", FILES)
    write_checkpoint(root, "step-1", {"a": b"x"})
    assert open_checkpoint(root, "step-2") == directory
    assert (directory / "state.json").read_bytes() == FILES["state.json"]
    assert (directory / "weights.bin").read_bytes() == b"w" * 500
    assert read_manifest(root, "step-2").files["weights.bin"].size == 500
    assert list_checkpoints(root) == ("step-1", "step-2")
    delete_checkpoint(root, "step-2")
    delete_checkpoint(root, "step-2")
    assert names(root) == ["step-1"]


def test_the_manifest_is_written_last_and_the_rename_comes_after_every_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(checkpoint_files.os, "open", lambda path, *args: (opened.append(Path(path).name), real(path, *args))[1])
    write_checkpoint(tmp_path, "one", FILES)
    order = [name for name in dict.fromkeys(opened) if name not in {".partial-one", tmp_path.name}]
    assert order == [*FILES, MANIFEST]
    assert opened[-2:] == [".partial-one", tmp_path.name]


@pytest.mark.parametrize("error", [RuntimeError("full"), KeyboardInterrupt()])
def test_a_writer_that_raises_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    def half(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    with pytest.raises(CheckpointError if isinstance(error, Exception) else KeyboardInterrupt):
        write_checkpoint(tmp_path, "x", {"a": b"a", "b": half})
    assert names(tmp_path) == []


def test_a_writer_that_writes_nothing_or_a_link_is_an_error(tmp_path: Path) -> None:
    for writer in (lambda path: None, lambda path: path.mkdir(), lambda path: path.symlink_to(__file__)):
        with pytest.raises(CheckpointError):
            write_checkpoint(tmp_path, "x", {"a": writer})
    assert names(tmp_path) == []


def test_every_flipped_bit_and_every_cut_is_refused(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path, "x", {"a": b"12345678", "b": b""})
    for path in (directory / MANIFEST, directory / "a"):
        raw = path.read_bytes()
        for index in range(len(raw)):
            damaged = [raw[:index]] + [raw[:index] + bytes([raw[index] ^ (1 << bit)]) + raw[index + 1 :] for bit in range(8)]
            for content in damaged:
                path.write_bytes(content)
                with pytest.raises(CheckpointError):
                    open_checkpoint(tmp_path, "x")
        path.write_bytes(raw)
    open_checkpoint(tmp_path, "x")


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: (d / "extra").write_bytes(b""),
        lambda d: (d / "extra").mkdir(),
        lambda d: (d / "a").unlink(),
        lambda d: (d / MANIFEST).unlink(),
        lambda d: (d / "a").rename(d / "b"),
        lambda d: ((d / "a").rename(d.parent / "out"), (d / "a").symlink_to(d.parent / "out")),
        lambda d: ((d / "a").unlink(), (d / "a").mkdir()),
        lambda d: (d / MANIFEST).write_bytes((d / MANIFEST).read_bytes().replace(b'"a"', b'"../a"')),
        lambda d: (d / MANIFEST).write_bytes((d / MANIFEST).read_bytes().replace(b":1}", b":2}")),
        lambda d: (d / MANIFEST).write_bytes(b" " + (d / MANIFEST).read_bytes()),
    ],
)
def test_missing_added_and_exchanged_files_are_refused(damage: Callable[[Path], Any], tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path, "x", {"a": b"1234"})
    damage(directory)
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path, "x")


def test_a_directory_under_another_id_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "x", {"a": b"1"}).rename(tmp_path / "y")
    with pytest.raises(CheckpointError, match="not as it was written"):
        open_checkpoint(tmp_path, "y")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "/etc/x", ".hidden", "a\n", "a\0", "ä", "x" * 101, "%2e%2e/x", "~"]
)
def test_names_that_are_no_plain_names_are_refused(name: str, tmp_path: Path) -> None:
    for act in (
        lambda: write_checkpoint(tmp_path, name, {}),
        lambda: write_checkpoint(tmp_path, "x", {name: b""}),
        lambda: open_checkpoint(tmp_path, name),
        lambda: delete_checkpoint(tmp_path, name),
    ):
        with pytest.raises(CheckpointError, match="not a plain name"):
            act()
    assert names(tmp_path) == []


def test_an_id_is_written_once_and_the_manifest_by_trimtab_alone(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "x", {"a": b"1"})
    with pytest.raises(CheckpointError, match="exists already"):
        write_checkpoint(tmp_path, "x", {"a": b"2"})
    assert (open_checkpoint(tmp_path, "x") / "a").read_bytes() == b"1"
    with pytest.raises(CheckpointError, match="written by trimtab"):
        write_checkpoint(tmp_path, "y", {MANIFEST: b""})


def test_leftovers_are_ignored_and_removed_by_the_next_write(tmp_path: Path) -> None:
    for left in (".partial-x", ".partial-old"):
        (tmp_path / left).mkdir()
        (tmp_path / left / MANIFEST).write_bytes(b"{}")
    (tmp_path / "notes.txt").write_text("the user's")
    (tmp_path / "half").mkdir()
    assert list_checkpoints(tmp_path) == ()
    write_checkpoint(tmp_path, "x", {"a": b"1"})
    assert names(tmp_path) == ["half", "notes.txt", "x"]
    assert list_checkpoints(tmp_path) == ("x",)


def test_a_delete_that_fails_is_reported_and_may_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, "x", {"a": b"1"})
    with failing(monkeypatch, -1, errno.EIO) as calls:
        delete_checkpoint(tmp_path, "x")
    for at in range(calls.index("rename"), calls.index("rename") + 2):
        write_checkpoint(tmp_path, "y", {"a": b"1"})
        with failing(monkeypatch, at, errno.EIO), pytest.raises(CheckpointError, match="could not be removed"):
            delete_checkpoint(tmp_path, "y")
        delete_checkpoint(tmp_path, "y")
        assert list_checkpoints(tmp_path) == ()
