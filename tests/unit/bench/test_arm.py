"""The managed arm of the demonstration: its envelope, and what it tells of its interventions."""

from __future__ import annotations

import pytest

from tests.builders import an_intervention
from trimtab.bench.arm import demo_envelope, mark_kind
from trimtab.decision.action import Action, Adjust, Change, Rollback, RollbackAndAdjust


@pytest.mark.parametrize(("canary", "mode"), [(False, "none"), (True, "win")])
@pytest.mark.parametrize("manager", ["rules", "local"])
def test_a_canary_is_there_if_wanted_whoever_manages(manager: str, canary: bool, mode: str) -> None:
    envelope = demo_envelope(manager, canary=canary)
    assert envelope.canary.mode == mode
    assert envelope.guard.armed
    assert (envelope.deliberation.mode == "boundary") == (manager == "local")


HALVE = (Change("learning_rate", 5e-4),)


@pytest.mark.parametrize(
    ("source", "action", "kind"),
    [
        ("rules", Adjust(HALVE), "adjust"),
        ("rules", Rollback("step-00000200"), "rollback"),
        ("rules", RollbackAndAdjust("step-00000200", HALVE), "rollback"),
        ("reflex", RollbackAndAdjust("step-00000200", HALVE), "reflex"),
        ("guard", Adjust(HALVE), "guard"),
        ("guard", Rollback("step-00000200"), "guard"),
    ],
)
def test_what_a_safeguard_did_is_marked_as_its_own(source: str, action: Action, kind: str) -> None:
    assert mark_kind(an_intervention(action, source=source)) == kind
