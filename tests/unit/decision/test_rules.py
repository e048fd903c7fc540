from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

import pytest

from tests.builders import RECIPE, a_briefing, a_standing, a_symptom, an_envelope, an_intervention
from trimtab.controls.bounds import Bounds
from trimtab.controls.catalogue import base_name, declare, dropout, learning_rate, own_control, part_name
from trimtab.controls.control import Control
from trimtab.controls.envelope import Authority, Envelope
from trimtab.controls.moves import Multiply
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Checkpoint, Standing
from trimtab.decision.action import Action, Adjust, Change, NoAction, Rollback, RollbackAndAdjust, SkipBatches, Stop
from trimtab.decision.briefing import Briefing, Intervention, LostTrial, Timing
from trimtab.decision.proposal import Expectation, Proposal
from trimtab.decision.rules.manager import FAILED_REPAIRS, RulesManager
from trimtab.decision.rules.rule import Nudge, Rule
from trimtab.decision.rules.table import RULES, UNSAFE_PENALTY
from trimtab.diagnosis.base import SymptomName
from trimtab.telemetry.snapshot import Snapshot, Summary

BEST = "step-00000200"
REGULARIZE = RollbackAndAdjust(BEST, (Change("dropout", 0.2), Change("weight_decay", 0.1)))
BACK = (Rollback, RollbackAndAdjust)
ANNEAL = Adjust((Change("learning_rate", 5e-4),))


def propose(briefing: Briefing) -> Proposal:
    return RulesManager().propose(briefing)


SYMPTOMS: tuple[SymptomName, ...] = get_args(SymptomName)
# Where each control starts so that a move up and a move down are both possible.
STARTS = {
    "weight_decay": 0.1, "dropout": 0.2, "label_smoothing": 0.15, "gradient_clip_norm": 1.0, "beta2": 0.99, "momentum": 0.9,
    "batch_size": 32.0, "clip_range": 0.2, "target_kl": 0.03, "num_epochs": 4.0, "value_coefficient": 0.5,
    "entropy_coefficient": 0.01, "exploration_noise": 0.2, "loss_weight/part": 1.0, "learning_rate/part": 1e-3,
    "learning_rate/critic": 1e-3, "learning_rate": 1e-3, UNSAFE_PENALTY: 5.0,
}  # fmt: skip


def a_full_standing(names: Iterable[str]) -> tuple[Envelope, Standing]:
    """A run whose recipe has exactly these controls, with room around each value."""
    recipe = Recipe.of({name: STARTS[name] for name in names})
    envelope = an_envelope(controls=tuple(roomy(name) for name, _ in recipe.values))
    ids = {BEST: 2.0, "step-00000400": 2.5}
    saved = tuple(Checkpoint(id, int(id[5:]), objective, recipe) for id, objective in ids.items())
    return envelope, a_standing(recipe=recipe, initial=recipe, checkpoints=saved)


def roomy(name: str) -> Control:
    start = STARTS[name]
    if name == UNSAFE_PENALTY:
        return own_control(name, 1.0, 50.0, moves=Multiply((0.5, 2.0)), scale="ratio")
    low, high = start / 8, 0.999 if name in ("beta2", "momentum") else start * 8
    low = 1.0 if name == "num_epochs" else low
    high = min(high, 0.9) if name in ("dropout", "label_smoothing") else high
    return declare(base_name(name), low, high, part=part_name(name))


def about(rule: Rule) -> Briefing:
    names = {nudge.control.replace("{part}", "part") for nudge in rule.nudges}
    envelope, standing = a_full_standing(names)
    if rule.answers not in ("end_of_run", "last_chance"):
        return a_briefing(envelope, standing, symptoms=(a_symptom(rule.answers, signal="signal/part"),))
    if rule.answers == "end_of_run":
        return a_briefing(timing=Timing(400, 410, 600, total_steps=420, evaluate_every_steps=100))
    if rule.answers == "last_chance":
        now = Summary("val/loss", "evaluation", 4, 0, 2.5, 400, 2.5, 0.0, 0.0, 0.0, 2.0, 2.5)
        return a_briefing(timing=Timing(400, 410, 600, 420, 100), snapshot=Snapshot(400, (now,)))
    raise AssertionError(rule.answers)


def tried(proposal: Proposal, met: bool | None, number: int = 1) -> Intervention:
    """The trial that ``proposal`` becomes."""
    return an_intervention(proposal.action, met=met, reason=proposal.reason, number=number, objective_before=2.0)


class TestEveryRule:
    @pytest.mark.parametrize("rule", [rule for rule in RULES if not rule.holds], ids=lambda rule: rule.name)
    def test_it_fires_alone_on_its_symptom(self, rule: Rule) -> None:
        proposal = RulesManager((rule,)).propose(about(rule))
        assert proposal.reason.startswith(f"{rule.name}: ")
        assert proposal.expectation is not None
        assert isinstance(proposal.action, RollbackAndAdjust if rule.rolls_back else Adjust)
        if isinstance(proposal.action, RollbackAndAdjust):
            assert proposal.action.checkpoint == BEST
        assert isinstance(proposal.action, (Adjust, RollbackAndAdjust))
        for change, nudge in zip(proposal.action.changes, rule.nudges, strict=True):
            assert change.control == nudge.control.replace("{part}", "part")
            assert (change.value > STARTS[change.control]) == nudge.is_upward

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
    def test_it_is_silent_on_other_symptoms(self, rule: Rule) -> None:
        others = tuple(a_symptom(name) for name in SYMPTOMS if name != rule.answers)
        assert RulesManager((rule,)).propose(a_briefing(symptoms=others)).action == NoAction()

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
    def test_it_says_where_it_is_known_from(self, rule: Rule) -> None:
        assert rule.source
        assert rule.reason
        assert len(rule.nudges) <= 3

    def test_every_symptom_has_one(self) -> None:
        assert {rule.answers for rule in RULES} == {*SYMPTOMS, "end_of_run", "last_chance"}

    @pytest.mark.parametrize("rule", [rule for rule in RULES if not rule.holds], ids=lambda rule: rule.name)
    def test_a_notice_alone_moves_nothing(self, rule: Rule) -> None:
        if rule.answers not in ("end_of_run", "last_chance"):
            briefing = about(rule)
            notices = tuple(replace(symptom, severity="notice") for symptom in briefing.symptoms)
            assert RulesManager((rule,)).propose(replace(briefing, symptoms=notices)).action == NoAction()

    @pytest.mark.parametrize("rule", [rule for rule in RULES if rule.holds], ids=lambda rule: rule.name)
    def test_one_that_holds_does_so_if_it_is_about_the_objective(self, rule: Rule) -> None:
        assert rule.answers not in ("end_of_run", "last_chance")
        overfits = a_symptom("overfitting")
        notice = a_symptom(rule.answers, "notice", signal="val/loss")
        blind = a_briefing(symptoms=(overfits, notice))
        assert propose(blind).action == NoAction()
        assert propose(blind).reason.startswith(f"{rule.name}: ")
        elsewhere = a_briefing(symptoms=(overfits, a_symptom(rule.answers, signal="entropy")))
        assert propose(elsewhere).action == REGULARIZE

    def test_a_bare_name_stands_for_all_parts_of_it(self) -> None:
        envelope, standing = a_full_standing(("learning_rate/part", "learning_rate/critic"))
        action = propose(a_briefing(envelope, standing, symptoms=(a_symptom("plateau"),))).action
        assert action == Adjust((Change("learning_rate/critic", 5e-4), Change("learning_rate/part", 5e-4)))

    def test_the_part_is_the_one_the_symptom_was_found_in(self) -> None:
        envelope, standing = a_full_standing(("loss_weight/part", "learning_rate"))
        symptom = a_symptom("loss_imbalance", signal="loss_term/part")
        found = propose(a_briefing(envelope, standing, symptoms=(symptom,))).action
        assert found == Adjust((Change("loss_weight/part", 0.5),))
        other = a_symptom("loss_imbalance", signal="loss_term/other")
        assert propose(a_briefing(envelope, standing, symptoms=(other,))).action == NoAction()

    def test_names_are_unique_and_none_opens_another(self) -> None:
        openings = [f"{rule.name}: " for rule in RULES]
        assert len(set(openings)) == len(RULES)


class TestTurns:
    def test_the_first_rule_of_the_most_urgent_symptom_comes_first(self) -> None:
        symptoms = (a_symptom("value_fit_poor"), a_symptom("overfitting"), a_symptom("plateau"))
        assert propose(a_briefing(symptoms=symptoms)).action == REGULARIZE

    def test_a_rule_that_did_not_help_gives_its_turn_to_the_next(self) -> None:
        first = propose(a_briefing(symptoms=(a_symptom(),)))
        second = propose(a_briefing(symptoms=(a_symptom(),), interventions=(tried(first, met=False),)))
        assert second.reason.startswith("anneal_from_best: ")

    def test_a_rule_that_lost_its_trial_gives_its_turn_to_the_next(self) -> None:
        lost: tuple[LostTrial, ...] = ()
        tried_so_far: list[Action] = []
        while isinstance((proposal := propose(a_briefing(symptoms=(a_symptom(),), lost_trials=lost))).action, (Adjust, *BACK)):
            tried_so_far.append(proposal.action)
            number = len(tried_so_far)
            lost += (LostTrial(number, 100 * number, proposal.action, ("overfitting",), proposal.reason, 2.1, 2.0),)
        openings = [one.reason.split(":")[0] for one in lost]
        assert openings[:2] == ["regularize", "anneal_from_best"]
        assert len({repr(action) for action in tried_so_far}) == len(tried_so_far) > 2, "nothing that lost is tried again"

    @pytest.mark.parametrize(("lost_at", "next_rule"), [(50, "regularize: "), (500, "anneal_from_best: ")])
    def test_what_came_of_a_rule_last_decides_whether_it_keeps_its_turn(self, lost_at: int, next_rule: str) -> None:
        first = propose(a_briefing(symptoms=(a_symptom(),)))
        lost = LostTrial(1, lost_at, Adjust((Change("dropout", 0.3),)), ("overfitting",), first.reason, 2.1, 2.0)
        helped = replace(tried(first, met=True), step=200, gain=0.1)
        briefing = a_briefing(symptoms=(a_symptom(),), interventions=(helped,), lost_trials=(lost,))
        assert propose(briefing).reason.startswith(next_rule)

    def test_the_only_rule_is_used_again_from_where_it_led(self) -> None:
        first = propose(a_briefing(symptoms=(a_symptom("plateau"),)))
        assert first.action == ANNEAL
        standing = a_standing(recipe=RECIPE.replace([("learning_rate", 5e-4)]))
        second = propose(
            a_briefing(standing=standing, symptoms=(a_symptom("plateau"),), interventions=(tried(first, met=True),))
        )
        assert second.action == Adjust((Change("learning_rate", 2.5e-4),))

    @pytest.mark.parametrize(("total_steps", "acts"), [(None, False), (100_000, False), (471, False), (470, True), (400, True)])
    def test_the_end_of_the_run_is_the_last_fifteen_percent_of_a_known_length(
        self, total_steps: int | None, acts: bool
    ) -> None:
        proposal = propose(a_briefing(timing=Timing(400, 410, 600, total_steps, 100)))
        assert isinstance(proposal.action, Adjust) == acts

    def test_at_the_last_chance_it_goes_back_even_if_no_rate_may_be_changed(self) -> None:
        last = Summary("val/loss", "evaluation", 5, 0, 9.0, 400, 9.0, 0.0, 0.0, 0.0, 2.0, 9.0)
        briefing = a_briefing(timing=Timing(400, 410, 600, 450, 100), snapshot=Snapshot(400, (last,)))
        assert isinstance(propose(briefing).action, RollbackAndAdjust)
        bare = tuple(replace(option, adjustable=()) for option in briefing.surface.rollbacks)
        stuck = replace(briefing, surface=replace(briefing.surface, rollbacks=bare, adjustable=()))
        assert propose(stuck).action == Rollback(BEST)

    def test_it_waits_while_measuring(self) -> None:
        trial = an_intervention(ANNEAL, is_complete=False)
        assert propose(a_briefing(symptoms=(a_symptom(),), interventions=(trial,))).action == NoAction()

    def test_without_a_symptom_it_holds(self) -> None:
        assert propose(a_briefing()).action == NoAction()

    def test_what_did_not_help_from_the_same_state_is_not_repeated(self) -> None:
        """Told each time that it did not help, it never gives the same answer twice."""
        trials: list[Intervention] = []
        for number in range(1, FAILED_REPAIRS + 1):
            proposal = propose(a_briefing(symptoms=(a_symptom(),), interventions=tuple(trials)))
            if proposal.action == NoAction():
                break
            assert proposal.action not in [trial.action for trial in trials]
            trials.append(tried(proposal, met=False, number=number))
        assert len(trials) >= 2

    def test_it_goes_back_to_one_checkpoint_only_once(self) -> None:
        earlier = an_intervention(RollbackAndAdjust(BEST, (Change("dropout", 0.3),)), met=True, gain=0.5)
        action = propose(a_briefing(symptoms=(a_symptom(),), interventions=(earlier,))).action
        assert action == Adjust(REGULARIZE.changes)


class TestGivingUp:
    def failures(self, *, last: Action = ANNEAL, count: int = 4) -> tuple[Intervention, ...]:
        actions = [ANNEAL] * (count - 1) + [last]
        return tuple(an_intervention(action, met=False, number=at) for at, action in enumerate(actions, start=1))

    def test_three_failures_are_not_enough(self) -> None:
        briefing = a_briefing(symptoms=(a_symptom(),), interventions=self.failures(count=3))
        assert propose(briefing).action == REGULARIZE

    def test_four_in_a_row_go_back_to_the_best(self) -> None:
        proposal = propose(a_briefing(symptoms=(a_symptom(),), interventions=self.failures()))
        assert (proposal.action, proposal.expectation) == (Rollback(BEST), Expectation(0.0, 1))

    def test_after_going_back_it_asks_to_stop(self) -> None:
        briefing = a_briefing(symptoms=(a_symptom(),), interventions=self.failures(last=Rollback(BEST)))
        assert propose(briefing).action == Stop()

    def test_without_rollbacks_left_it_asks_to_stop_and_without_that_it_holds(self) -> None:
        for authority, action in (
            (Authority(rollbacks=0), Stop()),
            (Authority(rollbacks=0, may_stop=False), NoAction()),
        ):
            briefing = a_briefing(an_envelope(authority=authority), symptoms=(a_symptom(),), interventions=self.failures())
            assert propose(briefing).action == action

    def test_a_success_between_them_starts_the_count_again(self) -> None:
        trials = (*self.failures(), an_intervention(SkipBatches(1), met=True))
        assert propose(a_briefing(symptoms=(a_symptom("plateau"),), interventions=trials)).action != Rollback(BEST)

    def test_without_the_symptom_it_holds_whatever_failed(self) -> None:
        assert propose(a_briefing(interventions=self.failures())).action == NoAction()


class TestMissingParts:
    def test_a_missing_control_is_done_without(self) -> None:
        briefing = a_briefing(an_envelope(controls=(dropout(0.0, 0.5),)), symptoms=(a_symptom(),))
        assert propose(briefing).action == RollbackAndAdjust(BEST, (Change("dropout", 0.2),))

    def test_without_the_first_rules_controls_the_next_rule_is_tried(self) -> None:
        briefing = a_briefing(an_envelope(controls=(learning_rate(1e-6, 1e-2),)), symptoms=(a_symptom(),))
        assert propose(briefing).action == RollbackAndAdjust(BEST, (Change("learning_rate", 5e-4),))

    def test_without_any_known_control_it_holds(self) -> None:
        other = Control("temperature", Bounds(0.1, 10.0), Multiply((2.0,)), "ratio", 4.0, 10.0, 0)
        recipe = Recipe.of({"temperature": 1.0})
        standing = a_standing(recipe=recipe, initial=recipe, checkpoints=(Checkpoint(BEST, 200, 2.0, recipe),))
        symptoms = tuple(a_symptom(name) for name in ("overfitting", "plateau", "divergence"))
        assert propose(a_briefing(an_envelope(controls=(other,)), standing, symptoms=symptoms)).action == NoAction()

    def test_only_as_many_controls_as_allowed(self) -> None:
        briefing = a_briefing(an_envelope(authority=Authority(controls_per_intervention=1)), symptoms=(a_symptom(),))
        assert propose(briefing).action == RollbackAndAdjust(BEST, (Change("dropout", 0.2),))

    def test_a_control_at_its_end_is_left_alone(self) -> None:
        recipe = RECIPE.replace([("dropout", 0.5), ("weight_decay", 1.0)])
        standing = a_standing(recipe=recipe, initial=recipe, checkpoints=(Checkpoint(BEST, 200, 2.0, recipe),))
        proposal = propose(a_briefing(standing=standing, symptoms=(a_symptom(),)))
        assert proposal.reason.startswith("anneal_from_best: ")


@pytest.mark.parametrize(
    ("nudge", "value", "aim"),
    [
        (Nudge("a", "multiply", 0.5), 2.0, 1.0),
        (Nudge("a", "multiply", 10.0, at_least=0.1), 0.0, 0.1),
        (Nudge("a", "multiply", 10.0, at_least=0.1), 0.5, 5.0),
        (Nudge("a", "add", 0.1), 0.25, 0.35),
        (Nudge("a", "add", -0.1, at_least=0.3), 0.25, 0.15),
    ],
)
def test_a_nudge_aims(nudge: Nudge, value: float, aim: float) -> None:
    assert nudge.aim(value) == pytest.approx(aim)
