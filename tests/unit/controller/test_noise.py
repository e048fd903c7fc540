"""What loss is borne: tolerance or noise, and what of a curve is noise."""

from __future__ import annotations

import math
import random

import pytest

from trimtab.controller.noise import borne
from trimtab.controls.safeguards import Guard

GUARD = Guard(tolerance=0.02, noise_factor=3.0)


@pytest.mark.parametrize("num_known", [0, 1, 3])
def test_while_the_noise_is_unknown_three_times_the_tolerance_is_borne(num_known: int) -> None:
    assert borne(GUARD, [2.5, 1.9, 2.1][:num_known], 2.0) == pytest.approx(3 * 0.02 * 2.0)


def test_values_that_bend_one_way_by_chance_say_nothing_of_noise_yet() -> None:
    assert borne(GUARD, [2.0, 1.9, 1.85, 1.83], 2.0) == pytest.approx(3 * 0.02 * 2.0)
    assert borne(GUARD, [2.0, 1.9, 1.85, 1.83, 1.82, 1.815], 2.0) == pytest.approx(0.02 * 2.0)


def test_an_objective_that_crosses_zero_is_not_held_to_nothing() -> None:
    assert borne(GUARD, [1.5, 1.0, 0.5], 0.0) == pytest.approx(3 * 0.02 * 0.5)


@pytest.mark.parametrize(
    "curve",
    [
        [1.0] * 8,
        [3.0 - 0.1 * at for at in range(8)],
        [1.0 + 5.0 * 0.5**at for at in range(8)],  # flattens
        [2.0 - 0.01 * at**2 for at in range(8)],  # falls off
        [-2.0 + 0.01 * at**3 for at in range(8)],
    ],
)
def test_a_curve_without_noise_bears_the_tolerance_alone(curve: list[float]) -> None:
    assert borne(GUARD, curve, 2.0) == pytest.approx(0.04)


def test_one_jump_is_no_noise() -> None:
    assert borne(GUARD, [2.0, 1.9, 1.8, 1.7, 9.0, 1.5, 1.4, 1.3, 1.2, 1.1], 1.0) == pytest.approx(0.02)


@pytest.mark.parametrize("decay", [0.0, 5.0])
def test_noise_is_told_from_the_shape_of_the_curve(decay: float) -> None:
    guard, ratios = Guard(tolerance=0.0, noise_factor=1.0), []
    for seed in range(200):
        draws = random.Random(seed)
        curve = [1.0 + decay * 0.5**at + draws.gauss(0.0, 0.1) for at in range(24)]
        ratios.append(borne(guard, curve, 1.0) / 0.1)
    assert 0.75 < sum(ratios) / len(ratios) < 1.3
    assert max(ratios) < 2.5
    assert not any(math.isnan(ratio) for ratio in ratios)


def test_a_run_that_has_calmed_down_is_not_as_noisy_as_it_was() -> None:
    shaken = [2.19, 2.05, 1.88, 0.50, 0.22, 0.18, 0.168, 0.16, 0.155]
    assert borne(GUARD, shaken, 0.155) <= 2 * 0.02
