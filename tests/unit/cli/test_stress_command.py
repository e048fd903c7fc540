from __future__ import annotations

import json
from pathlib import Path

import pytest

import trimtab.controls
from trimtab.cli.app import main
from trimtab.errors import MissingExtraError
from trimtab.testing import simulated_run, stress
from trimtab.testing.adversaries import ADVERSARIES
from trimtab.testing.envelope_oracle import Applied, EnvelopeOracle
from trimtab.testing.small_training import Trained

PRESETS = Path(trimtab.controls.__file__).parent / "presets"
QUICK = ("--seeds", "1", "--steps", "60")


def run(capsys: pytest.CaptureFixture[str], *arguments: str, preset: str = "ppo", code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["stress", "--envelope", str(PRESETS / f"{preset}.yaml"), *arguments])
    assert ended.value.code == code
    captured = capsys.readouterr()
    return captured.err if code == 2 else captured.out


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_tables_fit_and_name_every_adversary(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = run(capsys, *QUICK, "--simulate-only")
    assert all(name in out for name in ADVERSARIES)
    assert max(map(len, out.splitlines())) <= int(columns)
    ranges = {line.split()[0]: line.split()[3:] for line in out.splitlines() if line.count(" to ") == 1}
    assert ranges["clip_range"] == ["0.03", "to", "0.3"]
    assert "No value left the envelope" in out
    assert "No real training: left out" in out
    assert out.splitlines()[-1].startswith("took 0:")


@pytest.fixture
def one_adversary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stress, "ADVERSARIES", {"random": ADVERSARIES["random"]})


@pytest.mark.usefixtures("one_adversary")
def test_as_json_all_of_it_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    tree = json.loads(run(capsys, *QUICK, "--json"))
    assert tree["is_kept"] is True
    assert tree["seconds"] > 0
    assert [one["adversary"] for one in tree["simulated"]] == ["random"]
    assert set(tree["simulated"][0]["reached"]) == {*tree["trained"]["controls"], *tree["trained"]["left_out"]}
    assert [one["setting"] for one in tree["trained"]["runs"]] == list(stress.SETTINGS)
    assert [one["trials"] for one in tree["trained"]["runs"]] == [0, 0, 0]
    assert "clip_range" in tree["trained"]["left_out"]


@pytest.mark.usefixtures("one_adversary")
def test_a_canary_column_without_a_trial_is_said_to_mean_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(run(capsys, *QUICK, preset="small_transformer").split())
    assert "guard + canary: no trial fitted into any of 1 run, so that column means nothing" in words
    assert "none before step 360, and one takes 84 steps" in words


def test_trials_are_counted_and_what_they_kept_is_not_said_to_have_been_watched(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = {
        "guard off": Trained(((60, 1.5),), interventions=7),
        "guard": Trained(((60, 1.1),), interventions=2),
        "guard + canary": Trained(((60, 1.0),), trials=3, interventions=1000),
    }
    runs = tuple(stress.Training("random", setting, 0, done[setting], 1.0) for setting in stress.SETTINGS)
    monkeypatch.setattr("trimtab.cli.stress.stress_trained", lambda *_: stress.Trainings(runs, ("dropout",), ()))
    out = run(capsys, *QUICK)
    assert ["random", "+50.0%", "+10.0%", "+0.0%"] in [line.split() for line in out.splitlines()]
    assert "guard + canary: 3 trials in 1 run\n" in out
    simulated = sum(one["applied"] for one in json.loads(run(capsys, *QUICK, "--json"))["simulated"])
    assert f"No value left the envelope in {simulated + 9} interventions." in out


def test_a_value_that_left_its_bounds_ends_with_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Strict(EnvelopeOracle):
        def see(self, applied: Applied) -> list[str]:
            return ["step 7, manager: dropout=0.9 is outside"]

    monkeypatch.setattr(simulated_run, "EnvelopeOracle", Strict)
    assert "always_max: step 7, manager: dropout=0.9 is outside" in run(capsys, *QUICK, "--simulate-only", code=1)
    assert json.loads(run(capsys, *QUICK, "--simulate-only", "--json", code=1))["is_kept"] is False


def test_without_torch_the_simulated_runs_remain(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingExtraError("the trainings need torch, which is not installed", next_step="pip install 'trimtab[torch]'")

    monkeypatch.setattr(stress, "_training", missing)
    words = " ".join(run(capsys, *QUICK).split())
    assert "No value left the envelope" in words
    assert "the trainings need torch" in words
    assert "pip install 'trimtab[torch]'" in words


def test_an_envelope_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert "next:" in run(capsys, preset="nothing", code=2)


def test_numbers_out_of_range_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "20" in run(capsys, "--steps", "3", code=2)
