"""B1, whole runs: whatever a manager sends, and whatever goes wrong beside it, no live value leaves the envelope."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.promises.counting import Tally
from tests.promises.drawn_envelopes import an_envelope
from trimtab.testing.adversaries import ADVERSARIES
from trimtab.testing.overreaching import Overreaching
from trimtab.testing.simulated_run import Conditions, simulate

SHARES = 4
LEAST_EVENTS = 50
WHAT = f"sequences of {LEAST_EVENTS} and more events"


def _conditions(draw: random.Random) -> Conditions:
    return Conditions(
        steps=draw.choice((60, 100, 150)),
        evaluate_every_steps=draw.choice((3, 5, 8)),
        fault_one_in=draw.choice((0, 20, 60)),
        failure_one_in=draw.choice((0, 6)),
        mishap_one_in=draw.choice((0, 5)),
        starts_anywhere=True,
        can_skip=draw.random() < 0.5,
    )


@pytest.mark.parametrize("share", range(SHARES))
def test_no_live_value_leaves_the_envelope(tally: Tally, share: int) -> None:
    left = tally.goal(WHAT, portion=60, full=10_000 // SHARES)
    draw, number, happened = random.Random(tally.seed(share)), 0, Counter[str]()
    names = list(ADVERSARIES)
    while left:
        number += 1
        envelope, conditions = an_envelope(draw), _conditions(draw)
        adversary = ADVERSARIES[names[number % len(names)]](number)
        manager = Overreaching(adversary, number) if draw.random() < 0.7 else adversary
        report = simulate(envelope, manager, number, conditions)
        assert report.breaches == [], f"share {share}, run {number}: {envelope}"
        if report.events < LEAST_EVENTS:
            continue  # it was stopped before
        left -= 1
        tally.count(WHAT)
        tally.count("events in them", report.events)
        happened.update(
            applied=report.applied, rejected=report.rejected, taken_back=report.taken_back, reflex=report.reflex_actions
        )
    for what in ("applied", "rejected", "taken_back", "reflex"):
        assert happened[what] > number / 50, f"hardly anything was {what}: {happened} in {number} runs"
