from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from trimtab.actuation.binding import Binding
from trimtab.controls.catalogue import batch_size, gradient_accumulation, mixture_weight
from trimtab.controls.control import Control
from trimtab.controls.entries import MIXTURE_WEIGHT
from trimtab.controls.moves import Multiply
from trimtab.errors import ControlError, OwnershipError, UsageError
from trimtab.integrations.pytorch.binders import bind
from trimtab.integrations.pytorch.data.accumulation import GradientAccumulation
from trimtab.integrations.pytorch.data.loader import ResumableLoader
from trimtab.integrations.pytorch.data.mixture import MixtureLoader
from trimtab.integrations.pytorch.data.sampler import ResumableBatchSampler
from trimtab.integrations.pytorch.data.workers import ResumableDataLoader
from trimtab.integrations.pytorch.training import Training

SIZE = batch_size(1, 16)
DATA: Any = range(40)


def sampler() -> ResumableBatchSampler:
    return ResumableBatchSampler(40, batch_size=4, seed=0)


def mixture() -> MixtureLoader:
    return MixtureLoader({"web": range(9), "books": range(9)}, {"web": 3.0, "books": 1.0}, batch_size=4, seed=0)


class Attached:
    """One control bound to a loader, and an optimizer to step."""

    def __init__(self, control: Control, loader: Any = None, *parts: Any) -> None:
        parameter = nn.Parameter(torch.ones(1))
        parameter.grad = torch.zeros(1)
        self.optimizer = torch.optim.SGD([parameter], lr=0.1)
        self.binding: Binding = bind(control, Training(nn.Linear(1, 1), self.optimizer, None, loader, parts))

    def seen(self) -> tuple[float, float, bool] | None:
        self.optimizer.step()
        taken = self.binding.took_effect()
        return None if taken is None else (taken.expected, taken.observed, taken.holds)


LOADERS: dict[str, Any] = {
    "loader": lambda: ResumableLoader(DATA, batch_size=4, seed=0),
    "data loader": lambda: ResumableDataLoader(DATA, batch_size=4, seed=0),
    "mixture": mixture,
    "batch sampler": lambda: DataLoader(DATA, batch_sampler=sampler()),
    "accumulation": lambda: GradientAccumulation(ResumableLoader(DATA, batch_size=4, seed=0), 1),
    "accumulated data loader": lambda: GradientAccumulation(DataLoader(DATA, batch_sampler=sampler()), 1),
}


@pytest.mark.parametrize("name", LOADERS)
def test_the_batch_size_of_every_loader_is_reached_and_the_next_batch_has_it(name: str) -> None:
    loader = LOADERS[name]()
    batches = iter(loader)

    def length() -> int:
        batch = next(batches)
        return len(batch[0]) if isinstance(batch, list) else len(batch)

    attached = Attached(SIZE, loader)
    binding = attached.binding
    assert (binding.name, binding.read(), length()) == ("batch_size", 4.0, 4)
    binding.write(8.0)
    assert binding.took_effect() is None
    assert (binding.read(), length(), attached.seen()) == (8.0, 8, (8.0, 8.0, True))
    binding.write(2.0)
    assert binding.took_effect() is None
    assert (binding.read(), length(), attached.seen()) == (2.0, 2, (2.0, 2.0, True))


def test_a_value_that_somebody_else_set_is_read_back_as_it_is() -> None:
    loader = LOADERS["loader"]()
    attached = Attached(SIZE, loader)
    attached.binding.write(8.0)
    loader.batch_size = 3
    assert attached.seen() == (8.0, 3.0, False)


def test_the_accumulation_is_found_as_loader_and_among_the_parts() -> None:
    inner = ResumableLoader(DATA, batch_size=4, seed=0)
    accumulation = GradientAccumulation(inner, 2)
    for loader, parts in ((accumulation, ()), (inner, (accumulation,))):
        accumulation.num_batches = 2
        attached = Attached(gradient_accumulation(1, 8), loader, *parts)
        assert attached.binding.read() == 2.0
        attached.binding.write(4.0)
        assert attached.seen() == (4.0, 4.0, True)
        assert len(next(iter(accumulation))) == 4
        attached.binding.close()
    assert Attached(SIZE, None, accumulation).binding.read() == 4.0


def test_each_source_of_a_mixture_has_a_control_of_its_own() -> None:
    loader = mixture()
    web = Attached(mixture_weight("web", 0.1, 10.0), loader)
    books = Attached(mixture_weight("books", 0.1, 10.0), GradientAccumulation(loader, 2))
    web.binding.write(0.5)
    assert (web.binding.name, web.binding.read(), books.binding.read()) == ("mixture_weight/web", 0.5, 1.0)
    assert web.seen() == (0.5, 0.5, True)
    assert loader.weights == {"web": 0.5, "books": 1.0}


def test_a_loader_whose_batch_size_cannot_change_while_it_runs_is_refused_with_the_remedy() -> None:
    for loader in (
        DataLoader(DATA, batch_size=4),
        DataLoader(DATA, batch_size=None),
        DataLoader(DATA, batch_sampler=BatchSampler(SequentialSampler(DATA), 4, False)),
        GradientAccumulation(DataLoader(DATA, batch_size=4), 2),
    ):
        with pytest.raises(ControlError, match=r"do not reach its workers.*trimtab\.ResumableBatchSampler"):
            Attached(SIZE, loader)
    with pytest.raises(ControlError, match="has a batch size"):
        Attached(SIZE, [1, 2, 3])
    with pytest.raises(ControlError, match="has a batch size"):
        Attached(SIZE)

    class Fixed:
        batch_size = property(lambda self: 4)

    with pytest.raises(ControlError, match="cannot be changed"):
        Attached(SIZE, Fixed())


def test_a_loader_of_the_users_own_with_a_batch_size_is_bound() -> None:
    class Own(list[int]):
        batch_size = 4

    for loader in (Own(), GradientAccumulation(Own(), 2)):
        inner: Any = getattr(loader, "loader", loader)
        Attached(SIZE, loader).binding.write(8.0)
        assert inner.batch_size == 8
        assert type(inner.batch_size) is int
    with pytest.raises(ControlError, match="has a batch size"):
        Attached(SIZE, None, Own())  # some object among the parts that happens to have the attribute


def test_with_workers_a_change_counts_as_in_effect_once_its_batches_have_come() -> None:
    attached = Attached(SIZE, DataLoader(DATA, batch_sampler=sampler(), num_workers=1, prefetch_factor=3))
    attached.binding.write(8.0)
    assert [attached.seen() for _ in range(4)] == [None, None, None, (8.0, 8.0, True)]
    attached.binding.write(2.0)
    assert [attached.seen() for _ in range(4)] == [None, None, None, (2.0, 2.0, True)]
    with pytest.raises(ControlError, match=r"45 batches.*ResumableDataLoader"):
        Attached(SIZE, DataLoader(DATA, batch_sampler=sampler(), num_workers=1, prefetch_factor=45))


def test_bounds_that_the_dataset_cannot_fill_are_refused_at_once() -> None:
    big = batch_size(1, 41)
    for name in ("loader", "data loader", "batch sampler", "accumulation"):
        with pytest.raises(ControlError, match=r"high=41, 40 items"):
            Attached(big, LOADERS[name]())
    Attached(big, mixture())
    Attached(big, ResumableLoader(DATA, batch_size=4, seed=0, drop_last=False))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0, 2.5, True])
def test_a_value_that_is_no_batch_size_is_refused_and_changes_nothing(value: float) -> None:
    loader = ResumableLoader(DATA, batch_size=4, seed=0)
    with pytest.raises(UsageError):
        Attached(SIZE, loader).binding.write(value)
    assert loader.batch_size == 4


def test_what_is_missing_unknown_or_twice_there_is_said() -> None:
    with pytest.raises(ControlError, match="one GradientAccumulation"):
        Attached(gradient_accumulation(1, 8), LOADERS["loader"]())
    with pytest.raises(ControlError, match="one GradientAccumulation"):
        Attached(gradient_accumulation(1, 8), LOADERS["accumulation"](), LOADERS["accumulation"]())
    with pytest.raises(ControlError, match="one MixtureLoader"):
        Attached(mixture_weight("web", 0.1, 10.0), LOADERS["loader"]())
    with pytest.raises(ControlError, match="did you mean 'books'"):
        Attached(mixture_weight("book", 0.1, 10.0), mixture())
    whole = Control(MIXTURE_WEIGHT, SIZE.bounds, Multiply((2.0,)), "ratio", 4.0, 4.0, 0)
    with pytest.raises(ControlError, match="no such source"):
        Attached(whole, mixture())


def test_two_supervisors_cannot_hold_the_batch_size_of_one_loader() -> None:
    loader = ResumableLoader(DATA, batch_size=4, seed=0)
    first = Attached(SIZE, loader)
    with pytest.raises(OwnershipError):
        Attached(SIZE, GradientAccumulation(loader, 2))
    first.binding.close()
    second = Attached(SIZE, loader)
    second.binding.write(8.0)
    assert first.seen() is None, "a closed binding still watches"
