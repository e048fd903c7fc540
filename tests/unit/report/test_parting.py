"""Where two runs part is found at the right step, with the evidence of both, and nothing else is taken for a difference."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.ledger.ledger_samples import STARTED
from tests.unit.report.parted_runs import BACK, SLOWER, a_run, up_to
from tests.unit.report.sample_run import whole_run
from trimtab.errors import LedgerError
from trimtab.ledger.record import CheckpointSaved, EvaluationRecorded, Origin, Record, RunEnded, RunResumed, RunStarted
from trimtab.report.parting import RecipeStretch, Unlike, part
from trimtab.report.repeat import HOUSEKEEPING


def test_a_run_is_identical_to_itself_whatever_happened_in_it() -> None:
    records = whole_run()
    parting = part(records, records)
    assert parting.is_none
    assert (parting.alike.num_records, parting.alike.step) == (len(counted(records)), 1000)
    found = (parting.start, parting.evaluation, parting.evidence, parting.decisions, parting.recipes, parting.versions)
    assert found == ((), None, None, (), (), ())


def test_another_action_is_the_first_decision_that_differs() -> None:
    parting = part(a_run(), a_run(SLOWER, run="two"))
    assert not parting.is_none
    assert (parting.start, parting.evaluation, parting.evidence) == ((), None, None)
    first = parting.decisions[0]
    assert (first.step, first.differs_in) == (200, ("action", "verdict", "change"))
    assert first.objectives == (2.1, 2.1)
    assert first.one is not None
    assert first.other is not None
    assert first.one.proposal is not None
    assert first.one.proposal.action == "rollback to step-00000100, dropout=0.1"
    assert [one.step for one in parting.decisions] == [200], "later ones hold in both runs"
    assert parting.alike.difference is not None
    assert (parting.alike.difference.step, parting.alike.difference.kind) == (201, "proposal_received")


def test_the_recipes_are_told_where_they_differ_only() -> None:
    one, other = a_run(), a_run(SLOWER)
    assert part(one, other).recipes == (
        RecipeStretch("dropout", 210, None, 0.1, 0.0),
        RecipeStretch("learning_rate", 210, None, 0.003, 0.0015),
    )
    assert part(other, one).recipes[0] == RecipeStretch("dropout", 210, None, 0.0, 0.1)
    records = whole_run()
    back = [replace(r, recipe=r.recipe.replace([("dropout", 0.2)])) if r.kind == "action_applied" else r for r in records]
    changed: list[Any] = [record if record.step != 210 else back[place] for place, record in enumerate(records)]
    assert part(records, changed).recipes == (RecipeStretch("dropout", 210, 329, 0.1, 0.2),), "the reflex brings both together"


def test_another_measurement_and_other_evidence_come_before_the_decision() -> None:
    parting = part(a_run(), a_run(measured=0.25, evidence=2.35))
    assert parting.evaluation is not None
    assert parting.evaluation.step == 200
    assert [one.name for one in parting.evaluation.values] == ["objective", "val/loss"]
    assert parting.evidence is not None
    assert (parting.evidence.step, parting.evidence.differs_in) == (200, ("evidence",))
    assert parting.decisions == (), "what was done about it is the same"
    assert parting.evidence.objectives == (2.1, 2.35)


def test_another_reason_alone_is_no_other_decision() -> None:
    parting = part(a_run(), a_run(reason="a hunch"))
    assert parting.decisions == ()
    assert not parting.is_none, "but the records are not the same"


def test_what_they_started_from_is_told_apart_from_what_followed() -> None:
    one, other = a_run(), a_run(manager="random:1")
    parting = part(one, other)
    assert parting.start == (Unlike("manager", '"rules"', '"random:1"'),)
    assert not parting.is_none
    assert parting.decisions == ()


def _with(records: list[Record], **changes: Any) -> list[Record]:
    started = records[0]
    assert isinstance(started, RunStarted)
    return [replace(started, **changes), *records[1:]]


def test_versions_are_told_and_do_not_part_two_runs() -> None:
    parting = part(a_run(), _with(a_run(), versions=(("torch", "2.14.0"), ("numpy", "2"))))
    assert parting.is_none
    assert parting.versions == (Unlike("torch", '"2.13.0"', '"2.14.0"'), Unlike("numpy", "none", '"2"'))


def test_another_envelope_is_told_by_its_fields_and_controls() -> None:
    one = a_run()
    started = one[0]
    assert isinstance(started, RunStarted)
    dropout, rate = started.envelope.controls
    envelope = replace(started.envelope, controls=(replace(rate, dwell_steps=7), replace(dropout, name="dropout/head")))
    envelope = replace(envelope, authority=replace(envelope.authority, rollbacks=1))
    parting = part([started], [replace(started, envelope=envelope, total_steps=None)])
    assert {one.name: (one.one, one.other) for one in parting.start if "controls.dropout" not in one.name} == {
        "total_steps": ("1000", "null"),
        "envelope.authority.rollbacks": ("10", "1"),
        "envelope.controls.learning_rate.dwell_steps": (str(rate.dwell_steps), "7"),
    }
    apart = {one.name: (one.one, one.other) for one in parting.start if "controls.dropout" in one.name}
    assert apart["envelope.controls.dropout"][1] == "none"
    assert apart["envelope.controls.dropout/head"][0] == "none"


def test_runs_with_other_controls_can_be_compared() -> None:
    other = _with([STARTED], run="two")
    parting = part(a_run(), other)
    assert any(one.name == "recipe.weight_decay" and one.one == "none" for one in parting.start)
    assert RecipeStretch("weight_decay", 0, None, None, 0.0) in parting.recipes


def counted(records: list[Record]) -> list[Record]:
    """Return the records that are compared."""
    return [record for record in records if not isinstance(record, HOUSEKEEPING)]


@pytest.mark.parametrize("step", [0, 60, 150, 205, 215, 260, 420])
def test_a_run_that_was_cut_off_or_goes_on_is_identical_as_far_as_it_goes(step: int) -> None:
    whole = a_run()
    short = up_to(whole, step)
    for parting in (part(whole, short), part(short, whole)):
        assert parting.is_none
        assert parting.alike.num_records == len(counted(short))
        assert (parting.evaluation, parting.decisions, parting.recipes, parting.evidence) == (None, (), (), None)


def test_every_prefix_of_a_run_is_identical_to_it() -> None:
    records = whole_run()
    for length in range(1, len(records)):
        parting = part(records[:length], records)
        assert parting.is_none
        assert (parting.decisions, parting.evaluation) == ((), None), f"after {length} records"


def test_a_run_that_ended_earlier_differs_where_it_ended() -> None:
    parting = part(a_run(last=300), a_run(last=500))
    assert not parting.is_none
    assert parting.alike.difference is not None
    assert parting.alike.difference.kind == "run_ended"
    assert parting.evaluation is not None
    assert (parting.evaluation.step, parting.evaluation.values) == (300, (Unlike("step", "none", "300"),))
    first = parting.decisions[0]
    assert (first.step, first.one, first.differs_in) == (300, None, ("decided",))


def test_a_resumed_run_is_identical_to_one_that_was_not_and_a_branch_says_what_it_is() -> None:
    records = a_run()
    origin = Origin("branch", "one", "ab" * 32, 3, "no_action", 2)
    resumed = [*records[:5], RunResumed(50, "step-00000050", 4, ()), *records[5:]]
    branch = [*records[:5], RunResumed(50, "step-00000050", 4, (), origin), *records[5:]]
    assert part(records, resumed).is_none
    parting = part(resumed, branch)
    assert parting.is_none
    assert [seen.origin for seen in parting.runs] == [None, origin]


def test_states_are_compared_by_their_hashes_and_do_not_part_two_runs_by_themselves() -> None:
    one = [replace(r, state_hash=f"{r.step:064d}") if isinstance(r, CheckpointSaved) else r for r in a_run()]
    other = [replace(r, state_hash="f" * 64) if isinstance(r, CheckpointSaved) and r.step == 300 else r for r in one]
    num_states = sum(r.kind == "checkpoint_saved" for r in one)
    assert part(one, one).alike.num_states == num_states
    assert part(one, one).alike.unlike_state_step is None
    parting = part(one, other)
    assert parting.is_none
    alike = parting.alike
    assert (alike.num_states, alike.num_unlike_states, alike.unlike_state_step) == (num_states - 1, 1, 300)


@pytest.mark.parametrize("step", [205, 300])
def test_a_run_whose_loop_raised_was_cut_off_and_is_compared_as_far_as_it_goes(step: int) -> None:
    whole = a_run()
    short = [*up_to(whole, step), RunEnded(step, "the training loop raised KeyError")]
    for parting in (part(whole, short), part(short, whole)):
        assert parting.is_none
        assert (parting.evaluation, parting.decisions, parting.recipes, parting.evidence) == (None, (), (), None)
    assert not part(whole, [*short[:-1], RunEnded(step, "finished")]).is_none


def test_a_metric_that_only_one_of_them_reports_is_told_and_a_timing_is_not() -> None:
    def reporting(*more: tuple[str, float]) -> list[Record]:
        return [
            replace(r, metrics=(*r.metrics, *more)) if isinstance(r, EvaluationRecorded) and r.step == 100 else r
            for r in a_run()
        ]

    parting = part(a_run(), reporting(("val/accuracy", math.nan), ("eval_runtime", 3.0)))
    assert parting.evaluation is not None
    assert parting.evaluation.values == (Unlike("val/accuracy", "none", '{"$float":"nan"}'),)
    assert part(a_run(), reporting(("eval_runtime", 3.0))).is_none


def test_decisions_that_only_one_of_them_made_are_paired_by_step() -> None:
    parting = part(whole_run(), a_run(BACK))
    reflex = [pair for pair in parting.decisions if pair.one is not None and pair.one.source == "reflex"]
    assert [(pair.step, pair.other) for pair in reflex] == [(330, None)]


def test_all_of_it_is_valid_json() -> None:
    tree = part(whole_run("\x1b\ud800"), a_run(SLOWER)).as_json()
    again = json.loads(json.dumps(tree, allow_nan=False), parse_constant=pytest.fail)
    assert again["identical"] is False
    assert set(again["runs"][0]) == {"summary", "totals", "origin", "has_ended"}


def test_an_empty_ledger_is_refused() -> None:
    for one, other in (([], a_run()), (a_run(), [])):
        with pytest.raises(LedgerError):
            part(one, other)
