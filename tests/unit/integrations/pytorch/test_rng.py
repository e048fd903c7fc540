"""The random number generators of a process: kept in a file, put back exactly, and seeded anew."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trimtab.errors import CheckpointError
from trimtab.integrations.pytorch.rng import capture_rng, read_rng, reseed_rng, restore_rng, write_rng


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "start.json"


def draw() -> tuple[float, ...]:
    # A normal of each: some generators keep the second of a pair back.
    numbers = (random.gauss(0, 1), np.random.standard_normal(), float(torch.randn(())))
    return (*numbers, random.random(), np.random.random(), float(torch.rand(())))


def test_what_a_run_began_with_is_put_back_exactly(path: Path) -> None:
    random.seed()
    np.random.seed(None)
    torch.seed()
    draw()
    write_rng(path)
    expected = [draw() for _ in range(3)]
    torch.rand(1000)
    reseed_rng(5)
    read_rng(path)
    assert [draw() for _ in range(3)] == expected


def test_writing_draws_nothing(path: Path) -> None:
    reseed_rng(1)
    expected = draw()
    reseed_rng(1)
    write_rng(path)
    assert draw() == expected


@pytest.mark.parametrize("place", [0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_changed_byte_is_found_and_nothing_put_back(path: Path, place: float) -> None:
    write_rng(path)
    raw = bytearray(path.read_bytes())
    raw[int(place * (len(raw) - 1))] ^= 1
    path.write_bytes(raw)
    reseed_rng(2)
    expected = draw()
    reseed_rng(2)
    with pytest.raises(CheckpointError):
        read_rng(path)
    assert draw() == expected


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b"\xff", b'{"states":{},"bytes":{}}'])
def test_a_damaged_or_missing_file_is_refused(path: Path, content: bytes) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_rng(path)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_rng(path)


def test_generators_of_another_machine_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_initialized", lambda: True)
        patched.setattr(torch.cuda, "get_rng_state_all", lambda: [torch.zeros(16, dtype=torch.uint8)] * 3)
        write_rng(path)
    with pytest.raises(CheckpointError, match="another number of CUDA devices"):
        read_rng(path)


def test_a_process_without_numpy_keeps_and_seeds_the_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.delitem(sys.modules, "numpy")
        reseed_rng(4)
        write_rng(path)
        expected = (random.random(), float(torch.rand(())))
    assert json.loads(path.read_text())["states"]["dict"][1] == ["numpy", None]
    np.random.seed(9)
    read_rng(path)
    assert (random.random(), float(torch.rand(()))) == expected
    number = np.random.random()
    np.random.seed(9)
    assert np.random.random() == number, "numpy's generator was not in the file"


@pytest.mark.parametrize("seed", [0, 7, 2**32, 2**56 - 1])
def test_a_seed_gives_the_same_numbers_again_and_another_seed_others(seed: int) -> None:
    reseed_rng(seed)
    first = draw()
    torch.rand(5)
    reseed_rng(seed)
    assert draw() == first
    reseed_rng(seed + 1)
    assert not set(draw()) & set(first), "a generator was not seeded"


def test_a_captured_state_is_no_live_one() -> None:
    captured = capture_rng()
    expected = draw()
    restore_rng(captured)
    assert draw() == expected
    restore_rng(captured)
    assert draw() == expected
