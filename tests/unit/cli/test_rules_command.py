from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

import trimtab.controls
from trimtab.cli.app import main
from trimtab.decision.rules.table import RULES
from trimtab.diagnosis.base import SymptomName

PRESET = Path(trimtab.controls.__file__).parent / "presets" / "small_transformer.yaml"


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["rules", *arguments])
    assert ended.value.code == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_every_rule_is_printed_with_its_reason_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(run(capsys).split())
    for rule in RULES:
        assert f"{rule.name}: " in words
        assert rule.reason in words
        assert rule.source in words


def test_the_rules_of_one_symptom_stand_under_one_heading(capsys: pytest.CaptureFixture[str]) -> None:
    headings = [line.split()[0] for line in run(capsys).splitlines() if line and not line.startswith((" ", "Tried", "is left"))]
    assert headings == list(dict.fromkeys(headings))
    assert set(get_args(SymptomName)) <= set(headings)


def test_an_envelope_says_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "overfitting", "--envelope", str(PRESET))
    assert "here: weight_decay, dropout" in out
    assert "not here: the envelope has none of these controls" in out
    assert "plateau" not in out


def test_as_json_a_rule_is_its_fields_and_the_controls(capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(run(capsys, "--json", "--envelope", str(PRESET)))["rules"]
    assert [row["name"] for row in listed] == [rule.name for rule in RULES]
    assert next(row for row in listed if row["name"] == "anneal")["controls"] == ["learning_rate"]


def test_an_unknown_symptom_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'overfitting'" in run(capsys, "overfiting", code=2)
