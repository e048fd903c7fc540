"""Answers that were recorded once are given again, at the steps at which they came, and nobody is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from trimtab.decision.briefing import Briefing
from trimtab.decision.proposal import Proposal, hold
from trimtab.ledger.record import SUPERSEDED, ManagerAsked, ManagerFailed, ProposalReceived, Record
from trimtab.runtime.answer import Answer, Failure, ManagerClient, Recalling, Withdrawing

NEVER: Final = 1 << 62


class Listener:
    """Is told of questions that the record answers; does nothing by itself."""

    def asked(self, asked_step: int) -> None:
        """Called when the question is asked."""

    def given(self, asked_step: int) -> None:
        """Called when its answer is given."""


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """What a question came to.

    Args:
        step: Step at which it came; `NEVER` if the run ended, or the reflex acted, before.
        outcome: What came.
    """

    step: int
    outcome: Answer | Failure

    def instead(self, proposal: Proposal) -> RecordedAnswer:
        """Return the same with another proposal, of nobody's."""
        return RecordedAnswer(self.step, Answer(self.outcome.question, proposal, 0.0))


def recorded_answers(
    records: Iterable[Record], asked: Mapping[int, int] | None = None, *, is_whole: bool = False
) -> dict[int, RecordedAnswer]:
    """Return what came of each question, by the step after which it was asked.

    Args:
        records: A course, or the end of one.
        asked: Steps of questions that were asked before, by number.
        is_whole: Whether a question of which nothing came stays without an answer; else it is left out, to be asked again.
    """
    steps = dict(asked or {})
    answers: dict[int, RecordedAnswer] = {}
    for record in records:
        if isinstance(record, ManagerAsked):
            steps[record.question] = record.step
        elif isinstance(record, (ProposalReceived, ManagerFailed)) and record.question in steps:
            # The reflex ended a question that was superseded, and will again.
            is_superseded = isinstance(record, ManagerFailed) and record.problem == SUPERSEDED
            came = RecordedAnswer(NEVER if is_superseded else record.step, _outcome(record))
            answers.setdefault(steps[record.question], came)
    if is_whole:
        for question, step in steps.items():
            answers.setdefault(step, RecordedAnswer(NEVER, Failure(question, "open", "nothing came of it")))
    return answers


def _outcome(record: ProposalReceived | ManagerFailed) -> Answer | Failure:
    if isinstance(record, ManagerFailed):
        return Failure(record.question, record.problem, record.detail, record.consultation)
    if record.by == "rules":  # the fallback answers again by itself
        problem, _, detail = record.failure.partition(": ")
        return Failure(record.question, problem, detail, record.consultation)
    return Answer(
        record.question,
        record.proposal,
        record.latency_seconds,
        record.objection,
        record.approved_by,
        record.consultation,
    )


class RecordedClient:
    """Answers from the record where it has an answer; else asks the manager, or nobody.

    Args:
        answers: By the step after which was asked.
        live: Who is asked what the record does not answer; None for nobody, which means no_action.
        listener: Is told of every question that the record answers.
        asked: Questions that were answered before, oldest first.
    """

    def __init__(
        self,
        answers: Mapping[int, RecordedAnswer],
        live: ManagerClient | None,
        listener: Listener | None = None,
        asked: Iterable[Briefing] = (),
    ) -> None:
        self._answers = answers
        self._live = live
        self._recalling = live if isinstance(live, Recalling) else None
        for briefing in asked:
            self._recall(briefing)
        self._listener = Listener() if listener is None else listener
        self._open: tuple[int, RecordedAnswer] | None = None
        self._step = 0

    def ask(self, step: int, briefing: Briefing) -> None:
        """Look the question up, or send it on."""
        asked_step = briefing.timing.asked_step
        found = self._answers.get(asked_step)
        self._open, self._step = None, step
        if found is not None:
            outcome = replace(found.outcome, question=briefing.question)
            self._open = (asked_step, RecordedAnswer(found.step, outcome))
            self._recall(briefing)
            self._listener.asked(asked_step)
        elif self._live is not None:
            self._live.ask(asked_step, briefing)
        else:
            nothing = Answer(briefing.question, hold("the record has no question after this step"), 0.0)
            self._open = (asked_step, RecordedAnswer(step, nothing))

    def poll(self) -> Answer | Failure | None:
        """Return the recorded outcome at its step: each step looks once."""
        if self._open is None:
            return None if self._live is None else self._live.poll()
        self._step += 1
        return self._given()

    def wait(self, seconds: float) -> Answer | Failure | None:
        """Return the recorded outcome if it came at the boundary; for others, wait for the manager."""
        if self._open is None:
            return None if self._live is None else self._live.wait(seconds)
        return self._given()

    def give_up(self, detail: str) -> Answer | Failure:
        """Return what the open question comes to now."""
        if self._open is not None:
            asked_step, answer = self._open
            self._open = None
            return Failure(answer.outcome.question, "late", f"{detail} (recorded after step {asked_step})")
        assert self._live is not None
        return self._live.give_up(detail)

    def withdraw(self, question: int) -> None:
        """Tell the manager that a question is closed."""
        if self._open is not None and self._open[1].outcome.question == question:
            self._open = None
        elif isinstance(self._live, Withdrawing):
            self._live.withdraw(question)

    def close(self) -> None:
        """End the manager."""
        if self._live is not None:
            self._live.close()

    def _recall(self, briefing: Briefing) -> None:
        if self._recalling is not None:
            self._recalling.recall(briefing.timing.asked_step, briefing)

    def _given(self) -> Answer | Failure | None:
        assert self._open is not None
        asked_step, answer = self._open
        if self._step < answer.step:
            return None
        self._open = None
        self._listener.given(asked_step)
        return answer.outcome
