"""B1, one output at a time: what the verifier lets through is what the envelope allows, and all of it that is tried.

Both ways are asked, so that neither a verifier that lets too much through nor an oracle that sees too little can pass.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests import builders
from tests.promises.counting import Tally
from tests.promises.drawn_envelopes import a_standing, an_envelope
from trimtab.controls.catalogue import learning_rate
from trimtab.controls.envelope import Envelope
from trimtab.controls.moves import SetTo
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Standing
from trimtab.decision.action import Action, Adjust, Change, Rollback, RollbackAndAdjust, SkipBatches, Stop
from trimtab.decision.draws import Draws
from trimtab.testing.envelope_oracle import Applied, Books, EnvelopeOracle
from trimtab.testing.overreaching import wild_value
from trimtab.verification.case import Case
from trimtab.verification.verdict import Accepted, Rejected
from trimtab.verification.verifier import verify

SHARES = 4
OUTPUTS_PER_STANDING = 20
WHAT = "manager outputs"
# What an oracle that sees values can object to; the others are about freshness, names and effects.
OF_THE_BOUND = {
    "authority", "bounds", "permitted_moves", "largest_change", "cumulative_drift", "dwell", "boundary", "max_values",
    "coupled_rate",
}  # fmt: skip


def _base(standing: Standing, action: Action) -> Recipe:
    if isinstance(action, (Rollback, RollbackAndAdjust)):
        saved = standing.checkpoint(action.checkpoint)
        assert saved is not None
        return saved.recipe
    return standing.recipe


def _output(envelope: Envelope, standing: Standing, draws: Draws) -> Action:
    """Draw an action: mostly of values near what is allowed."""
    back = None if draws.below(3) else standing.checkpoints[draws.below(len(standing.checkpoints))]
    kind = draws.below(20)
    if kind == 0:
        return Stop()
    if kind == 1:
        return SkipBatches((1, 7, 8, 0, -1, 10**30)[draws.below(6)])
    if back is not None and kind == 2:
        return Rollback(back.id)
    base = standing.recipe if back is None else back.recipe
    changes: list[Change] = []
    for _ in range((1, 1, 1, 2, 3, 4, 0)[draws.below(7)]):
        control = envelope.controls[draws.below(len(envelope.controls))]
        value: Any = wild_value(base[control.name], control.bounds, control.moves.targets(base[control.name]), draws)
        changes.append(Change(control.name if draws.below(50) else "no_such_control", value))
    return Adjust(tuple(changes)) if back is None else RollbackAndAdjust(back.id, tuple(changes))


def _after(envelope: Envelope, standing: Standing, action: Action) -> dict[str, float]:
    """Return the values that the action asks for, by arithmetic of our own."""
    base = dict(_base(standing, action))
    changes = {change.control: change.value for change in getattr(action, "changes", ())}
    after = base | changes
    for control in envelope.controls:
        power = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}[control.rate_scaling]
        ratio = after[control.name] / base[control.name] if power else 1.0
        if power and "learning_rate" not in changes and control.name in changes and ratio > 0:
            after["learning_rate"] = base["learning_rate"] * ratio**power
    return after


def _judge(envelope: Envelope, standing: Standing, action: Action, after: dict[str, float]) -> list[str]:
    seen = {name: set(values) for name, values in standing.values_seen}
    books = Books(dict(standing.changed_at), standing.interventions_used, standing.rollbacks_used, values=seen)
    oracle = EnvelopeOracle(envelope, dict(standing.initial), books)
    restored = dict(_base(standing, action)) if isinstance(action, (Rollback, RollbackAndAdjust)) else None
    return list(oracle.breaches(Applied(standing.step, "manager", dict(standing.recipe), after, restored)))


def _check(envelope: Envelope, standing: Standing, action: Action) -> str:
    verdict = verify(Case(action, "manager", envelope, standing, standing.step, standing.version))
    if isinstance(verdict, Accepted):
        applied = dict(verdict.verified.recipe)
        # Shadow is not a constraint: what is accepted is not applied.
        found = [one for one in _judge(envelope, standing, action, applied) if "shadow" not in one]
        assert found == [], f"{action} was accepted: {found}"
        return "accepted"
    assert isinstance(verdict, Rejected)
    names = {reason.constraint for reason in verdict.reasons}
    controls = [change.control for change in getattr(action, "changes", ())]
    # A rate named beside what takes it along may be just what it would be taken along to: the values do not tell.
    is_coupled = "learning_rate" in controls and any(one.rate_scaling != "none" for one in envelope.controls)
    is_plain = len(set(controls)) == len(controls) > 0 and not is_coupled
    if names <= OF_THE_BOUND and is_plain:
        assert _judge(envelope, standing, action, _after(envelope, standing, action)) != [], f"{action}: {verdict.reasons}"
        return "rejected for the bound, the oracle agreeing"
    return "rejected for what an oracle of values cannot see"


@pytest.mark.parametrize("share", range(SHARES))
def test_what_is_let_through_is_what_the_envelope_allows(tally: Tally, share: int) -> None:
    wanted = tally.goal(WHAT, portion=6_000, full=1_000_000 // SHARES)
    became: Counter[str] = Counter()
    draw, draws = random.Random(tally.seed(share)), Draws(f"b1/{share}")
    while became.total() < wanted:
        envelope = an_envelope(draw)
        standing = a_standing(envelope, draw)
        for _ in range(OUTPUTS_PER_STANDING):
            became[_check(envelope, standing, _output(envelope, standing, draws))] += 1
    tally.count(WHAT, became.total())
    for what, number in became.items():
        assert number > wanted / 50, f"{what}: only {number} of {wanted}, so little was shown"


BOUNDARIES = {
    "the lower bound": (1e-5, True),
    "the upper bound": (1e-1, True),
    "one ulp below the lower bound": (math.nextafter(1e-5, 0.0), False),
    "one ulp above the upper bound": (math.nextafter(1e-1, 1.0), False),
    "one ulp above the lower bound": (math.nextafter(1e-5, 1.0), True),
    "one ulp below the upper bound": (math.nextafter(1e-1, 0.0), True),
    "NaN": (math.nan, False),
    "infinity": (math.inf, False),
    "minus infinity": (-math.inf, False),
    "minus zero": (-0.0, False),
    "zero": (0.0, False),
    "a boolean": (True, False),
    "a whole number instead of a float": (1, False),
    "a huge whole number": (10**400, False),
    "a text": ("1e-3", False),
    "the smallest float": (5e-324, False),
    "the largest float": (1.7976931348623157e308, False),
}


@pytest.mark.parametrize("name", BOUNDARIES)
def test_values_at_the_edge(tally: Tally, name: str) -> None:
    given: Any = BOUNDARIES[name][0]
    # All of them are moves, as far as they can be: so the bound alone stands in the way.
    moves = SetTo((float(given), 1e-5)) if isinstance(given, float) and math.isfinite(given) else SetTo((1e-5, 1.0))
    rate = replace(learning_rate(1e-5, 1e-1, dwell_steps=0), moves=moves, largest_change=1e300, cumulative_drift=1e300)
    ordinary = builders.an_envelope()
    envelope = replace(ordinary, controls=(rate, *ordinary.controls[1:]))
    case = builders.a_case(Adjust((Change("learning_rate", given),)), envelope=envelope)
    tally.goal("values at the edge", portion=1, full=1)
    assert isinstance(verify(case), Accepted) == BOUNDARIES[name][1]
    tally.count("values at the edge")
