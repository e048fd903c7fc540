"""`trimtab prompt`: what was sent is rendered anew from the ledger, and compared with what is recorded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.report.sample_run import OVERFITTING, Play, write_ledger
from trimtab.cli.app import main
from trimtab.cli.example_question import example_question
from trimtab.controller.event import AnswerFailed, AnswerReceived, StepTaken
from trimtab.controls.envelope import Authority
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.controls.preset import load_preset, preset_names
from trimtab.controls.safeguards import Canary, CanaryMode
from trimtab.decision.consultation import Consultation
from trimtab.decision.llm.prompt import Prompt, decision_prompt, reasoning_prompt, transcription_prompt
from trimtab.decision.proposal import hold
from trimtab.errors import UsageError
from trimtab.ledger.record import ManagerAsked, Record, RunStarted

PROSE = "All is noise.\nDECISION: no_action"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["prompt", *arguments])
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def consulted(prompt: Prompt, *replies: str, template: str = "v1") -> Consultation:
    return Consultation("small-1", template, prompt.hash, prompt.schema_hash, "e" * 64, 1, 900, 50, None, replies)


def a_run(settings: ManagerSettings, template: str = "v1") -> list[Record]:
    """Three questions: one answered, one failed, one that no language model was asked."""
    play = Play(run="first")
    first = reasoning_prompt if settings.stages == 2 else decision_prompt
    play.evaluate(50, 3.2)
    made = consulted(first(asked(play.records).briefing, settings), PROSE, "{}", template=template)
    play.feed(AnswerReceived(51, 1, hold("all is noise"), 0.5, consultation=made))
    play.feed(StepTaken(60))
    play.evaluate(100, 1.9, OVERFITTING)
    failed = replace(consulted(first(asked(play.records).briefing, settings)), prompt="f" * 64)
    play.feed(AnswerFailed(101, 2, "not a proposal", "what", failed))
    play.evaluate(150, 1.9)
    play.answer(150, hold("by hand"))
    return with_settings(play.records, settings)


def with_settings(records: list[Record], settings: ManagerSettings) -> list[Record]:
    [started, *others] = records
    assert isinstance(started, RunStarted)
    return [replace(started, envelope=replace(started.envelope, manager=settings)), *others]


def asked(records: list[Record]) -> ManagerAsked:
    return [record for record in records if isinstance(record, ManagerAsked)][-1]


def briefing_of(records: list[Record], number: int) -> ManagerAsked:
    return next(record for record in records if isinstance(record, ManagerAsked) and record.question == number)


def shown(prompt: Prompt) -> str:
    return "".join(f"[{message.role}]\n{message.text}\n\n" for message in prompt.messages)


def test_a_question_is_shown_as_it_was_sent(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings = ManagerSettings(guidance="be careful")
    records = a_run(settings)
    write_ledger(tmp_path / "runs" / "first", records)
    code, out, err = call(capsys, "first", "--decision", "1")
    prompt = decision_prompt(briefing_of(records, 1).briefing, settings)
    assert (code, out) == (0, shown(prompt))
    assert err == f"The same as was sent to small-1: sha256 {prompt.hash}\n"
    assert "be careful" in out


def test_a_difference_is_told_and_ends_with_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_ledger(tmp_path / "runs" / "first", a_run(ManagerSettings()))
    code, out, err = call(capsys, "first", "--decision", "2")
    assert code == 1
    assert "overfitting" in out
    assert "Not what was sent to small-1: another version of trimtab made it" in err
    assert "f" * 64 in err


def test_the_last_question_is_the_default_and_may_have_had_no_call(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    records = a_run(ManagerSettings())
    write_ledger(tmp_path / "runs" / "first", records)
    code, out, err = call(capsys, "first")
    assert (code, out) == (0, shown(decision_prompt(briefing_of(records, 3).briefing, ManagerSettings())))
    assert "No call of a language model is recorded" in err


def test_a_question_that_went_to_the_fallback_at_once_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    records = a_run(ManagerSettings())
    last = asked(records)
    records[records.index(last)] = replace(last, sent=False)
    write_ledger(tmp_path / "runs" / "first", records)
    assert "the manager was not asked" in call(capsys, "first", "--decision", "3")[2]


def test_two_stages_show_both_calls(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings = ManagerSettings(stages=2)
    records = a_run(settings)
    write_ledger(tmp_path / "runs" / "first", records)
    briefing = briefing_of(records, 1).briefing
    code, out, err = call(capsys, "first", "--decision", "1")
    assert (code, out) == (0, shown(reasoning_prompt(briefing, settings)))
    assert "The same as was sent" in err
    code, out, err = call(capsys, "first", "--decision", "1", "--stage", "transcribe")
    assert (code, out) == (0, shown(transcription_prompt(briefing, PROSE, settings)))
    assert "Not compared: of the calls after the first no hash is recorded" in err
    assert "asked in another stage" in call(capsys, "first", "--decision", "1", "--stage", "decide")[2]
    code, _, err = call(capsys, "first", "--decision", "2", "--stage", "transcribe")
    assert code == 2
    assert "a call without a reply" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name a run, or ask for an example"),
        (["first", "--preview"], "name a run, or ask for an example"),
        (["first", "--decision", "9"], "the run has no such question"),
        (["first", "--stage", "think"], "there is no such stage"),
        (["first", "--stage", "transcribe", "--decision", "1"], "there is no first reply to transcribe"),
        (["first", "--stage", "reason", "--schema"], "has no schema"),
        (["frist"], "did you mean 'first'?"),
        (["--preview", "--envelope", "none.yaml"], "none.yaml"),
    ],
)
def test_what_cannot_be_shown_is_an_error_with_a_hint(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], told: str
) -> None:
    write_ledger(tmp_path / "runs" / "first", a_run(ManagerSettings()))
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert told in err


def test_other_templates_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    records = a_run(ManagerSettings(), template="v0")
    changed = with_settings(records, ManagerSettings(guidance="new"))
    write_ledger(tmp_path / "runs" / "first", changed)
    code, _, err = call(capsys, "first", "--decision", "1")
    assert code == 1
    assert "made by the templates v0, this by v1" in err


def test_the_schema_and_the_tokens_are_printed_instead(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    records = a_run(ManagerSettings())
    write_ledger(tmp_path / "runs" / "first", records)
    prompt = decision_prompt(briefing_of(records, 1).briefing, ManagerSettings())
    assert json.loads(call(capsys, "first", "--decision", "1", "--schema")[1]) == prompt.schema
    lines = call(capsys, "first", "--decision", "1", "--tokens")[1].splitlines()
    counts = {line.rsplit(maxsplit=1)[0]: int(line.rsplit(maxsplit=1)[1]) for line in lines}
    assert list(counts)[:2] == ["system", "Task"]
    assert counts["allowed (manager.briefing_tokens)"] == 6000
    assert counts["in all"] == sum(list(counts.values())[:-2])


def test_a_preview_is_headed_as_an_example(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = call(capsys, "--preview")
    assert code == 0
    assert err == "An example, made up from the preset small_transformer: no run was read and nothing was called.\n"
    assert out.startswith("[system]\n")
    assert "val/loss" in out
    text = load_preset("ppo").text
    (tmp_path / "trimtab.yaml").write_text(text, encoding="utf-8")
    _, out, err = call(capsys, "--preview", "--stage", "transcribe")
    assert "An example, made up from trimtab.yaml" in err
    assert "clip_range" in out
    assert "DECISION: no_action" in out


@pytest.mark.parametrize("mode", ["none", "win"])
@pytest.mark.parametrize("name", preset_names())
def test_every_preset_has_an_example_with_all_that_can_be_shown(name: str, mode: CanaryMode) -> None:
    envelope = replace(load_preset(name).envelope(), canary=Canary(mode))
    briefing = example_question(envelope)
    assert briefing.symptoms
    assert briefing.best is not None
    assert len(briefing.interventions) == 1
    assert briefing.interventions[0].gain is not None
    assert briefing.surface.adjustable
    assert len(briefing.limits) == len(envelope.controls)
    prompt = decision_prompt(briefing, ManagerSettings())
    assert prompt.left_out == ()


def test_an_envelope_that_never_asks_has_no_example() -> None:
    envelope = replace(load_preset("small_transformer").envelope(), authority=Authority(interventions=0))
    with pytest.raises(UsageError, match="never lets a manager act"):
        example_question(envelope)
