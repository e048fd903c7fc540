from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.builders import RECIPE, a_briefing, a_standing, an_envelope
from trimtab.controls.envelope import Authority
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
    describe,
)
from trimtab.decision.proposal import Expectation, Proposal, hold
from trimtab.decision.scripted import Line, ScriptedManager
from trimtab.decision.surface import build_surface
from trimtab.errors import ReplyError, UsageError
from trimtab.verification.verifier import missing_expectation

CHANGE = Change("dropout", 0.2)
PLAN = Proposal(Adjust((CHANGE,)), "planned", Expectation(0.0, 1))


def test_an_action_is_described_in_a_few_words() -> None:
    assert describe(NoAction()) == "no_action"
    assert describe(Stop()) == "stop"
    assert describe(SkipBatches(3)) == "skip 3 batches"
    assert describe(RollbackAndAdjust("a", (CHANGE,))) == "rollback to a, dropout=0.2"
    assert changes_of(Rollback("a")) == ()
    assert checkpoint_of(Adjust((CHANGE,))) is None


@pytest.mark.parametrize("reason", ["", " \n\t", "x" * 2001])
def test_a_proposal_needs_a_reason(reason: str) -> None:
    with pytest.raises(ReplyError):
        hold(reason)


class TestSurface:
    def test_it_has_exact_values_that_differ_from_the_present(self) -> None:
        surface = build_surface(an_envelope(), a_standing())
        values = {option.control: option.values for option in surface.adjustable}
        assert values["learning_rate"] == (2.5e-4, 5e-4, 7.5e-4, 1.25e-3, 1.5e-3, 2e-3)
        assert values["dropout"] == (0.0, 0.05, 0.15, 0.2, 0.3)
        assert [(option.checkpoint, option.is_best) for option in surface.rollbacks] == [
            ("step-00000200", True), ("step-00000400", False),
        ]  # fmt: skip

    def test_a_control_in_its_dwell_time_is_not_on_it(self) -> None:
        surface = build_surface(an_envelope(), a_standing(changed_at=(("dropout", 390),)))
        assert [option.control for option in surface.adjustable] == ["learning_rate", "weight_decay"]
        for rollback in surface.rollbacks:
            assert "dropout" not in [option.control for option in rollback.adjustable]

    def test_without_interventions_left_it_is_empty(self) -> None:
        assert build_surface(an_envelope(), a_standing(interventions_used=16, can_skip=True)).is_empty

    def test_only_states_with_a_finite_objective_are_offered(self) -> None:
        scores = (None, float("nan"), float("inf"), 2.0)
        checkpoints = tuple(Checkpoint(str(at), at, score, RECIPE) for at, score in enumerate(scores))
        surface = build_surface(an_envelope(), a_standing(checkpoints=checkpoints))
        assert [(option.checkpoint, option.is_best) for option in surface.rollbacks] == [("3", True)]
        assert not build_surface(an_envelope(), a_standing(checkpoints=checkpoints[:3])).may_stop

    def test_stop_and_skip_are_offered_where_allowed(self) -> None:
        envelope = an_envelope(authority=Authority(may_stop=False), reflex=Reflex(skip_batches=9))
        surface = build_surface(envelope, a_standing(can_skip=True))
        assert (surface.may_stop, surface.max_skip) == (False, 9)
        assert build_surface(envelope, a_standing()).max_skip == 0


class TestScripted:
    def test_each_line_is_proposed_once_when_due(self) -> None:
        manager = ScriptedManager([Line(100, PLAN), Line(100, hold("second")), Line(900, PLAN)])
        at = [a_briefing(standing=a_standing(step=step)) for step in (50, 100, 150, 800, 900, 1000)]
        assert [manager.propose(briefing).reason for briefing in at] == [
            "the script has no line for this step", "planned", "second",
            "the script has no line for this step", "planned", "the script has no line for this step",
        ]  # fmt: skip

    def test_falling_steps_are_refused(self) -> None:
        with pytest.raises(UsageError, match="fall"):
            ScriptedManager([Line(2, PLAN), Line(1, PLAN)])

    def test_a_file_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "script.json"
        action = {"kind": "adjust", "changes": [{"control": "dropout", "value": 0.2}]}
        entry = {"action": action, "reason": "planned", "expectation": {"gain": 0, "within_evaluations": 1}}
        path.write_text(json.dumps([{"step": 1, "proposal": entry}]))
        assert ScriptedManager.from_file(path).propose(a_briefing()) == PLAN

    @pytest.mark.parametrize(
        "content", ["", "{}x", '["a"]', "[1]", "7", '{"a": 1}', '[{"step": 1}]', '[{"step": "x", "proposal": {}}]',
                    '[{"step": 1e400, "proposal": {}}]', '[{"step": NaN, "proposal": {}}]', '[{"step": 1, "proposal": 3}]',
                    '[{"step": 1, "proposal": {"action": {"kind": "stop"}}}]'],
    )  # fmt: skip
    def test_a_wrong_file_is_refused_by_its_name(self, tmp_path: Path, content: Any) -> None:
        path = tmp_path / "script.json"
        path.write_text(content)
        with pytest.raises(UsageError, match=r"script\.json"):
            ScriptedManager.from_file(path)

    def test_a_wrong_entry_is_named_with_what_is_wrong_in_it(self, tmp_path: Path) -> None:
        path = tmp_path / "script.json"
        good = {"step": 1, "proposal": {"action": {"kind": "stop"}, "reason": "x"}}
        for entry, says in (
            (
                {"step": 2, "proposal": {"action": {"type": "adjust"}, "reason": "x"}},
                "entry 2: .*it has no kind; .*allowed: kind is",
            ),
            ({"step": 2, "action": {"kind": "stop"}}, "has not the fields step and proposal; .*entry 2: "),
            ({"step": 2.5, "proposal": good["proposal"]}, "not a whole number >= 0; .*entry 2: 2.5"),
        ):
            path.write_text(json.dumps([good, entry]))
            with pytest.raises(UsageError, match=says):
                ScriptedManager.from_file(path)

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError):
            ScriptedManager.from_file(tmp_path / "none.json")


def test_the_script_in_the_docs_has_every_action_and_is_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "scripted.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (tmp_path / "plan.json").write_text(written, encoding="utf-8")
    manager = ScriptedManager.from_file(tmp_path / "plan.json")
    kinds = [line.proposal.action.kind for line in manager._left]
    assert sorted(kinds) == sorted(
        str(field.default) for kind in get_args(Action) for field in fields(kind) if field.name == "kind"
    )
    assert all(missing_expectation(line.proposal) is None for line in manager._left)
