"""The standalone verifier: says whether the record of a run is whole, and if not, where it is not.

It shares no code with the writer and needs the standard library only, so that a defect in one is
seen by the other, and anybody can copy this file and check a run without trimtab: ``python verify.py RUN``.

A line is ``{"hash":H,"prev":P,"record":R,"seq":N,"time":T}`` in canonical JSON (sorted keys, no spaces,
ASCII). H is the SHA-256 of the line's bytes without the ``"hash":H,`` part; P is the H of the line
before, 64 zeros at first; N counts from 0. The first R is run_started, and no other; a run_resumed names
the record after which the run goes on, an earlier one.

A tail cut off at a line's end cannot be seen in the ledger alone. Each checkpoint of a run holds the head
that the ledger had when it was saved (``ledger_head`` in its ``extra.json``), and that has to be there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, Never, cast

KNOWN_SCHEMAS: Final = ("trimtab/ledger/1",)

_MANIFEST: Final = "manifest.json"
_EXTRA: Final = "extra.json"
_OPENING: Final = b'{"hash":"'
_CLOSING: Final = b'",'


@dataclass(frozen=True, slots=True)
class Verification:
    """What the verifier found.

    Args:
        ok: Whether every line is whole, and every head that is known from elsewhere is there.
        records: Whole records before the first problem.
        head: Sequence number and hash of the last of them; None if there is none.
        problem: What is wrong; None if ok.
        line: The line that is wrong, from 1; None if ok or if no line can be named.
        torn_bytes: Bytes after the last newline, of a write that did not end; no problem in itself.
        anchors: Checkpoints whose head was looked for.
        checkpoints: Checkpoints whose files were compared with their manifest.
    """

    ok: bool
    records: int
    head: tuple[int, str] | None
    problem: str | None
    line: int | None
    torn_bytes: int
    anchors: int = 0
    checkpoints: int = 0


@dataclass(frozen=True, slots=True)
class _Anchor:
    """A line that has to be there, and how that is known."""

    sequence: int
    hash: str
    source: str


class _Damage(Exception):
    """A checkpoint is not as it was saved."""


def verify_run(
    run: str | os.PathLike[str], expected_head: tuple[int, str] | None = None, *, with_checkpoints: bool = False
) -> Verification:
    """Check the ledger of a run, also against every head that its checkpoints hold; the run may be going on.

    Args:
        run: The run's directory.
        expected_head: A further head, as for `verify_file`.
        with_checkpoints: Whether to compare every file of every checkpoint with its manifest, which reads them all.

    Returns:
        What was found; bad content, however bad, raises nothing.
    """
    anchors: list[_Anchor] = []
    num_whole = 0
    problem: str | None = None
    # Before the ledger, which only grows: a head that was read here is in it then.
    for directory in _checkpoints_of(Path(run)):
        try:
            held = _examine(directory, is_whole=with_checkpoints)
        except _Damage as error:
            problem = problem or f"checkpoint {directory.name}: {error}"
        else:
            anchors += held or []
            num_whole += with_checkpoints and held is not None
    given = [_Anchor(*expected_head, "the expected head")] if expected_head else []
    found = replace(_verify(Path(run) / "ledger.jsonl", [*given, *anchors]), anchors=len(anchors), checkpoints=num_whole)
    return replace(found, ok=False, problem=problem) if found.ok and problem else found


def verify_file(path: str | os.PathLike[str], expected_head: tuple[int, str] | None = None) -> Verification:
    """Check a ledger file.

    Args:
        path: The file.
        expected_head: Sequence number and hash of a line that has to be there, as kept outside the ledger.

    Returns:
        What was found; bad content, however bad, raises nothing.
    """
    return _verify(path, [_Anchor(*expected_head, "the expected head")] if expected_head else [])


def _verify(path: str | os.PathLike[str], anchors: Iterable[_Anchor]) -> Verification:
    wanted = {anchor.sequence for anchor in anchors}
    hashes: dict[int, str] = {}
    count, previous, torn_bytes = 0, "0" * 64, 0
    problem, at = cast("str | None", None), cast("int | None", None)
    try:
        with Path(path).open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    torn_bytes = len(line)
                    break
                if problem := _problem_of(line[:-1], count, previous):
                    at = count + 1
                    break
                previous = line[len(_OPENING) : len(_OPENING) + 64].decode("ascii")
                if count in wanted:
                    hashes[count] = previous
                count += 1
    except OSError as error:
        problem = f"the file cannot be read: {error.strerror}"
    if problem is None:
        problem, at = _problem_of_end(count, hashes, anchors)
    return Verification(problem is None, count, (count - 1, previous) if count else None, problem, at, torn_bytes)


def _problem_of_end(count: int, hashes: dict[int, str], anchors: Iterable[_Anchor]) -> tuple[str | None, int | None]:
    if not count:
        return "there is no whole record", None
    for anchor in sorted(anchors, key=lambda one: one.sequence):
        if not 0 <= anchor.sequence < count:
            return f"record {anchor.sequence} of {anchor.source} is not there", None
        if hashes[anchor.sequence] != anchor.hash:
            return f"record {anchor.sequence} is not the one of {anchor.source}", anchor.sequence + 1
    return None, None


def _problem_of(line: bytes, sequence: int, previous: str) -> str | None:
    """Return what is wrong with a line, or None."""
    start, end = len(_OPENING), len(_OPENING) + 64
    if not line.startswith(_OPENING) or line[end : end + len(_CLOSING)] != _CLOSING:
        return "the line does not begin with its hash"
    body = b"{" + line[end + len(_CLOSING) :]
    if hashlib.sha256(body).hexdigest().encode("ascii") != line[start:end]:
        return "the line does not match its hash"
    try:
        tree: object = json.loads(body, object_pairs_hook=_unique, parse_constant=_refuse)
        text = _canonical(tree)
    except (ValueError, RecursionError) as error:
        return f"the line is not JSON: {str(error)[:120]}"
    if text != body:
        return "the line is not in canonical form"
    return _problem_of_body(tree, sequence, previous)


def _problem_of_body(tree: object, sequence: int, previous: str) -> str | None:
    if not isinstance(tree, dict):
        return "the line is not an object"
    body = cast("dict[str, Any]", tree)
    if sorted(body) != ["prev", "record", "seq", "time"]:
        return "the line has other keys"
    if type(body["seq"]) is not int or body["seq"] != sequence:
        return f"the line has sequence number {body['seq']!r:.40}, expected {sequence}"
    if body["prev"] != previous:
        return "the line does not follow the one before it"
    if not isinstance(body["time"], float) or not math.isfinite(body["time"]):
        return "the time is not a finite float"
    if not isinstance(body["record"], dict):
        return "the record is not an object"
    return _problem_of_record(cast("dict[str, Any]", body["record"]), sequence)


def _problem_of_record(record: dict[str, Any], sequence: int) -> str | None:
    kind, schema = record.get("kind"), record.get("schema")
    if not isinstance(kind, str):
        return "the record has no kind"
    if (sequence == 0) != (kind == "run_started"):
        return f"run_started has to be the first record and no other; this is {kind!r:.40}"
    if sequence == 0 and schema not in KNOWN_SCHEMAS:
        return f"the schema {schema!r:.40} is unknown; known: {', '.join(KNOWN_SCHEMAS)}"
    if kind == "run_resumed":
        after = record.get("after")
        if type(after) is not int or not 0 <= after < sequence:
            return f"run_resumed goes on after record {after!r:.40}, which is not before it"
    return None


def _checkpoints_of(run: Path) -> list[Path]:
    """Return the visible checkpoints; a directory without a manifest is none."""
    try:
        found = [path for path in (run / "checkpoints").iterdir() if not path.name.startswith(".")]
    except OSError:
        return []
    return sorted(path for path in found if os.path.lexists(path / _MANIFEST))


def _examine(directory: Path, *, is_whole: bool) -> list[_Anchor] | None:
    """Compare a checkpoint's files with its manifest, or the one with the head alone; return the head if it holds one.

    None says that it was deleted meanwhile, in order: the run goes on.

    Raises:
        _Damage: It is not as it was saved.
    """
    try:
        files = _manifest(directory)
        if is_whole and {*files, _MANIFEST} != set(os.listdir(directory)):  # noqa: PTH208 - names are all that is needed
            raise _Damage("it has other files than its manifest says")
        for name in files if is_whole else files.keys() & {_EXTRA}:
            if files[name] != _size_and_hash(directory / name):
                raise _Damage(f"{name} is not as its manifest says")
        return [_anchor(directory)] if _EXTRA in files else []
    except OSError as error:
        if not os.path.lexists(directory):
            return None
        raise _Damage(f"{os.path.basename(error.filename or '')}: {error.strerror}") from error  # noqa: PTH119 - may be bytes
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _Damage("its manifest or its extra.json is malformed") from error


def _manifest(directory: Path) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 by file name, as the manifest has them."""
    with _open(directory / _MANIFEST) as file:
        raw = file.read()
    tree = json.loads(raw, object_pairs_hook=_unique, parse_constant=_refuse)
    if _canonical(tree) + b"\n" != raw or sorted(tree) != ["files", "id", "schema_version"]:
        raise _Damage("its manifest is not as it was written")
    if (tree["id"], tree["schema_version"]) != (directory.name, 1):
        raise _Damage("its manifest is that of another checkpoint, or of another version")
    files = {name: (entry["size"], entry["sha256"]) for name, entry in tree["files"].items()}
    if any("/" in name or "\\" in name or name.startswith(".") for name in files):
        raise _Damage("its manifest names a file elsewhere")
    return files


def _anchor(directory: Path) -> _Anchor:
    with _open(directory / _EXTRA) as file:
        sequence, hash_ = json.load(file)["ledger_head"]
    if type(sequence) is not int or not isinstance(hash_, str):
        raise _Damage("its ledger_head is no sequence number with a hash")
    return _Anchor(sequence, hash_, f"the head that checkpoint {directory.name} was saved with")


def _size_and_hash(path: Path) -> tuple[int, str]:
    with _open(path) as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path) -> BufferedReader:
    if not stat.S_ISREG(path.lstat().st_mode):  # a pipe would never end, a link leads elsewhere
        raise _Damage(f"{path.name} is not a plain file")
    return path.open("rb")


def _canonical(tree: object) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a key is repeated")
    return tree


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is not JSON")


def main() -> int:
    """Check the run that the command line names, for a copy of this file; print what was found as JSON."""
    parser = argparse.ArgumentParser(description="Say whether the record of a run is whole.")
    parser.add_argument("run", type=Path, help="run directory, or a ledger file")
    parser.add_argument("--checkpoints", action="store_true", help="compare all files of all checkpoints too")
    given = parser.parse_args()
    found = verify_run(given.run, with_checkpoints=given.checkpoints) if given.run.is_dir() else verify_file(given.run)
    sys.stdout.write(json.dumps(asdict(found)) + "\n")
    return 0 if found.ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
