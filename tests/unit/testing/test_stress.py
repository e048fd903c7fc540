from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import trimtab
from tests.builders import an_envelope
from trimtab.controls.catalogue import batch_size, declare, dropout, learning_rate
from trimtab.controls.envelope import Authority
from trimtab.decision.no_action import NoActionManager
from trimtab.ledger.record import ActionIntended
from trimtab.testing.adversaries import ADVERSARIES
from trimtab.testing.small_training import fitted, start_of, train, watch
from trimtab.testing.stress import (
    SETTINGS,
    Trial,
    breaches_of,
    guarded,
    num_trainings,
    stress_simulated,
    stress_trained,
    worse_by,
)

ENVELOPE = an_envelope(authority=Authority(may_stop=False))
STEPS = 60


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    torch.set_num_threads(1)
    caplog.set_level(logging.CRITICAL, logger="trimtab")


def trial(final: float, seed: int = 0, **changes: Any) -> Trial:
    known: dict[str, Any] = {
        "adversary": "random",
        "setting": "guard",
        "seed": seed,
        "final": final,
        "best": final,
        "plain": 2.0,
    }
    known |= {"interventions": 1, "taken_back": 0, "stopped_step": None, "breaches": ()}
    return Trial(**(known | changes))


def test_every_adversary_is_simulated_with_and_without_guard() -> None:
    calls: list[None] = []
    results = stress_simulated(ENVELOPE, 2, 200, lambda: calls.append(None))
    assert [result.adversary for result in results] == list(ADVERSARIES)
    assert {result.runs for result in results} == {4}
    assert len(calls) == 4 * len(ADVERSARIES)
    assert all(result.applied > 0 and result.breaches == () for result in results)
    assert sum(result.rejected for result in results) > 0
    for result in results:
        assert [name for name, _ in result.reached] == [control.name for control in ENVELOPE.controls]
        assert all(low <= high for _, (low, high) in result.reached)


def test_a_setting_keeps_the_numbers_of_the_envelope() -> None:
    given = replace(ENVELOPE, guard=replace(ENVELOPE.guard, tolerance=0.3), canary=replace(ENVELOPE.canary, steps=7))
    bare, guard, both = (guarded(given, setting) for setting in SETTINGS)
    assert (bare.guard.armed, guard.guard.armed, both.guard.armed) == (False, True, True)
    assert (bare.canary.mode, guard.canary.mode, both.canary.mode) == ("none", "none", "win")
    assert both.guard.tolerance == 0.3
    assert both.canary.steps == 7


def test_trainings_are_compared_with_the_same_seed_without_a_manager(tmp_path: Path) -> None:
    calls: list[None] = []
    one = {"always_min": ADVERSARIES["always_min"]}
    report = stress_trained(ENVELOPE, 1, STEPS, tmp_path, lambda: calls.append(None), one)
    assert [trial.setting for trial in report.trials] == list(SETTINGS)
    assert len({trial.plain for trial in report.trials}) == 1
    assert all(trial.interventions > 0 for trial in report.trials if trial.setting != "guard + canary")
    assert report.controls == ("learning_rate", "weight_decay", "dropout")
    assert len(calls) == 1 + len(SETTINGS)
    assert num_trainings(2) == 2 * (1 + len(ADVERSARIES) * len(SETTINGS))


def test_an_envelope_without_a_control_in_common_is_not_trained(tmp_path: Path) -> None:
    report = stress_trained(an_envelope(controls=(declare("clip_range", 0.1, 0.3),)), 1, STEPS, tmp_path)
    assert (report.trials, report.left_out) == ((), ("clip_range",))


def test_controls_are_fitted_and_start_inside_their_bounds() -> None:
    controls = (learning_rate(0.1, 1.0), batch_size(64, 100_000), dropout(0.2, 0.5), declare("clip_range", 0.1, 0.3))
    allowed, left_out = fitted(an_envelope(controls=controls))
    assert allowed is not None
    assert left_out == ("clip_range",)
    assert [start_of(control) for control in allowed.controls] == [0.1, 64.0, 0.2]
    assert allowed.control("batch_size").bounds.high == 512
    assert str(allowed.objective) == "minimize val/loss"


def test_a_manager_that_never_acts_leaves_the_training_as_it_is(tmp_path: Path) -> None:
    allowed, _ = fitted(ENVELOPE)
    assert allowed is not None
    plain, managed = (train(allowed, manager, 1, STEPS, tmp_path / "run") for manager in (None, NoActionManager()))
    assert plain.curve == managed.curve
    assert (managed.interventions, managed.breaches) == (0, [])


def test_a_hand_on_a_control_that_the_record_does_not_know_is_found() -> None:
    allowed = an_envelope(controls=(trimtab.dropout(0.0, 0.5),))
    used: list[dict[str, float]] = [{}, {"dropout": 0.1}, {"dropout": 0.1}, {"dropout": 0.3}, {"dropout": 0.3}]
    none: list[ActionIntended] = []
    assert watch(allowed, used[:3], none) == []
    assert ["nothing was ordered" in one for one in watch(allowed, used, none)] == [True]


def test_harm_is_a_share_of_the_loss_without_a_manager() -> None:
    trials = [trial(2.2), trial(3.0, 1), trial(9.0, 2, setting="guard off")]
    assert worse_by(trials, "random", "guard") == pytest.approx((0.3, 0.5))
    assert worse_by([trial(2.2), trial(math.nan, 1)], "random", "guard") == (math.inf, math.inf)


def test_a_breach_is_told_with_its_adversary() -> None:
    assert list(breaches_of((), [trial(1.0), trial(1.0, breaches=("step 3: out",))])) == ["random: step 3: out"]
