"""The expected gains that are offered: from the objective's noise up to what a rollback would gain."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.decision.llm.briefings import demo_briefing
from trimtab.decision.briefing import Briefing
from trimtab.decision.llm.offer import gain_labels, offer_of
from trimtab.decision.llm.schema import read_choice, schema_of
from trimtab.telemetry.telemetry import Telemetry

DEMO = demo_briefing()


def a_briefing_at(last: float, *returns: float) -> Briefing:
    """One sample of the objective, and checkpoints with these values."""
    seen = Telemetry()
    seen.observe(400, {"val/loss": last}, "evaluation")
    one = DEMO.surface.rollbacks[0]
    rollbacks = tuple(replace(one, checkpoint=f"step-{at:08d}", objective=value) for at, value in enumerate(returns))
    return replace(DEMO, snapshot=seen.snapshot(400), surface=replace(DEMO.surface, rollbacks=rollbacks))


def test_one_sample_offers_what_a_rollback_would_gain() -> None:
    assert gain_labels(a_briefing_at(0.45, 0.4357)) == ("0", "0.0005", "0.001", "0.002", "0.005", "0.01", "0.02")


@pytest.mark.parametrize("returns", [(), (0.5,), (0.449,), (math.nan,)])
def test_rollbacks_that_gain_little_or_nothing_leave_the_range_as_it_is(returns: tuple[float, ...]) -> None:
    assert gain_labels(a_briefing_at(0.45, *returns)) == ("0", "0.0005", "0.001", "0.002", "0.005", "0.01")


def test_the_largest_gain_is_in_the_schema_and_can_be_answered() -> None:
    briefing = a_briefing_at(0.45, 0.4357)
    assert schema_of(offer_of(briefing))["properties"]["expected_gain"]["enum"][-1] == "0.02"
    action = {"kind": "rollback", "checkpoint": "step-00000000"}
    watch = [offer_of(briefing).watchable[0]]
    reply = {"reason": "back", "action": action, "expected_gain": "0.02", "within_evaluations": "2", "watch": watch}
    expected = read_choice(json.dumps(reply), briefing).expectation
    assert expected is not None
    assert expected.gain == 0.02


def test_a_gain_that_is_on_the_ladder_is_its_end() -> None:
    assert gain_labels(a_briefing_at(1.5, 1.0))[-1] == "0.5"


@given(last=st.floats(-1e9, 1e9), returns=st.lists(st.floats(-1e9, 1e9), max_size=4))
def test_the_range_reaches_every_rollback_and_is_short_and_rising(last: float, returns: list[float]) -> None:
    briefing = a_briefing_at(last, *returns)
    labels = gain_labels(briefing)
    amounts = [float(label) for label in labels]
    largest = max((last - value for value in returns), default=0.0)
    assert amounts[0] == 0
    assert amounts == sorted(set(amounts))
    assert amounts[-1] >= largest
    assert 6 <= len(amounts) <= 13
    assert len(amounts) == 6 or amounts[-2] < largest
    assert offer_of(briefing).gains == labels
