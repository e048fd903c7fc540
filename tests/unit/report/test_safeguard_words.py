from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.unit.report.safeguarded_runs import guarded_run, tried_run
from tests.unit.report.sample_run import whole_run
from trimtab.report.account import Tried
from trimtab.report.safeguard_words import (
    by_whom,
    canary_words,
    guard_words,
    harm_rows,
    harm_words,
    taken_back_words,
    takes_back_words,
    trial_ending,
    tried_words,
)
from trimtab.report.timeline import build_timeline

GUARDED = build_timeline(guarded_run().records)
TRIED = build_timeline(tried_run().records)


def test_a_trial_is_told_with_what_was_compared_its_early_look_and_its_cost() -> None:
    told = [tried_words(one.tried) for one in TRIED.decisions if one.tried is not None]
    assert told == [
        "won · val/loss 1.5 with it, 1.6 without · early look: 1.9 with it, 2 without · steps 110 to 140, 20 steps spent",
        "lost · val/loss 1.7 with it, 1.6 without · early look: 1.9 with it, 2 without · steps 210 to 240, 20 steps spent",
        "lost · val/loss 4 with it, 2 without, at the early look · steps 310 to 326, 6 steps spent",
        "abandoned · the training loop ended · early look: 2 without · steps 410 to 416, 1 step spent",
    ]
    under_way = Tried(1, 1200, looks=(("no_action", 2.0),))
    assert tried_words(under_way) == "under way since step 1,200 · early look: 2 without"
    early = next(one.tried for one in TRIED.decisions if one.tried is not None and one.tried.number == 3)
    faulty = replace(early, reason="non_finite in loss", gain=None)
    assert "early look: 4 with it, 2 without" in tried_words(faulty), "a fault ended it, not the look"


def test_harm_is_told_with_gain_what_was_expected_and_what_is_borne() -> None:
    harm = GUARDED.decisions[3].harm
    assert harm is not None
    assert harm_words(harm, "val/loss") == (
        "val/loss of 2.5 at step 600 is worse than before it: gain -0.56 since intervention 1; "
        "expected without it: +0.018, less 0.0388 that is borne"
    )
    assert "gains less than without it" in harm_words(replace(harm, is_worse=False), "val/loss")


def test_a_taking_back_is_told_with_its_means_and_where_no_harm_tells_it_with_its_reason() -> None:
    first, back = GUARDED.decisions[3], GUARDED.decisions[3].taken_back
    assert back is not None
    words = "by the guard at step 601, as intervention 3: rollback to step-00000400"
    assert taken_back_words(back, first.harm) == words
    assert taken_back_words(back, None) == f"{words}; {back.reason}"
    assert takes_back_words(GUARDED.decisions[5]) == "interventions 1 and 2"
    assert takes_back_words(GUARDED.decisions[7]) == "intervention 4"
    assert takes_back_words(replace(GUARDED.decisions[7], ending="failed")) == "intervention 4, and failed"


def test_the_endings_of_trials_are_no_mere_endings() -> None:
    assert [trial_ending(one) for one in TRIED.decisions] == [
        "", "tried, worse by 0.1, and not applied", "tried, worse by 2, and not applied", "its trial was abandoned",
    ]  # fmt: skip
    assert trial_ending(replace(TRIED.decisions[0], ending="open")) == "on trial"
    assert trial_ending(replace(TRIED.decisions[0], ending="open", tried=None)) == ""


@pytest.mark.parametrize(
    ("gain", "told"),
    [
        (-0.25, "tried, worse by 0.25, and not applied"),
        (0.0, "tried, no better, and not applied"),
        (0.001, "tried, better by 0.001 only, and not applied"),
        (-math.inf, ""),
        (math.nan, ""),
        (None, ""),
    ],
)
def test_a_lost_trial_says_by_how_much_where_that_is_a_number(gain: float | None, told: str) -> None:
    lost = TRIED.decisions[1]
    assert lost.tried is not None
    assert trial_ending(replace(lost, tried=replace(lost.tried, gain=gain))) == told


def test_the_run_is_summed_up() -> None:
    assert canary_words(TRIED.summary) == ("4 trials, 1 won", "47 steps spent, 9.4% of the run")
    assert guard_words(TRIED.summary) == ("watched 1 intervention, took none back", "no harm was found")
    assert guard_words(GUARDED.summary) == ("watched 3 interventions, took 3 back", "the recipe is held since step 801")
    assert guard_words(replace(GUARDED.summary, held_since=None))[1] == "the recipe is not held"
    assert canary_words(GUARDED.summary) == ("no trial", "off: proposals are not tried first")
    assert by_whom(GUARDED.summary) == "2 by the guard"
    unguarded = build_timeline(whole_run()).summary
    assert guard_words(unguarded) == ("off", "no intervention is taken back")
    assert by_whom(unguarded) == "1 by the reflex"


def test_what_the_guard_could_not_do_is_said_with_why() -> None:
    one, other = "a rollback without a change has nothing to take back", "no evaluation came that could show its effect"
    summary = replace(TRIED.summary, watched=2, unwatched=(one, other, one), harm_stays=("the run ended",))
    assert guard_words(summary) == (
        "watched 2 interventions, took none back",
        f"2 not watched: {one} · 1 not watched: {other} · harm stays: the run ended",
    )
    assert guard_words(replace(summary, watched=0, unwatched=(one,), harm_stays=())) == (
        "watched no intervention",
        f"1 not watched: {one}",
    )
    assert guard_words(replace(summary, watched=0, unwatched=())) == ("nothing to watch", "no intervention of the manager")


def test_a_canary_that_has_tried_nothing_says_why() -> None:
    assert canary_words(replace(TRIED.summary, trials=0, untried="no question was asked")) == (
        "no trial",
        "no question was asked",
    )


def test_harm_is_told_with_what_became_of_it() -> None:
    first, guard = GUARDED.decisions[3], GUARDED.decisions[5]
    assert [(label, tone) for label, _, tone in harm_rows(first, "val/loss")] == [("harm", "bad"), ("taken back", "warn")]
    assert list(harm_rows(guard, "val/loss")) == [("takes back", "interventions 1 and 2", "")]
    stays = replace(first, taken_back=None, harm_stays="the run ended")
    assert list(harm_rows(stays, "val/loss"))[1:] == [("taken back", "not taken back: the run ended", "bad")]
    assert list(harm_rows(replace(stays, harm_stays=""), "val/loss"))[1:] == [("taken back", "not taken back yet", "bad")]
    assert list(harm_rows(TRIED.decisions[0], "val/loss")) == []
