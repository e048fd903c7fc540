from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.report.scored_run import TAKEN
from trimtab.decision.consultation import Consultation
from trimtab.report.account import Decision, Proposed
from trimtab.report.page.spent import Spent, spent_on


def spent(*taken: Consultation | None, latency: float | None = 0.5) -> Spent:
    proposal = Proposed("no_action", "no_action", "fine", None, latency)
    return spent_on([Decision(1, "manager", 1, 100, (), proposal, one) for one in taken])


@pytest.mark.parametrize(
    ("prices", "told"),
    [
        ([], "none"),
        ([0.01, 0.02], "$0.0300"),
        ([None, None], "price not known"),
        ([0.01, None, None], "$0.0100, and the price of 2 questions is not known"),
        ([0.0], "$0.0000"),
    ],
)
def test_a_price_that_is_not_known_is_never_counted_as_nothing(prices: list[float | None], told: str) -> None:
    assert spent(*(replace(TAKEN, usd=price) for price in prices)).price == told


def test_calls_and_tokens_are_added_up() -> None:
    found = spent(TAKEN, None, replace(TAKEN, model="model-2"))
    assert (found.calls, found.tokens, found.models) == (4, "2,400 read, 160 written", ("model-1", "model-2"))


def test_what_is_not_settled_is_told_as_the_most_it_can_be() -> None:
    found = spent(replace(TAKEN, unsettled_calls=1))
    assert found.tokens == "up to 1,200 read, up to 80 written"
    assert found.price.startswith("up to $")


def test_the_times_of_answers_are_those_of_the_manager() -> None:
    assert spent(None, None, latency=2.0).latency == "2.00 s, at worst 2.00 s"
    assert spent_on([]).latency == "-"
