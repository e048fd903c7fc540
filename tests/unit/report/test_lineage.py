"""The lineage against a simulation that carries the whole history of the weights with their state, as training does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import RECIPE, a_run_started
from tests.unit.report.sample_run import whole_run
from trimtab.controller.state import State
from trimtab.controller.transitions import fold
from trimtab.controls.recipe import Recipe
from trimtab.decision.action import Action, Adjust, Change, Rollback, RollbackAndAdjust, SkipBatches, Stop
from trimtab.errors import LedgerError
from trimtab.ledger.record import ActionApplied, ActionFailed, ActionIntended, CheckpointSaved, ProblemNoticed, Record
from trimtab.report.lineage import build_lineage, described, left_out, schedule_from

NAMES = ("learning_rate", "weight_decay", "dropout")


@dataclass
class Course:
    """Plays steps, changes and rollbacks, and keeps with each saved state what its weights have been through."""

    records: list[Record] = field(default_factory=lambda: [a_run_started(recipe=RECIPE)])
    step: int = 0
    recipe: Recipe = RECIPE
    trace: tuple[Recipe, ...] = ()  # the recipe of each step that the weights have been through
    saved: dict[str, tuple[Recipe, tuple[Recipe, ...]]] = field(default_factory=dict)
    num: int = 0

    def train(self, steps: int) -> None:
        self.step += steps
        self.trace += (self.recipe,) * steps
        self.records.append(ProblemNoticed(self.step, "nothing", "so that the record knows the step"))

    def save(self) -> None:
        id = f"step-{self.step:08d}"
        self.saved[id] = (self.recipe, self.trace)
        self.records.append(CheckpointSaved(self.step, id))

    def act(
        self, action: Action, recipe: Recipe, source: Any = "manager", *, fails: bool = False, restored: str | None = None
    ) -> None:
        self.num += 1
        self.records.append(ActionIntended(self.step, self.num, source, action, recipe, (), f"reason {self.num}", None))
        if fails:
            self.records.append(ActionFailed(self.step, self.num, recipe, "it broke", restored))
        else:
            self.records.append(ActionApplied(self.step, self.num, recipe))
        self.recipe = recipe

    def adjust(self, name: str, value: float) -> None:
        self.act(Adjust((Change(name, value),)), self.recipe.replace([(name, value)]))

    def go_back(self, id: str, name: str | None = None, value: float = 0.0, source: Any = "manager") -> None:
        recipe, self.trace = self.saved[id]
        if name is None:
            self.act(Rollback(id), recipe, source)
        else:
            self.act(RollbackAndAdjust(id, (Change(name, value),)), recipe.replace([(name, value)]), source)


def followed(course: Course) -> tuple[Recipe, ...]:
    """Return the recipe of each step of a run that follows the schedule from the course's start."""
    plan, _ = schedule_from(build_lineage(course.records))
    recipe, trace = RECIPE, []
    for step in range(len(course.trace)):
        for entry in plan.due(step):
            recipe = recipe.replace([(c.control, c.value) for c in entry.action(RECIPE, {}, {}).changes])
        trace.append(recipe)
    return tuple(trace)


@st.composite
def courses(draw: st.DrawFn) -> Course:
    course = Course()
    course.save()
    values = st.floats(1e-3, 1.0)
    # A state is saved after all that is done at its step, so at least one step lies between it and what follows.
    for kind in draw(
        st.lists(st.sampled_from(("train", "train", "adjust", "save", "back", "back_and_adjust", "fail")), max_size=25)
    ):
        if kind != "train" and f"step-{course.step:08d}" in course.saved:
            course.train(1)
        match kind:
            case "train":
                course.train(draw(st.integers(1, 4)))
            case "adjust":
                course.adjust(draw(st.sampled_from(NAMES)), draw(values))
            case "save":
                course.save()
            case "back":
                course.go_back(draw(st.sampled_from(sorted(course.saved))))
            case "back_and_adjust":
                source = draw(st.sampled_from(("manager", "reflex")))
                course.go_back(draw(st.sampled_from(sorted(course.saved))), draw(st.sampled_from(NAMES)), draw(values), source)
            case _:  # the state is restored, and then the change fails
                id = draw(st.sampled_from(sorted(course.saved)))
                recipe, course.trace = course.saved[id]
                course.act(RollbackAndAdjust(id, (Change("dropout", 0.3),)), recipe, fails=True, restored=id)
    return course


@given(courses())
def test_the_schedule_leads_along_the_history_of_the_final_weights(course: Course) -> None:
    lineage = build_lineage(course.records)
    assert (lineage.steps, lineage.lineage_steps) == (course.step, len(course.trace))
    assert followed(course) == course.trace


@given(courses())
def test_the_state_knows_how_many_steps_the_weights_have_been_through(course: Course) -> None:
    state: State | None = None
    for record in course.records:
        state = fold(state, record)
    assert state is not None
    assert state.lineage_step(course.step) == len(course.trace)
    for id, (_, trace) in course.saved.items():
        assert state.lineage_step(int(id.removeprefix("step-"))) == len(trace)


def test_a_change_with_a_rollback_stands_at_the_step_that_was_gone_back_to() -> None:
    course = Course()
    course.train(1000)
    course.save()
    course.train(500)
    course.go_back("step-00001000", "dropout", 0.2, "reflex")
    course.train(100)
    plan, deeds = schedule_from(build_lineage(course.records))
    assert [(entry.step, entry.changes[0].control, entry.changes[0].value) for entry in plan.entries] == [
        (1000, "dropout", 0.2)
    ]
    assert described(deeds[0]) == "intervention 1 of reflex, after step 1500 of the run: dropout 0.1 -> 0.2"
    (told,) = left_out(build_lineage(course.records))
    assert told.startswith("step 1500: reflex went back from step 1500 of the weights' own history to step 1000")


def test_a_rollback_to_a_course_that_was_left_takes_its_changes_up_again() -> None:
    course = Course()
    course.save()
    course.train(10)
    course.adjust("dropout", 0.3)
    course.save()  # the best state, say
    course.train(10)
    course.go_back("step-00000000")
    course.train(5)
    course.adjust("dropout", 0.0)
    course.go_back("step-00000010")
    course.train(1)
    plan, _ = schedule_from(build_lineage(course.records))
    assert [(entry.step, entry.changes[0].value) for entry in plan.entries] == [(10, 0.3)]


def stopped(source: Any, *, later: bool = False) -> Course:
    course = Course()
    course.train(20)
    course.save()
    course.train(10)
    course.go_back("step-00000020")
    course.act(Stop(), course.recipe, source)
    course.train(3)
    if later:
        course.adjust("dropout", 0.2)
    return course


def test_a_return_to_the_best_state_and_a_stop_there_become_the_end_of_the_plan() -> None:
    plan, _ = schedule_from(build_lineage(stopped("manager").records))
    assert plan.stop_after == 20


@pytest.mark.parametrize(("source", "later"), [("reflex", False), ("manager", True)])
def test_a_stop_that_was_not_meant_as_the_end_is_told_and_not_carried(source: str, later: bool) -> None:
    lineage = build_lineage(stopped(source, later=later).records)
    plan, _ = schedule_from(lineage)
    assert plan.stop_after is None
    assert any("asked to stop" in line for line in left_out(lineage))


def test_skipped_batches_are_told_and_not_carried() -> None:
    course = Course()
    course.train(20)
    course.act(SkipBatches(7), course.recipe, "reflex")
    lineage = build_lineage(course.records)
    assert schedule_from(lineage)[0].entries == ()
    assert left_out(lineage) == ["step 20: reflex passed over 7 batches"]


def test_rates_are_relative_to_the_start_and_probabilities_are_not() -> None:
    course = Course()
    course.train(1)
    course.adjust("learning_rate", 5e-4)
    course.adjust("dropout", 0.3)
    plan, _ = schedule_from(build_lineage(course.records))
    assert [(entry.changes[0].value, entry.changes[0].of) for entry in plan.entries] == [(0.5, 1.0), (0.3, None)]


def test_a_change_that_failed_and_left_nothing_is_no_part_of_the_plan() -> None:
    plan, deeds = schedule_from(build_lineage(whole_run()))
    # Intervention 1 went from step 210 back to 100, the reflex from 330 to 300; 3 failed and was put back.
    assert [(deed.intervention, deed.who) for deed in deeds] == [(1, "rules"), (4, "rules")]
    assert [entry.step for entry in plan.entries] == [100, 320]


def test_an_empty_ledger_has_no_lineage() -> None:
    with pytest.raises(LedgerError, match="the ledger is empty"):
        build_lineage([])


@pytest.mark.parametrize(("planned", "length"), [(300, 300), (None, 110)])
def test_the_planned_length_is_the_runs_own_whatever_was_undone(planned: int | None, length: int) -> None:
    course = Course()
    course.records[0] = replace(a_run_started(recipe=RECIPE), total_steps=planned)
    course.train(50)
    course.save()
    course.train(50)
    course.go_back("step-00000050")
    course.train(10)
    lineage = build_lineage(course.records)
    assert (lineage.lineage_steps, lineage.planned_steps) == (60, length)
