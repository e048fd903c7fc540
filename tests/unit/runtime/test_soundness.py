"""A state that is finite and yet out of all scale is not one to go back to."""

from __future__ import annotations

import math

import pytest

from trimtab.runtime.soundness import Soundness

SOUND = {"weights": 1.0, "buffers": 2.0, "optimizer/exp_avg_sq": 1e-4, "learning_rate": 1e-3}


def _known() -> Soundness:
    soundness = Soundness()
    soundness.learn(100, SOUND)
    return soundness


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("weights", 101.0),
        ("weights", math.nan),
        ("buffers", 3e5),
        ("buffers", math.inf),
        ("optimizer/exp_avg_sq", 101.0),
        ("optimizer/exp_avg_sq", math.nan),
        ("learning_rate", 0.11),
    ],
)
def test_a_part_that_left_its_scale_is_named(part: str, value: float) -> None:
    found = _known().judge(200, {**SOUND, part: value}, {})
    assert found is not None
    assert (found.name, found.severity, found.signal, found.step) == ("state_damaged", "critical", part, 200)


def test_growth_by_learning_is_sound() -> None:
    grown = {"weights": 99.0, "buffers": 1e5, "optimizer/exp_avg_sq": 99.0, "learning_rate": 0.09}
    assert _known().judge(200, grown, {}) is None


def test_a_rate_within_its_floor_is_sound_however_far_it_came() -> None:
    assert _known().judge(200, {**SOUND, "learning_rate": 1.0}, {"learning_rate": 2.0}) is None
    assert _known().judge(200, {**SOUND, "learning_rate": 3.0}, {"learning_rate": 2.0}) is not None


def test_nothing_is_judged_before_a_settled_state_was_saved() -> None:
    soundness = Soundness()
    soundness.learn(19, SOUND)
    assert soundness.judge(20, {**SOUND, "weights": 1e9}, {}) is None
    soundness.learn(20, SOUND)
    assert soundness.judge(21, {**SOUND, "weights": 1e9}, {}) is not None


def test_a_part_that_was_zero_or_not_there_has_nothing_to_compare_with() -> None:
    soundness = Soundness()
    soundness.learn(100, {"weights": 1.0, "buffers": 0.0})
    assert soundness.judge(200, {"weights": 1.0, "buffers": 5.0, "optimizer/momentum_buffer": 1e9}, {}) is None


def test_after_a_shock_the_optimizer_is_held_against_the_newest_saved_state() -> None:
    soundness = _known()
    soundness.learn(200, {**SOUND, "optimizer/exp_avg_sq": 1e-7})
    shocked = {**SOUND, "optimizer/exp_avg_sq": 2e-4}
    assert soundness.judge(201, shocked, {}) is None
    soundness.is_suspect = True
    assert soundness.judge(201, shocked, {}) is not None
    assert soundness.judge(201, {**SOUND, "optimizer/exp_avg_sq": 9e-5}, {}) is None, "it took the gradient as any other"


def test_what_it_knows_goes_on_with_a_resumed_run() -> None:
    again = Soundness()
    again.load_state(_known().state())
    assert again.judge(200, {**SOUND, "weights": 200.0}, {}) is not None
    assert again.state() == _known().state()


def test_what_was_saved_is_not_suspect_any_more() -> None:
    soundness = _known()
    soundness.is_suspect = True
    soundness.learn(200, SOUND)
    assert not soundness.is_suspect
