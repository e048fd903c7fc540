"""Build the account of a run from the records of its ledger.

The state is folded as the controller does it, so recipes and measurements are never worked out twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from trimtab.controller.state import State
from trimtab.controller.transitions import fold
from trimtab.controls.recipe import Recipe
from trimtab.decision.action import Action, NoAction, describe
from trimtab.decision.briefing import Intervention
from trimtab.diagnosis.base import Symptom
from trimtab.errors import LedgerError
from trimtab.ledger.record import (
    ActionApplied,
    ActionFailed,
    ActionIntended,
    AnswerDropped,
    EvaluationRecorded,
    HarmFound,
    ManagerAsked,
    ManagerFailed,
    ProblemNoticed,
    ProposalReceived,
    ReadBackRecorded,
    Record,
    RunEnded,
    RunResumed,
    RunStarted,
    SymptomObserved,
    TrialBegan,
    TrialEnded,
    TrialMeasured,
    VerdictGiven,
)
from trimtab.report.account import (
    Changed,
    Decision,
    Judged,
    Outcome,
    Point,
    Problem,
    Proposed,
    RunSummary,
    Status,
    TakenBack,
    Timeline,
    Tried,
    is_raised,
)
from trimtab.report.safeguard_facts import blamed, seen_by_guard, trial_gain, watched_by_guard, why_no_trial, why_not_tried


def build_timeline(records: Iterable[Record]) -> Timeline:
    """Read a ledger's records in order and return the account of the run.

    Args:
        records: From the first on; the end may be missing.

    Raises:
        LedgerError: There is no record; the run was cut off before it began.
        IllegalTransition: The records are out of order; the ledger was not written by a run.
    """
    book = _Book()
    for record in records:
        book.enter(record)
    return book.timeline()


class _Book:
    """The decisions so far, and which of them each coming record belongs to."""

    def __init__(self) -> None:
        self._started: RunStarted | None = None
        self._ended: RunEnded | None = None
        self._state: State | None = None
        self._decisions: list[Decision] = []
        self._by_question: dict[int, int] = {}
        self._by_intervention: dict[int, int] = {}
        self._reflex: int | None = None  # the reflex's act that still looks for an action
        self._judged = 0  # the decision of the newest verdict: an intent belongs to it
        self._tried = 0  # the decision of the newest trial
        self._symptoms: dict[str, Symptom] = {}
        self._evaluations: list[Point] = []
        self._problems: list[Problem] = []
        self._num_rejections = 0
        self._resumed: list[RunResumed] = []
        self._held_since: int | None = None
        self._seen_by_guard: set[int] = set()
        self._not_tried = ""  # why the newest proposal that needed a trial had none

    def enter(self, record: Record) -> None:
        before = self._state
        self._state = state = fold(before, record)
        if before is None:
            assert isinstance(record, RunStarted), "the fold refuses all else"
            self._started = record
            return
        self._held_since = (self._held_since or record.step) if state.is_held else None
        match record:
            case RunResumed():
                self._resumed.append(record)
            case RunEnded():
                self._ended = record
                self._close()
            case EvaluationRecorded():
                self._evaluations.append(Point(record.step, record.objective))
                self._seen_by_guard |= seen_by_guard(before, record.step)
            case SymptomObserved():
                self._symptoms[record.symptom.name] = record.symptom
            case ProblemNoticed():
                self._problems.append(Problem(record.step, record.problem, record.detail))
            case ManagerAsked() | ProposalReceived() | ManagerFailed() | AnswerDropped():
                self._enter_answer(record)
            case VerdictGiven():
                if record.source == "manager":
                    self._not_tried = why_not_tried(before, record) or self._not_tried
                self._enter_verdict(record)
            case TrialBegan() | TrialMeasured() | TrialEnded():
                self._enter_trial(record, before, state)
            case HarmFound():
                for number in blamed(state, record.intervention):
                    self._update(self._by_intervention[number], harm=record)
            case _:
                self._enter_action(record, before)
        if before.harm is not None and (state.harm is None or isinstance(record, RunEnded)):
            self._leave_harm(before.harm, record)

    def _enter_trial(self, record: TrialBegan | TrialMeasured | TrialEnded, before: State, state: State) -> None:
        if isinstance(record, TrialBegan):
            self._tried = self._by_question.get(record.question, self._judged)
            self._update(self._tried, tried=Tried(record.trial, record.step))
            return
        tried, ending, trial = self._decisions[self._tried].tried, self._decisions[self._tried].ending, state.trial
        assert tried is not None, "the fold refuses a record of a trial that did not begin"
        if trial is not None:
            self._update(self._tried, tried=replace(tried, looks=trial.looks, measured=trial.objectives))
        elif isinstance(record, TrialEnded):
            outcome, gain = record.outcome, trial_gain(before)
            tried = replace(tried, ended=record.step, outcome=outcome, reason=record.reason, spent=record.spent, gain=gain)
            self._update(self._tried, tried=tried, ending=ending if outcome == "won" or ending == "failed" else "not_better")

    def _leave_harm(self, harm: HarmFound, record: Record) -> None:
        """Note why harm that the guard is not about to take back any more stays, unless it was taken back."""
        match record:
            case VerdictGiven():
                why = "there is no way back that the envelope allows"
            case RunEnded():
                why = "the run ended before the guard could act"
            case _:
                why = "the run was changed before the guard could act"
        for place, decision in enumerate(self._decisions):
            if decision.harm is harm and decision.taken_back is None:
                self._update(place, harm_stays=why)

    def _enter_taking_back(self, before: State, place: int, record: ActionApplied | ActionFailed) -> None:
        """Note at the guard's act and at what it took back what belongs together."""
        intended = before.pending
        if intended is None or not intended.takes_back:
            return
        numbers = blamed(before, intended.takes_back)
        self._update(place, takes_back=numbers)
        if isinstance(record, ActionApplied):
            back = TakenBack(record.step, intended.intervention, describe(intended.action), intended.reason)
            for number in numbers:
                self._update(self._by_intervention[number], taken_back=back)

    def _enter_answer(self, record: ManagerAsked | ProposalReceived | ManagerFailed | AnswerDropped) -> None:
        if isinstance(record, ManagerAsked):
            self._by_question[record.question] = len(self._decisions)
            self._begin(Decision(0, "manager", record.question, record.step, record.briefing.symptoms))
            return
        place = self._by_question.get(record.question)
        if place is None:  # an answer to a question that was never asked
            self._problems.append(Problem(record.step, f"an answer to question {record.question}", "it was never asked"))
            return
        match record:
            case ProposalReceived():
                self._update(place, proposal=_proposed(record), consultation=record.consultation)
            case ManagerFailed():
                decision = self._decisions[place]
                ending = "dropped" if decision.proposal else "manager_failed"
                consultation = record.consultation or decision.consultation
                self._update(place, ending=ending, detail=_joined(record.problem, record.detail), consultation=consultation)
            case AnswerDropped():
                # A late answer to a question that was closed already does not change how that one ended.
                ending = self._decisions[place].ending
                self._update(place, ending="dropped" if ending == "open" else ending)
                self._update(place, detail=_joined(self._decisions[place].detail, f"answer dropped: {record.detail}", "; "))

    def _enter_verdict(self, record: VerdictGiven) -> None:
        judged = Judged(record.step, describe(record.action), record.accepted, record.reasons)
        self._num_rejections += not record.accepted
        place = self._by_question.get(record.question)
        if record.source != "manager" or place is None:
            place = self._act(record)
        verdicts = (*self._decisions[place].verdicts, judged)
        self._judged = place
        if not record.accepted:
            self._update(place, verdicts=verdicts, ending="rejected", detail="; ".join(r.detail for r in record.reasons))
        elif isinstance(record.action, NoAction):
            self._update(place, verdicts=verdicts, ending="no_action", detail=self._reason(place))
        elif record.source in ("manager", "schedule") and self._is_shadow:
            self._update(place, verdicts=verdicts, ending="shadow", detail="")
        else:
            self._update(place, verdicts=verdicts, ending="open", detail="")

    def _act(self, record: VerdictGiven) -> int:
        """Return what a verdict on no manager belongs to: an act whose last choice was rejected, or a new one."""
        calls_back = record.source in ("reflex", "guard")
        place = self._reflex if calls_back else None
        if place is None or self._decisions[place].step != record.step:
            place = len(self._decisions)
            found = tuple(s for s in self._symptoms.values() if s.step == record.step and s.severity == "critical")
            self._begin(Decision(0, record.source, None, record.step, found if calls_back else ()))
        self._update(place, proposal=_unexplained(record.action))
        if calls_back:
            self._reflex = None if record.accepted else place
        return place

    def _enter_action(self, record: Record, before: State) -> None:
        if isinstance(record, ActionIntended):
            place = self._tried if record.trial else self._judged
            self._by_intervention[record.intervention] = place
            self._intend(place, record)
        elif isinstance(record, (ActionApplied, ActionFailed, ReadBackRecorded)):
            place = self._by_intervention.get(record.intervention)
            if place is None:
                return
            if not isinstance(record, ReadBackRecorded):
                self._enter_taking_back(before, place, record)
            match record:
                case ActionApplied():
                    changes = _changes(before.recipe, record.recipe)
                    self._update(place, applied_step=record.step, changes=changes, ending="applied")
                case ActionFailed():
                    restored = f"the state of {record.restored} was restored" if record.restored else ""
                    changes = _changes(before.recipe, record.recipe)
                    self._update(place, changes=changes, ending="failed", detail=_joined(record.problem, restored, "; "))
                case ReadBackRecorded():
                    self._update(place, read_back=record.results)

    def _intend(self, place: int, record: ActionIntended) -> None:
        decision = self._decisions[place]
        self._update(place, intervention=record.intervention)
        if decision.source != "manager":
            proposed = Proposed(record.action.kind, describe(record.action), record.reason, None, None)
            known = tuple(self._symptoms[name] for name in record.symptoms if name in self._symptoms)
            self._update(place, proposal=proposed, symptoms=known)

    def _close(self) -> None:
        """Say of the questions that were still open when the run ended that nothing came of them."""
        for place in self._by_question.values():
            decision = self._decisions[place]
            if decision.ending == "open" and not decision.verdicts:
                why = (
                    "the run ended before its answer was judged" if decision.proposal else "the run ended before an answer came"
                )
                self._update(place, ending="unanswered", detail=_joined(decision.detail, why, "; "))

    @property
    def _is_shadow(self) -> bool:
        return self._started is not None and self._started.envelope.authority.shadow

    def _reason(self, place: int) -> str:
        proposal = self._decisions[place].proposal
        return proposal.reason if proposal else ""

    def _begin(self, decision: Decision) -> None:
        self._decisions.append(replace(decision, number=len(self._decisions) + 1))

    def _update(self, place: int, **values: object) -> None:
        self._decisions[place] = replace(self._decisions[place], **values)

    def timeline(self) -> Timeline:
        started, state = self._started, self._state
        if started is None or state is None:
            raise LedgerError("the ledger is empty", allowed="records from run_started on", next_step="look at another run")
        applied = [decision for decision in self._decisions if decision.applied_step is not None]
        finite = [point for point in self._evaluations if math.isfinite(point.value)]
        numbers = {decision.intervention for decision in applied}
        done = [intervention for intervention in state.interventions if intervention.number in numbers]
        watched, unwatched = watched_by_guard(done, self._seen_by_guard)
        sign = 1 if started.envelope.objective.direction == "minimize" else -1
        summary = RunSummary(
            run=next((record.run for record in reversed(self._resumed) if record.run), started.run),
            manager=started.manager,
            status=_status(state, self._ended),
            ended_because=_ended_because(state, self._ended),
            steps=state.step,
            total_steps=started.total_steps,
            objective=str(started.envelope.objective),
            first=self._evaluations[0] if self._evaluations else None,
            best=min(finite, key=lambda point: sign * point.value, default=None),
            last=self._evaluations[-1] if self._evaluations else None,
            num_evaluations=len(self._evaluations),
            num_questions=len(self._by_question),
            interventions=len(applied),
            reflex_interventions=sum(decision.source == "reflex" for decision in applied),
            guard_interventions=sum(decision.source == "guard" for decision in applied),
            rejections=self._num_rejections,
            is_shadow=self._is_shadow,
            shadow_interventions=sum(decision.ending == "shadow" for decision in self._decisions),
            recipe_start=dict(state.initial.values),
            recipe_now=dict(state.recipe.values),
            problems=tuple(self._problems),
            notes=started.notes,
            versions=dict(started.versions),
            resumed_after=tuple(record.step for record in self._resumed if record.origin is None),
            trials=state.num_trials,
            trials_won=sum(one.tried is not None and one.tried.outcome == "won" for one in self._decisions),
            trial_steps=state.trial_steps,
            untried=why_no_trial(state, self._not_tried),
            canary=started.envelope.canary.mode,
            is_guarded=started.envelope.guard.armed,
            watched=watched,
            unwatched=unwatched,
            taken_back=sum(one.taken_back for one in state.interventions),
            harm_stays=tuple(dict.fromkeys(one.harm_stays for one in self._decisions if one.harm_stays)),
            held_since=self._held_since,
            origin=next((record.origin for record in reversed(self._resumed) if record.origin is not None), None),
        )
        for intervention in state.interventions:
            place = self._by_intervention[intervention.number]
            if self._decisions[place].ending == "applied":
                self._update(place, outcome=_outcome(intervention))
        return Timeline(summary, tuple(self._decisions), tuple(self._evaluations))


def _status(state: State, ended: RunEnded | None) -> Status:
    if ended is None:
        return "not ended"
    return "cut off" if is_raised(ended.reason) else "stopped" if state.stop_reason else "ended"


def _ended_because(state: State, ended: RunEnded | None) -> str | None:
    if ended is not None and (is_raised(ended.reason) or not state.stop_reason):
        return ended.reason
    return state.stop_reason


def _outcome(intervention: Intervention) -> Outcome | None:
    """Return what is known of an intervention's success; None as long as nothing is, and if it was taken back before."""
    if intervention.objective_after is None and (intervention.met is None or intervention.taken_back):
        return None
    return Outcome(
        objective_before=intervention.objective_before,
        objective_after=intervention.objective_after,
        gain=intervention.gain,
        expected_gain=intervention.expectation.gain if intervention.expectation else None,
        num_evaluations=intervention.evaluations_measured,
        is_complete=intervention.is_complete,
        met=intervention.met,
    )


def _proposed(record: ProposalReceived) -> Proposed:
    proposal = record.proposal
    return Proposed(
        kind=proposal.action.kind,
        action=describe(proposal.action),
        reason=proposal.reason,
        expectation=proposal.expectation,
        latency_seconds=record.latency_seconds,
        by=record.by,
        failure=record.failure,
        objection=record.objection,
        approved_by=record.approved_by,
    )


def _changes(before: Recipe, after: Recipe) -> tuple[Changed, ...]:
    known = dict(before.values)
    return tuple(Changed(name, known.get(name, math.nan), value) for name, value in after.difference(before))


def _unexplained(action: Action) -> Proposed:
    """Return a choice of the reflex; its reason is recorded once it is carried out."""
    return Proposed(action.kind, describe(action), "", None, None)


def _joined(first: str, second: str, by: str = ": ") -> str:
    return by.join(part for part in (first, second) if part)
