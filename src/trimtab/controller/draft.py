"""A draft collects the effects of one event and folds each record as it is appended.

It is the one mutable value of the controller, and never leaves `step`.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.controller.effect import Append, Effect, Enact
from trimtab.controller.state import State
from trimtab.controller.transitions import fold
from trimtab.decision.action import Action, NoAction
from trimtab.decision.proposal import Expectation
from trimtab.ledger.record import ActionIntended, Record, VerdictGiven
from trimtab.verification.case import Case
from trimtab.verification.verdict import Accepted, Rejected, Rejection, Source, VerifiedAction
from trimtab.verification.verifier import verify


class Draft:
    """The state after the records so far, and the effects so far."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.effects: list[Effect] = []

    def append(self, record: Record) -> None:
        """Append a record and fold it."""
        self.state = fold(self.state, record)
        self.effects.append(Append(record))

    def verified(self, step: int, action: Action) -> VerifiedAction | None:
        """Return a manager's action that was accepted before, if it still can be; records nothing."""
        standing = self.state.standing(step)
        verdict = verify(Case(action, "manager", self.state.envelope, standing, step, standing.version))
        return verdict.verified if isinstance(verdict, Accepted) else None

    def judge(
        self,
        step: int,
        action: Action,
        source: Source,
        objection: Rejection | None = None,
    ) -> VerifiedAction | None:
        """Verify an action against the present state and record the verdict; None if rejected."""
        question = self.state.question if source == "manager" else None
        verdict = verify(
            Case(
                action=action,
                source=source,
                envelope=self.state.envelope,
                standing=self.state.standing(step),
                asked_step=question.asked_step if question else step,
                asked_version=question.version if question else self.state.version,
                lineage_step=self.state.lineage_step(step) if source == "schedule" else None,
            )
        )
        if objection is not None:
            others = verdict.reasons if isinstance(verdict, Rejected) else ()
            verdict = Rejected((objection, *others))
        accepted = isinstance(verdict, Accepted)
        reasons = () if isinstance(verdict, Accepted) else verdict.reasons
        self.append(VerdictGiven(step, question.number if question else 0, source, action, accepted, reasons))
        return verdict.verified if isinstance(verdict, Accepted) else None

    def intend(
        self,
        step: int,
        verified: VerifiedAction,
        symptoms: Sequence[str],
        reason: str,
        expectation: Expectation | None = None,
        then_skip_batches: int = 0,
        takes_back: int = 0,
        fork: str = "",
    ) -> None:
        """Record the intent and order the enactment; no_action needs neither."""
        if isinstance(verified.action, NoAction):
            return
        self.append(
            ActionIntended(
                step=step,
                intervention=self.state.num_interventions + 1,
                source=verified.source,
                action=verified.action,
                recipe=verified.recipe,
                symptoms=tuple(symptoms),
                reason=reason,
                expectation=expectation,
                then_skip_batches=then_skip_batches,
                takes_back=takes_back,
                trial=self.state.trial.number if fork and self.state.trial is not None else 0,
            )
        )
        self.effects.append(Enact(verified, fork))
