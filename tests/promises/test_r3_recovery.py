"""R3: transient faults are recovered by the reflex, lasting ones are named and end, healthy runs are left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.promises.counting import Tally
from trimtab.bench.recovery import Supervised, healthy, train
from trimtab.bench.scenarios.healthy import HEALTHY, HealthyRun
from trimtab.bench.scenarios.injuries import ABSORBED, PERSISTENT, TRANSIENT, Injury
from trimtab.bench.scenarios.patients import PATIENTS
from trimtab.ledger.reading import iter_ledger
from trimtab.ledger.record import ActionIntended, RunStarted, SymptomObserved

SEEDS: Final = 5
SHARES: Final = 5
_PATIENTS: Final = tuple(PATIENTS)
Case = tuple[str, Injury, int]


def _cases(injuries: tuple[Injury, ...]) -> list[Case]:
    """Return every injury to every training it can be done to, from every seed."""
    return [(patient, injury, seed) for seed in range(SEEDS) for injury in injuries for patient in injury.patients]


def _quick(injuries: tuple[Injury, ...]) -> list[Case]:
    """Return every injury once, to the two quick trainings by turns, where it can be done to both."""
    quick = [[name for name in injury.patients if name != "text"] for injury in injuries]
    return [
        (patients[number % len(patients)], injury, number % SEEDS)
        for number, (injury, patients) in enumerate(zip(injuries, quick, strict=True))
    ]


def test_there_are_as_many_faults_as_promised(tally: Tally) -> None:
    assert len({injury.name for injury in TRANSIENT}) >= tally.goal("fault types", portion=20, full=20)
    tally.count("fault types", len(TRANSIENT))


@pytest.mark.parametrize("share", range(SHARES))
def test_a_transient_fault_is_recovered(share: int, tmp_path: Path, tally: Tally) -> None:
    every = _cases(TRANSIENT)[share::SHARES] if tally.is_full else _quick(TRANSIENT)[share::SHARES]
    for number, (patient, injury, seed) in enumerate(tally.choose("transient faults", every, portion=3)):
        outcome = train(patient, injury, tally.seed(seed), lambda run, number=number: Supervised(run, tmp_path / str(number)))
        assert outcome.is_recovered, f"{outcome}"
        tally.count("transient faults")
        tally.count("of them rolled back", bool(outcome.notes.rollbacks))
        tally.count("after which nothing that was learned is lost", outcome.is_whole)


def test_a_lasting_fault_is_named_and_ends_the_run(tmp_path: Path, tally: Tally) -> None:
    cases = _cases(PERSISTENT) if tally.is_full else _quick(PERSISTENT)
    for number, (patient, injury, seed) in enumerate(tally.choose("lasting faults", cases, portion=2)):
        path = tmp_path / str(number)
        outcome = train(patient, injury, tally.seed(seed), lambda run, path=path: Supervised(run, path))
        records = [entry.record for entry in iter_ledger(path / "ledger.jsonl")]
        (started,) = (record for record in records if isinstance(record, RunStarted))
        assert "look" in outcome.notes.said, f"{injury.name}: {outcome}"
        assert len(outcome.notes.rollbacks) <= started.envelope.authority.reflex_rollbacks, f"{injury.name}: {outcome}"
        assert outcome.num_steps - outcome.at_step < 150, f"{injury.name} was met for too long: {outcome}"
        last = [record for record in records if isinstance(record, ActionIntended)][-1]
        seen = {record.symptom.name for record in records if isinstance(record, SymptomObserved)}
        assert set(last.symptoms) <= seen
        assert last.symptoms, f"{injury.name}: what ended the run is not named"
        tally.count("lasting faults")


def test_a_spike_that_the_optimizer_absorbs_is_not_rolled_back(tmp_path: Path, tally: Tally) -> None:
    cases = _cases(ABSORBED) if tally.is_full else [("perceptron", ABSORBED[-1], seed) for seed in (1, 2)]
    for number, (patient, injury, seed) in enumerate(tally.choose("absorbed spikes", cases, portion=2)):
        outcome = train(patient, injury, tally.seed(seed), lambda run, number=number: Supervised(run, tmp_path / str(number)))
        assert outcome.notes.rollbacks == (), f"{outcome}"
        assert outcome.is_whole, f"{outcome}"
        tally.count("absorbed spikes")


@pytest.mark.parametrize("offset", [0, 100])
def test_a_healthy_run_is_never_rolled_back(offset: int, tmp_path: Path, tally: Tally) -> None:
    quick = [run for run in HEALTHY if run.scenario == "digits_mlp"]
    cases: list[HealthyRun] = list(HEALTHY) if tally.is_full else [quick[3 if offset else 1]]
    for number, run in enumerate(tally.choose("healthy runs", cases, portion=1)):
        notes = healthy(run, offset, tmp_path / str(number))
        tally.seed(run.seed + offset)
        assert (notes.rollbacks, notes.said) == ((), ""), f"{run}: {notes}"
        tally.count("healthy runs")


@pytest.mark.parametrize("patient", _PATIENTS)
def test_a_training_without_a_fault_is_never_rolled_back(patient: str, tmp_path: Path, tally: Tally) -> None:
    for seed in range(100, 100 + tally.goal("healthy runs", portion=1, full=7)):
        outcome = train(patient, None, tally.seed(seed), lambda run, seed=seed: Supervised(run, tmp_path / str(seed)))
        assert outcome.notes.rollbacks == (), f"{outcome}"
        tally.count("healthy runs")
