"""`trimtab prompt`: exactly what a language model was asked, or would be asked, without a call."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich.text import Text

from trimtab.cli.example_question import example_question
from trimtab.cli.init import DEFAULT_FILE, DEFAULT_PRESET
from trimtab.cli.run_reading import find_run
from trimtab.cli.terminal import clean, make_console, print_json
from trimtab.controls.envelope import Envelope
from trimtab.controls.envelope_file import load_envelope
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.controls.preset import load_preset
from trimtab.decision.briefing import Briefing
from trimtab.decision.consultation import Consultation
from trimtab.decision.llm.fit import estimate_tokens
from trimtab.decision.llm.prompt import (
    TEMPLATE,
    Prompt,
    count_prompt,
    decision_prompt,
    reasoning_prompt,
    transcription_prompt,
)
from trimtab.errors import UsageError
from trimtab.ledger.course import iter_course
from trimtab.ledger.record import ManagerAsked, ManagerFailed, ProposalReceived, RunStarted

Stage = Literal["decide", "reason", "transcribe"]

_STAGES: Final[dict[str, Stage]] = {"decide": "decide", "reason": "reason", "transcribe": "transcribe"}
_EXAMPLE_PROSE: Final = (
    "The objective rises beyond its noise only at the last evaluation; one value shows nothing.\nDECISION: no_action"
)


@dataclass(frozen=True, slots=True)
class _Question:
    """A question to render.

    Args:
        briefing: What was asked.
        settings: How.
        consultation: What is recorded of the call; None if no language model was asked.
    """

    briefing: Briefing
    settings: ManagerSettings
    consultation: Consultation | None

    @property
    def first_stage(self) -> Stage:
        return "decide" if self.settings.stages == 1 else "reason"


def prompt(
    run: Annotated[Path | None, typer.Argument(help="Run directory, or the name of one under ./runs.")] = None,
    decision: Annotated[int | None, typer.Option(metavar="N", help="Number of the question; by default the last.")] = None,
    stage: Annotated[str | None, typer.Option(help="decide, reason or transcribe; by default the run's first call.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Show an example instead of a run's question.")] = False,
    envelope: Annotated[Path | None, typer.Option(metavar="FILE", help="With --preview: the envelope file.")] = None,
    as_schema: Annotated[bool, typer.Option("--schema", help="Print the reply's JSON schema instead.")] = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="Print the estimated tokens of each section instead.")] = False,
) -> None:
    """Print exactly what a language model was asked, rendered anew from the ledger; nothing is called."""
    if preview == (run is not None):
        raise UsageError("name a run, or ask for an example", allowed="trimtab prompt RUN, or trimtab prompt --preview")
    if stage is not None and stage not in _STAGES:
        raise UsageError("there is no such stage", received=stage, allowed=", ".join(_STAGES))
    question = _example(envelope) if run is None else _recorded(run, decision)
    chosen = question.first_stage if stage is None else _STAGES[stage]
    rendered = _render(question, chosen, is_example=run is None)
    is_same = True if run is None else _compare(question, chosen, rendered)
    if as_schema:
        _print_schema(rendered, chosen)
    elif tokens:
        _print_tokens(rendered, question.settings)
    else:
        for message in rendered.messages:
            print(f"[{message.role}]\n{message.text}\n")
    raise typer.Exit(0 if is_same else 1)


def _example(file: Path | None) -> _Question:
    found, source = _envelope(file)
    _say(f"An example, made up from {source}: no run was read and nothing was called.", "yellow")
    return _Question(example_question(found), found.manager, None)


def _envelope(file: Path | None) -> tuple[Envelope, str]:
    if file is not None or DEFAULT_FILE.is_file():
        chosen = file or DEFAULT_FILE
        return load_envelope(chosen), str(chosen)
    return load_preset(DEFAULT_PRESET).envelope(), f"the preset {DEFAULT_PRESET}"


def _recorded(run: Path, number: int | None) -> _Question:
    """Find a question in a run's ledger."""
    started: RunStarted | None = None
    asked: ManagerAsked | None = None
    consultation: Consultation | None = None
    for entry in iter_course(find_run(run).ledger):
        record = entry.record
        match record:
            case RunStarted():
                started = record
            case ManagerAsked() if number in (None, record.question):
                asked, consultation = record, None
            case ProposalReceived() | ManagerFailed() if asked is not None and record.question == asked.question:
                consultation = record.consultation or consultation
            case _:
                pass
    if started is None or asked is None:
        raise UsageError("the run has no such question", received=number, next_step=f"list them with: trimtab show {run} --all")
    if not asked.sent:
        _say("This question went to the fallback at once: the manager was not asked.", "yellow")
    return _Question(asked.briefing, started.envelope.manager, consultation)


def _render(question: _Question, stage: Stage, *, is_example: bool) -> Prompt:
    briefing, settings = question.briefing, question.settings
    match stage:
        case "decide":
            return decision_prompt(briefing, settings)
        case "reason":
            return reasoning_prompt(briefing, settings)
        case "transcribe":
            return transcription_prompt(briefing, _EXAMPLE_PROSE if is_example else _prose(question), settings)


def _prose(question: _Question) -> str:
    replies = question.consultation.replies if question.consultation is not None else ()
    if question.settings.stages == 1 or not replies:
        raise UsageError(
            "there is no first reply to transcribe",
            received="a question asked in one stage" if question.settings.stages == 1 else "a call without a reply",
            next_step=f"show the first call with --stage {question.first_stage}",
        )
    return replies[0]


def _compare(question: _Question, stage: Stage, rendered: Prompt) -> bool:
    """Say whether this is what was sent; only a text that should be and is not is a difference."""
    recorded = question.consultation
    if recorded is None:
        _say("No call of a language model is recorded for this question: this is what one would be asked.", "yellow")
        return True
    if stage != question.first_stage:
        said = "of the calls after the first no hash is recorded" if stage == "transcribe" else "the run asked in another stage"
        _say(f"Not compared: {said}.", "yellow")
        return True
    if recorded.prompt == rendered.hash:
        _say(f"The same as was sent to {recorded.model}: sha256 {rendered.hash}", "green")
        return True
    why = f"it was made by the templates {recorded.template}, this by {TEMPLATE}" if recorded.template != TEMPLATE else ""
    why = why or "another version of trimtab made it"
    _say(f"Not what was sent to {recorded.model}: {why}; sha256 {rendered.hash}, recorded {recorded.prompt}", "bold red")
    return False


def _say(text: str, style: str) -> None:
    make_console(sys.stderr).print(Text(clean(text), style), soft_wrap=True)


def _print_schema(rendered: Prompt, stage: Stage) -> None:
    if rendered.schema is None:
        raise UsageError("this stage is answered in prose and has no schema", received=stage, allowed="decide, transcribe")
    print_json(rendered.schema)


def _print_tokens(rendered: Prompt, settings: ManagerSettings) -> None:
    rows: list[tuple[str, int]] = []
    for message in rendered.messages:
        for part in re.split(r"^(?=## )", message.text, flags=re.MULTILINE):
            title = part.partition("\n")[0].removeprefix("## ") if part.startswith("## ") else message.role
            if part:
                rows.append((clean(title, 60), estimate_tokens(part)))
    rows.append(("in all", count_prompt(rendered)))
    rows.append(("allowed (manager.briefing_tokens)", settings.briefing_tokens))
    width = max(len(title) for title, _ in rows)
    for title, count in rows:
        print(f"{title.ljust(width)}  {count:>6}")
    if rendered.left_out:
        print(f"shortened: {', '.join(rendered.left_out)}")
