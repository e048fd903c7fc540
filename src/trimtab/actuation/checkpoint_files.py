"""Checkpoints as directories: visible only when complete, refused when damaged.

Rules:
- A checkpoint is written in a hidden directory beside its place, every file and directory is flushed to the disk,
  and the manifest (size and SHA-256 of every file) is written last. One rename makes it visible.
- Whatever fails on the way, nothing is visible under its id.
- It is read only through its manifest: a file that is missing, added, resized, altered, or not a plain
  file is refused, and so is any name that is not a plain name.
- The manifest is compared with its own canonical form, so no byte of it can change unnoticed.

Left-over hidden directories of a process that died are ignored, and removed by the next write. A root belongs
to one writing process.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimtab.errors import CheckpointError

MANIFEST: Final = "manifest.json"
EXTRA: Final = "extra.json"  # what is kept beside the state, readable without loading it
SCHEMA: Final = 1

_HIDDEN: Final = ".partial-"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CHUNK_BYTES: Final = 1 << 20

Content = bytes | Callable[[Path], None]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FileEntry(_Form):
    """Size and hash of one file.

    Args:
        size: In bytes.
        sha256: In lower-case hexadecimal.
    """

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(_Form):
    """What a complete checkpoint consists of.

    Args:
        schema_version: Of the manifest.
        id: The checkpoint's id, which is also its directory's name.
        files: By file name, the manifest itself excepted.
    """

    schema_version: Literal[1]
    id: str
    files: dict[str, FileEntry]

    def to_bytes(self) -> bytes:
        """Return the canonical form: the only one that is read."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"


def write_checkpoint(root: Path, id: str, files: Mapping[str, Content]) -> Path:
    """Write a checkpoint; it is visible under ``id`` only once it is complete and on the disk.

    Args:
        root: Directory of all checkpoints; made if it does not exist.
        id: A plain name of at most 100 letters, digits, ``.``, ``_`` and ``-``.
        files: Content by plain file name: bytes, or a function that writes the file it is given.

    Raises:
        CheckpointError: Nothing is visible under ``id``, or the id is taken already; go on without it.
    """
    final = root / _checked(id, "checkpoint id")
    for name in files:
        if _checked(name, "file name") == MANIFEST:
            raise CheckpointError("a checkpoint's manifest is written by trimtab", received=name, next_step="use another name")
    if os.path.lexists(final):
        raise CheckpointError("the checkpoint exists already", received=id, next_step="delete it first, or use another id")
    partial = root / f"{_HIDDEN}{id}"
    try:
        if not root.is_dir():
            root.mkdir(parents=True)
            _flush(root.parent)
        remove_leftovers(root)
        os.mkdir(partial)  # noqa: PTH102 - calls that may fail go through os, where tests let each of them fail
        entries = {name: _write_file(partial / name, content) for name, content in files.items()}
        manifest = Manifest(schema_version=SCHEMA, id=id, files=entries)
        _write_file(partial / MANIFEST, manifest.to_bytes())
        _flush(partial)
        os.rename(partial, final)  # noqa: PTH104 - calls that may fail go through os, where tests let each of them fail
        _flush(root)
    except BaseException as error:  # also an interrupt must leave nothing visible behind
        _withdraw(final, partial)
        if not isinstance(error, Exception):
            raise
        raise CheckpointError(
            "the checkpoint could not be written",
            received=f"{id}: {error!r}",
            next_step="go on without it; look at the disk's free space and permissions",
        ) from error
    return final


def open_checkpoint(root: Path, id: str) -> Path:
    """Verify a checkpoint as a whole and return its directory.

    Raises:
        CheckpointError: It is missing, incomplete or damaged; use another one.
    """
    manifest = read_manifest(root, id)
    directory = root / id
    try:
        found = set(os.listdir(directory)) - {MANIFEST}  # noqa: PTH208 - calls that may fail go through os, where tests let each of them fail
        if found != manifest.files.keys():
            raise _damaged(id, f"files {sorted(found)}, the manifest has {sorted(manifest.files)}")
        actual = {name: _entry(directory / name) for name in manifest.files}
    except OSError as error:
        raise _damaged(id, str(error)) from error
    for name, entry in actual.items():
        if entry != manifest.files[name]:
            raise _damaged(id, f"{name} has {entry.size} bytes and SHA-256 {entry.sha256[:12]}, not as in the manifest")
    return directory


def read_manifest(root: Path, id: str) -> Manifest:
    """Read a checkpoint's manifest without looking at its files.

    Raises:
        CheckpointError: It is missing or damaged; use another checkpoint.
    """
    path = root / _checked(id, "checkpoint id") / MANIFEST
    try:
        raw = _regular(path).read_bytes()
    except OSError as error:
        raise CheckpointError("the checkpoint is missing or incomplete", received=f"{id}: {error}") from error
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise _damaged(id, f"{MANIFEST}: {error.errors()[0]['msg']}") from error
    if manifest.to_bytes() != raw or manifest.id != id:
        raise _damaged(id, f"{MANIFEST} is not as it was written")
    for name in manifest.files:
        _checked(name, "file name")
    return manifest


def read_extra(root: Path, id: str) -> dict[str, Any]:
    """Return what was kept beside the state, as it stands in its file; the state itself is not looked at.

    Raises:
        CheckpointError: It is missing or damaged; use another checkpoint.
    """
    entry = read_manifest(root, id).files.get(EXTRA)
    try:
        raw = _regular(root / id / EXTRA).read_bytes()
        tree: Any = json.loads(raw)
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(id, f"{EXTRA}: {error}") from error
    if entry is None or hashlib.sha256(raw).hexdigest() != entry.sha256 or not isinstance(tree, dict):
        raise _damaged(id, f"{EXTRA} is not as in the manifest")
    return cast("dict[str, Any]", tree)


def list_checkpoints(root: Path) -> tuple[str, ...]:
    """Return the ids that have a manifest, by name; their files are not verified."""
    if not root.is_dir():
        return ()
    named = (entry.name for entry in os.scandir(root) if _NAME.fullmatch(entry.name))
    return tuple(sorted(name for name in named if (root / name / MANIFEST).is_file()))


def delete_checkpoint(root: Path, id: str) -> None:
    """Remove a checkpoint: it disappears at once, its files after that. Without effect if there is none.

    Raises:
        CheckpointError: The file system refused; remove the directory by hand.
    """
    directory = root / _checked(id, "checkpoint id")
    hidden = root / f"{_HIDDEN}{id}"
    try:
        remove_leftovers(root)
        if os.path.lexists(directory):
            os.rename(directory, hidden)  # noqa: PTH104 - calls that may fail go through os, where tests let each of them fail
            _flush(root)
            shutil.rmtree(hidden)
    except OSError as error:
        raise CheckpointError("the checkpoint could not be removed", received=f"{id}: {error}") from error


def remove_leftovers(root: Path) -> None:
    """Remove what a process that died while writing or deleting has left behind."""
    if root.is_dir():
        for entry in os.scandir(root):
            if entry.name.startswith(_HIDDEN):
                shutil.rmtree(entry.path, ignore_errors=True)


def _write_file(path: Path, content: Content) -> FileEntry:
    if isinstance(content, bytes):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)
    else:
        content(path)
    _flush(_regular(path))
    if isinstance(content, bytes):
        return FileEntry(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    return _entry(path)


def _entry(path: Path) -> FileEntry:
    digest, size = hashlib.sha256(), 0
    with _regular(path).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(size=size, sha256=digest.hexdigest())


def _regular(path: Path) -> Path:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise FileNotFoundError(f"{path.name} is not a plain file")
    return path


def _flush(path: Path) -> None:
    """Make a file's content, or a directory's names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _withdraw(final: Path, partial: Path) -> None:
    """Take back what a failed write has made; the manifest goes first, so nothing incomplete is ever visible."""
    made = partial if os.path.lexists(partial) else final
    with suppress(OSError):
        (made / MANIFEST).unlink()
    shutil.rmtree(made, ignore_errors=True)


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise CheckpointError(
            f"the {what} is not a plain name",
            received=repr(name),
            allowed="1 to 100 of A-Z a-z 0-9 . _ -, the first a letter or digit",
        )
    return name


def _damaged(id: str, detail: str) -> CheckpointError:
    return CheckpointError("the checkpoint is damaged", received=f"{id}: {detail}", next_step="use another checkpoint")
