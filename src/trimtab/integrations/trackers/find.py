"""Find the run's own tracker: the one that was passed, or those that are active. Nothing is imported for it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, Final, Literal, cast

from trimtab.errors import UsageError
from trimtab.integrations.trackers.mlflow import MlflowTracker
from trimtab.integrations.trackers.tensorboard import TensorBoardTracker
from trimtab.integrations.trackers.trackio import TrackioTracker
from trimtab.integrations.trackers.wandb import WandbTracker
from trimtab.runtime.tracking import Tracker

LOG: Final = logging.getLogger("trimtab")

WantedTracker = Literal["auto"] | None | object


def find_trackers(wanted: WantedTracker = "auto") -> tuple[Tracker, ...]:
    """Return what decisions are told to; call it in the thread that trains, where a tracker's run is active.

    Args:
        wanted: ``auto`` for every run of wandb, MLflow and trackio that is active now; None for none; or a run of one of
            these, one of these packages, a ``SummaryWriter``, or any `Tracker`.

    Raises:
        UsageError: Pass one of these.
    """
    if wanted is None:
        return ()
    if isinstance(wanted, str):
        if wanted == "auto":
            return tuple(tracker for name in _ACTIVE for tracker in _active(name))
        raise _unknown(wanted)
    return (_passed(wanted),)


def _active(name: str) -> tuple[Tracker, ...]:
    module = sys.modules.get(name)
    if module is None:
        return ()
    try:
        tracker = _ACTIVE[name](module)
    except Exception as error:  # noqa: BLE001 - a package of any version, with errors of its own; the run begins without its tracker, which is logged
        LOG.warning("the active run of %s is told nothing: %s: %.300s", name, type(error).__name__, error)
        return ()
    return () if tracker is None else (tracker,)


def _wandb(module: Any) -> Tracker | None:
    run = getattr(module, "run", None)
    return None if run is None else WandbTracker(run)


def _mlflow(module: Any) -> Tracker | None:
    run = module.active_run()
    return None if run is None else MlflowTracker(module, run.info.run_id)


def _trackio(module: Any) -> Tracker | None:
    run = module.context_vars.current_run.get()
    return None if run is None else TrackioTracker(module, run)


_ACTIVE: Final[dict[str, Callable[[Any], Tracker | None]]] = {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}


def _passed(wanted: Any) -> Tracker:
    if callable(getattr(wanted, "track", None)) and not isinstance(wanted, type):
        return cast("Tracker", wanted)
    if callable(getattr(wanted, "add_scalar", None)) and callable(getattr(wanted, "add_text", None)):
        return TensorBoardTracker(wanted)
    name = getattr(wanted, "__name__", "")
    if name in _ACTIVE and sys.modules.get(name) is wanted:
        tracker = _ACTIVE[name](wanted)
        if tracker is None:
            raise UsageError(f"{name} has no active run", next_step=f"begin one before trimtab attaches, or pass {name}'s run")
        return tracker
    package, info = type(wanted).__module__.partition(".")[0], getattr(wanted, "info", None)
    if package == "wandb" and callable(getattr(wanted, "define_metric", None)):
        return WandbTracker(wanted)
    if package == "mlflow" and info is not None:
        return MlflowTracker(sys.modules["mlflow"], info.run_id)
    if package == "trackio" and callable(getattr(wanted, "log_system", None)):
        return TrackioTracker(sys.modules["trackio"], wanted)
    raise _unknown(wanted)


def _unknown(wanted: object) -> UsageError:
    return UsageError(
        "this is no tracker",
        received=repr(wanted)[:200],
        allowed='"auto", None, a run of wandb, mlflow or trackio, a SummaryWriter, or an object with track(told)',
        next_step="see docs/trackers.md",
    )
