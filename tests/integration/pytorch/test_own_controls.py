"""Controls beside rate, decay and dropout, changed, rolled back and read back in a managed run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.integration.pytorch.conftest import mlp, supervise
from tests.integration.pytorch.managed import a_value, adjust, boundary, problems, records, script
from trimtab.controls.catalogue import beta2, momentum
from trimtab.controls.moves import SetTo
from trimtab.decision.action import Rollback
from trimtab.integrations.pytorch.bindings.attribute import OwnControl, attribute
from trimtab.ledger.record import ActionApplied, ActionFailed, ReadBackRecorded

FREE: Any = {"dwell_steps": 0, "largest_change": 0.9}


class Stubborn:
    """Has a setter that ignores or clamps what it is given."""

    def __init__(self, most: float) -> None:
        self._value = 0.2
        self._most = most

    @property
    def rate(self) -> float:
        return self._value

    @rate.setter
    def rate(self, value: float) -> None:
        self._value = min(value, self._most)


def own(target: object) -> OwnControl:
    return attribute(target, "rate", 0.0, 1.0, moves=SetTo((0.2, 0.9)), **FREE)


def test_momentum_and_beta2_are_changed_and_survive_a_rollback(tmp_path: Path) -> None:
    workload = mlp(7)
    envelope = boundary((momentum(0.0, 0.99, **FREE), beta2(0.5, 0.9999, **FREE)))
    plan = script(
        (10, adjust(momentum=0.5, beta2=0.95)), (20, adjust(momentum=0.8, beta2=0.98)), (30, Rollback("step-00000020"))
    )
    supervisor = supervise(workload, tmp_path / "run", plan, controls=None, objective=None, envelope=envelope)
    seen: dict[int, tuple[float, float]] = {}
    workload.train(
        45, supervisor, a_value(), before_step=lambda step: seen.update({step: workload.optimizer.param_groups[0]["betas"]})
    )
    supervisor.close()
    assert [seen[step] for step in (10, 15, 25, 45)] == [(0.9, 0.999), (0.5, 0.95), (0.8, 0.98), (0.5, 0.95)]
    assert len(records(supervisor, ActionApplied)) == 3
    assert all(result.holds for record in records(supervisor, ReadBackRecorded) for result in record.results)
    assert problems(supervisor) == []


@pytest.mark.parametrize("most", [0.2, 0.5])
def test_a_setter_that_does_not_keep_the_value_is_a_recorded_failure(most: float, tmp_path: Path) -> None:
    workload, target = mlp(7), Stubborn(most)
    one = own(target)
    supervisor = supervise(
        workload,
        tmp_path / "run",
        script((10, adjust(rate=0.9))),
        controls=None,
        objective=None,
        envelope=boundary((one.control,)),
        parts=[one.handle],
    )
    workload.train(30, supervisor, a_value())
    supervisor.close()
    (failed,) = records(supervisor, ActionFailed)
    assert "rate did not keep what was written" in failed.problem
    assert (failed.recipe["rate"], target.rate) == (0.2, 0.2)
    assert records(supervisor, ActionApplied) == []


def test_a_value_that_is_undone_before_the_next_step_is_read_back_as_lost(tmp_path: Path) -> None:
    workload, target = mlp(7), SimpleNamespace(rate=0.2)
    one = own(target)
    supervisor = supervise(
        workload,
        tmp_path / "run",
        script((10, adjust(rate=0.9))),
        controls=None,
        objective=None,
        envelope=boundary((one.control,)),
        parts=[one.handle],
    )
    workload.train(30, supervisor, a_value(), before_step=lambda _: setattr(target, "rate", 0.2))
    supervisor.close()
    (taken,) = [result for record in records(supervisor, ReadBackRecorded) for result in record.results]
    assert (taken.expected, taken.observed, taken.holds) == (0.9, 0.2, False)
    assert "something else has a hand on a control" in problems(supervisor)
