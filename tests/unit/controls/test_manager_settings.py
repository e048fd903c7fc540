"""Settings of the manager: what is of the wrong kind or out of range is refused, and named."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trimtab.controls.manager_settings import ManagerSettings
from trimtab.errors import UsageError


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("guidance", 5, "is wrong; received 5; allowed: text"),
        ("device", None, "is wrong; received None; allowed: text"),
        ("show_reasons", 1, "is wrong; received 1; allowed: true or false"),
        ("tokens", 1.5, "is not a whole number; received 1.5; allowed: a whole number from 0 to 1000000000000"),
        ("stages", True, "is not a whole number; received True; allowed: a whole number from 1 to 2"),
        ("stages", None, "is not a whole number; received None"),
        ("calls", "3", "is not a whole number; received '3'"),
        ("briefing_tokens", 4000.0, "is not a whole number; received 4000.0"),
        ("reply_tokens", None, "is not a whole number; received None"),
        ("breaker_failures", False, "is not a whole number; received False"),
        ("breaker_questions", None, "is not a whole number; received None"),
        ("usd", "3", "is not a number; received '3'; allowed: a number, 0 to 1000000"),
        ("temperature", True, "is not a number; received True; allowed: a number, 0 to 2"),
        ("temperature", math.nan, "is out of range; received nan"),
        ("tokens", -1, "is out of range; received -1"),
        ("stages", 3, "is out of range; received 3; allowed: 1 to 2"),
        ("fallback", 5, "is unknown; received 5; allowed: by_kind, rules or no_action"),
        ("output", ["text"], "is unknown; received .'text'.; allowed: native, tool or text"),
    ],
)
def test_what_is_wrong_is_refused_with_what_is_allowed(name: str, value: Any, told: str) -> None:
    with pytest.raises(UsageError, match=f"manager.{name} {told}"):
        ManagerSettings(**{name: value})


def test_whole_numbers_may_be_amounts_and_none_means_no_cap() -> None:
    settings = ManagerSettings(usd=3, temperature=0, calls=None, tokens=None, breaker_failures=None)
    assert (settings.usd, settings.temperature, settings.tokens) == (3, 0, None)
