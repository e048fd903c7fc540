"""The envelope of the demonstration's managed arm."""

from __future__ import annotations

import pytest

from trimtab.bench.arm import demo_envelope


@pytest.mark.parametrize(("canary", "mode"), [(False, "none"), (True, "win")])
@pytest.mark.parametrize("manager", ["rules", "local"])
def test_a_canary_is_there_if_wanted_whoever_manages(manager: str, canary: bool, mode: str) -> None:
    envelope = demo_envelope(manager, canary=canary)
    assert envelope.canary.mode == mode
    assert envelope.guard.armed
    assert (envelope.deliberation.mode == "boundary") == (manager == "local")
