"""Doubles of the trackers, each with the trap of the real one: what it does to the steps of its user."""

from __future__ import annotations

import threading
from types import ModuleType, SimpleNamespace
from typing import Any


class WandbRun:
    """A run of wandb: one row is open; a row of an earlier step is dropped without an error."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.dropped: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self.axes: dict[str, str | None] = {}
        self.step = 0
        self.is_finished = False
        self._open: dict[str, Any] = {}

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.axes[name] = step_metric

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        if self.is_finished:
            raise RuntimeError("Run is finished")
        if step is not None and step < self.step:
            self.dropped.append(data)
            return
        if step is not None and step > self.step:
            self._commit()
            self.step = step
        self._open.update(data)
        if commit or (commit is None and step is None):
            self._commit()
            self.step += 1

    def alert(self, **given: Any) -> None:
        assert len(given["title"]) < 64
        self.alerts.append(given)

    def finish(self) -> None:
        self._commit()
        self.is_finished = True

    def _commit(self) -> None:
        if self._open:
            self.rows.append({"_step": self.step, **self._open})
        self._open = {}


WandbRun.__module__ = "wandb.sdk.wandb_run"


class TrackioRun:
    """A run of trackio: `log` moves the counter of steps, `log_system` and `alert` do not."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.system: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self._next_step = 0

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        step = self._next_step if step is None else step
        self._next_step = max(self._next_step, step + 1)
        self.rows.append((step, metrics))

    def log_system(self, metrics: dict[str, Any]) -> None:
        self.system.append(metrics)

    def alert(self, **given: Any) -> None:
        self.alerts.append(given)


TrackioRun.__module__ = "trackio.run"


class Active:
    """Something that is active in one thread only."""

    def __init__(self, run: Any) -> None:
        self._local = threading.local()
        self._local.run = run

    def get(self) -> Any:
        return getattr(self._local, "run", None)


class MlflowStore:
    """What a server of MLflow holds: metrics and tags by run."""

    def __init__(self) -> None:
        self.metrics: list[tuple[str, str, float, int]] = []
        self.tags: dict[str, str] = {}
        self.uri = ""

    def client(self, tracking_uri: str) -> Any:
        self.uri = tracking_uri
        return self

    def log_batch(self, run_id: str, metrics: list[Any], tags: list[Any]) -> None:
        for metric in metrics:
            assert set(metric.key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-. /"), metric.key
            self.metrics.append((run_id, metric.key, metric.value, metric.step))
        for tag in tags:
            assert len(tag.value) <= 5000
            self.tags[tag.key] = tag.value


def a_module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    for key, value in contents.items():
        setattr(module, key, value)
    return module


def wandb_module(run: WandbRun | None) -> ModuleType:
    return a_module("wandb", run=run)


def trackio_module(run: TrackioRun | None) -> ModuleType:
    levels = SimpleNamespace(WARN="warn", INFO="info")
    return a_module("trackio", AlertLevel=levels, context_vars=SimpleNamespace(current_run=Active(run)))


class MlflowRun:
    def __init__(self, run_id: str) -> None:
        self.info = SimpleNamespace(run_id=run_id)


MlflowRun.__module__ = "mlflow.entities.run"


def mlflow_module(store: MlflowStore, run_id: str | None) -> ModuleType:
    active = Active(None if run_id is None else MlflowRun(run_id))
    entities = SimpleNamespace(
        Metric=lambda key, value, timestamp, step: SimpleNamespace(key=key, value=value, timestamp=timestamp, step=step),
        RunTag=lambda key, value: SimpleNamespace(key=key, value=value),
    )
    return a_module(
        "mlflow",
        active_run=active.get,
        entities=entities,
        MlflowClient=store.client,
        get_tracking_uri=lambda: "sqlite:///store.db",
    )


class SummaryWriter:
    """A writer of TensorBoard: one that was closed begins another file without a word."""

    def __init__(self) -> None:
        self.all_writers: dict[str, Any] | None = {}
        self.scalars: list[tuple[str, float, int]] = []
        self.texts: list[tuple[str, str, int]] = []
        self.num_flushed = 0

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        assert self.all_writers is not None, "another file was begun"
        self.scalars.append((tag, scalar_value, global_step))

    def add_text(self, tag: str, text_string: str, global_step: int) -> None:
        self.texts.append((tag, text_string, global_step))

    def flush(self) -> None:
        self.num_flushed += 1

    def close(self) -> None:
        self.all_writers = None
