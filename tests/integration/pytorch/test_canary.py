"""Trials of the canary on live trainings: what loses leaves no trace, what wins is what the arm had come to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import trimtab
from tests.integration.pytorch.conftest import WORKLOADS, Workload, digest, mlp, supervise
from tests.integration.pytorch.managed import adjust, boundary, records, script
from trimtab.cli.app import app
from trimtab.controls.safeguards import Canary, CanaryMode
from trimtab.decision.action import Action, Change, NoAction, Rollback, RollbackAndAdjust, SkipBatches
from trimtab.errors import CheckpointError, UsageError
from trimtab.integrations.pytorch.state import TorchStateStore
from trimtab.ledger.course import iter_course
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import (
    ActionApplied,
    ActionIntended,
    EvaluationRecorded,
    ManagerAsked,
    ProblemNoticed,
    SymptomObserved,
    TrialBegan,
    TrialEnded,
    TrialMeasured,
    TrialMoved,
    VerdictGiven,
)
from trimtab.report.lineage import build_lineage
from trimtab.report.schedule_text import schedule_text
from trimtab.report.timeline import build_timeline
from trimtab.runtime.supervisor import Supervisor

H, D, EVERY = 6, 3, 10
FORK = 21  # asked at 20, answered at the next step in mode boundary
CANARY = Canary("win", steps=H, look_steps=0, decay_steps=D, budget=1.0)


def under_trial(workload: Workload, run_dir: Path, **values: float) -> Supervisor:
    """Attach with a manager that proposes ``values`` after step `FORK`."""
    return supervise(workload, run_dir, script((20, adjust(**values))), EVERY, envelope=boundary(canary=CANARY))


def tried(
    tmp_path: Path,
    action: Action,
    verdict: Callable[[int], float],
    steps: int = 60,
    canary: Canary = CANARY,
    make: Callable[[int], Workload] = mlp,
    **options: Any,
) -> tuple[Workload, Supervisor]:
    """Train with one trial after step `FORK`; ``verdict`` gives the objective at a step of the loop."""
    workload = make(3)
    envelope = boundary(canary=canary)
    with supervise(workload, tmp_path / "run", script((20, action)), EVERY, envelope=envelope, **options) as supervisor:
        workload.train(steps, supervisor, lambda: verdict(supervisor.num_steps))
    return workload, supervisor


def plain(steps: int, make: Callable[[int], Workload] = mlp) -> list[str]:
    workload = make(3)
    workload.train(steps)
    return workload.hashes


CANDIDATE_EVALUATED = FORK + 2 * H + D
HELD_EVALUATED = CANDIDATE_EVALUATED + 1 + D
END = HELD_EVALUATED + 1


LOOK = 2
LOOKED = replace(CANARY, look_steps=LOOK)
HELD_LOOKED_AT = FORK + LOOK
CANDIDATE_LOOKED_AT = HELD_LOOKED_AT + 1 + H
END_WITH_LOOKS = END + 2


def look(candidate: float, held: float) -> Callable[[int], float]:
    """Return the objective at each step: as given at the early looks; behind them the candidate is better."""
    at = {HELD_LOOKED_AT: held, CANDIDATE_LOOKED_AT: candidate, CANDIDATE_EVALUATED + 2: 0.9, HELD_EVALUATED + 2: 1.0}
    return lambda step: at.get(step, 1.0)


def favour(candidate: float, held: float) -> Callable[[int], float]:
    return lambda step: {CANDIDATE_EVALUATED: candidate, HELD_EVALUATED: held}.get(step, 1.0)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_trial_that_is_lost_leaves_no_trace(name: str, tmp_path: Path) -> None:
    make = WORKLOADS[name]
    workload, supervisor = tried(tmp_path, adjust(learning_rate=2e-2), favour(2.0, 1.0), make=make)
    [ended] = records(supervisor, TrialEnded)
    assert (ended.outcome, ended.spent, ended.step) == ("lost", H + 2 * (D + 1), END)
    expected = plain(60 - ended.spent, make)
    assert workload.hashes[: FORK + H - 1] == expected[: FORK + H - 1], "the first arm is the run itself"
    assert workload.hashes[END - 1] == expected[FORK + H - 1], "and where it goes on"
    assert workload.hashes[END:] == expected[FORK + H :]
    assert records(supervisor, ActionIntended) == []
    assert supervisor.recipe == supervisor.state.initial


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_manager_that_never_acts_leaves_training_alone_under_a_canary(name: str, tmp_path: Path) -> None:
    make = WORKLOADS[name]
    workload, supervisor = tried(tmp_path, NoAction(), lambda _: 1.0, make=make, canary=LOOKED)
    assert workload.hashes == plain(60, make)
    assert records(supervisor, TrialBegan) == []


def test_a_trial_that_is_won_goes_on_where_its_arm_ended(tmp_path: Path) -> None:
    workload, supervisor = tried(tmp_path, adjust(learning_rate=2e-2, dropout=0.3), favour(1.0, 2.0))
    oracle = mlp(3)
    with supervise(
        oracle, tmp_path / "oracle", script((20, adjust(learning_rate=2e-2, dropout=0.3))), EVERY, envelope=boundary()
    ) as it:
        oracle.train(60, it, lambda: 1.0)
    spent = H + 2 * (D + 1)
    [ended] = records(supervisor, TrialEnded)
    assert (ended.outcome, ended.spent) == ("won", spent)
    assert workload.hashes[FORK + H : FORK + 2 * H] == oracle.hashes[FORK : FORK + H], "the arm is the run with the change"
    assert workload.hashes[END - 1 : END + 1] == oracle.hashes[FORK + H - 1 : FORK + H + 1]
    [intended] = records(supervisor, ActionIntended)
    assert (intended.trial, intended.step, len(records(supervisor, ActionApplied))) == (1, END, 1)
    assert supervisor.recipe["dropout"] == 0.3
    assert supervisor.state.lineage_step(END) == FORK + H
    assert (supervisor.state.interventions[0].step, supervisor.state.interventions[0].trial) == (END, 1)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_candidate_that_is_clearly_worse_early_is_given_up_there(name: str, tmp_path: Path) -> None:
    make = WORKLOADS[name]
    workload, supervisor = tried(tmp_path, adjust(learning_rate=2e-2), look(1.2, 1.0), canary=LOOKED, make=make)
    [ended] = records(supervisor, TrialEnded)
    assert (ended.outcome, ended.spent, ended.step) == ("lost", 1 + LOOK + 1, CANDIDATE_LOOKED_AT + 1)
    assert ended.reason == "val/loss 1.2 with it, 1 without, at the early look"
    expected = plain(60 - ended.spent, make)
    assert workload.hashes[:HELD_LOOKED_AT] == expected[:HELD_LOOKED_AT]
    assert workload.hashes[HELD_LOOKED_AT + 1 : FORK + H] == expected[HELD_LOOKED_AT : FORK + H - 1], "behind the look, too"
    assert workload.hashes[ended.step :] == expected[FORK + H :]
    assert supervisor.state.lineage_step(60) == 60 - ended.spent


@pytest.mark.parametrize("at_look", [0.5, 1.0, 1.01])
def test_a_candidate_that_is_not_clearly_worse_early_goes_on(at_look: float, tmp_path: Path) -> None:
    workload, supervisor = tried(tmp_path, adjust(learning_rate=2e-2, dropout=0.3), look(at_look, 1.0), canary=LOOKED)
    oracle = mlp(3)
    script_ = script((20, adjust(learning_rate=2e-2, dropout=0.3)))
    with supervise(oracle, tmp_path / "oracle", script_, EVERY, envelope=boundary()) as it:
        oracle.train(60, it, lambda: 1.0)
    [ended] = records(supervisor, TrialEnded)
    assert (ended.outcome, ended.spent, ended.step) == ("won", H + 2 * (D + 1) + 2, END_WITH_LOOKS)
    measured = [(one.arm, one.leg, one.step) for one in records(supervisor, TrialMeasured)]
    assert measured == [
        ("no_action", "look", HELD_LOOKED_AT),
        ("candidate", "look", CANDIDATE_LOOKED_AT),
        ("candidate", "decay", CANDIDATE_EVALUATED + 2),
        ("no_action", "decay", HELD_EVALUATED + 2),
    ]
    begin = FORK + H + 1  # of the candidate's arm
    lineage = supervisor.state.lineage_step
    assert [lineage(begin + LOOK), lineage(begin + LOOK + 3)] == [FORK + LOOK, FORK + LOOK + 2]
    assert workload.hashes[begin : begin + LOOK] == oracle.hashes[FORK : FORK + LOOK]
    assert workload.hashes[begin + LOOK + 1 : begin + H + 1] == oracle.hashes[FORK + LOOK : FORK + H], "behind the look, too"
    assert workload.hashes[END_WITH_LOOKS - 1 :] == oracle.hashes[FORK + H - 1 : 60 - ended.spent]
    assert supervisor.state.lineage_step(END_WITH_LOOKS) == FORK + H


def test_an_evaluation_that_draws_random_numbers_does_not_change_the_arms(tmp_path: Path) -> None:
    workload = mlp(3)
    value = look(1.0, 1.0)
    with supervise(
        workload, tmp_path / "run", script((20, adjust(dropout=0.3))), EVERY, envelope=boundary(canary=LOOKED)
    ) as it:
        workload.train(60, it, lambda: value(it.num_steps) + 0.0 * float(torch.rand(()) if it.in_trial else 0.0))
    expected = plain(60)
    assert workload.hashes[HELD_LOOKED_AT + 1 : FORK + H] == expected[HELD_LOOKED_AT : FORK + H - 1]
    assert [one.outcome for one in records(it, TrialEnded)] == ["won"]


def test_a_loop_that_does_not_look_early_is_tried_to_the_end(tmp_path: Path) -> None:
    workload = mlp(3)
    late = {10, 20, CANDIDATE_EVALUATED + 2, HELD_EVALUATED + 2}
    with supervise(
        workload, tmp_path / "run", script((20, adjust(dropout=0.3))), EVERY, envelope=boundary(canary=LOOKED)
    ) as it:
        workload.train(60, it, None, after_step=lambda s: it.evaluated({"val/loss": look(9.0, 1.0)(s)}) if s in late else None)
    assert [one.outcome for one in records(it, TrialEnded)] == ["won"]


@pytest.mark.parametrize(
    "steps", [HELD_LOOKED_AT, HELD_LOOKED_AT + 1, HELD_LOOKED_AT + 3, CANDIDATE_LOOKED_AT, CANDIDATE_LOOKED_AT + 1]
)
def test_a_loop_that_ends_around_an_early_look_ends_with_its_own_course(steps: int, tmp_path: Path) -> None:
    workload, supervisor = tried(tmp_path, adjust(dropout=0.5, learning_rate=2e-2), look(1.0, 1.0), steps=steps, canary=LOOKED)
    [ended] = records(supervisor, TrialEnded)
    assert ended.outcome == "abandoned"
    assert digest(workload.model, workload.optimizer) == plain(steps - ended.spent)[-1]
    assert supervisor.state.lineage_step(steps) == steps - ended.spent
    assert workload.dropout.p == 0.1


@pytest.mark.parametrize(("step", "outcome"), [(HELD_LOOKED_AT + 1, "abandoned"), (CANDIDATE_LOOKED_AT + 1, "lost")])
def test_a_fault_in_the_step_behind_an_early_look_leaves_no_trace(step: int, outcome: str, tmp_path: Path) -> None:
    workload = mlp(3)
    poison = lambda at, loss: loss * torch.nan if at == step else loss  # noqa: E731 - read again at every call
    with supervise(
        workload, tmp_path / "run", script((20, adjust(dropout=0.5))), EVERY, envelope=boundary(canary=LOOKED)
    ) as it:
        workload.train(50, it, lambda: look(1.0, 1.0)(it.num_steps), loss_hook=poison)
    [ended] = records(it, TrialEnded)
    assert ended.outcome == outcome
    assert workload.hashes[-1] == plain(50 - ended.spent)[-1]
    assert it.state.reflex_rollbacks_used == 0


def test_the_arms_are_recorded_in_order_and_their_evaluations_are_no_ones_of_the_run(tmp_path: Path) -> None:
    _, supervisor = tried(tmp_path, adjust(dropout=0.3), favour(1.0, 2.0))
    assert [record.step for record in records(supervisor, TrialBegan)] == [FORK]
    moves = [(record.step, record.arm, record.leg) for record in records(supervisor, TrialMoved)]
    assert moves == [
        (FORK + H, "candidate", "arm"),
        (FORK + 2 * H, "candidate", "decay"),
        (CANDIDATE_EVALUATED + 1, "no_action", "decay"),
    ]
    assert [(one.arm, one.objective) for one in records(supervisor, TrialMeasured)] == [("candidate", 1.0), ("no_action", 2.0)]
    assert [record.step for record in records(supervisor, EvaluationRecorded)] == [10, 20, 50, 60]


def test_the_rate_decays_to_zero_and_comes_back(tmp_path: Path) -> None:
    rates: dict[int, float] = {}
    workload = mlp(3)
    workload.scheduler = None
    with supervise(
        workload, tmp_path / "run", script((20, adjust(learning_rate=2e-2))), EVERY, envelope=boundary(canary=CANARY)
    ) as it:
        hook = workload.optimizer.register_step_pre_hook(
            lambda optimizer, *_: rates.update({it.num_steps + 1: optimizer.param_groups[0]["lr"]})
        )
        workload.train(END + 3, it, lambda: favour(2.0, 1.0)(it.num_steps))
        hook.remove()
    assert [rates[FORK + H + number] for number in range(1, H + 1)] == [2e-2] * H
    decays = [rates[FORK + 2 * H + number] for number in range(1, D + 1)]
    assert decays == pytest.approx([1.5e-2, 1e-2, 5e-3])
    assert [rates[CANDIDATE_EVALUATED + 1 + number] for number in range(1, D + 1)] == pytest.approx([7.5e-3, 5e-3, 2.5e-3])
    assert rates[END + 1] == 1e-2
    assert workload.optimizer.param_groups[0]["lr"] == 1e-2, "outside of a step nothing of it is seen"


def test_a_candidate_that_breaks_the_run_is_given_up_at_once(tmp_path: Path) -> None:
    workload = mlp(3)
    poison = lambda step, loss: loss * torch.nan if step == FORK + H + 2 else loss  # noqa: E731 - read again at every call
    with supervise(
        workload, tmp_path / "run", script((20, adjust(dropout=0.5))), EVERY, envelope=boundary(canary=CANARY)
    ) as it:
        workload.train(50, it, lambda: 1.0, loss_hook=poison)
    [ended] = records(it, TrialEnded)
    assert (ended.outcome, ended.spent, ended.step) == ("lost", 2, FORK + H + 2)
    assert "non_finite" in ended.reason
    assert workload.hashes[FORK + H + 2 - 1 :] == plain(50 - 2)[FORK + H - 1 :]
    assert it.state.reflex_rollbacks_used == 0


def test_a_fault_of_the_run_itself_is_the_reflexs(tmp_path: Path) -> None:
    workload = mlp(3)
    poison = lambda step, loss: loss * torch.nan if step == FORK + 2 else loss  # noqa: E731 - read again at every call
    with supervise(
        workload, tmp_path / "run", script((20, adjust(dropout=0.5))), EVERY, envelope=boundary(canary=CANARY)
    ) as it:
        workload.train(50, it, lambda: 1.0, loss_hook=poison)
    assert [(one.outcome, one.spent) for one in records(it, TrialEnded)] == [("abandoned", 0)]
    assert it.state.reflex_rollbacks_used == 1


def test_a_loop_that_does_not_evaluate_when_due_gets_its_own_course_back(tmp_path: Path) -> None:
    workload = mlp(3)
    with supervise(
        workload, tmp_path / "run", script((20, adjust(dropout=0.5))), EVERY, envelope=boundary(canary=CANARY)
    ) as it:

        def after(step: int) -> None:
            if step % EVERY == 0:
                it.evaluated({"val/loss": 1.0})

        workload.train(60, it, None, after_step=after)
    [ended] = records(it, TrialEnded)
    assert (ended.outcome, ended.reason) == ("abandoned", "the loop did not evaluate when supervisor.evaluation_due")
    assert workload.hashes[-1] == plain(60 - ended.spent)[-1]


@pytest.mark.parametrize("steps", [FORK + 2, FORK + H + 2, FORK + 2 * H + 1, CANDIDATE_EVALUATED + 2, HELD_EVALUATED])
def test_a_loop_that_ends_during_a_trial_ends_with_its_own_course(steps: int, tmp_path: Path) -> None:
    workload, supervisor = tried(tmp_path, adjust(dropout=0.5, learning_rate=2e-2), favour(1.0, 2.0), steps=steps)
    own = min(steps, FORK + H)
    assert digest(workload.model, workload.optimizer) == plain(own)[-1]
    assert [one.outcome for one in records(supervisor, TrialEnded)] == ["abandoned"]
    assert workload.model.training
    assert workload.dropout.p == 0.1


@pytest.mark.parametrize(("total", "begins"), [(40, False), (END, False), (50, False), (51, True), (60, True)])
def test_no_trial_begins_behind_which_no_evaluation_would_come(total: int, begins: bool, tmp_path: Path) -> None:
    assert 40 < END < 50
    _, supervisor = tried(tmp_path, adjust(dropout=0.5), favour(1.0, 2.0), steps=total, total_steps=total)
    assert len(records(supervisor, TrialBegan)) == begins
    assert len(records(supervisor, ActionIntended)) == begins


def test_the_budget_is_never_passed_and_what_it_does_not_cover_is_not_applied(tmp_path: Path) -> None:
    workload = mlp(3)
    manager = script(*((step, adjust(dropout=(0.3, 0.5, 0.0)[step // 10 % 3])) for step in range(10, 400, 10)))
    canary = replace(CANARY, budget=0.15)
    spent: list[tuple[int, int]] = []
    with supervise(workload, tmp_path / "run", manager, EVERY, envelope=boundary(canary=canary)) as it:
        workload.train(400, it, lambda: 1.0 / it.num_steps, after_step=lambda s: spent.append((s, it.state.trial_steps)))
    assert len(records(it, TrialEnded)) == 4
    assert all(cost <= 0.15 * step for step, cost in spent)
    assert len(records(it, ActionIntended)) == sum(one.outcome == "won" for one in records(it, TrialEnded))


def test_mode_veto_applies_what_is_no_worse_and_what_cannot_be_tried(tmp_path: Path) -> None:
    for place, (candidate, outcome) in enumerate(((1.0, "won"), (1.1, "lost"))):
        _, supervisor = tried(
            tmp_path / str(place), adjust(dropout=0.5), favour(candidate, 1.0), canary=replace(CANARY, mode="veto")
        )
        assert [one.outcome for one in records(supervisor, TrialEnded)] == [outcome]
    _, supervisor = tried(
        tmp_path / "2", adjust(dropout=0.5), favour(1.0, 1.0), canary=replace(CANARY, mode="veto", budget=0.01)
    )
    assert records(supervisor, TrialBegan) == []
    assert [one.trial for one in records(supervisor, ActionIntended)] == [0]


@pytest.mark.parametrize("held", [float("nan"), float("inf")])
@pytest.mark.parametrize(("mode", "outcome"), [("win", "abandoned"), ("veto", "won")])
def test_beside_what_was_not_measured_nothing_wins(mode: CanaryMode, outcome: str, held: float, tmp_path: Path) -> None:
    _, supervisor = tried(tmp_path, adjust(dropout=0.5), favour(1.0, held), canary=replace(CANARY, mode=mode))
    assert [one.outcome for one in records(supervisor, TrialEnded)] == [outcome]
    assert len(records(supervisor, ActionIntended)) == (outcome == "won")
    assert supervisor.state.lost_trials == (), "the manager is not told that it lost"


@pytest.mark.parametrize("action", [Rollback("step-00000010"), SkipBatches(3)])
def test_rollbacks_and_skips_are_tried_too(action: Action, tmp_path: Path) -> None:
    for place, (candidate, held) in enumerate(((1.0, 2.0), (2.0, 1.0))):
        favoured = favour(candidate, held)
        # A little worse at 20 than at 10: that may be noise.
        workload, supervisor = tried(tmp_path / str(place), action, lambda at: 1.01 if at == 20 else favoured(at))  # noqa: B023 - called in this turn
        [ended] = records(supervisor, TrialEnded)
        assert ended.outcome == ("won" if candidate < held else "lost")
        if candidate > held:
            assert workload.hashes[-1] == plain(60 - ended.spent)[-1]
        elif isinstance(action, Rollback):
            assert supervisor.state.lineage_step(END) == 10 + H
            assert workload.hashes[END - 1] == plain(10 + H)[-1]


@pytest.mark.parametrize("budget", [1.0, 0.01])
def test_a_way_back_to_a_state_that_was_measured_to_be_better_needs_no_trial(budget: float, tmp_path: Path) -> None:
    action = Rollback("step-00000010")
    workload, supervisor = tried(
        tmp_path, action, lambda step: 1.5 if step == 20 else 1.0, canary=replace(CANARY, budget=budget), steps=40
    )
    assert records(supervisor, TrialBegan) == []
    assert [one.action for one in records(supervisor, ActionIntended)] == [action]
    assert workload.hashes[-1] == plain(40 - (FORK - 10))[-1]


def test_without_budget_only_what_needs_no_trial_is_offered(tmp_path: Path) -> None:
    workload = mlp(3)
    with supervise(
        workload,
        tmp_path / "run",
        script((20, adjust(dropout=0.3))),
        EVERY,
        envelope=boundary(canary=replace(CANARY, budget=0.01)),
    ) as it:
        workload.train(40, it, lambda: 1.5 if it.num_steps == 20 else 1.0)
    [asked] = [one for one in records(it, ManagerAsked) if one.step == 20]
    surface = asked.briefing.surface
    assert ([one.checkpoint for one in surface.rollbacks], surface.adjustable, surface.max_skip) == (["step-00000010"], (), 0)
    assert all(option.adjustable == () for option in surface.rollbacks)
    assert [one.accepted for one in records(it, VerdictGiven) if one.step == FORK] == [False]
    assert it.recipe == it.state.initial


def test_a_state_that_cannot_be_kept_costs_the_trial_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: TorchStateStore) -> object:
        raise CheckpointError("no memory")

    monkeypatch.setattr(TorchStateStore, "keep", refuse)
    workload, supervisor = tried(tmp_path, adjust(dropout=0.5), favour(1.0, 2.0))
    assert records(supervisor, TrialBegan) == []
    assert any(one.problem == "a trial could not begin" for one in records(supervisor, ProblemNoticed))
    assert workload.hashes == plain(60)


def test_a_state_that_cannot_be_brought_back_is_fetched_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    bring_back = TorchStateStore.bring_back

    def refuse(store: TorchStateStore, kept: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise CheckpointError("a bit flipped")
        bring_back(store, kept)

    monkeypatch.setattr(TorchStateStore, "bring_back", refuse)
    workload, supervisor = tried(tmp_path, adjust(dropout=0.5), favour(1.0, 2.0))
    assert [one.outcome for one in records(supervisor, TrialEnded)] == ["abandoned"]
    [order] = records(supervisor, ActionIntended)
    assert (order.source, order.action) == ("guard", Rollback("step-00000020"))
    assert workload.dropout.p == 0.1
    assert not supervisor.is_held


def test_a_loader_without_a_position_is_refused_with_what_to_do(tmp_path: Path) -> None:
    workload = mlp(3)
    with pytest.raises(UsageError, match="ResumableLoader"):
        trimtab.supervise(
            workload.model, workload.optimizer, loader=[1, 2], envelope=boundary(canary=CANARY), run_dir=tmp_path / "run"
        )
    with supervise(workload, tmp_path / "other") as supervisor:
        workload.train(10, supervisor)
    assert not supervisor.is_held


def test_a_verdict_of_the_verifier_comes_before_the_trial(tmp_path: Path) -> None:
    _, supervisor = tried(tmp_path, adjust(dropout=0.45), favour(1.0, 2.0))
    assert records(supervisor, TrialBegan) == []
    assert [one.accepted for one in records(supervisor, VerdictGiven)][:1] == [False]


def test_a_loop_can_see_that_it_is_in_a_trial(tmp_path: Path) -> None:
    seen: list[int] = []
    workload = mlp(3)
    with under_trial(workload, tmp_path / "run", dropout=0.3) as it:
        note = lambda step: seen.append(step) if it.in_trial else None  # noqa: E731 - read again at every call
        workload.train(60, it, lambda: favour(1.0, 2.0)(it.num_steps), after_step=note)
    assert seen == list(range(FORK, END))


@pytest.mark.parametrize(("candidate", "ending"), [(1.0, "applied"), (3.0, "not_better")])
def test_a_trial_is_told_from_its_beginning_to_its_cost(
    candidate: float, ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="trimtab"):
        _, supervisor = tried(tmp_path, adjust(dropout=0.3), favour(candidate, 2.0))
    timeline = build_timeline(entry.record for entry in read_ledger(supervisor.run_directory.ledger))
    decision = next(one for one in timeline.decisions if one.tried is not None)
    outcome, cost = ("won" if ending == "applied" else "lost"), H + 2 * (D + 1)
    told = f"val/loss {candidate:g} with it, 2 without"
    logged = [record.getMessage() for record in caplog.records if "trial" in record.getMessage()]
    assert logged == [
        f"step {FORK}: trial 1 begins: dropout=0.3, in at most {END - FORK} steps (planned)",
        f"step {END}: trial 1 {outcome}: {told}; steps spent: {cost}",
    ]
    tried_ = decision.tried
    assert tried_ is not None
    assert (tried_.began, tried_.ended, tried_.outcome, tried_.reason, tried_.spent) == (FORK, END, outcome, told, cost)
    assert decision.ending == ending
    summary = timeline.summary
    assert (summary.trials, summary.trials_won, summary.trial_steps) == (1, int(ending == "applied"), cost)
    shown = CliRunner().invoke(app, ["show", str(supervisor.run_directory.path), "--all"])
    said = " ".join(shown.output.split())
    assert f"{outcome} · {told} · steps {FORK} to {END}, {cost} steps spent" in said
    assert f"1 trial, {int(ending == 'applied')} won" in said


def test_the_record_says_from_which_step_of_the_weights_a_winner_was_in_force(tmp_path: Path) -> None:
    _, supervisor = tried(tmp_path, adjust(dropout=0.3), favour(1.0, 2.0))
    lineage = build_lineage(entry.record for entry in read_ledger(supervisor.run_directory.ledger))
    [deed] = lineage.deeds
    assert (deed.step, deed.lineage_step) == (END, FORK)


@pytest.mark.parametrize(
    "action", [adjust(learning_rate=2e-2, dropout=0.3), RollbackAndAdjust("step-00000010", (Change("dropout", 0.3),))]
)
def test_the_exported_schedule_of_a_run_with_a_won_trial_leads_to_the_same_weights(action: Action, tmp_path: Path) -> None:
    workload, supervisor = tried(tmp_path, action, lambda at: 1.01 if at == 20 else favour(1.0, 2.0)(at))
    [ended] = records(supervisor, TrialEnded)
    assert ended.outcome == "won"
    file = tmp_path / "plan.yaml"
    _, text = schedule_text(iter_course(supervisor.run_directory.ledger), "0.1.0")
    file.write_text(text, encoding="utf-8")
    length = supervisor.state.lineage_step(60)
    again = mlp(3)
    with supervise(again, tmp_path / "again", f"schedule:{file}", EVERY, envelope=boundary(canary=CANARY)) as it:
        again.train(length, it, lambda: 1.0)
    assert again.hashes[-1] == workload.hashes[-1]


def test_an_objective_that_a_long_trial_holds_back_is_not_missed(tmp_path: Path) -> None:
    workload = mlp(3)
    long = replace(CANARY, steps=4 * EVERY)
    with supervise(workload, tmp_path / "run", script((50, adjust(dropout=0.5))), EVERY, envelope=boundary(canary=long)) as it:
        workload.train(50 + 4 * EVERY, it, lambda: 1.0)
        assert it.in_trial
    assert "metric_stale" not in {seen.symptom.name for seen in records(it, SymptomObserved)}
