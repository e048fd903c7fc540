"""The pages that list what there is list all of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, get_args

import pytest

from trimtab.controls.entries import ENTRIES
from trimtab.diagnosis.base import SymptomName
from trimtab.telemetry.roles import USUAL_NAMES

DOCS: Final = Path(__file__).parents[2] / "docs"


def named(page: str) -> set[str]:
    """Return what stands in code marks on a page, without a part."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return {name.partition("/")[0] for name in re.findall(r"`([a-z_0-9/A-Z]+)`", text)}


@pytest.mark.parametrize("name", ENTRIES)
def test_every_control_of_the_catalogue_is_on_its_page(name: str) -> None:
    assert name in named("controls.md")


@pytest.mark.parametrize("name", get_args(SymptomName))
def test_every_symptom_is_on_its_page(name: str) -> None:
    assert name in named("signals.md")


@pytest.mark.parametrize("role", USUAL_NAMES)
def test_every_role_is_on_its_page(role: str) -> None:
    assert role in named("signals.md")


def test_the_lag_on_the_page_is_the_catalogues() -> None:
    rows = [line for line in (DOCS / "controls.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        for name in re.findall(r"`([a-z_0-9]+)`", cells[0]):
            lag = ENTRIES[name].effect_lag_steps
            assert cells[3] in (str(lag), "5 to 100"), name
