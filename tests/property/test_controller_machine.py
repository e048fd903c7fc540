"""Random events of a fake runtime, legal and illegal, against an oracle that keeps books of its own."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.builders import RECIPE, a_symptom
from tests.fake_run import Run
from trimtab.controller.event import (
    AnswerFailed,
    AnswerReceived,
    CheckpointWritten,
    EnactmentDone,
    EnactmentFailed,
    EvaluationReported,
    ProblemFound,
    ReadBackTaken,
    RunBegan,
    RunClosed,
    StepTaken,
    SymptomRaised,
)
from trimtab.controller.state import Phase
from trimtab.controller.step import KEPT_CHECKPOINTS
from trimtab.controller.transitions import fold
from trimtab.controls.catalogue import dropout, learning_rate, weight_decay
from trimtab.controls.envelope import Authority, Deliberation, Envelope, Objective
from trimtab.controls.safeguards import Reflex
from trimtab.controls.standing import Checkpoint
from trimtab.decision.action import (
    Action,
    Adjust,
    Change,
    NoAction,
    Rollback,
    RollbackAndAdjust,
    SkipBatches,
    Stop,
    changes_of,
    checkpoint_of,
)
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.errors import IllegalTransition
from trimtab.ledger.record import ManagerAsked, Record, RunStarted, VerdictGiven
from trimtab.telemetry.snapshot import Snapshot
from trimtab.verification.verdict import VerifiedAction

DWELL_STEPS = 15
# Each limit is the only one in the way of some move, so that the loss of any of them shows.
ENVELOPE = Envelope(
    Objective("val/loss", "minimize"),
    (
        learning_rate(1e-5, 1e-1, largest_change=2.0, cumulative_drift=100.0, dwell_steps=DWELL_STEPS),
        weight_decay(0.0, 0.3, largest_change=5.0, cumulative_drift=5.0, dwell_steps=DWELL_STEPS),
        dropout(0.0, 0.5, largest_change=0.5, cumulative_drift=0.25, dwell_steps=DWELL_STEPS),
    ),
    Authority(interventions=4, rollbacks=2, reflex_rollbacks=3),
    Deliberation(apply_after_steps=3, stale_after_steps=20),
    Reflex(attempts=3, same_fault_within_steps=30, skip_batches=5),
)

values = st.one_of(st.sampled_from((1e-3, 5e-4, 2e-3, 0.0, 0.1, 0.2, 0.3, 1.0, -1.0, math.nan, math.inf, -0.0)), st.floats())
changes = st.lists(st.builds(Change, st.sampled_from(("learning_rate", "dropout", "weight_decay", "x")), values), max_size=4)
checkpoint_ids = st.integers(0, 60).map(lambda at: f"step-{at:08d}")
strays: st.SearchStrategy[Action] = st.one_of(
    changes.map(tuple).map(Adjust),
    checkpoint_ids.map(Rollback),
    st.builds(RollbackAndAdjust, checkpoint_ids, changes.map(tuple)),
    st.integers(-1, 7).map(SkipBatches),
    st.just(Stop()),
    st.just(NoAction()),
)
objectives = st.one_of(st.floats(0.5, 4.0), st.sampled_from((math.nan, math.inf, -math.inf)))


class Controller(RuleBasedStateMachine):
    """A runtime that is late, repeats itself, fails, and lies about which question it answers."""

    @initialize(can_skip=st.booleans())
    def attach(self, can_skip: bool) -> None:
        self.run = Run(ENVELOPE, can_skip=can_skip)
        self.at = 0
        self.version = 0
        self.seen_records = 0
        self.seen_orders = 0
        self.seen_deleted = 0
        self.unusable: set[str] = set()
        self.spent = {"manager": 0, "manager rollback": 0, "reflex rollback": 0}
        self.changed_at: dict[str, int] = {}
        self.asked: ManagerAsked | None = None
        self.before: tuple[Checkpoint, ...] = ()
        self.evaluate(2.0, saved=True, critical=False)
        self.keep_the_books()

    def give(self, event: Any) -> None:
        """Give an event that may be illegal: then it must change nothing."""
        self.before, recipe = self.run.now.checkpoints, self.run.now.recipe
        state = self.run.now
        try:
            self.run.give(event)
        except IllegalTransition as error:
            assert self.run.state is state
            assert str(error)
            legal = (
                StepTaken,
                EvaluationReported,
                CheckpointWritten,
                AnswerReceived,
                AnswerFailed,
                ProblemFound,
                SymptomRaised,
            )
            assert state.phase is Phase.ENDED or not isinstance(event, legal)
            return
        outcome = isinstance(event, (EnactmentDone, EnactmentFailed))
        assert outcome or self.run.now.recipe == recipe
        self.check_orders()
        self.check_deleted()

    @rule(steps=st.integers(1, 12))
    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.at += 1
            self.give(StepTaken(self.at))
            if self.run.now.phase is Phase.ENACTING:
                break

    @rule()
    def save(self) -> None:
        self.give(CheckpointWritten(self.at, f"step-{self.at:08d}"))
        # The newest few, the best, and the guard's way back; an open question keeps all that it offers.
        if self.run.now.question is None and self.run.now.phase is not Phase.ENDED:
            assert len(self.run.ids) <= KEPT_CHECKPOINTS + 2

    @rule(objective=objectives, saved=st.booleans(), critical=st.sampled_from((False, False, False, True)))
    def evaluate(self, objective: float, saved: bool, critical: bool) -> None:
        id = f"step-{self.at:08d}"
        if saved:
            self.give(CheckpointWritten(self.at, id))
        severity = "critical" if critical else "warning"
        symptoms = (a_symptom("plateau", severity, self.at),)
        metrics = (("val/loss", objective),)
        self.give(EvaluationReported(self.at, objective, metrics, id if saved else None, Snapshot(self.at, ()), symptoms))

    @rule(data=st.data(), offered=st.booleans(), off_by=st.sampled_from((0, 0, 0, 0, -1, 1)))
    def answer(self, data: st.DataObject, offered: bool, off_by: int) -> None:
        actions = self.offered() if offered else []
        action = data.draw(st.sampled_from(actions)) if actions else data.draw(strays)
        expectation = data.draw(st.sampled_from((None, Expectation(0.0, 1), Expectation(0.1, 3))))
        proposal = Proposal(action, "because", Expectation(0.0, 1) if offered else expectation)
        self.give(AnswerReceived(self.at, self.run.now.num_questions + off_by, proposal, 0.1))

    @precondition(lambda self: self.run.now.phase is Phase.WATCHING)
    @rule(data=st.data(), questions=st.integers(1, 5))
    def deliberate(self, data: st.DataObject, questions: int) -> None:
        """Whole questions and answers, undisturbed: chance alone seldom gets there."""
        for _ in range(questions):
            self.at += data.draw(st.sampled_from((1, DWELL_STEPS)))
            self.evaluate(data.draw(st.sampled_from((1.0, 2.0, 3.0))), saved=True, critical=False)
            self.keep_the_books()
            if self.run.now.phase is not Phase.ASKED:
                return
            self.train(data.draw(st.sampled_from((1, 2, 2, 20))))
            action = data.draw(st.sampled_from(self.tempting()))
            proposal = Proposal(action, "because", Expectation(0.0, 1))
            self.give(AnswerReceived(self.at, self.run.now.num_questions, proposal, 0.1))
            self.train(1)
            if self.run.now.pending is not None:
                self.carry_out()
            self.the_recipe_is_in_the_envelope()
            self.no_budget_is_exceeded()

    def tempting(self) -> list[Action]:
        """What one might well propose: one move of a control, or a rollback, whatever the envelope says to it."""
        recipe = self.run.now.recipe
        actions: list[Action] = [Rollback(id) for id in self.run.ids]
        for control in ENVELOPE.controls:
            targets = control.moves.targets(recipe[control.name])
            actions.extend(Adjust((Change(control.name, value),)) for value in targets)
        return actions

    def offered(self) -> list[Action]:
        if self.asked is None:
            return []
        surface = self.asked.briefing.surface
        found: list[Action] = [Adjust((Change(o.control, value),)) for o in surface.adjustable for value in o.values]
        found += [Rollback(option.checkpoint) for option in surface.rollbacks]
        found += [
            RollbackAndAdjust(option.checkpoint, (Change(o.control, o.values[0]),))
            for option in surface.rollbacks
            for o in option.adjustable
        ]
        return found

    @rule(off_by=st.sampled_from((0, 1, 1, -1)))
    def fail_to_answer(self, off_by: int) -> None:
        self.give(AnswerFailed(self.at, self.run.now.num_questions + off_by, "error", "x"))

    @rule(name=st.sampled_from(("non_finite", "divergence", "loss_spike", "loss_spike", "loss_spike")))
    def fault(self, name: Any) -> None:
        severity = "notice" if name == "loss_spike" else "critical"
        self.at += 1
        self.give(SymptomRaised(self.at, a_symptom(name, severity, self.at, "loss")))
        self.give(StepTaken(self.at))

    @precondition(lambda self: self.run.now.phase is Phase.ENACTING)
    @rule()
    def carry_out(self) -> None:
        order = self.run.orders[-1]
        self.record_outcome(order)
        before = self.run.now.recipe
        self.give(EnactmentDone(self.at, order.recipe))
        assert self.run.now.recipe == order.recipe
        self.changed_at |= {name: self.at for name, _ in order.recipe.difference(before)}

    @precondition(lambda self: self.run.now.phase is Phase.ENACTING)
    @rule(damaged=st.booleans())
    def fail_to_carry_out(self, damaged: bool) -> None:
        order = self.run.orders[-1]
        self.record_outcome(order)
        id = checkpoint_of(order.action) if damaged else None
        if id is not None:
            self.unusable.add(id)
        self.give(EnactmentFailed(self.at, self.run.now.recipe, "refused", None, id))
        assert id is None or id not in self.run.ids

    @precondition(lambda self: self.run.now.phase is not Phase.ENACTING)
    @rule(done=st.booleans())
    def report_an_outcome_that_was_not_ordered(self, done: bool) -> None:
        event = EnactmentDone(self.at, RECIPE) if done else EnactmentFailed(self.at, RECIPE, "x")
        with pytest.raises(IllegalTransition):
            self.run.give(event)

    @rule()
    def notice(self) -> None:
        self.give(ProblemFound(self.at, "disk", "full"))
        self.give(ReadBackTaken(self.at, self.run.now.num_interventions, ()))

    @rule()
    def begin_again(self) -> None:
        started = next(record for record in self.run.records if isinstance(record, RunStarted))
        with pytest.raises(IllegalTransition):
            self.run.give(RunBegan(started))

    @precondition(lambda self: self.at > 150)
    @rule()
    def close(self) -> None:
        self.give(RunClosed(self.at, "finished"))
        assert self.run.now.phase is Phase.ENDED

    def record_outcome(self, order: VerifiedAction) -> None:
        rolls_back = checkpoint_of(order.action) is not None
        if order.source == "manager":
            self.spent["manager"] += 1
            self.spent["manager rollback"] += rolls_back
        elif order.source == "reflex":
            self.spent["reflex rollback"] += rolls_back

    def check_orders(self) -> None:
        """Each order, judged from the books: in time, after the dwell, within the largest change."""
        fresh = self.run.orders[self.seen_orders :]
        self.seen_orders = len(self.run.orders)
        assert len(fresh) <= 1
        for order in fresh:
            base = self.run.now.recipe
            if (id := checkpoint_of(order.action)) is not None:
                base = next(checkpoint.recipe for checkpoint in self.before if checkpoint.id == id)
            for change in changes_of(order.action):
                self.check_change(order, change, base[change.control])
            if order.source == "manager":
                assert self.asked is not None
                assert 3 <= self.at - self.asked.step <= 20
                assert self.asked.briefing.version == self.run.now.version

    def check_change(self, order: VerifiedAction, change: Change, before: float) -> None:
        control = ENVELOPE.control(change.control)
        is_ratio = control.scale == "ratio"
        apart = max(change.value / before, before / change.value) if is_ratio else abs(change.value - before)
        assert apart <= control.largest_change * (1 + 1e-8)
        if order.source == "manager":
            assert self.at - self.changed_at.get(change.control, -DWELL_STEPS) >= DWELL_STEPS
            assert change.value != before

    def check_deleted(self) -> None:
        fresh = self.run.deleted[self.seen_deleted :]
        self.seen_deleted = len(self.run.deleted)
        known = [c for c in self.run.now.checkpoints if c.objective is not None and math.isfinite(c.objective)]
        best = min((c.objective for c in known if c.objective is not None), default=math.inf)
        for id in fresh:
            assert id not in self.run.ids
            given_up = next((c.objective for c in self.before if c.id == id), None)
            is_score = given_up is not None and math.isfinite(given_up)
            assert id in self.unusable or not is_score or best <= (given_up or 0.0)

    @invariant()
    def keep_the_books(self) -> None:
        for record in self.run.records[self.seen_records :]:
            self.keep(record)
        self.seen_records = len(self.run.records)

    def keep(self, record: Record) -> None:
        if isinstance(record, ManagerAsked):
            self.asked = record
        if isinstance(record, VerdictGiven) and record.accepted:
            assert record.reasons == ()

    @invariant()
    def the_recipe_is_in_the_envelope(self) -> None:
        for control in ENVELOPE.controls:
            value, start = self.run.now.recipe[control.name], RECIPE[control.name]
            assert control.bounds.low <= value <= control.bounds.high
            apart = max(value / start, start / value) if control.scale == "ratio" else abs(value - start)
            assert apart <= control.cumulative_drift * (1 + 1e-8)

    @invariant()
    def no_budget_is_exceeded(self) -> None:
        state, authority = self.run.now, ENVELOPE.authority
        assert self.spent["manager"] == state.interventions_used <= authority.interventions
        assert self.spent["manager rollback"] == state.rollbacks_used <= authority.rollbacks
        assert self.spent["reflex rollback"] == state.reflex_rollbacks_used <= authority.reflex_rollbacks

    @invariant()
    def the_guard_has_the_last_word(self) -> None:
        state = self.run.now
        assert state.taken_back_in_a_row <= ENVELOPE.guard.failures
        assert not (state.is_held and state.phase in (Phase.ASKED, Phase.ANSWERED))

    @invariant()
    def versions_rise_by_one_for_each_outcome(self) -> None:
        outcomes = sum(record.kind in ("action_applied", "action_failed") for record in self.run.records)
        assert self.run.now.version == outcomes >= self.version
        self.version = outcomes

    @invariant()
    def phase_and_question_fit_together(self) -> None:
        state = self.run.now
        assert (state.question is not None) == (state.phase in (Phase.ASKED, Phase.ANSWERED))
        assert state.question is None or self.at - state.question.asked_step <= 20
        assert (state.proposal is not None) == (state.phase is Phase.ANSWERED)
        assert state.phase is Phase.ENDED or (state.pending is not None) == (state.phase is Phase.ENACTING)

    @invariant()
    def the_state_is_of_bounded_size(self) -> None:
        state, authority = self.run.now, ENVELOPE.authority
        assert len(set(self.run.ids)) == len(self.run.ids)
        # Each may be taken back once, by one of two ways. A rollback of the reflex may skip batches, and it stops once.
        assert len(state.interventions) <= 4 * authority.interventions + 2 * authority.reflex_rollbacks + 1
        by_guard = sum(one.source == "guard" and one.met is not False for one in state.interventions)
        assert sum(one.taken_back for one in state.interventions) >= by_guard

    def teardown(self) -> None:
        if not hasattr(self, "run"):
            return
        state = None
        for record in self.run.records:
            state = fold(state, record)
        assert state == self.run.state


Controller.TestCase.settings = settings(max_examples=200, stateful_step_count=50)
TestController = Controller.TestCase


class LongController(Controller):
    """The full count of promise B1."""


LongController.TestCase.settings = settings(max_examples=10_000, stateful_step_count=60)
TestControllerAtLength = pytest.mark.timeout(7200)(pytest.mark.slow(LongController.TestCase))
