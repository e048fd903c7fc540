"""The whole way, once: a run that overfits is rescued by the rules manager, and the record shows how."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import (
    ActionApplied,
    ActionIntended,
    EvaluationRecorded,
    InterventionMeasured,
    ManagerAsked,
    ReadBackRecorded,
    TrialBegan,
    TrialEnded,
    TrialMeasured,
)
from trimtab.ledger.verify import verify_file


def _arm(arm: str, run_dir: Path, steps: int, *, canary: bool = False) -> dict[str, Any]:
    spec = {"arm": arm, "seed": 0, "steps": steps, "manager": "rules", "text": None, "run_dir": str(run_dir), "canary": canary}
    done = subprocess.run(
        [sys.executable, "-m", "trimtab.bench.arm", json.dumps(spec)], capture_output=True, text=True, timeout=110, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    assert lines[-1]["event"] == "result", f"{lines[-1]} {done.stderr}"
    return lines[-1]


@pytest.mark.timeout(240)
def test_rules_rescue_an_overfitting_run(tmp_path: Path) -> None:
    steps = 1000
    unmanaged = _arm("unmanaged", tmp_path / "unmanaged", steps)
    managed = _arm("managed", tmp_path / "managed", steps)
    assert unmanaged["final"] > unmanaged["best"] + 0.05, "the fixed recipe must overfit, or nothing is rescued"
    assert managed["interventions"] >= 1
    assert managed["final"] < unmanaged["final"]

    ledger = tmp_path / "managed" / "ledger.jsonl"
    assert verify_file(ledger).ok
    records = [entry.record for entry in read_ledger(ledger)]
    asked = {r.question: r for r in records if isinstance(r, ManagerAsked)}
    intended = [r for r in records if isinstance(r, ActionIntended)]
    applied = [r for r in records if isinstance(r, ActionApplied)]
    assert [r.intervention for r in intended] == [r.intervention for r in applied]
    assert all(one.recipe == two.recipe for one, two in zip(intended, applied, strict=True))
    first = next(r for r in asked.values() if r.step < intended[0].step and r.briefing.symptoms)
    assert intended[0].step >= first.step + first.briefing.timing.applies_at_step - first.briefing.timing.asked_step
    assert any(isinstance(r, ReadBackRecorded) and all(result.holds for result in r.results) for r in records)
    assert any(isinstance(r, InterventionMeasured) and r.is_complete for r in records)


@pytest.mark.timeout(240)
def test_under_a_canary_it_is_tried_first_and_the_trials_evaluations_are_none_of_the_runs(tmp_path: Path) -> None:
    managed = _arm("managed", tmp_path / "managed", 1100, canary=True)
    records = [entry.record for entry in read_ledger(tmp_path / "managed" / "ledger.jsonl")]
    began = [record.trial for record in records if isinstance(record, TrialBegan)]
    assert began
    assert [record.trial for record in records if isinstance(record, TrialEnded)] == began
    measured = {record.step for record in records if isinstance(record, TrialMeasured)}
    own = [record.step for record in records if isinstance(record, EvaluationRecorded)]
    assert measured
    assert [step for step, _ in managed["curve"]] == own
    assert not measured & set(own)
