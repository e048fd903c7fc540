"""Axes: the range that values span, round ticks on it, and how numbers are written beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal

# Beyond this a difference of two values may overflow; on a chart it is as good as infinite.
LARGEST: Final = 1e300

MarkKind = Literal["adjust", "rollback", "reflex", "guard"]
MARK_WORDS: Final[dict[MarkKind, str]] = {"adjust": "adjusted", "rollback": "rolled back", "reflex": "reflex", "guard": "guard"}
TrialKind = Literal["won", "lost", "abandoned", "open"]


@dataclass(frozen=True, slots=True)
class Curve:
    """A labelled series of steps and values; a non-finite value is a gap."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Mark:
    """An intervention on a chart.

    Args:
        step: Step after which it was applied.
        text: What it was, in words.
        kind: Whether it went back; if the reflex or the guard did it, that.
        number: The number to show; by default its place among the marks.
        is_taken_back: Whether the guard took it back.
    """

    step: float
    text: str
    kind: MarkKind
    number: int | None = None
    is_taken_back: bool = False


@dataclass(frozen=True, slots=True)
class TrialSpan:
    """The steps of a trial on a chart.

    Args:
        from_step: Step after which the state was forked.
        to_step: Step after which the trial ended; of one under way, the newest step.
        kind: How it ended; ``open`` while it is under way.
        text: What was tried and compared, in words.
        link: Where its decision stands on a page; empty for nowhere.
    """

    from_step: float
    to_step: float
    kind: TrialKind
    text: str
    link: str = ""


def placed_marks(marks: Iterable[Mark]) -> list[Mark]:
    """Return the marks that have a place on a chart, by rising step, all with a number."""
    rising = sorted((mark for mark in marks if drawable(mark.step)), key=lambda mark: mark.step)
    return [replace(mark, number=mark.number or place) for place, mark in enumerate(rising, start=1)]


@dataclass(frozen=True, slots=True)
class Level:
    """A labelled value to compare the curves with."""

    label: str
    value: float


def drawable(value: float) -> bool:
    """Return whether a value has a place on a chart."""
    return math.isfinite(value) and abs(value) <= LARGEST


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values with ``low < high``, as a fraction from 0 to 1."""

    low: float
    high: float
    is_log: bool = False

    def fraction(self, value: float) -> float:
        """Return where ``value`` lies: 0 at the low end, 1 at the high end."""
        if self.is_log:
            low = math.log(self.low)
            return (math.log(value) - low) / (math.log(self.high) - low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> list[float]:
        """Return at most ``most`` round values within the axis, rising."""
        return _decades(self, most) if self.is_log else _round_steps(self.low, self.high, most)


def step_axis(steps: Iterable[float]) -> Axis:
    """Return the axis that holds all steps exactly."""
    known = [step for step in steps if drawable(step)]
    if not known:
        return Axis(0.0, 1.0)
    low, high = min(known), max(known)
    return Axis(low, high) if high > low else Axis(low, low + max(1.0, abs(low) * 1e-9))


def value_axis(values: Iterable[float]) -> Axis:
    """Return an axis with a margin around all values; logarithmic if they span more than 200 times."""
    known = [value for value in values if drawable(value)]
    if not known:
        return Axis(0.0, 1.0)
    low, high = min(known), max(known)
    if low > 0 and high / low > 200:
        return Axis(low / 1.3, high * 1.3, is_log=True)
    margin = max((high - low) * 0.06, max(abs(low), abs(high)) * 1e-9, 1e-12)
    return Axis(low - margin, high + margin)


def _round_steps(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / max(1, most)
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0):
        size = power * factor
        first, last = math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9)
        if last - first + 1 <= most:
            return [index * size for index in range(first, last + 1)]
    return [low, high]


def _decades(axis: Axis, most: int) -> list[float]:
    first, last = math.ceil(math.log10(axis.low)), math.floor(math.log10(axis.high))
    stride = max(1, math.ceil((last - first + 1) / max(1, most)))
    return [10.0**power for power in range(first, last + 1, stride)]


def tick_label(value: float, ticks: Sequence[float]) -> str:
    """Return a tick's text: as many digits as its neighbours need to differ."""
    if value == 0:
        return "0"
    is_wide = abs(ticks[-1]) >= 1000 * abs(ticks[0]) > 0  # decades, or very far apart
    if is_wide or not 1e-4 <= abs(value) < 1e7:
        return f"{value:.4g}"
    gaps = [abs(two - one) for one, two in pairwise(ticks) if two != one]
    finest = min([*gaps, abs(value)])
    digits = max(0, min(8, -math.floor(math.log10(finest) + 1e-9)))
    if round(finest * 10**digits, 6) % 1:  # 2.5, 0.25: one digit more
        digits += 1
    return f"{value:,.{digits}f}".replace(",", " ")
