"""A fault that is back at once is given time to pass before the ladder is climbed; damaged checkpoints are passed by."""

from __future__ import annotations

from dataclasses import replace

from tests.builders import a_symptom, an_envelope
from tests.fake_run import Run
from trimtab.controller.event import SymptomRaised
from trimtab.decision.action import SkipBatches, Stop, checkpoint_of
from trimtab.diagnosis.base import SINCE_STEP, Evidence
from trimtab.ledger.record import ActionIntended


def _rollbacks(run: Run, steps: range) -> list[int]:
    """Raise a fault after every step; return the steps after which it was answered by a rollback."""
    went: list[int] = []
    for at in steps:
        orders = len(run.orders)
        run.fault(at)
        while len(run.orders) > orders:
            orders = len(run.orders)
            if checkpoint_of(run.orders[-1].action) is not None:
                went.append(at)
            run.done(at)
    return went


def test_a_burst_is_waited_for_and_is_one_attempt() -> None:
    run = Run(an_envelope(), can_skip=True)
    run.checkpoint(100)
    assert _rollbacks(run, range(150, 161)) == [150, 152, 160]
    assert (run.now.fault_attempts, run.now.fault_repeats, run.now.stop_reason) == (1, 2, None)
    assert not any(isinstance(order.action, SkipBatches) for order in run.orders)


def test_a_fault_that_does_not_pass_climbs_the_ladder_and_ends_with_what_to_look_at() -> None:
    run = Run(an_envelope(), can_skip=True)
    run.checkpoint(100)
    assert _rollbacks(run, range(150, 170)) == [150, 152, 160, 161, 162, 163]
    assert run.orders[-1].action == Stop()
    (*_, last) = [record for record in run.records if isinstance(record, ActionIntended)]
    assert last.reason.startswith("non_finite in loss is back after 6 rollbacks: look at the batches")


def test_a_fault_at_the_same_place_is_no_burst() -> None:
    run = Run(an_envelope(), can_skip=True)
    run.checkpoint(100)
    assert _rollbacks(run, range(101, 102)) == [101]
    assert _rollbacks(run, range(102, 103)) == [102], "the batch right behind the checkpoint, met again"
    assert run.now.fault_attempts == 2


def test_the_skipped_batches_are_recorded_in_words() -> None:
    run = Run(an_envelope(), can_skip=True)
    run.checkpoint(100)
    _rollbacks(run, range(150, 151))
    _rollbacks(run, range(200, 201))
    skipped = [r for r in run.records if isinstance(r, ActionIntended) and isinstance(r.action, SkipBatches)]
    assert [record.reason for record in skipped] == ["pass over batches 1 to 200 behind step-00000100: they led to the fault"]


def test_a_checkpoint_that_was_saved_when_the_loss_had_left_its_level_is_passed_by() -> None:
    for since, chosen in ((150, "step-00000149"), (149, "step-00000100"), (100, "step-00000100")):
        run = Run()
        run.checkpoint(100)
        run.checkpoint(149 if since < 150 else 148)
        run.checkpoint(150)
        symptom = replace(a_symptom("divergence", "critical", 153, "loss"), evidence=(Evidence(SINCE_STEP, since),))
        run.give(SymptomRaised(153, symptom))
        expected = "step-00000148" if since == 150 else chosen
        assert checkpoint_of(run.orders[-1].action) == expected, since
