"""L1: no change of the run without a durable record: intent, apply, outcome."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.pytorch.conftest import WORKLOADS, Workload, supervise
from tests.integration.pytorch.managed import boundary, script
from tests.promises.counting import Tally
from tests.promises.killing import Killed
from tests.promises.managed_training import PLAN, STEPS, check_steps, evaluate, has_ended, hashes_of, run_to_the_end
from trimtab.ledger.course import iter_course
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import ActionApplied, ActionFailed, ActionIntended
from trimtab.ledger.verify import verify_run
from trimtab.runtime import engine
from trimtab.runtime.supervisor import Supervisor

SHARES = 4


class Disk:
    """What of a file has reached the disk, as far as its writer can know."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path = path
        self._synced = 0
        self._real = os.fsync
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, descriptor: int) -> None:
        self._real(descriptor)
        if self._path.exists() and os.path.sameopenfile(descriptor, self._opened()):
            self._synced = self._path.stat().st_size

    def _opened(self) -> int:
        self._descriptor = getattr(self, "_descriptor", None) or os.open(self._path, os.O_RDONLY)
        return self._descriptor

    def records(self) -> list[Any]:
        """Return the records that a machine that lost its power now would still have."""
        whole = self._path.read_bytes()[: self._synced]
        copy = self._path.with_name("synced.jsonl")
        copy.write_bytes(whole)
        return [entry.record for entry in read_ledger(copy)]

    def close(self) -> None:
        os.close(self._opened())


def _train(
    name: str, seed: int, run_dir: Path, when_attached: Callable[[], None] = lambda: None
) -> tuple[Supervisor, Workload]:
    workload = WORKLOADS[name](seed)
    with supervise(workload, run_dir, script(*PLAN), envelope=boundary()) as supervisor:
        when_attached()
        workload.train(STEPS, supervisor, evaluate)
    return supervisor, workload


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_run_is_touched_only_once_the_intent_is_on_disk(
    name: str, tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(tally.goal("managed runs looked at", portion=1, full=10)):
        with monkeypatch.context() as patch:
            touched = _touched(name, tally.seed(seed), tmp_path / str(seed), patch)
        tally.count("managed runs looked at")
        tally.count("changes whose intent was on disk before", len(touched))


def _touched(name: str, seed: int, path: Path, patch: pytest.MonkeyPatch) -> list[int]:
    """Run once; return the interventions, each of which found its intent on disk."""
    disk = Disk(path / "ledger.jsonl", patch)
    touched: list[int] = []
    real = engine.enact

    def enact(verified: Any, *rest: Any) -> Any:
        intended = [record for record in disk.records() if isinstance(record, ActionIntended)]
        assert len(intended) == len(touched) + 1, "the run would be changed before its intent is on disk"
        assert (intended[-1].action, intended[-1].recipe) == (verified.action, verified.recipe)
        touched.append(intended[-1].intervention)
        return real(verified, *rest)

    patch.setattr(engine, "enact", enact)
    supervisor, _ = _train(name, seed, path)
    done = [r.intervention for r in disk.records() if isinstance(r, (ActionApplied, ActionFailed))]
    assert not supervisor.is_held
    assert touched == done == [1, 2, 3]
    disk.close()
    return touched


class FailingJournal:
    """Lets one of the ledger's calls into os fail, and every later one; a run that cannot even begin raises.

    Args:
        monkeypatch: Puts it in place.
        at: Number of the call, from 0, once it is armed; None for none.
        error: The error.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int | None, error: int) -> None:
        self.at, self.error, self.made, self.is_armed = at, error, 0, False
        for name in ("write", "fsync"):
            monkeypatch.setattr(os, name, self._around(getattr(os, name)))

    def _around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: int, *rest: Any) -> Any:
            if not self.is_armed or Path(f"/proc/self/fd/{descriptor}").readlink().name != "ledger.jsonl":
                return real(descriptor, *rest)
            self.made += 1
            if self.at is not None and self.made > self.at:
                raise OSError(self.error, os.strerror(self.error))
            return real(descriptor, *rest)

        return call

    def arm(self) -> None:
        self.is_armed = True


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells the ledger's descriptor by its name")
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_whichever_write_of_the_ledger_fails_nothing_more_is_changed(error: int, tmp_path: Path, tally: Tally) -> None:
    with pytest.MonkeyPatch.context() as patch:
        counting = FailingJournal(patch, None, error)
        _train("mlp", tally.seed(0), tmp_path / "whole", counting.arm)
    what = "calls of the ledger after which the disk failed"
    for at in tally.choose(what, range(counting.made), portion=3):
        with pytest.MonkeyPatch.context() as patch:
            touched = _enacted(patch)
            supervisor, workload = _train("mlp", 0, tmp_path / str(at), FailingJournal(patch, at, error).arm)
        assert len(workload.hashes) == STEPS, "training did not go on"
        entries = [entry.record for entry in read_ledger(tmp_path / str(at) / "ledger.jsonl")]
        intended = [record for record in entries if isinstance(record, ActionIntended)]
        assert len(touched) <= len(intended), f"call {at}: a change without a record"
        live = workload.optimizer.param_groups[0]["weight_decay"]
        named = {record.recipe["weight_decay"] for record in intended}
        assert live in named | {supervisor.state.initial["weight_decay"]}
        tally.count(what)


def _enacted(patch: pytest.MonkeyPatch) -> list[object]:
    real, touched = engine.enact, list[object]()

    def enact(verified: Any, *rest: Any) -> Any:
        touched.append(verified)
        return real(verified, *rest)

    patch.setattr(engine, "enact", enact)
    return touched


@pytest.fixture(scope="module")
def training() -> Iterator[Killed]:
    with Killed("tests.promises.managed_training") as killed:
        yield killed


@pytest.mark.parametrize("share", range(SHARES))
def test_killed_at_any_point_the_run_is_reconciled_when_it_goes_on(
    tmp_path: Path, tally: Tally, training: Killed, share: int
) -> None:
    given: dict[str, Any] = {"name": "mlp", "seed": tally.seed(0)}
    whole, num_points = run_to_the_end(training, **given, run_dir=str(tmp_path / "whole"), resume=False)
    for at in tally.choose("kill points", range(share, num_points, SHARES), portion=2):
        run_dir = tmp_path / str(at)
        killed = {**given, "run_dir": str(run_dir), "resume": False, "kill_at_point": at}
        end = training.run(killed, kill_after_seconds=None)
        assert end.was_killed, f"point {at}: {end}"
        before, resumed = hashes_of(end.said), dict[int, str]()
        if not has_ended(run_dir):
            resumed, _ = run_to_the_end(training, **given, run_dir=str(run_dir), resume=True)
        check_steps(before, resumed, whole, f"point {at}")
        assert verify_run(run_dir).ok
        records = [entry.record for entry in iter_course(run_dir / "ledger.jsonl")]
        intended = [record.intervention for record in records if isinstance(record, ActionIntended)]
        done = [record.intervention for record in records if isinstance(record, (ActionApplied, ActionFailed))]
        assert intended == done == [1, 2, 3], f"point {at}: an intent without an outcome, or the other way round"
        tally.count("kill points")
