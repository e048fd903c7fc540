from __future__ import annotations

import ast
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.damage import refused
from tests.unit.ledger.ledger_samples import write_anchored_run, write_run
from trimtab.ledger import verify
from trimtab.ledger.record import SCHEMA
from trimtab.ledger.verify import KNOWN_SCHEMAS, Verification, verify_file, verify_run

NUM_RECORDS = 50


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def lines(path: Path) -> list[bytes]:
    write_run(path, NUM_RECORDS)
    return path.read_bytes().splitlines(keepends=True)


def resealed(lines: Iterable[bytes]) -> bytes:
    """Forge a chain: compute every hash anew, so that only the content can tell."""
    sealed, previous = b"", "0" * 64
    for line in lines:
        body = {key: value for key, value in json.loads(line).items() if key != "hash"} | {"prev": previous}
        previous = hashlib.sha256(_text(body)).hexdigest()
        sealed += _text({**body, "hash": previous}) + b"\n"
    return sealed


def _text(tree: Any) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


def test_a_whole_ledger_is_ok(path: Path) -> None:
    head = write_run(path, NUM_RECORDS)
    found = verify_file(path, (head.sequence, head.hash))
    assert found == Verification(ok=True, records=50, head=(head.sequence, head.hash), problem=None, line=None, torn_bytes=0)
    assert verify_file(str(path)).ok


def test_it_shares_no_code_with_the_writer() -> None:
    tree = ast.parse(Path(verify.__file__).read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert "hashlib" in names
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_it_knows_the_schema_that_is_written() -> None:
    assert SCHEMA in KNOWN_SCHEMAS


def test_a_head_kept_earlier_still_holds_when_the_ledger_went_on(path: Path, lines: list[bytes]) -> None:
    kept = json.loads(lines[20])["hash"]
    assert verify_file(path, (20, kept)).ok
    other = verify_file(path, (20, "f" * 64))
    assert (other.ok, other.line) == (False, 21)
    assert not verify_file(path, (-1, kept)).ok


def test_a_torn_tail_is_counted_and_no_problem(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(lines) + b'{"hash"')
    found = verify_file(path)
    assert (found.ok, found.records, found.torn_bytes) == (True, NUM_RECORDS, 7)


def renumbered(line: bytes, sequence: Any) -> bytes:
    return _text({**json.loads(line), "seq": sequence})


def with_record(line: bytes, **changes: Any) -> bytes:
    tree = json.loads(line)
    return _text({**tree, "record": {**tree["record"], **changes}})


def test_a_forged_chain_is_refused_for_its_content(path: Path, lines: list[bytes]) -> None:
    first, second = lines[:2]
    assert resealed(lines) == b"".join(lines), "the forger seals as the writer does"
    cases = {
        "sequence": resealed([first, renumbered(second, 2)]),
        "sequence number True": resealed([first, renumbered(second, sequence=True)]),
        "this is 'evaluation_recorded'": resealed([renumbered(second, 0)]),
        "run_started has to be the first record and no other": resealed([first, first.replace(b'"seq":0', b'"seq":1')]),
        "the schema 'trimtab/ledger/0' is unknown": resealed([with_record(first, schema="trimtab/ledger/0")]),
        "no kind": resealed([with_record(first, kind=None)]),
        "other keys": resealed([_text({**json.loads(first), "more": 1})]),
        "time": resealed([_text({**json.loads(first), "time": 1})]),
        "after record 2, which is not before it": resealed([*lines[:2], with_record(lines[2], kind="run_resumed", after=2)]),
        "record is not": resealed([_text({**json.loads(first), "record": []})]),
    }
    for problem, content in cases.items():
        assert problem in str(refused(path, content).problem)


def sealed(body: bytes) -> bytes:
    return b'{"hash":"' + hashlib.sha256(body).hexdigest().encode() + b'",' + body[1:] + b"\n"


def test_a_forged_line_is_refused_for_its_form(path: Path, lines: list[bytes]) -> None:
    body = b"{" + lines[0][len('{"hash":"') + 64 + len('",') : -1]
    assert sealed(body) == lines[0]
    cases = {
        "repeated": body.replace(b'"seq":0', b'"seq":0,"seq":0'),
        "canonical": body.replace(b'"seq":0', b'"seq": 0'),
        "canonical form": body.replace(b"1000.0", b"1e3"),
        "NaN": body.replace(b"1000.0", b"NaN"),
        "not JSON": body[:-1],
        "is not JSON": b"{" + b"[" * 100_000,
        "Extra data": body + b"{}",
    }
    for problem, forged in cases.items():
        assert problem in str(refused(path, sealed(forged)).problem)


@pytest.mark.parametrize("content", [b"\n", b"\n\n", b"{}\n", b"null\n", b"\xff\xfe\n", b"\x00" * 100 + b"\n", b'{"hash":"\n'])
def test_what_is_no_ledger_is_refused(path: Path, content: bytes) -> None:
    found = refused(path, content)
    assert (found.records, found.head, found.line) == (0, None, 1)


def test_an_empty_or_missing_file_is_not_ok(path: Path) -> None:
    assert verify_file(path).problem == "the file cannot be read: No such file or directory"
    path.write_bytes(b"")
    assert verify_file(path).problem == "there is no whole record"


@pytest.mark.parametrize("after", [-1, 1, 2, 10**30, True, 0.0, None, "0"])
def test_a_run_goes_on_after_an_earlier_record_only(path: Path, lines: list[bytes], after: Any) -> None:
    record = {"kind": "run_resumed", "step": 0, "checkpoint": None, "versions": [], "origin": None}
    path.write_bytes(resealed([lines[0], _text({**json.loads(lines[1]), "record": {**record, "after": 0}})]))
    assert verify_file(path).ok
    forged = resealed([lines[0], _text({**json.loads(lines[1]), "record": {**record, "after": after}})])
    path.write_bytes(forged)
    found = verify_file(path)
    assert (found.ok, found.line) == (False, 2)
    assert "which is not before it" in str(found.problem)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_anchored_run(tmp_path, NUM_RECORDS)
    return tmp_path


def test_a_whole_run_holds_the_head_of_every_checkpoint(run: Path) -> None:
    found = verify_run(run)
    assert (found.ok, found.records, found.anchors, found.checkpoints) == (True, NUM_RECORDS, 4, 0)
    assert verify_run(run, with_checkpoints=True).checkpoints == 4
    assert found.head is not None
    assert verify_run(run, found.head).ok
    assert verify_run(run, (found.head[0], "0" * 64)).problem == "record 49 is not the one of the expected head"


def test_a_tail_that_was_cut_off_is_found_by_a_checkpoint_without_a_head(run: Path) -> None:
    ledger = run / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    for kept in range(1, NUM_RECORDS + 1):
        ledger.write_bytes(b"".join(lines[:kept]))
        assert verify_file(ledger).ok
        assert verify_run(run).ok == (kept >= 40), "the newest checkpoint holds the head 39, so 40 records have to be there"
    ledger.write_bytes(b"".join(lines[:30]))
    found = verify_run(run)
    assert found.problem == "record 39 of the head that checkpoint step-00000040 was saved with is not there"


def test_another_ledger_in_its_place_is_found(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "ledger.jsonl"
    write_run(other, NUM_RECORDS)
    other.replace(run / "ledger.jsonl")
    found = verify_run(run)
    assert (found.ok, found.line) == (False, 10)
    assert found.problem == "record 9 is not the one of the head that checkpoint step-00000010 was saved with"


def test_damage_in_the_ledger_is_told_before_what_a_checkpoint_says(run: Path) -> None:
    ledger = run / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"seq":12,', b'"seq":13,'))
    (run / "checkpoints" / "step-00000020" / "extra.json").unlink()
    assert (verify_run(run).line, verify_run(run).problem) == (13, "the line does not match its hash")


def sealed_extra(directory: Path, content: bytes) -> None:
    """Put an extra.json in a checkpoint that its manifest agrees with."""
    manifest = json.loads((directory / "manifest.json").read_bytes())
    manifest["files"]["extra.json"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (directory / "extra.json").write_bytes(content)
    (directory / "manifest.json").write_bytes(_text(manifest) + b"\n")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda d: (d / "extra.json").write_bytes(b"{}"), "extra.json is not as its manifest says"),
        (lambda d: (d / "extra.json").unlink(), "extra.json: No such file or directory"),
        (lambda d: (d / "extra.json").rename(d / "x") and (d / "extra.json").symlink_to(d / "x"), "is not a plain file"),
        (lambda d: (d / "manifest.json").write_bytes(b"{"), "malformed"),
        (lambda d: (d / "manifest.json").write_bytes(b"[]\n"), "not as it was written"),
        (lambda d: (d / "manifest.json").write_bytes(b" " + (d / "manifest.json").read_bytes()), "not as it was written"),
        (lambda d: d.rename(d.with_name("step-00000021")), "that of another checkpoint"),
        (lambda d: sealed_extra(d, b"{}"), "malformed"),
        (lambda d: sealed_extra(d, b"[" * 100_000), "malformed"),
        (lambda d: sealed_extra(d, b'{"ledger_head":[1,2]}'), "no sequence number with a hash"),
        (lambda d: sealed_extra(d, b'{"ledger_head":["1","2"]}'), "no sequence number with a hash"),
    ],
)
def test_a_checkpoint_whose_head_cannot_be_trusted_is_told(run: Path, damage: Callable[[Path], Any], problem: str) -> None:
    damage(run / "checkpoints" / "step-00000020")
    found = verify_run(run)
    assert (found.ok, found.records) == (False, NUM_RECORDS)
    assert str(found.problem).startswith("checkpoint step-0000002")
    assert problem in str(found.problem)


def test_all_files_of_a_checkpoint_are_compared_on_request(run: Path) -> None:
    directory = run / "checkpoints" / "step-00000020"
    for name in ("tensors", "state.json"):
        raw = (directory / name).read_bytes()
        (directory / name).write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
        assert verify_run(run).ok, "without the request only the head's file is read"
        found = verify_run(run, with_checkpoints=True)
        assert (found.problem, found.checkpoints) == (f"checkpoint step-00000020: {name} is not as its manifest says", 3)
        (directory / name).write_bytes(raw)
    (directory / "more").write_bytes(b"")
    assert "other files" in str(verify_run(run, with_checkpoints=True).problem)


def test_a_run_that_goes_on_is_whole(run: Path) -> None:
    """An unfinished line, a checkpoint being written, one deleted, and what the user keeps beside them."""
    with (run / "ledger.jsonl").open("ab") as file:
        file.write(b'{"hash":"')
    root = run / "checkpoints"
    (root / ".partial-step-00000050").mkdir()
    (root / ".partial-step-00000050" / "manifest.json").write_bytes(b"{")
    (root / "notes").mkdir()
    (root / "notes.txt").write_text("mine")
    (root / "step-00000010").rename(root / ".partial-step-00000010")
    found = verify_run(run, with_checkpoints=True)
    assert (found.ok, found.anchors, found.checkpoints, found.torn_bytes) == (True, 3, 3, 9)


def test_a_checkpoint_that_is_deleted_while_it_is_looked_at_is_no_damage(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = verify._size_and_hash

    def deleted_first(path: Path) -> tuple[int, str]:
        if path.parent.name == "step-00000020":
            path.parent.rename(path.parent.with_name(".partial-step-00000020"))
        return real(path)

    monkeypatch.setattr(verify, "_size_and_hash", deleted_first)
    found = verify_run(run, with_checkpoints=True)
    assert (found.ok, found.anchors, found.checkpoints) == (True, 3, 3)


def test_a_run_without_checkpoints_or_without_anything_is_told_apart(tmp_path: Path) -> None:
    assert verify_run(tmp_path).problem == "the file cannot be read: No such file or directory"
    write_run(tmp_path / "ledger.jsonl", 3)
    assert verify_run(tmp_path, with_checkpoints=True) == verify_file(tmp_path / "ledger.jsonl")


def test_a_copy_of_the_file_alone_checks_a_run(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("copy") / "check.py"
    shutil.copyfile(verify.__file__, copy)

    def check(*arguments: object) -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-I", "-S", copy, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=copy.parent)
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    code, found = check(run, "--checkpoints")
    assert (code, found["ok"], found["anchors"], found["checkpoints"]) == (0, True, 4, 4)
    assert check(run / "ledger.jsonl")[1]["head"] == found["head"]
    (run / "ledger.jsonl").write_bytes((run / "ledger.jsonl").read_bytes()[:-1])
    assert check(run)[0] == 0
    (run / "checkpoints" / "step-00000040" / "extra.json").unlink()
    assert check(run)[0] == 1
