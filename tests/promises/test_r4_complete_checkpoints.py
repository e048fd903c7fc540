"""R4: a visible checkpoint is complete, whatever fails or is killed while it is written; a damaged one is refused."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.failing_calls import CALLS, failing
from tests.integration.pytorch.conftest import mlp, supervise
from tests.integration.pytorch.managed import records
from tests.promises.checkpoint_writer import fill, store_at
from tests.promises.counting import Tally
from tests.promises.killing import Killed
from tests.unit.integrations.pytorch.small_runs import Run
from trimtab.actuation.checkpoint_files import list_checkpoints, open_checkpoint, write_checkpoint
from trimtab.decision.action import checkpoint_of
from trimtab.errors import CheckpointError
from trimtab.integrations.pytorch.state import TorchStateStore
from trimtab.ledger.record import ActionApplied, ActionFailed, ActionIntended

FILES: dict[str, Any] = {
    "state.json": b'{"a": 1}' * 20,
    "empty": b"",
    "weights.bin": lambda path: path.write_bytes(b"w" * 500),
}
SHARES = 4
ERRORS = pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])


def _fail_each(root: Path, write: Callable[[str], object], error: int, tally: Tally, patch: pytest.MonkeyPatch) -> None:
    with failing(patch, -1, error) as calls:
        write("fine")
    assert set(calls) == set(CALLS)
    for at in tally.choose("failed calls", range(len(calls)), portion=len(calls)):
        with failing(patch, at, error), pytest.raises(CheckpointError):
            write("hit")
        assert list_checkpoints(root) == ("fine",), calls[at]
        with pytest.raises(CheckpointError):
            open_checkpoint(root, "hit")
        assert not (root / "hit").exists()
        open_checkpoint(root, "fine")
        tally.count("failed calls")
    write("hit")
    assert sorted(entry.name for entry in root.iterdir()) == ["fine", "hit"]


@ERRORS
def test_whichever_call_fails_nothing_is_visible(
    error: int, tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_each(tmp_path, lambda id: write_checkpoint(tmp_path, id, FILES), error, tally, monkeypatch)


@ERRORS
def test_whichever_call_fails_while_a_run_is_saved_nothing_is_visible_and_the_run_is_as_before(
    error: int, tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run()
    store = TorchStateStore(tmp_path, run.model, run.optimizer, run.scheduler, run.loader)
    run.step()
    before = run.hash()
    _fail_each(tmp_path, lambda id: store.save(id, {"step": 1}), error, tally, monkeypatch)
    assert run.hash() == before


@pytest.fixture(scope="module")
def writer() -> Iterator[Killed]:
    with Killed("tests.promises.checkpoint_writer") as killed:
        yield killed


@pytest.mark.parametrize("share", range(SHARES))
def test_a_process_that_is_killed_leaves_whole_checkpoints_only_and_loses_none(
    tmp_path: Path, tally: Tally, writer: Killed, share: int
) -> None:
    draw = random.Random(tally.seed(share))
    store, model = store_at(tmp_path)
    expected: set[int] = set()
    in_the_middle = 0
    for _ in range(tally.goal("SIGKILLs", portion=4, full=500 // SHARES)):
        first = max(expected, default=0) + 2  # one further than what may be visible without having been told
        end = writer.run(str(tmp_path), first, kill_after_seconds=draw.uniform(0.0, 0.08))
        assert end.was_killed, end
        expected |= {number for what, number in end.said if what == "saved"}
        expected -= {number for what, number in end.said if what == "deleting"}
        in_the_middle += any(entry.name.startswith(".") for entry in tmp_path.iterdir())
        visible = {int(id.removeprefix("step-")) for id in list_checkpoints(tmp_path)}
        assert expected <= visible, f"lost: {expected - visible}"
        for number in visible:
            assert store.restore(f"step-{number:08d}") == {"number": number}
            assert all(bool((parameter == number).all()) for parameter in model.parameters())
        for number in visible - {max(visible, default=0)}:
            store.delete(f"step-{number:08d}")
        expected = {max(visible)} if visible else set()
        tally.count("SIGKILLs")
    tally.count("of them in the middle of a write or a deletion", in_the_middle)
    assert in_the_middle > 0, "no kill met a write, so little was shown"


def _places(size: int, count: int) -> list[tuple[int, str]]:
    """Return places at even distances over a file, by turns a bit flipped and the rest cut off."""
    return [(index * (size - 1) // (count - 1), "cut" if index % 5 == 4 else "flip") for index in range(count)]


def _damage(path: Path, at: int, how: str) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1 << (at % 8)
    path.write_bytes(raw if how == "flip" else raw[:at])


def test_a_damaged_checkpoint_is_refused_and_the_newest_valid_one_restored(tmp_path: Path, tally: Tally) -> None:
    store, model = store_at(tmp_path / "checkpoints")
    for number in (1, 2):
        fill(model, number)
        store.save(f"step-{number}", {"number": number})
    directory = tmp_path / "checkpoints" / "step-2"
    sizes = {path.name: path.stat().st_size for path in sorted(directory.iterdir())}
    assert len(sizes) >= 3
    what = "damaged files refused by the store"
    places = [(name, *place) for name, size in sizes.items() for place in _places(size, 40)]
    for name, at, how in tally.choose(what, places, portion=20):
        raw = (directory / name).read_bytes()
        _damage(directory / name, at, how)
        fill(model, 3)
        with pytest.raises(CheckpointError):
            store.restore("step-2")
        assert all(bool((parameter == 3).all()) for parameter in model.parameters()), "the refused one left a trace"
        usable = [id for id in reversed(list_checkpoints(tmp_path / "checkpoints")) if _restores(store, id)]
        assert usable == ["step-1"]
        assert all(bool((parameter == 1).all()) for parameter in model.parameters())
        (directory / name).write_bytes(raw)
        tally.count(what)
    assert _restores(store, "step-2")


def _restores(store: TorchStateStore, id: str) -> bool:
    try:
        store.restore(id)
    except CheckpointError:
        return False
    return True


@pytest.mark.parametrize("share", range(SHARES))
def test_a_run_whose_newest_checkpoint_is_damaged_goes_back_to_the_one_before(tmp_path: Path, tally: Tally, share: int) -> None:
    what = "damaged files passed over by a run"
    for number in range(tally.goal(what, portion=1, full=100 // SHARES)):
        _run_with_damage(tmp_path / str(number), SHARES * number + share)
        tally.count(what)


def _run_with_damage(run_dir: Path, place: int) -> None:
    workload = mlp(3)
    newest = run_dir / "checkpoints" / "step-00000020"

    def damage(step: int) -> None:
        if step == 22:
            file = sorted(newest.iterdir())[place % 4]
            _damage(file, *_places(file.stat().st_size, 100)[place])

    def fault(step: int, loss: torch.Tensor) -> torch.Tensor:
        return loss * torch.nan if step == 25 else loss

    with supervise(workload, run_dir) as supervisor:
        workload.train(30, supervisor, lambda: 1.0, before_step=damage, loss_hook=fault)
        assert not supervisor.is_held
    intended = [checkpoint_of(record.action) for record in records(supervisor, ActionIntended)]
    assert intended[:2] == ["step-00000020", "step-00000010"]  # what follows is no rollback: batches are skipped
    assert [record.intervention for record in records(supervisor, ActionFailed)] == [1]
    assert records(supervisor, ActionApplied)[0].intervention == 2
    assert not newest.exists(), "a damaged checkpoint is given up"
    assert all(bool(torch.isfinite(parameter).all()) for parameter in workload.model.parameters())
