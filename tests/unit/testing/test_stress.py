from __future__ import annotations

import doctest
import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import trimtab
from tests.builders import an_envelope
from trimtab.controls.catalogue import batch_size, declare, dropout, learning_rate
from trimtab.controls.envelope import Authority
from trimtab.controls.safeguards import Canary
from trimtab.decision.no_action import NoActionManager
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import ActionIntended, EvaluationRecorded
from trimtab.testing import stress
from trimtab.testing.adversaries import ADVERSARIES
from trimtab.testing.small_training import SmallTraining, Trained, fitted, start_of, train, watch
from trimtab.testing.stress import (
    SETTINGS,
    Setting,
    Simulated,
    Training,
    breaches_of,
    guarded,
    num_simulations,
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


def a_training(final: float, seed: int = 0, setting: Setting = "guard", breaches: tuple[str, ...] = ()) -> Training:
    return Training("random", setting, seed, Trained(((STEPS, final),), breaches=breaches), 2.0)


def test_the_example_runs() -> None:
    results = doctest.testmod(stress)
    assert (results.failed, results.attempted) == (0, 3)


def test_every_adversary_is_simulated_with_and_without_guard() -> None:
    calls: list[None] = []
    results = stress_simulated(ENVELOPE, 2, 200, lambda: calls.append(None))
    assert [result.adversary for result in results] == list(ADVERSARIES)
    assert {result.runs for result in results} == {4}
    assert len(calls) == num_simulations(2)
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


def test_trainings_are_compared_with_the_same_seed_without_a_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stress, "ADVERSARIES", {"always_min": ADVERSARIES["always_min"]})
    calls: list[None] = []
    trainings = stress_trained(ENVELOPE, 1, STEPS, tmp_path, lambda: calls.append(None))
    assert [run.setting for run in trainings.runs] == list(SETTINGS)
    assert len({run.plain for run in trainings.runs}) == 1
    assert all(run.trained.interventions > 0 for run in trainings.runs if run.setting != "guard + canary")
    assert trainings.controls == ("learning_rate", "weight_decay", "dropout")
    assert len(calls) == num_trainings(1)


def test_an_envelope_without_a_control_in_common_is_not_trained(tmp_path: Path) -> None:
    trainings = stress_trained(an_envelope(controls=(declare("clip_range", 0.1, 0.3),)), 1, STEPS, tmp_path)
    assert (trainings.runs, trainings.left_out) == ((), ("clip_range",))


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
    assert (managed.interventions, managed.breaches) == (0, ())


def test_what_a_trial_measures_is_none_of_the_runs_own(tmp_path: Path) -> None:
    canary = Canary("win", steps=8, look_steps=0, decay_steps=4, budget=1.0)
    allowed, _ = fitted(replace(ENVELOPE, canary=canary))
    assert allowed is not None
    done = train(allowed, ADVERSARIES["always_min"](0), 1, 200, tmp_path / "run")
    records = [entry.record for entry in read_ledger(tmp_path / "run" / "ledger.jsonl")]
    own = [(record.step, record.objective) for record in records if isinstance(record, EvaluationRecorded)]
    assert done.curve == tuple(own)
    assert done.trials > 0
    assert len(own) < 20, "trials took the place of evaluations"


def test_one_thread_trains_and_then_there_are_as_many_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed, _ = fitted(ENVELOPE)
    assert allowed is not None
    threads: list[int] = []
    monkeypatch.setattr(SmallTraining, "evaluate", lambda _: threads.append(torch.get_num_threads()) or 1.0)
    torch.set_num_threads(2)
    train(allowed, None, 1, 20, Path())
    afterwards = torch.get_num_threads()
    torch.set_num_threads(1)  # as the other tests want it
    assert (set(threads), afterwards) == ({1}, 2)


def test_a_hand_on_a_control_that_the_record_does_not_know_is_found() -> None:
    allowed = an_envelope(controls=(trimtab.dropout(0.0, 0.5),))
    used: list[dict[str, float]] = [{}, {"dropout": 0.1}, {"dropout": 0.1}, {"dropout": 0.3}, {"dropout": 0.3}]
    none: list[ActionIntended] = []
    assert watch(allowed, used[:3], none) == []
    assert ["nothing was ordered" in one for one in watch(allowed, used, none)] == [True]


def test_harm_is_a_share_of_the_loss_without_a_manager() -> None:
    runs = [a_training(2.2), a_training(3.0, 1), a_training(9.0, 2, setting="guard off")]
    assert worse_by(runs, "random", "guard") == pytest.approx((0.3, 0.5))
    assert worse_by([a_training(2.2), a_training(math.nan, 1)], "random", "guard") == (math.inf, math.inf)


def test_a_breach_is_told_with_its_adversary() -> None:
    simulated = Simulated("sleeper", 1, 0, 0, 0, 0, (), ("step 1: out",))
    runs = [a_training(1.0), a_training(1.0, breaches=("step 3: out",))]
    assert list(breaches_of([simulated], runs)) == ["sleeper: step 1: out", "random: step 3: out"]
