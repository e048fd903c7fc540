"""Replay feeds detectors as the supervisor does, and the scores are what the rules say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import trimtab
from trimtab.bench.detection import (
    Finding,
    alarms,
    calm,
    converged_step,
    harm,
    is_healthy,
    merged,
    recognise,
    replay,
)
from trimtab.bench.traces import Course, Moment, Trace
from trimtab.diagnosis.base import Symptom, View
from trimtab.diagnosis.examine import EVALUATION_DETECTORS, STEP_DETECTORS
from trimtab.runtime import supervisor as supervisor_module

EVERY = 10


def a_trace(
    objective: list[float], losses: list[float] | None = None, injected: int | None = None, goal: str = "minimize val/loss"
) -> Trace:
    """A run with an evaluation after every tenth step."""
    losses = losses if losses is not None else [1.0 + 0.01 * (step % 7) for step in range(EVERY * len(objective))]
    moments: list[Moment] = []
    for step, loss in enumerate(losses, 1):
        moments.append(Moment(step, "step", {"loss": loss}))
        if step % EVERY == 0:
            moments.append(Moment(step, "evaluation", {goal.split()[1]: objective[step // EVERY - 1]}))
    fault = None if injected is None else "a fault"
    return Trace(Course("text", "base", 0, fault, injected, goal, EVERY, len(losses)), tuple(moments))


def found(*entries: tuple[int, str, str]) -> list[Finding]:
    return [Finding(step, name, severity) for step, name, severity in entries]  # type: ignore[arg-type] - the names are checked where they are made


FALLING = [2.0 - 0.1 * number for number in range(10)]


def test_replay_shows_detectors_what_the_supervisor_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = [2.0 / step + 0.01 * (step % 3) for step in range(1, 101)]
    losses[59] = 50.0
    losses[79] = math.nan
    trace = a_trace(FALLING, losses)
    seen: list[tuple[object, ...]] = []

    def look(view: View, detectors: object) -> tuple[Symptom, ...]:
        which = {id(STEP_DETECTORS): "step", id(EVALUATION_DETECTORS): "evaluation"}[id(detectors)]
        every = {name: view.telemetry.window(name) for name in view.telemetry.names()}
        windows = {name: window.state() for name, window in every.items() if window is not None}
        seen.append((view.step, which, windows, view.objective, view.evaluate_every_steps))
        return ()

    monkeypatch.setattr("trimtab.bench.detection.examine", look)
    replay(trace)
    replayed, seen = seen, []
    monkeypatch.setattr(supervisor_module, "examine", look)
    parameter = torch.nn.Parameter(torch.zeros(1))
    model = torch.nn.ParameterList([parameter])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    supervisor = trimtab.supervise(
        model,
        optimizer,
        controls=[trimtab.learning_rate(1e-3, 1.0)],
        objective="minimize val/loss",
        manager="no_action",
        run_dir=tmp_path / "run",
        evaluate_every_steps=EVERY,
    )
    for moment in trace.moments:
        if moment.kind == "step":
            supervisor.step(**moment.values)
        else:
            supervisor.evaluated(moment.values)
    supervisor.close()
    assert seen == replayed
    assert len(seen) == 110


def test_replay_finds_a_nan_at_its_step_and_nothing_before() -> None:
    losses = [1.0 + 0.01 * (step % 7) for step in range(100)]
    losses[44] = math.nan
    names = [(each.step, each.name) for each in replay(a_trace(FALLING, losses))]
    assert names == [(45, "non_finite")]


def test_replay_shows_the_recipe_from_the_step_on_at_which_it_is_in_force() -> None:
    rates: list[float | None] = []

    class Look:
        def detect(self, view: View) -> Symptom | None:
            rates.append(dict(view.recipe.values).get("learning_rate"))
            return None

    steps = [Moment(step, "step", {"loss": 1.0}) for step in (1, 2, 3)]
    change = Moment(2, "recipe", {"learning_rate": 0.5})
    course = Course("text", "base", 0, None, None, "minimize val/loss", EVERY, 3)
    replay(Trace(course, (steps[0], steps[1], change, steps[2])), (Look(),), ())
    assert rates == [None, None, 0.5]


def test_an_evaluation_without_the_objective_is_not_examined() -> None:
    moments = (Moment(1, "step", {"loss": 1.0}), Moment(1, "evaluation", {"val/accuracy": math.nan}))
    trace = Trace(Course("text", "base", 0, None, None, "minimize val/loss", EVERY, 1), moments)
    views: list[int] = []

    class Look:
        def detect(self, view: View) -> Symptom | None:
            views.append(view.step)
            return None

    replay(trace, (), (Look(),))
    assert views == []


def test_findings_of_one_name_within_100_steps_are_one() -> None:
    findings = found((1, "plateau", "warning"), (101, "plateau", "warning"), (150, "overfitting", "warning"))
    findings += found((202, "plateau", "warning"), (200, "overfitting", "warning"))
    assert [(each.step, each.name) for each in merged(findings)] == [(1, "plateau"), (150, "overfitting"), (202, "plateau")]


def test_a_row_is_followed_from_neighbour_to_neighbour() -> None:
    findings = found(*((step, "plateau", "warning") for step in range(0, 1000, 100)))
    assert [each.step for each in merged(findings)] == [0]


def test_a_notice_is_no_alarm() -> None:
    findings = found((1, "loss_spike", "notice"), (2, "divergence", "critical"), (3, "plateau", "warning"))
    assert [each.name for each in alarms(findings)] == ["divergence", "plateau"]


def test_a_notice_between_two_alarms_does_not_join_them() -> None:
    findings = found((1, "x", "warning"), (90, "x", "notice"), (180, "x", "warning"))
    assert [each.step for each in alarms(findings)] == [1, 180]


def test_the_converged_step_is_where_nearly_all_is_gained() -> None:
    assert converged_step(a_trace([5.0, 3.0, *[1.0] * 8])) == 60  # the mean of four is 1.0 from the sixth evaluation on


def test_a_run_that_still_gains_is_converged_at_its_end_only() -> None:
    assert converged_step(a_trace(FALLING)) == 100


def test_converging_follows_the_objectives_direction() -> None:
    assert converged_step(a_trace([0.0, 2.0, *[4.0] * 8], goal="maximize val/accuracy")) == 60


@pytest.mark.parametrize(
    ("values", "healthy"),
    [
        (FALLING, True),
        ([2.0, 1.5, 1.0, 1.0, 1.0, 1.0, 1.5, 1.5, 1.5, 1.5], False),  # it lost half of what it had gained
        ([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9], False),  # it never gained
        ([*FALLING[:-1], math.nan], False),
    ],
)
def test_a_healthy_run_gains_and_keeps_it(values: list[float], healthy: bool) -> None:
    assert is_healthy(a_trace(values)) is healthy


def test_every_alarm_on_a_healthy_run_is_false_except_standing_still_after_convergence() -> None:
    trace = a_trace([5.0, 3.0, *[1.0] * 8])  # converged at step 60
    findings = found((10, "plateau", "warning"), (60, "underfitting", "warning"), (61, "overfitting", "warning"))
    got = calm([trace], [[*findings, *found((90, "loss_spike", "notice"))]])
    assert got.alarms == {"plateau": 1, "overfitting": 1}
    assert got.standstill == {"underfitting": 1}
    assert got.notices == {"loss_spike": 1}
    assert got.per_thousand_steps == pytest.approx(20.0)
    assert got.num_alarmed_runs == 1


def test_a_run_whose_only_alarm_is_true_is_not_an_alarmed_one() -> None:
    assert calm([a_trace([5.0, 3.0, *[1.0] * 8])], [found((60, "plateau", "warning"))]).num_alarmed_runs == 0


def test_a_fault_is_recognised_by_its_answers_alone_and_only_from_its_step_on() -> None:
    trace, twin = a_trace(FALLING, injected=50), a_trace(FALLING)
    early = found((49, "divergence", "critical"), (53, "plateau", "warning"))
    runs = [[*early, *found((60, "divergence", "critical"))], early, found((50, "divergence", "notice"))]
    got = recognise("a fault", ("divergence", "loss_spike"), [trace] * 3, runs, [(twin, [])] * 3)
    assert got.delays == (10, None, 0)
    assert got.by == ("divergence", None, "divergence")
    assert got.any_delays == (3, 3, None)
    assert (got.num_found, got.median_delay, got.longest_delay, got.num_before) == (2, 5, 10, 2)


def test_a_twin_counts_only_answers_from_the_same_step_on() -> None:
    trace, twin = a_trace(FALLING, injected=50), a_trace(FALLING)
    twins = [(twin, found((49, "plateau", "warning"))), (twin, found((70, "plateau", "warning")))]
    assert recognise("a fault", ("plateau",), [trace] * 2, [[], []], twins).num_twins == 1


def test_a_fault_that_nobody_found_has_no_delay() -> None:
    trace = a_trace(FALLING, injected=50)
    got = recognise("a fault", ("plateau",), [trace], [[]], [(a_trace(FALLING), [])])
    assert (got.num_found, got.median_delay, got.longest_delay) == (0, None, None)


def test_harm_is_the_share_of_the_gain_that_was_lost() -> None:
    worse = a_trace([*FALLING[:-1], FALLING[0] - 0.45])  # the twin gains 0.9
    assert harm(worse, a_trace(FALLING)) == pytest.approx(0.5)
    assert harm(a_trace(FALLING), a_trace(FALLING)) == 0.0


def test_harm_is_unknown_where_the_last_evaluation_never_came() -> None:
    assert math.isnan(harm(a_trace(FALLING[:-1]), a_trace(FALLING)))
