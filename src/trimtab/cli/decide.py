"""`trimtab decide`: answer the open question of a run.

Nothing is applied here: the answer is handed in, and judged like any manager's when its step has come.
Exit codes: 0 handed in, and with ``--follow`` carried out as decided; 1 with ``--follow``: it was not; 2 an error.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from trimtab.cli.action_words import exact, read_action
from trimtab.cli.pending import has_ended, is_waiting
from trimtab.cli.run_reading import find_run
from trimtab.cli.terminal import clean, make_console
from trimtab.decision.action import Action, NoAction, Stop, describe
from trimtab.decision.briefing import Briefing
from trimtab.decision.json_text import MAX_REPLY_BYTES
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.decision.wire import encode_proposal, proposal_from
from trimtab.errors import UsageError
from trimtab.ledger.course import iter_course
from trimtab.ledger.record import (
    ActionApplied,
    ActionFailed,
    ActionIntended,
    ManagerFailed,
    ProposalReceived,
    Record,
    RunEnded,
    RunStarted,
    VerdictGiven,
)
from trimtab.runtime.approval import read_decision
from trimtab.runtime.exchange_form import OpenQuestion, hand_in, split_name, waiting_question
from trimtab.runtime.external import read_answer
from trimtab.runtime.run_dir import RunDirectory

_LOOK_EVERY_SECONDS: Final = 0.2
_APPROVALS: Final = ("approve", "reject")


@dataclass(frozen=True, slots=True)
class Said:
    """What was said on the command line besides the action."""

    reason: str
    gain: float | None
    within: int | None
    watch: tuple[str, ...]
    by: str


def decide(
    run: Annotated[Path, typer.Argument(help="Run directory, or the name of one under ./runs.")],
    action: Annotated[
        list[str] | None,
        typer.Argument(
            help="no_action; adjust NAME=VALUE...; rollback CHECKPOINT; rollback_and_adjust CHECKPOINT NAME=VALUE...; "
            "skip_batches N; stop; approve; reject. A value is a number as shown, or x0.5 of the present one.",
        ),
    ] = None,
    question: Annotated[int | None, typer.Option(metavar="N", help="Answer only if this is the open question.")] = None,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    gain: Annotated[
        float | None, typer.Option(help="How much better the objective should get; 0: no worse; -1: no loss of more than 1.")
    ] = None,
    within: Annotated[int | None, typer.Option(help="Evaluations by which that should show, 1 to 3.")] = None,
    watch: Annotated[list[str] | None, typer.Option(help="A signal to watch afterwards; may be repeated.")] = None,
    by: Annotated[str, typer.Option(help="Who decides, for the record.")] = "",
    reply: Annotated[str | None, typer.Option(metavar="FILE|-", help="The answer as JSON, instead of an action.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait until it is judged and carried out.")] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Longest --follow waits.")] = 3600.0,
) -> None:
    """Answer the open question of a run; what is decided is verified again when it is applied."""
    directory = find_run(run)
    open_ = _open_question(directory, question)
    said = Said(reason, gain, within, tuple(watch or ()), by)
    answer = _from_file(reply, action, said, open_) if reply is not None else _from_words(action or [], said, open_)
    hand_in(directory.exchange, open_.number, answer)
    _tell(open_, answer)
    if follow:
        raise typer.Exit(_follow(directory, open_, answer, timeout))
    print(f"What comes of it: trimtab show {clean(str(directory.path))}")


def _open_question(directory: RunDirectory, number: int | None) -> OpenQuestion:
    found = waiting_question(directory.exchange)
    if (found is None or not is_waiting(found)) and has_ended(directory):
        story = f"trimtab show {directory.path}"
        raise UsageError("the run has ended, so nothing can be decided", received=str(directory.path), next_step=story)
    see = f"trimtab pending {directory.path} --wait 60"
    if found is None:
        raise UsageError("no question is open, or it has an answer already", received=str(directory.path), next_step=see)
    if number is not None and found.number != number:
        raise UsageError("this question is not open", received=number, allowed=f"question {found.number}", next_step=see)
    if not is_waiting(found):
        late = f"question {found.number}, {time.time() - found.answer_by_seconds:.0f} s after its deadline"
        raise UsageError("the question's time is over", received=late, next_step=see)
    return found


def _from_words(words: list[str], said: Said, question: OpenQuestion) -> dict[str, Any]:
    if question.proposal is not None:
        if len(words) != 1 or words[0] not in _APPROVALS:
            raise UsageError(
                "the question wants an approval", received=" ".join(words) or "nothing", allowed="approve, or reject"
            )
        _refuse_options(said, "an approval")
        return _named({"approve": words[0] == "approve", "reason": said.reason}, said.by)
    if words and words[0] in _APPROVALS:
        raise UsageError("the question wants a proposal", received=words[0], next_step="trimtab pending RUN says which")
    briefing = question.asked.briefing
    return _named(encode_proposal(_proposal(read_action(words, briefing), said, briefing)), said.by)


def _proposal(action: Action, said: Said, briefing: Briefing) -> Proposal:
    reason = said.reason or "decided on the command line"
    unknown = [name for name in said.watch if briefing.snapshot.get(name) is None]
    if unknown:
        known = ", ".join(summary.name for summary in briefing.snapshot.summaries)
        raise UsageError("there is no such signal to watch", received=unknown[0], allowed=known or "none is measured yet")
    if isinstance(action, (NoAction, Stop)):
        _refuse_options(replace(said, watch=()), action.kind)
        proposal = Proposal(action, reason, None, said.watch)
    else:
        if said.gain is not None and not math.isfinite(said.gain):
            raise UsageError(
                "--gain is not a finite number",
                received=said.gain,
                allowed="0 for no worse, more for better, or less for no loss of more than so much",
            )
        expected = Expectation(0.0 if said.gain is None else said.gain, 2 if said.within is None else said.within)
        proposal = Proposal(action, reason, expected, said.watch)
    return proposal_from(encode_proposal(proposal))


def _refuse_options(said: Said, what: str) -> None:
    given = {"--gain": said.gain, "--within": said.within, "--watch": said.watch or None}
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"{name} has no meaning for {what}", received=f"{name} {value}", next_step="leave it out")


def _from_file(source: str, words: list[str] | None, said: Said, question: OpenQuestion) -> dict[str, Any]:
    _refuse_options(said, "--reply")
    if words or said.reason:
        raise UsageError("an action and --reply are two answers", received=" ".join(words or ["--reason"]))
    data = _read(source)
    if question.proposal is not None:
        decision = read_decision(data)
        return {"approve": decision.approve, "reason": decision.reason, "by": said.by or decision.by}
    proposal, by = read_answer(data)
    proposal = replace(proposal, action=exact(proposal.action, question.asked.briefing.surface))
    return _named(encode_proposal(proposal), said.by or by)


def _read(source: str) -> bytes:
    try:
        if source == "-":
            return sys.stdin.buffer.read(MAX_REPLY_BYTES + 1)
        with Path(source).open("rb") as file:
            return file.read(MAX_REPLY_BYTES + 1)
    except OSError as error:
        raise UsageError("the reply cannot be read", received=f"{source}: {error.strerror}") from error


def _named(answer: dict[str, Any], by: str) -> dict[str, Any]:
    return {**answer, "by": by} if by else answer


def _tell(question: OpenQuestion, answer: dict[str, Any]) -> None:
    if question.proposal is not None:
        action, is_kept_out = question.proposal.action, not answer["approve"]
        what = f"{'reject' if is_kept_out else 'approve'} {describe(action)}"
    else:
        action = _replied(answer).action
        what, is_kept_out = describe(action), isinstance(action, NoAction)
    timing = question.asked.briefing.timing
    then = (
        "leaves the recipe as it is"
        if is_kept_out
        else f"verifies it against the state it has when its time has come: after step {timing.applies_at_step} at the "
        f"earliest, after step {timing.stale_after_step} at the latest"
    )
    console = make_console()
    handed_in = f": {clean(what, 300)}, as the answer to question {question.number}"
    console.print(Text.assemble(("handed in", "bold green"), handed_in))
    console.print(Text(f"The run reads it with one of its next steps, and {then}."))


def _follow(directory: RunDirectory, question: OpenQuestion, answer: dict[str, Any], timeout: float) -> int:
    """Print what the ledger says of the question, as it comes; return the exit code."""
    console = make_console()
    end, size, num_told = time.monotonic() + timeout, -1, 0
    while True:
        now = directory.ledger.stat().st_size
        if now != size:
            size = now
            story = list(_story([entry.record for entry in iter_course(directory.ledger)], question, answer))
            for line, _ in story[num_told:]:
                console.print(Text(line))
            num_told = len(story)
            if story and story[-1][1] is not None:
                return story[-1][1]
        if time.monotonic() > end:
            console.print(Text(f"Nothing more within {timeout:g} s; the run goes on.", "yellow"))
            return 1
        time.sleep(_LOOK_EVERY_SECONDS)


def _story(records: list[Record], question: OpenQuestion, answer: dict[str, Any]) -> Iterator[tuple[str, int | None]]:
    """Yield what became of a question, line by line; the last line of a story that is over has an exit code."""
    is_shadow, intervention = False, None
    wants_rejection = answer.get("approve") is False
    for record in records:
        match record:
            case RunStarted():
                is_shadow = record.envelope.authority.shadow
            case ProposalReceived() if record.question == question.number:
                if not _is_that(record, question, answer):
                    yield f"step {record.step}: another answer counted: {clean(describe(record.proposal.action), 300)}", 1
                    return
                yield f"step {record.step}: the answer was read", None
            case ManagerFailed() if record.question == question.number:
                yield f"step {record.step}: the answer does not count: {clean(f'{record.problem}: {record.detail}', 500)}", 1
                return
            case VerdictGiven() if record.question == question.number:
                if not record.accepted:
                    against = "; ".join(f"{reason.constraint}: {reason.detail}" for reason in record.reasons)
                    yield f"step {record.step}: rejected: {clean(against, 500)}", 0 if wants_rejection else 1
                    return
                is_done = is_shadow or isinstance(record.action, NoAction)
                said = ", but a shadow applies nothing" if is_shadow else ""
                yield f"step {record.step}: accepted{said}", 0 if is_done else None
                if is_done:
                    return
                intervention = 0
            case ActionIntended() if intervention == 0:
                intervention = record.intervention
            case ActionApplied() if intervention and record.intervention == intervention:
                yield f"step {record.step}: applied as intervention {record.intervention}", 0
                return
            case ActionFailed() if intervention and record.intervention == intervention:
                yield f"step {record.step}: it could not be carried out: {clean(record.problem, 500)}", 1
                return
            case RunEnded():
                yield f"step {record.step}: the run ended: {clean(record.reason, 200)}", 1
            case _:
                pass


def _is_that(record: ProposalReceived, question: OpenQuestion, answer: dict[str, Any]) -> bool:
    """Return whether the recorded answer is the one that was handed in."""
    if question.proposal is not None:
        return bool(record.objection) != bool(answer["approve"])
    return record.proposal == _replied(answer)


def _replied(answer: dict[str, Any]) -> Proposal:
    reply, _ = split_name(answer)
    return proposal_from(reply)
