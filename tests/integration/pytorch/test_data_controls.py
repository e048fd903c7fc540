"""Batch size, gradient accumulation and mixture weights in supervised runs: in effect at a known step, and taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn
from torch.utils.data import DataLoader

import trimtab
from tests.integration.pytorch.conftest import Workload, digest, mlp, supervise
from tests.integration.pytorch.conftest import _data as data
from tests.integration.pytorch.managed import adjust, boundary, free, problems, records, script
from tests.unit.integrations.pytorch.small_runs import digest as digest_of
from trimtab.controls.catalogue import batch_size, gradient_accumulation, mixture_weight
from trimtab.decision.action import Adjust, Change, Rollback
from trimtab.integrations.pytorch.data.accumulation import GradientAccumulation
from trimtab.integrations.pytorch.data.loader import ResumableLoader
from trimtab.integrations.pytorch.data.mixture import MixtureLoader
from trimtab.integrations.pytorch.data.sampler import ResumableBatchSampler
from trimtab.integrations.pytorch.data.workers import ResumableDataLoader
from trimtab.ledger.record import ActionApplied, ReadBackRecorded
from trimtab.runtime.supervisor import Supervisor

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning", "ignore:.*fork.*:DeprecationWarning")

RATE = free("learning_rate", 1e-6, 1.0, 5e-3, 1e-2, 2e-2)
WITH_RATE = (RATE, batch_size(4, 64, rate_scaling="sqrt", dwell_steps=0))


class _Sourced:
    """Items that say where they come from: their first input is the source's number."""

    def __init__(self, source: int) -> None:
        self._data = data(source)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, target = self._data[index]
        inputs = inputs.clone()
        inputs[0] = self.number
        return inputs, target

    number = 0.0


class _Other(_Sourced):
    number = 1.0


def mixture(seed: int) -> MixtureLoader:
    return MixtureLoader({"web": _Sourced(1), "books": _Other(2)}, {"web": 1.0, "books": 1.0}, batch_size=16, seed=seed)


LOADERS: dict[str, Callable[[int], Any]] = {
    "loader": lambda seed: ResumableLoader(data(seed), batch_size=16, seed=seed),
    "workers": lambda seed: ResumableDataLoader(data(seed), batch_size=16, seed=seed, num_workers=2, persistent_workers=True),
    "mixture": mixture,
}


class Watched:
    """A workload on a loader of its own; keeps each step's batch lengths, rate, and the loader's state after it."""

    def __init__(self, loader: Any, accumulated: bool = False) -> None:
        self.workload: Workload = mlp(7)
        self.workload.scheduler = None
        self.workload.loader = loader
        self.is_accumulated = accumulated
        self.batches: list[Tensor] = []
        self.lengths: list[list[int]] = []
        self.rates: list[float] = []
        self.shares: list[float] = []  # of the mixture's first source
        self.states: list[str] = []
        # A hook that held `self` would close a cycle, and workers that the garbage collector finds end with a timeout.
        batches = self.batches
        self.workload.model.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].clone()))

    def attach(self, run_dir: Path, manager: Any, *controls: Any, **options: Any) -> Supervisor:
        supervisor = supervise(self.workload, run_dir, manager, envelope=boundary(controls), **options)
        # Registered after trimtab's hook, so it sees what the step will use.
        rates = self.rates
        self.workload.optimizer.register_step_pre_hook(lambda o, *_: rates.append(float(o.param_groups[0]["lr"])))
        return supervisor

    def train(self, steps: int, supervisor: Supervisor | None = None) -> None:
        """Train as a user would who accumulates gradients, or not."""
        work, groups = self.workload, self._groups()
        for _ in range(steps):
            self.batches.clear()
            batches, losses = next(groups), []
            for inputs, targets in batches:
                loss = nn.functional.cross_entropy(work.model(inputs), targets) / len(batches)
                loss.backward()
                losses.append(loss.detach())
            work.optimizer.step()
            work.optimizer.zero_grad()
            if supervisor is not None:
                supervisor.step(loss=sum(losses))
                if supervisor.evaluation_due:
                    supervisor.evaluated({"val/loss": 1.0})
            self.lengths.append([len(batch) for batch in self.batches])
            self.shares.append(float((self.batches[0][:, 0] == 0).float().mean()))
            state = work.loader.state_dict()
            self.states.append(digest_of([digest(work.model, work.optimizer), state, [b.clone() for b in self.batches]]))

    def _groups(self) -> Iterator[list[Any]]:
        while True:
            for drawn in self.workload.loader:
                yield drawn if self.is_accumulated else [drawn]


@pytest.mark.parametrize("name", LOADERS)
def test_a_doubled_batch_takes_the_rate_along_and_a_rollback_takes_both_back(name: str, tmp_path: Path) -> None:
    plain = Watched(LOADERS[name](3))
    plain.train(30)
    run = Watched(LOADERS[name](3))
    manager = script((10, adjust(batch_size=32)), (20, Rollback("step-00000010")))
    with run.attach(tmp_path / "run", manager, *WITH_RATE) as supervisor:
        run.train(40, supervisor)
        assert not supervisor.is_held
        assert dict(supervisor.recipe.values) == {"batch_size": 16.0, "learning_rate": 1e-2}
    assert problems(supervisor) == []
    # Asked after steps 10 and 20, applied after 11 and 21, in effect from 12 and 22 on.
    assert [record.step for record in records(supervisor, ActionApplied)] == [11, 21]
    assert run.lengths == [[16]] * 11 + [[32]] * 10 + [[16]] * 19
    assert run.rates == pytest.approx([1e-2] * 11 + [1e-2 * 2**0.5] * 10 + [1e-2] * 19, rel=1e-12)
    assert [[result.holds for result in record.results] for record in records(supervisor, ReadBackRecorded)] == [
        [True, True],
        [True, True],
    ]
    # Weights, optimizer, random states, the loader's state and the items of each batch.
    assert run.states[:10] == plain.states[:10]
    assert run.states[11] != plain.states[11]
    assert run.states[21:40] == plain.states[10:29], "after the rollback it is not the run that followed the checkpoint"


@pytest.mark.parametrize("name", [*LOADERS, "accumulation"])
def test_a_manager_that_never_acts_leaves_these_loaders_bit_identical(name: str, tmp_path: Path) -> None:
    def make() -> Watched:
        if name == "accumulation":
            return Watched(GradientAccumulation(LOADERS["loader"](3), 3), accumulated=True)
        return Watched(LOADERS[name](3))

    controls: dict[str, Any] = {
        "mixture": mixture_weight("web", 0.1, 10.0),
        "accumulation": gradient_accumulation(1, 8),
    }
    extra = (controls[name],) if name in controls else ()
    plain = make()
    plain.train(30)
    run = make()
    with run.attach(tmp_path / "run", "no_action", *WITH_RATE, *extra) as supervisor:
        run.train(30, supervisor)
        assert supervisor.state.num_questions > 0, "the manager was never asked, so nothing was shown"
    assert run.states == plain.states


def test_accumulation_changes_between_steps_and_makes_exactly_the_steps_of_the_loop(tmp_path: Path) -> None:
    plain = Watched(GradientAccumulation(LOADERS["loader"](3), 1), accumulated=True)
    plain.train(20)
    run = Watched(GradientAccumulation(LOADERS["loader"](3), 1), accumulated=True)
    manager = script((10, adjust(gradient_accumulation=4)), (20, Rollback("step-00000010")))
    control = gradient_accumulation(1, 8, rate_scaling="linear", dwell_steps=0)
    with run.attach(tmp_path / "run", manager, RATE, control) as supervisor:
        run.train(30, supervisor)
    assert problems(supervisor) == []
    counts = [len(lengths) for lengths in run.lengths]
    # 16 batches an epoch: after 11 there is one list of four, and one of the single batch that is left.
    assert counts == [1] * 11 + [4, 1] + [4] * 8 + [1] * 9
    assert run.rates == pytest.approx([1e-2] * 11 + [4e-2] * 10 + [1e-2] * 9, rel=1e-12)
    assert run.states[21:30] == plain.states[10:19]


def test_a_mixture_weight_changes_the_draws_from_its_step_on_and_is_taken_back(tmp_path: Path) -> None:
    plain = Watched(mixture(3))
    plain.train(30)
    run = Watched(mixture(3))
    manager = script((10, Adjust((Change("mixture_weight/web", 4.0),))), (20, Rollback("step-00000010")))
    control = mixture_weight("web", 0.1, 10.0, moves=trimtab.SetTo((1.0, 4.0)), dwell_steps=0)
    with run.attach(tmp_path / "run", manager, control) as supervisor:
        run.train(40, supervisor)
    assert problems(supervisor) == []
    assert run.states[:10] == plain.states[:10]
    assert run.shares[:11] == plain.shares[:11]
    assert run.shares[11] != plain.shares[11]
    assert sum(run.shares[11:21]) / 10 == pytest.approx(0.8, abs=0.1)
    assert run.states[21:40] == plain.states[10:29]


def test_the_batch_size_of_a_data_loader_is_reached_through_its_batch_sampler(tmp_path: Path) -> None:
    def make(sampler: ResumableBatchSampler) -> Watched:
        loader: Any = DataLoader(data(3), batch_sampler=sampler)
        loader.state_dict = sampler.state_dict  # for what `Watched` keeps of each step
        return Watched(loader)

    plain = make(ResumableBatchSampler(256, batch_size=16, seed=3))
    plain.train(20)
    sampler = ResumableBatchSampler(256, batch_size=16, seed=3)
    run = make(sampler)
    manager = script((10, adjust(batch_size=32)), (20, Rollback("step-00000010")))
    with run.attach(tmp_path / "run", manager, *WITH_RATE, extra_state={"sampler": sampler}) as supervisor:
        run.train(30, supervisor)
    assert run.lengths == [[16]] * 11 + [[32]] * 10 + [[16]] * 9
    assert run.states[21:30] == plain.states[10:19]
