"""The controls trimtab knows, each with moves and limits that suit it unless the user says otherwise.

All functions here take the same keywords, which override what the catalogue's row (`trimtab.controls.entries`) says:

    moves               permitted moves: `Multiply`, `SetTo` or `Add`; by default the row's, of a list of values those within
                        the bounds, or five evenly spaced ones where it has fewer than two there
    largest_change      most in one intervention, inclusive
    cumulative_drift    most from the starting value, inclusive
    dwell_steps         steps before the next change; by default 50, or the lag if that is longer
    effect_lag_steps    steps until a change can show in the objective
    when                ``live``, or ``boundary``: only at multiples of the envelope's boundary_every_steps
    max_values          most distinct values over a run, the starting one included

and raise `ControlError`, which names the argument to change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, TypedDict, Unpack

from trimtab.controls.bounds import Bounds
from trimtab.controls.control import Control, RateScaling, Scale, When
from trimtab.controls.entries import (
    BATCH_SIZE,
    BETA2,
    DROPOUT,
    ENTRIES,
    ENTROPY_COEFFICIENT,
    GRADIENT_ACCUMULATION,
    GRADIENT_CLIP_NORM,
    LABEL_SMOOTHING,
    LEARNING_RATE,
    LOSS_WEIGHT,
    MIXTURE_WEIGHT,
    MOMENTUM,
    WEIGHT_DECAY,
    Entry,
)
from trimtab.controls.moves import Moves, SetTo
from trimtab.errors import ControlError, nearest

DEFAULT_DWELL_STEPS: Final = 50


class _Numbers(TypedDict, total=False):
    largest_change: float | None
    cumulative_drift: float | None
    dwell_steps: int
    effect_lag_steps: int
    when: When
    max_values: int | None


class Limits(_Numbers, total=False):
    """The keywords that every control takes; see the module."""

    moves: Moves | None


def learning_rate(low: float, high: float, *, group: str | None = None, **limits: Unpack[Limits]) -> Control:
    """Declare the learning rate as a control, between ``low`` > 0 and ``high``, both included.

    The value is the optimizer's reference rate: the largest ``initial_lr`` (or ``lr``) of its
    groups when trimtab attached. It acts as a factor on whatever schedule the run has, so the ratios
    between groups and the shape of the schedule are kept. ``group`` names one parameter group
    (``param_groups[i]["name"]``); by default it is all of them.
    """
    return declare(LEARNING_RATE, low, high, part=group, **limits)


def weight_decay(low: float, high: float, *, group: str | None = None, **limits: Unpack[Limits]) -> Control:
    """Declare the optimizer's weight decay as a control; groups without decay keep none."""
    return declare(WEIGHT_DECAY, low, high, part=group, **limits)


def momentum(low: float, high: float, *, group: str | None = None, **limits: Unpack[Limits]) -> Control:
    """Declare momentum (SGD, RMSprop) or the first beta (Adam and its kin) as a control, in ``[0, 1)``."""
    return declare(MOMENTUM, low, high, part=group, **limits)


def beta2(low: float, high: float, *, group: str | None = None, **limits: Unpack[Limits]) -> Control:
    """Declare the second beta of Adam and its kin as a control, in ``[0, 1)``."""
    return declare(BETA2, low, high, part=group, **limits)


def dropout(
    low: float, high: float, *, name: str | None = None, modules: str | None = None, **limits: Unpack[Limits]
) -> Control:
    """Declare the dropout probability as a control, in ``[0, 1)``.

    The value is the largest probability among the modules; the others keep their ratios to it.
    ``modules`` is a pattern of module names, such as ``"encoder.*"``; such a control needs a ``name``
    and becomes ``dropout/NAME``.
    """
    return declare(DROPOUT, low, high, part=name, modules=modules, **limits)


def label_smoothing(low: float, high: float, **limits: Unpack[Limits]) -> Control:
    """Declare the label smoothing of the run's `torch.nn.CrossEntropyLoss` as a control, in ``[0, 1)``.

    Pass the loss module among ``parts`` unless it belongs to the model.
    """
    return declare(LABEL_SMOOTHING, low, high, **limits)


def gradient_clip_norm(low: float, high: float, **limits: Unpack[Limits]) -> Control:
    """Declare the largest gradient norm as a control; the loop clips with a `GradientClip` among ``parts``."""
    return declare(GRADIENT_CLIP_NORM, low, high, **limits)


def loss_weight(term: str, low: float, high: float, **limits: Unpack[Limits]) -> Control:
    """Declare the weight of one term of a `LossWeights` among ``parts`` as a control, > 0."""
    return declare(LOSS_WEIGHT, low, high, part=term, **limits)


def batch_size(low: float, high: float, *, rate_scaling: RateScaling = "none", **limits: Unpack[Limits]) -> Control:
    """Declare the items per batch as a control, >= 1; needs a loader such as `ResumableLoader`.

    With ``rate_scaling`` ``linear`` or ``sqrt`` a change takes the control ``learning_rate`` along, by
    the ratio of the batch sizes or its square root; the rate must then keep its own limits too.

    References:
        Goyal et al. (2017), "Accurate, Large Minibatch SGD", for ``linear``; Malladi et al. (2022), "On
        the SDEs and Scaling Rules for Adaptive Gradient Algorithms", for ``sqrt``.
    """
    return declare(BATCH_SIZE, low, high, rate_scaling=rate_scaling, **limits)


def gradient_accumulation(low: float, high: float, *, rate_scaling: RateScaling = "none", **limits: Unpack[Limits]) -> Control:
    """Declare the batches per optimizer step as a control, >= 1; the loop uses a `GradientAccumulation`."""
    return declare(GRADIENT_ACCUMULATION, low, high, rate_scaling=rate_scaling, **limits)


def mixture_weight(source: str, low: float, high: float, **limits: Unpack[Limits]) -> Control:
    """Declare the weight of one source of a `MixtureLoader` as a control, > 0; the weights are normalised."""
    return declare(MIXTURE_WEIGHT, low, high, part=source, **limits)


def entropy_coefficient(low: float, high: float, **limits: Unpack[Limits]) -> Control:
    """Declare the entropy coefficient as a control; bind it with `handle` or use `attribute` instead."""
    return declare(ENTROPY_COEFFICIENT, low, high, **limits)


def declare(
    name: str,
    low: float,
    high: float,
    *,
    part: str | None = None,
    rate_scaling: RateScaling = "none",
    modules: str | None = None,
    **limits: Unpack[Limits],
) -> Control:
    """Declare a control of the catalogue by its name.

    Args:
        name: A name of the catalogue, such as ``clip_range``.
        low: Lowest value, inclusive.
        high: Highest value, inclusive.
        part: The parameter group, modules, term or source it is for; by default all.
        rate_scaling: Whether a change takes the learning rate along.
        modules: Pattern of module names, for dropout.
        **limits: What overrides the catalogue; see the module.

    Raises:
        ControlError: Change the argument that the message names.
    """
    if name not in ENTRIES:
        raise ControlError("the catalogue has no such control", received=name, next_step=nearest(name, ENTRIES))
    entry = ENTRIES[name]
    _check_keywords(name, limits, Limits.__annotations__)
    bounds = Bounds(low, high)
    _check_sense(name, entry, bounds)
    if part is not None and not entry.takes_name:
        raise ControlError(f"{name} has no parts", received=f"{name}/{part}", allowed=name)
    if (modules is not None) != (name == DROPOUT and part is not None):
        raise ControlError(
            "modules go with a named part of dropout, and only with that",
            received=f"{name if part is None else f'{name}/{part}'}, modules={modules!r}",
            next_step='write for example dropout/encoder with modules "encoder.*"',
        )
    return Control(
        name=name if part is None else f"{name}/{part}",
        bounds=bounds,
        rate_scaling=rate_scaling,
        modules=modules,
        unit=entry.unit,
        cost=entry.cost,
        is_whole=entry.is_whole,
        **_filled(replace(entry, moves=_within(entry, bounds)), bounds, limits),
    )


def own_control(
    name: str,
    low: float,
    high: float,
    *,
    moves: Moves,
    scale: Scale = "difference",
    unit: str = "",
    is_whole: bool = False,
    rate_scaling: RateScaling = "none",
    **limits: Unpack[_Numbers],
) -> Control:
    """Declare a control of the user's own: a name that the catalogue does not have, with moves of its own.

    Args:
        name: A name that is not in the catalogue.
        low: Lowest value, inclusive.
        high: Highest value, inclusive.
        moves: Permitted moves.
        scale: Whether changes are ratios or differences.
        unit: What the value counts, for people.
        is_whole: Whether only whole numbers make sense.
        rate_scaling: Whether a change takes the learning rate along.
        **limits: As in the module; by default a ratio of 4 in one change and 1000 in all, or the whole range.

    Raises:
        ControlError: Change the argument that the message names.
    """
    _check_keywords(name, limits, _Numbers.__annotations__)
    if base_name(name) in ENTRIES:
        raise ControlError("the catalogue has this control", received=name, next_step="use the catalogue's, or another name")
    bounds = Bounds(low, high)
    limit, drift = (4.0, 1000.0) if scale == "ratio" else (None, None)
    entry = Entry("a control of the user's own", unit, scale, moves, limit, drift)
    filled = _filled(entry, bounds, limits)
    return Control(name=name, bounds=bounds, unit=unit, is_whole=is_whole, rate_scaling=rate_scaling, **filled)


def base_name(name: str) -> str:
    """Return the catalogue's name of a control: ``learning_rate`` for ``learning_rate/decoder``."""
    return name.partition("/")[0]


def part_name(name: str) -> str | None:
    """Return the part a control is for (a parameter group, a term), or None if it is for all."""
    return name.partition("/")[2] or None


def _check_keywords(name: str, given: Mapping[str, object], known: Iterable[str]) -> None:
    for keyword in given.keys() - set(known):
        raise ControlError(f"{name} takes no such keyword", received=keyword, next_step=nearest(keyword, known))


def _filled(entry: Entry, bounds: Bounds, limits: Mapping[str, object]) -> dict[str, Any]:
    """Return the arguments of `Control` that the user or the catalogue's row gives."""
    span = bounds.high - bounds.low
    known: dict[str, Any] = {
        "scale": entry.scale,
        "moves": entry.moves,
        "largest_change": span if entry.largest_change is None else entry.largest_change,
        "cumulative_drift": span if entry.cumulative_drift is None else entry.cumulative_drift,
        "dwell_steps": max(DEFAULT_DWELL_STEPS, entry.effect_lag_steps),
        "effect_lag_steps": entry.effect_lag_steps,
    }
    given = {key: value for key, value in limits.items() if value is not None}
    return known | given


def _within(entry: Entry, bounds: Bounds) -> Moves:
    """Return the row's moves as far as they fit the bounds, so that a control can always come and go."""
    if not isinstance(entry.moves, SetTo) or bounds.low == bounds.high:
        return entry.moves
    inside = tuple(filter(bounds.contain, entry.moves.values))
    return SetTo(inside if len(inside) > 1 else _spread(bounds, entry.is_whole))


def _spread(bounds: Bounds, is_whole: bool) -> tuple[float, ...]:
    """Return both ends and three values evenly between them, short or whole."""
    quarter = (bounds.high - bounds.low) / 4
    digits = 0 if is_whole else 1 - math.floor(math.log10(quarter))
    between = (round(bounds.low + quarter * index, digits) for index in (1, 2, 3))
    return tuple(sorted({bounds.low, *filter(bounds.contain, between), bounds.high}))


def _check_sense(name: str, entry: Entry, bounds: Bounds) -> None:
    if entry.is_whole and not (float(bounds.low).is_integer() and float(bounds.high).is_integer()):
        raise ControlError(
            f"{name} counts {entry.unit}", received=f"low={bounds.low!r}, high={bounds.high!r}", allowed="whole numbers"
        )
    if bounds.low < entry.least or bounds.high >= entry.below:
        upper = "" if entry.below == float("inf") else f", high < {entry.below:g}"
        raise ControlError(
            f"these bounds make no sense for {name}, {entry.meaning}",
            received=f"low={bounds.low!r}, high={bounds.high!r}",
            allowed=f"low >= {entry.least:g}{upper}",
        )
