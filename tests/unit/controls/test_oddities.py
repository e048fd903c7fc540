from __future__ import annotations

from typing import Any

import pytest

from tests.builders import a_control, an_envelope
from trimtab.controls.bounds import Bounds
from trimtab.controls.catalogue import batch_size, declare, dropout, learning_rate, weight_decay
from trimtab.controls.control import Control
from trimtab.controls.entries import ENTRIES
from trimtab.controls.envelope import Authority, Deliberation
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.controls.moves import Add, Multiply, SetTo
from trimtab.controls.oddities import dead_end, oddities, oddities_of
from trimtab.controls.safeguards import Reflex

BOUNDARY = dropout(0.0, 0.5, when="boundary")

# What is odd, and the words that have to be said about it.
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no controls": ({"controls": ()}, "there are no controls"),
    "no interventions": ({"authority": Authority(interventions=0)}, "a manager may do nothing"),
    "more rollbacks than interventions": ({"authority": Authority(interventions=3)}, "authority.rollbacks is 10"),
    "disarmed": ({"reflex": Reflex(armed=False)}, "nothing is done about it"),
    "reflex without a budget": ({"authority": Authority(reflex_rollbacks=0)}, "the first fault stops the run"),
    "every step is a boundary": ({"controls": (BOUNDARY,)}, "so every step is a boundary, also for dropout"),
    "boundaries that come too late": (
        {"controls": (BOUNDARY,), "deliberation": Deliberation(boundary_every_steps=500)},
        "may go stale before a boundary comes",
    ),
    "boundaries for nothing": ({"deliberation": Deliberation(boundary_every_steps=500)}, "has no effect"),
    "stuck": ({"controls": (learning_rate(1e-3, 1e-3),)}, "low equals high"),
    "values outside": (
        {"controls": (dropout(0.0, 0.2, moves=ENTRIES["dropout"].moves),)},
        "set 0.3, 0.4, 0.5 can never be reached: not within 0 to 0.2",
    ),
    "values that are not whole": (
        {"controls": (declare("num_epochs", 1, 10, moves=SetTo((1.0, 2.5, 3.0))),)},
        "set 2.5 can never be reached: not within 1 to 10, or not whole",
    ),
    "gap": ({"controls": (dropout(0.0, 0.5, moves=SetTo((0.0, 0.1, 0.5))),)}, "smaller than the move from 0.1 to 0.5"),
    "factor beyond the largest change": (
        {"controls": (learning_rate(1e-5, 1e-2, moves=Multiply((0.1, 0.5, 2.0))),)},
        "multiply 0.1 can never be used",
    ),
    "factor beyond the bounds": (
        {"controls": (learning_rate(1e-3, 1.5e-3, moves=Multiply((0.9, 1.1, 2.0))),)},
        "multiply 2 can never be used",
    ),
    "amount beyond the largest change": ({"controls": (a_control(moves=Add((-1.0, 1.0, 3.0))),)}, "add 3 can never be used"),
    "no move at all": ({"controls": (a_control(moves=Add((3.0,))),)}, "no move is possible from 5"),
    "one way": ({"controls": (a_control(moves=Add((1.0,))),)}, "its moves only lead up"),
    "the other way": ({"controls": (a_control(moves=Add((-1.0,))),)}, "its moves only lead down"),
    "wide": ({"controls": (learning_rate(1e-9, 1e-1),)}, "the bounds span a factor of 1e+08"),
    "one value": ({"controls": (dropout(0.0, 0.5, max_values=1),)}, "max_values is 1"),
    "dwell longer than answers live": (
        {"controls": (dropout(0.0, 0.5, dwell_steps=500),)},
        "more than stale_after_steps (200)",
    ),
    "a prompt without room": ({"manager": ManagerSettings(briefing_tokens=999)}, "may offer nothing but no_action"),
    "silence is consent": (
        {"manager": ManagerSettings(approval_default="approve")},
        "a person has 200 steps and 30 seconds, whichever ends first",
    ),
    "dwell shorter than the effect": ({"controls": (dropout(0.0, 0.5, dwell_steps=5),)}, "less than effect_lag_steps (20)"),
}


@pytest.mark.parametrize(("changes", "says"), CASES.values(), ids=CASES.keys())
def test_what_is_odd_is_said(changes: dict[str, Any], says: str) -> None:
    found = oddities(an_envelope(**(ORDINARY | changes)))
    assert len([said for said in found if says in said]) == 1, found


ORDINARY: dict[str, Any] = {"controls": (learning_rate(1e-6, 1e-2), dropout(0.0, 0.5))}


def test_an_ordinary_envelope_is_not_odd() -> None:
    assert oddities(an_envelope(**ORDINARY)) == ()
    waiting = {"controls": (BOUNDARY, batch_size(8, 64)), "deliberation": Deliberation(boundary_every_steps=100)}
    assert oddities(an_envelope(**waiting)) == ()


def test_at_the_very_limits_nothing_is_odd() -> None:
    exact = a_control(moves=Add((-2.0, 2.0)), bounds=Bounds(0.0, 10.0), largest_change=2.0)
    assert oddities(an_envelope(controls=(exact,))) == ()
    assert oddities(an_envelope(**ORDINARY, manager=ManagerSettings(briefing_tokens=1000, usd=2.0))) == ()
    waits = Deliberation(mode="boundary")
    assert oddities(an_envelope(**ORDINARY, manager=ManagerSettings(approval_default="approve"), deliberation=waits)) == ()
    assert oddities(an_envelope(controls=(learning_rate(1e-7, 0.9e-1),), authority=Authority(interventions=10))) == ()


@pytest.mark.parametrize(
    ("control", "start", "said"),
    [
        (
            weight_decay(0.0, 2e-3, moves=SetTo((0.0, 0.01))),
            5e-4,
            "one move from 0.0005 leads to 0, and none leads away from there",
        ),
        (weight_decay(0.0, 2e-3, moves=SetTo((0.01,))), 5e-4, "no move is possible from 0.0005, where it starts"),
        (declare("entropy_coefficient", 0.0, 0.1), 0.0, "no move is possible from 0, where it starts"),
        (learning_rate(1e-3, 1e-3), 1e-3, "low equals high: it can never change"),
        (dropout(0.0, 0.5, max_values=1), 0.1, "max_values is 1, the starting value: it can never change"),
        (weight_decay(0.0, 2e-3), 5e-4, None),
        (dropout(0.0, 0.5, moves=SetTo((0.0, 0.2))), 0.1, None),
        (learning_rate(1e-6, 1e-2), 1e-2, None),
    ],
)
def test_a_start_from_which_nothing_can_be_changed_twice_is_a_dead_end(
    control: Control, start: float, said: str | None
) -> None:
    assert dead_end(control, start) == said
    assert said is None or control.bounds.low == control.bounds.high or said not in oddities_of(control, start)


def test_with_its_start_known_the_middle_of_the_range_says_nothing() -> None:
    one_way = a_control(moves=Add((1.0,)))
    assert oddities_of(one_way) == ("its moves only lead up",)
    assert oddities_of(one_way, one_way.bounds.high) == ()
