"""B1 on a real training: the values are read from the optimizer and the modules as each step uses them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import trimtab
from tests.promises.counting import Tally
from trimtab.controls.envelope import Authority, Deliberation, Envelope, Objective
from trimtab.controls.safeguards import Guard
from trimtab.testing.adversaries import ADVERSARIES
from trimtab.testing.overreaching import Overreaching
from trimtab.testing.small_training import fitted, train

STEPS = 200
WHAT = "interventions read from live objects"
ENVELOPE = Envelope(
    Objective("val/loss", "minimize"),
    (
        trimtab.learning_rate(1e-4, 1e-2, dwell_steps=15, largest_change=2.0, cumulative_drift=4.0),
        trimtab.weight_decay(0.0, 0.3, dwell_steps=10, largest_change=0.25, cumulative_drift=0.1),
        trimtab.dropout(0.0, 0.4, dwell_steps=25, largest_change=0.1, cumulative_drift=0.2),
        trimtab.batch_size(16, 64, dwell_steps=10, when="boundary", rate_scaling="sqrt"),
        trimtab.momentum(0.8, 0.98, dwell_steps=10, max_values=3),
        trimtab.label_smoothing(0.0, 0.2, dwell_steps=10),
        trimtab.gradient_clip_norm(0.25, 4.0, dwell_steps=10),
    ),
    Authority(interventions=12, rollbacks=4, may_stop=False),
    Deliberation(boundary_every_steps=5),
)


@pytest.mark.parametrize("name", ADVERSARIES)
def test_no_value_that_a_step_uses_leaves_the_envelope(tmp_path: Path, tally: Tally, name: str) -> None:
    wanted = tally.goal("trainings", portion=1, full=20)
    for seed in range(wanted):
        allowed, left_out = fitted(replace(ENVELOPE, guard=Guard(armed=bool(seed % 2))))
        assert allowed is not None
        assert left_out == ()
        manager = Overreaching(ADVERSARIES[name](tally.seed(seed)), seed)
        done = train(allowed, manager, seed, STEPS, tmp_path / str(seed))
        assert done.breaches == ()
        assert not done.is_held
        tally.count("trainings")
        tally.count(WHAT, done.interventions)
        assert done.interventions >= (name != "sleeper") * 2, "hardly anything was done, so nothing was at stake"
