"""A run that reports its loss and gradient norm under other names is watched all the same."""

from __future__ import annotations

import math
import random

import pytest

from trimtab.controls.envelope import Objective
from trimtab.diagnosis.base import View
from trimtab.diagnosis.examine import STEP_DETECTORS, examine
from trimtab.telemetry.roles import Roles
from trimtab.telemetry.telemetry import Telemetry

ROLES = Roles((("grad_norm", "my/norm"), ("loss", "my/loss")))


@pytest.mark.parametrize(
    ("signal", "value", "name"),
    [
        ("my/loss", math.nan, "non_finite"),
        ("my/norm", math.inf, "non_finite"),
        ("my/loss", 40.0, "loss_spike"),
        ("my/loss", 40.0, "divergence"),
        ("my/norm", 1e5, "gradient_explosion"),
    ],
)
def test_a_fault_is_found_under_the_name_the_run_gives(signal: str, value: float, name: str) -> None:
    telemetry, draw, found = Telemetry(), random.Random(0), list[tuple[str, str]]()
    for step in range(1, 131):
        values = {"my/loss": draw.gauss(2.0, 0.1), "my/norm": draw.gauss(1.0, 0.1), "loss": 1.0}
        telemetry.observe(step, values | ({signal: value} if step > 110 else {}))
        view = View(step, telemetry, Objective("val/loss", "minimize"), ROLES)
        found += [(symptom.name, symptom.signal) for symptom in examine(view, STEP_DETECTORS)]
    assert (name, signal) in found
    assert {where for _, where in found} == {signal}
