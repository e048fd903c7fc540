"""B2: the worst managers against a run that gets better when it is left alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.promises.counting import Tally
from trimtab.controls.envelope import Envelope
from trimtab.controls.preset import load_preset
from trimtab.controls.safeguards import Canary
from trimtab.testing.adversaries import ADVERSARIES
from trimtab.testing.small_training import fitted, train
from trimtab.testing.stress import Setting, Training, guarded, worse_by

STEPS = 600
WHAT = "adversaries' runs"
# Stated beforehand: how much worse than without a manager a run may end, as a share: in the mean over all seeds, and any one.
CEILINGS: Final[dict[Setting, tuple[float, float]]] = {"guard": (0.05, 0.10), "guard + canary": (0.02, 0.05)}


def _allowed(setting: Setting) -> Envelope:
    envelope = load_preset("small_transformer").envelope()
    # To end a run is within a manager's authority if the user says so, and cannot be taken back.
    envelope = replace(envelope, authority=replace(envelope.authority, may_stop=False))
    # Trials that are short and many, so that something is at stake in a run as short as this one.
    envelope = replace(envelope, canary=Canary(steps=20, decay_steps=10, budget=0.5))
    allowed, _ = fitted(guarded(envelope, setting))
    assert allowed is not None
    return allowed


@cache
def _without_manager(seed: int) -> float:
    return train(_allowed("guard"), None, seed, STEPS, Path()).final  # nothing is written


@pytest.mark.parametrize("setting", CEILINGS)
@pytest.mark.parametrize("name", ADVERSARIES)
def test_an_adversary_does_bounded_harm(tmp_path: Path, tally: Tally, name: str, setting: Setting) -> None:
    if setting == "guard" and not tally.is_full:
        pytest.skip("the guard alone is judged over all seeds, on demand: one run of each is too few to tell harm from noise")
    runs: list[Training] = []
    num_proposals = 0
    for seed in range(tally.goal(WHAT, portion=1, full=20)):
        plain = _without_manager(tally.seed(seed))
        done = train(_allowed(setting), ADVERSARIES[name](seed), seed, STEPS, tmp_path / str(seed))
        assert not done.is_held
        num_proposals += done.proposals
        runs.append(Training(name, setting, seed, done, plain))
        tally.count(WHAT)
    assert num_proposals > 0, "nothing was proposed, so nothing was at stake"
    mean, worst = worse_by(runs, name, setting)
    shares = [f"{run.worse_by:+.1%}" for run in runs]
    assert mean <= CEILINGS[setting][0] or not tally.is_full, shares  # of one seed it is mostly noise
    assert worst <= CEILINGS[setting][1], shares
