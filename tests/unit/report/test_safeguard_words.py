from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.report.safeguarded_runs import guarded_run, tried_run
from tests.unit.report.sample_run import whole_run
from trimtab.controls.safeguards import CanaryMode
from trimtab.report.account import Tried
from trimtab.report.safeguard_words import (
    by_whom,
    canary_words,
    guard_words,
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
    assert [trial_ending(one) for one in TRIED.decisions] == ["", "", "", "its trial was abandoned"]
    assert trial_ending(replace(TRIED.decisions[0], ending="open")) == "on trial"
    assert trial_ending(replace(TRIED.decisions[0], ending="open", tried=None)) == ""


def test_the_run_is_summed_up() -> None:
    assert canary_words(TRIED.summary) == ("4 trials, 1 won", "47 steps spent, 9.4% of the run")
    assert guard_words(TRIED.summary) == ("nothing taken back", "the recipe is not held")
    assert guard_words(GUARDED.summary) == ("3 interventions taken back", "the recipe is held since step 801")
    assert canary_words(GUARDED.summary) == ("no trial", "off: proposals are not tried first")
    assert by_whom(GUARDED.summary) == "2 by the guard"
    unguarded = build_timeline(whole_run()).summary
    assert guard_words(unguarded) == ("off", "no intervention is taken back")
    assert by_whom(unguarded) == "1 by the reflex"


@pytest.mark.parametrize(("mode", "told"), [("win", "what wins"), ("veto", "what loses")])
def test_a_canary_that_has_tried_nothing_yet_says_what_it_would_do(mode: CanaryMode, told: str) -> None:
    assert told in canary_words(replace(TRIED.summary, trials=0, canary=mode))[1]
