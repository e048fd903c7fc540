"""What counts as recovered, and that injuries are what they say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from trimtab.bench.recovery import Notes, Outcome, Supervised, step_of, train
from trimtab.bench.scenarios.injuries import ABSORBED, PERSISTENT, TRANSIENT, Injury
from trimtab.bench.scenarios.patients import PATIENTS, perceptron

_BY_NAME = {injury.name: injury for injury in (*TRANSIENT, *ABSORBED, *PERSISTENT)}


def _outcome(end: float, said: str = "") -> Outcome:
    return Outcome("perceptron", "", 0, 200, 0.5, end, 400, Notes(said=said))


@pytest.mark.parametrize(
    ("end", "recovered", "whole"),
    [
        (0.4, True, True),
        (0.525, True, True),
        (0.6, True, False),
        (1.0, True, False),
        (1.01, False, False),
        (math.nan, False, False),
    ],
)
def test_recovered_is_within_twice_what_it_was_and_whole_within_a_twentieth(end: float, recovered: bool, whole: bool) -> None:
    assert (_outcome(end).is_recovered, _outcome(end).is_whole) == (recovered, whole)


def test_a_run_that_was_asked_to_stop_is_not_recovered() -> None:
    assert not _outcome(0.4, said="reflex: non_finite").is_recovered


def test_injuries_have_names_of_their_own_a_place_and_a_training() -> None:
    assert len(_BY_NAME) == len(TRANSIENT) + len(ABSORBED) + len(PERSISTENT)
    for injury in _BY_NAME.values():
        assert any(change is not None for change in (injury.state, injury.loss, injury.gradients, injury.data))
        assert set(injury.patients) <= set(PATIENTS)
        assert injury.patients


def test_an_injury_lasts_as_long_as_it_says() -> None:
    burst, lasting = Injury("", 3), Injury("", 0)
    assert [since for since in range(-2, 6) if burst.lasts(since)] == [0, 1, 2]
    assert [since for since in range(-2, 6) if lasting.lasts(since)] == [0, 1, 2, 3, 4, 5]


def test_the_first_seed_is_hurt_right_at_an_evaluation_and_others_between() -> None:
    assert [step_of(seed) for seed in range(5)] == [200, 207, 214, 221, 203]


@pytest.mark.parametrize("name", PATIENTS)
def test_a_training_learns_and_is_the_same_again(name: str) -> None:
    once, again = (train(name, None, 0, num_steps=210) for _ in range(2))
    assert once == again
    fresh = PATIENTS[name](0, 210)
    assert once.before < 0.9 * fresh.held_out_loss(fresh.model)


@pytest.mark.parametrize("name", ["NaN loss", "weights x1000", "rate set to 1e6", "three batches of NaN"])
def test_an_injury_hurts_where_nobody_watches(name: str) -> None:
    assert not train("perceptron", _BY_NAME[name], 1).is_recovered


def test_a_fault_of_the_data_lies_where_it_says_and_comes_again() -> None:
    run = perceptron(0, 400)
    run.data.spoiled = (64, 127, lambda batch: (batch[0] * math.nan, batch[1]))
    for _ in range(2):
        position = run.loader.state_dict() | {"epoch": 0, "item": 0}
        run.loader.load_state_dict(position)
        batches = [batch for batch, _ in zip(run.loader, range(5), strict=False)]
        assert [bool(torch.isnan(inputs).any()) for inputs, _ in batches] == [False, False, True, True, False]


def test_a_watched_run_without_a_fault_is_the_run_without_a_watch(tmp_path: Path) -> None:
    plain = train("perceptron", None, 3, num_steps=225)
    watched = train("perceptron", None, 3, lambda run: Supervised(run, tmp_path / "run"), num_steps=225)
    assert watched == plain
