from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import an_envelope
from trimtab.controls.catalogue import dropout, learning_rate
from trimtab.controls.envelope import Authority, Deliberation, Envelope, Objective
from trimtab.controls.preset import load_preset
from trimtab.controls.safeguards import Guard
from trimtab.decision.action import Adjust, Change, Stop
from trimtab.decision.briefing import Briefing
from trimtab.decision.draws import Draws
from trimtab.decision.no_action import NoActionManager
from trimtab.decision.proposal import Expectation, Proposal, hold
from trimtab.testing.adversaries import ADVERSARIES
from trimtab.testing.overreaching import Overreaching
from trimtab.testing.simulated_run import Conditions, simulate
from trimtab.verification import verifier

TIGHT = Envelope(
    Objective("val/loss", "minimize"),
    (
        learning_rate(1e-5, 1e-1, cumulative_drift=5.0, dwell_steps=15),
        dropout(0.0, 0.5, dwell_steps=15, when="boundary", max_values=3),
    ),
    Authority(interventions=1000, controls_per_intervention=1),
    Deliberation(apply_after_steps=2, stale_after_steps=30, boundary_every_steps=7),
    guard=Guard(armed=False),
)


class Tempted:
    """Proposes moves without a look at what is offered."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def propose(self, briefing: Briefing) -> Proposal:
        draws = Draws(f"{self.seed}/{briefing.question}")
        changes: list[Change] = []
        for control in (TIGHT.controls, TIGHT.controls[:1], TIGHT.controls[1:])[draws.below(3)]:
            targets = control.moves.targets(briefing.recipe[control.name]) or (0.1,)
            changes.append(Change(control.name, targets[draws.below(len(targets))]))
        return Proposal(Adjust(tuple(changes)), "tempting", Expectation(0.0, 1))


PRESET = load_preset("small_transformer").envelope()
ROUGH = Conditions(400, 20, fault_one_in=60, failure_one_in=6, mishap_one_in=6)


def test_a_manager_that_never_acts_changes_nothing() -> None:
    report = simulate(an_envelope(), NoActionManager(), 0, Conditions(200, 10))
    assert report.lowest == report.highest
    assert (report.applied, report.rejected, report.breaches) == (0, 0, [])
    assert report.events >= 200


def test_the_same_seed_gives_the_same_run() -> None:
    one, other = (simulate(PRESET, Overreaching(ADVERSARIES["random"](3), 3), 3, ROUGH) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("name", ADVERSARIES)
def test_trouble_leaves_the_envelope_as_whole_as_calm(name: str) -> None:
    report = simulate(PRESET, Overreaching(ADVERSARIES[name](2), 2), 2, replace(ROUGH, starts_anywhere=True))
    assert report.breaches == []
    assert report.rejected > 0


class Stops:
    def propose(self, briefing: Briefing) -> Proposal:
        return Proposal(Stop(), "enough") if briefing.surface.may_stop else hold("not yet")


def test_a_run_that_is_stopped_says_when() -> None:
    report = simulate(PRESET, Stops(), 0, Conditions(2000, 20))
    assert report.stopped_step is not None
    assert report.applied == 1
    assert report.stopped_step < 2000


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        (("bounds", "permitted_moves", "largest_change", "cumulative_drift"), "is outside"),
        (("permitted_moves",), "no permitted move"),
        (("cumulative_drift",), "has drifted"),
        (("dwell",), "steps of"),
        (("max_values",), "distinct values"),
        (("authority",), "controls at once"),
    ],
)
def test_a_constraint_that_is_gone_is_found(monkeypatch: pytest.MonkeyPatch, planted: tuple[str, ...], found: str) -> None:
    kept = tuple(pair for pair in verifier.CONSTRAINTS if pair[0] not in planted)
    monkeypatch.setattr(verifier, "CONSTRAINTS", kept)
    reports = [simulate(TIGHT, Overreaching(Tempted(seed), seed), seed, Conditions(600, 10)) for seed in range(12)]
    assert any(found in breach for report in reports for breach in report.breaches)


@pytest.mark.parametrize("seed", range(12))
def test_with_all_constraints_nothing_is_found(seed: int) -> None:
    assert simulate(TIGHT, Overreaching(Tempted(seed), seed), seed, Conditions(600, 10)).breaches == []
