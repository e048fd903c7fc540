"""Controls that change at boundaries only, take their time to show, or have a budget of values; symptoms between questions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import RECIPE, a_symptom, an_envelope
from tests.fake_run import Run, propose
from trimtab.controller.event import StepTaken, SymptomRaised
from trimtab.controls.catalogue import dropout, learning_rate, weight_decay
from trimtab.controls.envelope import Deliberation, Envelope
from trimtab.controls.safeguards import Reflex
from trimtab.decision.action import Adjust, Change
from trimtab.diagnosis.base import SymptomName
from trimtab.ledger.record import VerdictGiven

DROP = Adjust((Change("dropout", 0.2),))
HALVE = Adjust((Change("learning_rate", 5e-4),))
OTHERS = (learning_rate(1e-6, 1e-2, dwell_steps=0), weight_decay(0.0, 1.0, dwell_steps=0))


def at_boundaries(every: int) -> Envelope:
    control = dropout(0.0, 0.5, dwell_steps=0, when="boundary")
    return an_envelope(controls=(*OTHERS, control), deliberation=Deliberation(boundary_every_steps=every))


def verdicts(run: Run) -> list[VerdictGiven]:
    return [record for record in run.records if isinstance(record, VerdictGiven)]


class TestBoundaries:
    @pytest.mark.parametrize(("every", "applies_at"), [(1, 110), (10, 110), (64, 128), (100, 200), (300, 300)])
    def test_the_answer_waits_for_the_next_boundary(self, every: int, applies_at: int) -> None:
        run = Run(at_boundaries(every))
        run.evaluate(100, 2.0)
        assert run.briefings[-1].timing.applies_at_step == applies_at
        run.answer(101, propose(DROP))
        applied = [at for at in range(101, 301) if "action_intended" in run.give(StepTaken(at)) and run.done(at)]
        assert applied == [applies_at]

    def test_a_boundary_too_far_off_leaves_the_control_off_the_surface(self) -> None:
        run = Run(at_boundaries(1000))
        run.evaluate(100, 2.0)
        briefing = run.briefings[-1]
        assert briefing.timing.applies_at_step == 110
        assert [options.control for options in briefing.surface.adjustable] == ["learning_rate", "weight_decay"]
        run.answer(101, propose(DROP))
        for at in range(102, 400):
            run.give(StepTaken(at))
        assert [reason.constraint for reason in verdicts(run)[-1].reasons if reason.constraint == "boundary"] == ["boundary"]
        assert run.orders == []

    def test_a_late_answer_waits_for_the_boundary_after_it(self) -> None:
        run = Run(at_boundaries(64))
        run.evaluate(100, 2.0)
        for at in range(101, 150):
            run.give(StepTaken(at))
        run.answer(150, propose(DROP))
        applied = [at for at in range(151, 301) if "action_intended" in run.give(StepTaken(at))]
        assert applied == [192]

    def test_a_late_answer_about_a_live_control_does_not_wait(self) -> None:
        run = Run(at_boundaries(64))
        run.evaluate(100, 2.0)
        run.answer(150, propose(HALVE))
        assert run.give(StepTaken(151)) == ["verdict_given", "action_intended"]


class TestLag:
    @pytest.mark.parametrize(("lag", "counts"), [(0, True), (89, True), (90, False), (150, False)])
    def test_an_evaluation_before_the_effect_can_show_does_not_measure(self, lag: int, counts: bool) -> None:
        slow = replace(learning_rate(1e-6, 1e-2, dwell_steps=20), effect_lag_steps=lag)
        run = Run(an_envelope(controls=(slow, *an_envelope().controls[1:])))
        run.evaluate(100, 2.0)
        run.intervene(100, HALVE)  # applied after step 110
        assert ("intervention_measured" in run.evaluate(200, 1.9)) == counts
        assert "intervention_measured" in run.evaluate(300, 1.9)


class TestBudgetOfValues:
    def test_a_value_it_never_had_is_refused_once_the_budget_is_used_and_an_old_one_is_not(self) -> None:
        few = dropout(0.0, 0.5, dwell_steps=0, max_values=2)
        run = Run(an_envelope(controls=(*OTHERS, few)))
        run.evaluate(100, 2.0)
        run.intervene(100, DROP)
        assert run.now.values_seen == (("dropout", (0.1, 0.2)),)
        run.evaluate(200, 2.0)
        offered = {options.control: options.values for options in run.briefings[-1].surface.adjustable}
        assert offered["dropout"] == (0.1,)
        assert "action_intended" not in run.intervene(200, Adjust((Change("dropout", 0.3),)))
        assert {reason.constraint for reason in verdicts(run)[-1].reasons} == {"max_values"}
        run.evaluate(300, 2.0)
        assert "action_intended" in run.intervene(300, Adjust((Change("dropout", 0.1),)))
        assert run.now.recipe == RECIPE


class TestSymptomsBetweenQuestions:
    def found(self, run: Run, at: int, name: SymptomName, severity: str) -> None:
        run.give(SymptomRaised(at, a_symptom(name, severity, at, "grad_norm")))  # type: ignore[arg-type] - the names are checked where they are made

    def test_the_newest_of_each_name_is_in_the_next_briefing_and_only_there(self) -> None:
        run = Run()
        self.found(run, 60, "gradient_explosion", "warning")
        self.found(run, 70, "gradient_explosion", "warning")
        run.evaluate(100, 2.0, a_symptom(step=100))
        named = [(symptom.name, symptom.step) for symptom in run.briefings[-1].symptoms]
        assert named == [("overfitting", 100), ("gradient_explosion", 70)]
        run.answer(101, propose(HALVE))
        run.give(StepTaken(110))
        run.done(110)
        run.evaluate(200, 2.0)
        assert run.briefings[-1].symptoms == ()

    @pytest.mark.parametrize("armed", [True, False])
    def test_what_the_reflex_has_answered_is_not(self, armed: bool) -> None:
        run = Run(an_envelope(reflex=Reflex(armed=armed)))
        run.checkpoint(50)
        self.found(run, 60, "divergence", "critical")
        if armed:
            run.done(60)
        run.evaluate(100, 2.0)
        assert [symptom.name for symptom in run.briefings[-1].symptoms] == ([] if armed else ["divergence"])
