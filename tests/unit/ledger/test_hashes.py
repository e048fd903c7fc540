"""The hashes of a run's states: kept step by step, given up behind a resume, and never half of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.errors import LedgerDamaged
from trimtab.ledger.hashes import BUFFERED, HashFile, read_hashes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hashes.jsonl"


def parts(step: int) -> dict[str, str]:
    return {"model": f"{step:064x}", "rng/torch": f"{step + 1:064x}"}


def written(path: Path, *steps: int) -> HashFile:
    file = HashFile(path)
    for step in steps:
        file.append(step, parts(step))
    file.flush()
    return file


def test_hashes_read_back_by_step(path: Path) -> None:
    written(path, 1, 2, 30)
    assert read_hashes(path) == {step: parts(step) for step in (1, 2, 30)}


def test_they_are_buffered_until_there_are_enough(path: Path) -> None:
    file = HashFile(path)
    for step in range(BUFFERED - 1):
        file.append(step, parts(step))
    assert not path.exists()
    file.append(BUFFERED, parts(BUFFERED))
    assert len(read_hashes(path)) == BUFFERED
    file.flush()
    assert len(read_hashes(path)) == BUFFERED


def test_another_process_goes_on_with_the_file(path: Path) -> None:
    written(path, 1, 2)
    written(path, 3)
    assert list(read_hashes(path)) == [1, 2, 3]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(num_steps=st.integers(0, 8), torn=st.integers(0, 200), back_to=st.integers(-1, 9), more=st.integers(0, 3))
def test_after_going_back_the_steps_behind_are_made_again_whatever_the_last_line_was(
    path: Path, num_steps: int, torn: int, back_to: int, more: int
) -> None:
    path.unlink(missing_ok=True)
    written(path, *range(1, num_steps + 1))
    if num_steps:
        content = path.read_bytes()
        cut = min(torn, len(content))
        path.write_bytes(content[: len(content) - cut])
    whole = path.read_bytes().count(b"\n") if path.exists() else 0
    file = HashFile(path)
    file.rewind(back_to)
    kept = [step for step in range(1, whole + 1) if step <= back_to]
    for step in range(100, 100 + more):
        file.append(step, parts(step))
    file.flush()
    found = read_hashes(path) if path.exists() else {}
    assert found == {step: parts(step) for step in (*kept, *range(100, 100 + more))}


def test_going_back_drops_what_was_not_written_yet_and_leaves_nothing_behind(path: Path) -> None:
    file = written(path, 1, 2)
    file.append(3, parts(3))
    file.rewind(1)
    file.flush()
    assert read_hashes(path) == {1: parts(1)}
    assert list(path.parent.iterdir()) == [path]
    HashFile(path.with_name("none")).rewind(1)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "line",
    [
        b"x\n",
        b"[]\n",
        b"1\n",
        b"{}\n",
        b'{"step":1}\n',
        b'{"step":"x","parts":{}}\n',
        b'{"step":1,"parts":[]}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_damaged_file_is_refused_with_the_line(path: Path, line: bytes) -> None:
    written(path, 1)
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(LedgerDamaged, match=r"hashes\.jsonl:2"):
        read_hashes(path)
    before = path.read_bytes()
    with pytest.raises(LedgerDamaged):
        HashFile(path).rewind(1)
    assert path.read_bytes() == before


def test_a_torn_last_line_is_left_out_and_a_missing_file_is_told(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_hashes(path)
    written(path, 1, 2)
    path.write_bytes(path.read_bytes()[:-1])
    assert list(read_hashes(path)) == [1]


def test_a_write_that_failed_half_way_spoils_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(path, 1)
    real = Path.open

    class Full:
        """A disk that takes ten bytes and no more."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self._inner.close()

        def write(self, data: bytes) -> int:
            return os.write(self._inner.fileno(), data[:10])

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda *args, **more: Full(real(*args, **more)))
        file.append(2, parts(2))
        with pytest.raises(OSError, match="wrote 10 of"):
            file.flush()
    file.append(3, parts(3))
    file.flush()
    assert list(read_hashes(path)) == [1, 3]
