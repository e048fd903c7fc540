"""Each tracker is told in its own way, and none of its user's steps is moved or lost by that."""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import Any

import pytest

from tests.unit.integrations.trackers.tracker_doubles import (
    MlflowRun,
    MlflowStore,
    SummaryWriter,
    TrackioRun,
    WandbRun,
    mlflow_module,
    trackio_module,
    wandb_module,
)
from tests.unit.report.sample_run import whole_run
from tests.unit.runtime.test_tracking import Kept, tell_all
from trimtab.errors import UsageError
from trimtab.integrations.trackers.find import find_trackers
from trimtab.integrations.trackers.mlflow import MlflowTracker
from trimtab.integrations.trackers.tensorboard import TensorBoardTracker
from trimtab.integrations.trackers.trackio import TrackioTracker
from trimtab.integrations.trackers.wandb import WandbTracker
from trimtab.runtime.tracking import Told, Tracker, Tracking


@pytest.fixture(autouse=True)
def _no_tracker_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wandb", "mlflow", "trackio"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def tell(tracker: Tracker, caplog: pytest.LogCaptureFixture) -> None:
    tracking = Tracking([tracker])
    tell_all(tracking, whole_run())
    tracking.close(10.0)
    assert "is told nothing more" not in caplog.text


def some(step: int, subject: Any = "intervention", *, is_warning: bool = False) -> Told:
    return Told(step, step, subject, f"what happened at {step}", {"trimtab/recipe/dropout": step / 10}, is_warning)


def test_tensorboard_gets_scalars_and_texts_at_their_steps(caplog: pytest.LogCaptureFixture) -> None:
    writer = SummaryWriter()
    tell(TensorBoardTracker(writer), caplog)
    assert ("trimtab/recipe/dropout", 0.1, 210) in writer.scalars
    assert ("trimtab/interventions", 1.0, 210) in writer.scalars
    assert any(tag == "trimtab/intervention" and step == 210 and "dropout=0.1" in text for tag, text, step in writer.texts)
    assert writer.num_flushed == 1
    assert writer.all_writers is not None, "the writer is its user's to close"


def test_a_summary_writer_that_was_closed_begins_no_other_file(caplog: pytest.LogCaptureFixture) -> None:
    writer = SummaryWriter()
    tracking = Tracking([TensorBoardTracker(writer)])
    writer.close()
    tell_all(tracking, whole_run())
    tracking.close(10.0)
    assert (writer.scalars, writer.num_flushed) == ([], 0)
    assert "the SummaryWriter was closed" in caplog.text


@pytest.mark.parametrize("own_steps", [True, False], ids=["with steps", "without steps"])
def test_no_row_of_a_wandb_user_is_moved_or_dropped(own_steps: bool) -> None:
    def train(*, is_told: bool) -> WandbRun:
        run = WandbRun()
        tracker = WandbTracker(run)
        for step in range(10):
            if is_told:
                tracker.track(some(step * 7))  # of steps of its own, ahead of the user's
                tracker.track(some(step * 7 + 1, is_warning=True))
            run.log({"loss": float(step)}, step=step if own_steps else None)
        run.finish()
        assert run.dropped == []
        return run

    with_us, without = train(is_told=True), train(is_told=False)
    assert [(row["_step"], row["loss"]) for row in with_us.rows] == [(row["_step"], row["loss"]) for row in without.rows]
    told = {row["trimtab/step"]: row for row in with_us.rows if "trimtab/step" in row}
    newest = [7 * step + 1 for step in range(10)]
    assert list(told) == (newest[1:] if own_steps else newest), "of what came into one row, the newest"
    assert told[22]["trimtab/recipe/dropout"] == 2.2
    assert told[22]["trimtab/intervention"] == "step 22: what happened at 22"
    assert with_us.axes == {"trimtab/step": None, "trimtab/*": "trimtab/step"}
    assert len(with_us.alerts) == 10


def test_the_double_of_wandb_has_its_trap() -> None:
    run = WandbRun()
    run.log({"ours": 1}, step=50)
    run.log({"loss": 1.0}, step=1)
    assert run.dropped == [{"loss": 1.0}]


def test_a_wandb_run_that_was_finished_before_us_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    run = WandbRun()
    run.finish()
    tracking = Tracking([WandbTracker(run)])
    tell_all(tracking, whole_run())
    tracking.close(10.0)
    assert caplog.text.count("is told nothing more: RuntimeError: Run is finished") == 1


def test_mlflow_gets_metrics_at_their_steps_and_every_intervention_as_a_tag(caplog: pytest.LogCaptureFixture) -> None:
    store = MlflowStore()
    tell(MlflowTracker(mlflow_module(store, "abc"), "abc"), caplog)
    assert ("abc", "trimtab/recipe/dropout", 0.1, 210) in store.metrics
    assert "dropout=0.1" in store.tags["trimtab.intervention.0001"]
    assert "reflex" in store.tags["trimtab.intervention.0002"]
    assert store.tags["trimtab.run"] == "step 1000: ended: finished"
    assert store.uri == "sqlite:///store.db"


def test_a_name_that_mlflow_refuses_is_changed() -> None:
    store = MlflowStore()
    told = Told(1, 1, "recipe", "", {"trimtab/recipe/mix@2": 1.0}, is_warning=False)
    MlflowTracker(mlflow_module(store, "abc"), "abc").track(told)
    assert store.metrics == [("abc", "trimtab/recipe/mix_2", 1.0, 1)]


def test_no_step_of_a_trackio_user_is_moved(caplog: pytest.LogCaptureFixture) -> None:
    run = TrackioRun()
    run.log({"loss": 1.0})
    tell(TrackioTracker(trackio_module(run), run), caplog)
    run.log({"loss": 0.5})
    assert [step for step, _ in run.rows] == [0, 1]
    assert any(row.get("trimtab/recipe/dropout") == 0.1 and row["trimtab/step"] == 210 for row in run.system)
    assert {alert["level"] for alert in run.alerts} == {"warn", "info"}
    assert any(alert["step"] == 210 for alert in run.alerts)


def install(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_auto_finds_every_active_run_and_nothing_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_trackers("auto") == ()
    install(monkeypatch, wandb_module(None), mlflow_module(MlflowStore(), None), trackio_module(None))
    assert find_trackers("auto") == ()
    install(monkeypatch, wandb_module(WandbRun()), mlflow_module(MlflowStore(), "abc"), trackio_module(TrackioRun()))
    assert [type(one).__name__ for one in find_trackers("auto")] == ["WandbTracker", "MlflowTracker", "TrackioTracker"]
    assert find_trackers(None) == ()


def test_the_run_of_mlflow_is_found_where_it_is_active_and_told_from_another_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = MlflowStore()
    install(monkeypatch, mlflow_module(store, "abc"))
    (tracker,) = find_trackers("auto")
    tell(tracker, caplog)
    assert {run_id for run_id, *_ in store.metrics} == {"abc"}
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(find_trackers("auto")))
    thread.start()
    thread.join()
    assert found == [()], "the double's run is active in one thread only"


def test_a_package_that_is_not_as_expected_is_said_and_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, ModuleType("mlflow"), ModuleType("trackio"), ModuleType("wandb"))
    assert find_trackers("auto") == ()
    assert [record.getMessage()[:35] for record in caplog.records] == [
        "the active run of mlflow is told no",
        "the active run of trackio is told n",
    ]


def test_a_tracker_that_is_passed_is_taken_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb, trackio = wandb_module(WandbRun()), trackio_module(TrackioRun())
    install(monkeypatch, wandb, trackio, mlflow_module(MlflowStore(), None))
    own = Kept()
    assert find_trackers(own) == (own,)
    for passed, kind in (
        (WandbRun(), WandbTracker),
        (wandb, WandbTracker),
        (TrackioRun(), TrackioTracker),
        (trackio, TrackioTracker),
        (MlflowRun("abc"), MlflowTracker),
        (SummaryWriter(), TensorBoardTracker),
    ):
        assert [type(one) for one in find_trackers(passed)] == [kind]


@pytest.mark.parametrize("wrong", ["tensorboard", 7, object(), print, Kept, ModuleType("wandb"), {"track": 1}])
def test_what_is_no_tracker_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="this is no tracker"):
        find_trackers(wrong)


def test_a_package_without_an_active_run_is_refused_when_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = wandb_module(None)
    install(monkeypatch, module)
    with pytest.raises(UsageError, match="no active run"):
        find_trackers(module)
