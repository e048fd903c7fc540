from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from trimtab.integrations.pytorch.rate_curve import Ending, Reading, Sweep, read_sweep, smoothed

RATES = tuple(10 ** (-6 + 6 * at / 99) for at in range(100))
HALF_WINDOW = 3


def curve(noise: float = 0.0, seed: int = 0, break_at: float = 0.1) -> list[float]:
    """A loss of 2 that falls to 1 around 1e-3 and rises steeply from ``break_at`` on."""
    draw = random.Random(seed)
    losses: list[float] = []
    for rate in RATES:
        fallen = 1 / (1 + (1e-3 / rate) ** 1.5)
        losses.append(2 - fallen + max(0.0, 2 * math.log10(rate / break_at)) + draw.gauss(0, noise))
    return losses


def read(losses: Sequence[float], ending: Ending = "finished") -> Reading | None:
    return read_sweep(Sweep(RATES[: len(losses)], tuple(losses), ending), HALF_WINDOW)


def found(losses: Sequence[float], ending: Ending = "finished") -> Reading:
    reading = read(losses, ending)
    assert reading is not None
    return reading


def test_it_finds_where_the_loss_falls_is_steepest_and_breaks() -> None:
    reading = found(curve())
    assert 1e-4 <= reading.falls_from <= 4e-4
    assert 7e-4 <= reading.steepest <= 1.5e-3
    assert 0.05 <= reading.lowest <= 0.13
    assert reading.breaks_at is not None
    assert 0.12 <= reading.breaks_at <= 0.25


@pytest.mark.parametrize("seed", range(20))
def test_noise_moves_the_findings_little(seed: int) -> None:
    reading = found(curve(noise=0.1, seed=seed))
    assert 3e-5 <= reading.falls_from <= 1e-3
    assert reading.breaks_at is not None
    assert 0.1 <= reading.breaks_at <= 0.35


def test_noise_alone_is_hardly_ever_a_fall() -> None:
    # In 2 of 200 sweeps; calibrate asks most of at least three.
    draws = [random.Random(seed) for seed in range(200)]
    fallen = [read([2 + draw.gauss(0, 0.1) for _ in RATES]) is not None for draw in draws]
    assert sum(fallen) <= 4


def test_a_loss_that_only_rises_or_stands_shows_nothing() -> None:
    assert read([1 + at for at in range(100)]) is None
    assert read([1.0] * 100) is None


def test_a_sweep_that_is_too_short_shows_nothing() -> None:
    assert read(curve()[:13]) is None


def test_the_end_at_a_loss_that_is_not_finite_is_the_break() -> None:
    losses = [*curve()[:80], math.nan]
    assert found(losses, "not_finite").breaks_at == RATES[80]
    losses[-1] = math.inf
    assert found(losses, "not_finite").breaks_at == RATES[80]


def test_without_a_rise_there_is_no_break() -> None:
    assert found(curve(break_at=10.0)).breaks_at is None
    assert found(curve(break_at=10.0), "rose").breaks_at == RATES[-1]


def test_negative_losses_and_any_scale_are_read_alike() -> None:
    plain = found(curve())
    assert found([1000 * loss - 5000 for loss in curve()]) == plain


def test_smoothing_is_centred() -> None:
    assert smoothed([0.0, 3.0, 6.0, 30.0, 12.0], 1) == [1.5, 3.0, 13.0, 16.0, 21.0]
    line = [float(at) for at in range(20)]
    assert smoothed(line, 4)[4:-4] == pytest.approx(line[4:-4])
