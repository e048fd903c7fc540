from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import RECIPE, a_control, a_run_started, an_envelope
from trimtab.controller.effect import Append, Enact
from trimtab.controller.event import CheckpointWritten, EnactmentDone, EvaluationReported, Event, RunBegan, ScheduleReached
from trimtab.controller.following import due_after, foresee
from trimtab.controller.state import Rewind, State
from trimtab.controller.step import step
from trimtab.controller.transitions import fold
from trimtab.controls.catalogue import learning_rate
from trimtab.controls.envelope import Deliberation, Envelope
from trimtab.controls.recipe import Recipe
from trimtab.decision.schedule import Planned, Schedule, ScheduleEntry
from trimtab.ledger.record import ActionIntended, Record
from trimtab.telemetry.snapshot import Snapshot

DROPOUT = ScheduleEntry(5, (Planned("dropout", 0.3),), "as found")
PLAN = Schedule((ScheduleEntry(0, (Planned("learning_rate", 0.5, 1.0),)), DROPOUT, DROPOUT), stop_after=9)


class Following:
    """A run that follows a schedule; each enactment succeeds, and the state is checked to be the fold over its records."""

    def __init__(self, plan: Schedule = PLAN, envelope: Envelope | None = None) -> None:
        self.records: list[Record] = []
        self.state: State | None = None
        self.refolded: State | None = None
        self.give(RunBegan(replace(a_run_started(envelope), schedule=plan, isolation="nowhere", manager="schedule:plan.yaml")))

    @property
    def now(self) -> State:
        assert self.state is not None
        return self.state

    def give(self, event: Event) -> None:
        self.state, effects = step(self.state, event)
        for effect in effects:
            if isinstance(effect, Append):
                self.records.append(effect.record)
                self.refolded = fold(self.refolded, effect.record)
        assert self.refolded == self.state
        for effect in effects:
            assert isinstance(effect, (Append, Enact)), "nobody is asked, and nothing else is done"
            if isinstance(effect, Enact):
                self.give(EnactmentDone(self.records[-1].step, effect.verified.recipe))

    def follow(self, at: int) -> list[str]:
        before = len(self.records)
        for entry in due_after(self.now, at):
            self.give(ScheduleReached(at, entry))
        return [record.kind for record in self.records[before:]]


def test_entries_are_applied_at_their_step_and_nobody_is_asked() -> None:
    run = Following()
    assert run.follow(0) == ["verdict_given", "action_intended", "action_applied"]
    assert run.now.recipe["learning_rate"] == 5e-4
    run.give(CheckpointWritten(4, "step-00000004"))
    run.give(EvaluationReported(4, 1.0, (("val/loss", 1.0),), "step-00000004", Snapshot(4, ()), ()))
    assert run.now.num_questions == 0
    assert run.follow(4) == []
    assert run.follow(5).count("action_applied") == 2
    assert run.now.recipe["dropout"] == 0.3
    assert run.follow(9)[-1] == "action_applied"
    assert run.now.stop_reason == "schedule: step 9 of the schedule"


def test_the_record_says_why_and_the_budget_of_a_manager_is_not_touched() -> None:
    run = Following()
    run.follow(5)
    intended = [record for record in run.records if isinstance(record, ActionIntended)]
    assert [(one.source, one.reason, one.expectation) for one in intended] == [
        ("schedule", "as found (step 5 of the schedule)", None)
    ] * 2
    assert run.now.interventions_used == 0
    assert run.now.version == 2
    assert [one.source for one in run.now.interventions] == ["schedule", "schedule"]


def test_a_rejected_entry_is_recorded_with_its_reasons_and_told() -> None:
    run = Following(Schedule((ScheduleEntry(3, (Planned("dropout", 0.7),)),)))
    assert run.follow(3) == ["verdict_given", "problem_noticed"]
    assert run.now.recipe == RECIPE


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), max_size=6), st.integers(0, 60))
def test_each_step_of_a_lineage_is_due_once_on_every_way_through_it(rollbacks: list[tuple[int, int]], last: int) -> None:
    plan = Schedule(tuple(ScheduleEntry(at, (Planned("dropout", 0.1),)) for at in range(100)))
    state = Following(plan).now
    position, step_now, due = 0, 0, [0]
    for steps, back in rollbacks:
        for _ in range(steps):
            position, step_now = position + 1, step_now + 1
            due += [entry.step for entry in due_after(state, step_now) if entry is not None]
            assert state.lineage_step(step_now) == position
        position = max(0, position - back)
        state = replace(state, rewinds=(*state.rewinds, Rewind(step_now, position)))
        assert due_after(state, step_now) == (), "what is due there is in force in the state that was restored"
    lineage = [0]
    position = 0
    for steps, back in rollbacks:
        lineage += range(position + 1, position + steps + 1)
        position = max(0, position + steps - back)
    assert due == lineage


def test_what_will_be_rejected_is_known_beforehand() -> None:
    whole = a_control(name="batch_size", when="boundary", max_values=2, is_whole=True, moves=a_control().moves)
    envelope = an_envelope(controls=(whole, learning_rate(1e-6, 1e-2)), deliberation=Deliberation(boundary_every_steps=10))
    recipe = Recipe.of({"batch_size": 5.0, "learning_rate": 1e-3})
    given_ = ((10, "batch_size", 6.0), (15, "batch_size", 5.0), (20, "batch_size", 7.0), (30, "batch_size", 5.0),
              (30, "learning_rate", 1e-5), (31, "learning_rate", 1e-1), (40, "dropout", 0.1))  # fmt: skip
    plan = Schedule(tuple(ScheduleEntry(at, (Planned(name, value),)) for at, name, value in given_))
    told = foresee(plan, envelope, recipe)
    assert [line.partition(" of the schedule")[0] for line in told] == ["step 15", "step 20", "step 31", "step 40"]
    for line, why in zip(told, ("changes only after every 10", "distinct values", "outside", "not a control"), strict=True):
        assert why in line


@pytest.mark.parametrize("at", [-1, 3])
def test_without_a_schedule_nothing_is_due(at: int) -> None:
    state, _ = step(None, RunBegan(a_run_started()))
    assert due_after(state, at) == ()
