"""Promise B1: what is on the action surface is accepted, and nothing else; nothing leaves the envelope."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import COUPLED, NAMES, situations
from trimtab.controls.envelope import Envelope
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Standing
from trimtab.decision.action import (
    Action,
    Adjust,
    Change,
    NoAction,
    Rollback,
    RollbackAndAdjust,
    SkipBatches,
    Stop,
    changes_of,
    checkpoint_of,
)
from trimtab.decision.surface import Options, Surface, build_surface
from trimtab.verification.case import Case
from trimtab.verification.verdict import Accepted, Source, Verdict
from trimtab.verification.verifier import verify

Situation = tuple[Envelope, Standing]

STRANGE: tuple[Any, ...] = (
    math.nan, -math.nan, math.inf, -math.inf, 0.0, -0.0, True, False, 0, 1, 10**400, -(10**400), 2**53 + 1, 5e-324,
    1.7976931348623157e308, -1e308, None, "1", "nan", b"1", [], {}, (1.0,), 1j, object(),
)  # fmt: skip


def judge(situation: Situation, action: Action, source: Source = "manager") -> Verdict:
    envelope, standing = situation
    return verify(Case(action, source, envelope, standing, standing.step, standing.version))


def is_accepted(situation: Situation, action: Action) -> bool:
    return isinstance(judge(situation, action), Accepted)


def is_on(surface: Surface, action: Action) -> bool:
    """An oracle that looks at the surface alone."""
    match action:
        case NoAction():
            return True
        case Adjust():
            return are_on(surface, surface.adjustable, action.changes)
        case Rollback():
            return any(option.checkpoint == action.checkpoint for option in surface.rollbacks)
        case RollbackAndAdjust():
            options = [o.adjustable for o in surface.rollbacks if o.checkpoint == action.checkpoint]
            return bool(options) and are_on(surface, options[0], action.changes)
        case SkipBatches():
            return type(action.count) is int and 1 <= action.count <= surface.max_skip
        case Stop():
            return surface.may_stop


def are_on(surface: Surface, adjustable: tuple[Options, ...], changes: tuple[Change, ...]) -> bool:
    values = {option.control: option.values for option in adjustable}
    names = [change.control for change in changes]
    return (
        1 <= len(changes) <= surface.max_controls
        and len(set(names)) == len(names)
        and all(type(c.value) is float and c.value in values.get(c.control, ()) for c in changes)
    )


def everything_on(surface: Surface) -> Iterator[Action]:
    yield NoAction()
    yield from (Adjust(changes) for changes in choices(surface.adjustable, surface.max_controls))
    for option in surface.rollbacks:
        yield Rollback(option.checkpoint)
        for changes in choices(option.adjustable, surface.max_controls):
            yield RollbackAndAdjust(option.checkpoint, changes)
    yield from (SkipBatches(count) for count in range(1, surface.max_skip + 1))
    if surface.may_stop:
        yield Stop()


def choices(adjustable: tuple[Options, ...], most: int) -> Iterator[tuple[Change, ...]]:
    """Every single value, and of combinations every one of lowest and highest values."""
    yield from ((Change(option.control, value),) for option in adjustable for value in option.values)
    for count in range(2, most + 1):
        for options in itertools.combinations(adjustable, count):
            ends = [(Change(o.control, o.values[0]), Change(o.control, o.values[-1])) for o in options]
            yield from itertools.product(*ends)


def assert_kept(situation: Situation, verdict: Verdict) -> None:
    """No accepted action leaves bounds, drift or the largest change; written without the package's own checks."""
    envelope, standing = situation
    assert isinstance(verdict, Accepted)
    recipe, action = verdict.verified.recipe, verdict.verified.action
    base = standing.recipe
    if (id := checkpoint_of(action)) is not None:
        base = next(checkpoint.recipe for checkpoint in standing.checkpoints if checkpoint.id == id)
    changed = {change.control for change in changes_of(action)}
    if COUPLED in changed and envelope.control(COUPLED).rate_scaling == "sqrt" and "learning_rate" not in changed:
        ratio = recipe[COUPLED] / base[COUPLED]
        assert math.isclose(recipe["learning_rate"], base["learning_rate"] * math.sqrt(ratio))
        taken_along = "learning_rate"
    else:
        taken_along = None
    assert [name for name, _ in recipe.values] == sorted(control.name for control in envelope.controls)
    for control in envelope.controls:
        value = recipe[control.name]
        assert type(value) is float
        assert math.isfinite(value)
        assert control.bounds.low <= value <= control.bounds.high
        assert not (value == 0 and math.copysign(1, value) < 0)
        for origin, limit in ((standing.initial, control.cumulative_drift), (base, control.largest_change)):
            start = origin[control.name]
            apart = max(value / start, start / value) if control.scale == "ratio" else abs(value - start)
            assert apart <= limit * (1 + 1e-8) or control.name not in {*changed, taken_along}
        if control.name in changed:
            since = standing.step - dict(standing.changed_at).get(control.name, -(10**9))
            assert since >= control.dwell_steps
            assert control.when == "live" or standing.step % envelope.deliberation.boundary_every_steps == 0
            seen = {standing.initial[control.name], *dict(standing.values_seen).get(control.name, ())}
            assert control.max_values is None or value in seen or len(seen) < control.max_values
        elif control.name != taken_along:
            assert value == base[control.name]


def near(value: float) -> tuple[float, float, float]:
    return math.nextafter(value, -math.inf), value, math.nextafter(value, math.inf)


@st.composite
def stray_values(draw: st.DrawFn, situation: Situation) -> Any:
    envelope, standing = situation
    surface = build_surface(envelope, standing)
    offered = [value for option in surface.adjustable for value in option.values]
    offered += [value for rollback in surface.rollbacks for option in rollback.adjustable for value in option.values]
    corners = [corner for control in envelope.controls for corner in (control.bounds.low, control.bounds.high)]
    known = [neighbour for value in (*offered, *corners) for neighbour in near(value)]
    return draw(st.one_of(st.sampled_from(STRANGE), st.floats(), st.sampled_from(known or [1.0])))


@st.composite
def stray_actions(draw: st.DrawFn, situation: Situation) -> Action:
    names: st.SearchStrategy[Any] = st.sampled_from((*NAMES, "unknown", "", "learning_rate ", "LEARNING_RATE"))
    pairs = st.builds(Change, names, stray_values(situation))
    changes = st.lists(pairs, max_size=4).map(tuple)
    ids: st.SearchStrategy[Any] = st.sampled_from(
        ("step-00000100", "step-00000200", "step-00000300", "step-00000999", "", "../../etc/passwd", "x" * 500)
    )
    counts: st.SearchStrategy[Any] = st.sampled_from((-1, 0, 1, 7, 8, 10**400, True, False, 1.0, math.nan, None, "7"))
    return draw(
        st.one_of(
            changes.map(Adjust),
            ids.map(Rollback),
            st.builds(RollbackAndAdjust, ids, changes),
            counts.map(SkipBatches),
            st.just(Stop()),
            st.just(NoAction()),
        )
    )


def check_the_surface(situation: Situation) -> None:
    surface = build_surface(*situation)
    for action in everything_on(surface):
        verdict = judge(situation, action)
        assert isinstance(verdict, Accepted), (action, verdict)
        assert is_on(surface, action)
        assert_kept(situation, verdict)


def check_a_stray(situation: Situation, action: Action) -> None:
    surface = build_surface(*situation)
    verdict = judge(situation, action)
    assert isinstance(verdict, Accepted) == is_on(surface, action), (action, verdict)
    if isinstance(verdict, Accepted):
        assert_kept(situation, verdict)


def check_who_may_move_freely(situation: Situation, action: Action) -> None:
    """The reflex and a schedule may move freely and soon, but never past bounds and drift."""
    verdicts = [judge(situation, action, source) for source in ("reflex", "schedule")]
    for verdict in (verdict for verdict in verdicts if isinstance(verdict, Accepted)):
        for name, value in changes_with_values(verdict.verified.recipe, action):
            control = situation[0].control(name)
            assert control.bounds.low <= value <= control.bounds.high
            start = situation[1].initial[name]
            apart = max(value / start, start / value) if control.scale == "ratio" else abs(value - start)
            assert apart <= control.cumulative_drift * (1 + 1e-8)


def changes_with_values(recipe: Recipe, action: Action) -> list[tuple[str, float]]:
    return [(change.control, recipe[change.control]) for change in changes_of(action)]


@settings(max_examples=150)
@given(situations())
def test_all_that_is_offered_is_accepted_and_stays_in_the_envelope(situation: Situation) -> None:
    check_the_surface(situation)


@settings(max_examples=250)
@given(st.data())
def test_what_is_not_offered_is_rejected_and_nothing_raises(data: st.DataObject) -> None:
    situation = data.draw(situations())
    action = data.draw(stray_actions(situation))
    check_a_stray(situation, action)
    check_who_may_move_freely(situation, action)


@settings(max_examples=40)
@given(situations())
def test_a_stale_or_overtaken_answer_is_rejected_whatever_it_is(situation: Situation) -> None:
    envelope, standing = situation
    late = standing.step - envelope.deliberation.stale_after_steps
    for action in itertools.islice(everything_on(build_surface(envelope, standing)), 20):
        on_time = Case(action, "manager", envelope, standing, late, standing.version)
        assert isinstance(verify(on_time), Accepted)
        for asked_step, version in ((late - 1, standing.version), (standing.step, standing.version - 1)):
            case = Case(action, "manager", envelope, standing, asked_step, version)
            assert not isinstance(verify(case), Accepted)


@settings(max_examples=60)
@given(situations())
def test_every_value_a_neighbour_of_an_offered_one_is_rejected_unless_offered_too(situation: Situation) -> None:
    surface = build_surface(*situation)
    for option in surface.adjustable:
        for value in itertools.chain.from_iterable(near(value) for value in option.values):
            assert is_accepted(situation, Adjust((Change(option.control, value),))) == (value in option.values)


@settings(max_examples=60)
@given(situations())
def test_three_changes_at_most_and_each_control_once(situation: Situation) -> None:
    surface = build_surface(*situation)
    offered = [Change(option.control, option.values[0]) for option in surface.adjustable]
    for change in offered:
        assert not is_accepted(situation, Adjust((change, change)))
    assert not is_accepted(situation, Adjust(()))
    assert is_accepted(situation, Adjust(tuple(offered))) == (1 <= len(offered) <= surface.max_controls)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=20_000)
@given(st.data())
def test_the_surface_and_the_verifier_agree_at_length(data: st.DataObject) -> None:
    situation = data.draw(situations())
    check_the_surface(situation)
    for action in data.draw(st.lists(stray_actions(situation), min_size=10, max_size=50)):
        check_a_stray(situation, action)
        check_who_may_move_freely(situation, action)
