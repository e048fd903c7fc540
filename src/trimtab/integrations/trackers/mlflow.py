"""MLflow: metrics at the run's own steps, what happened as tags; one request each time.

MLflow's active run belongs to a thread: its id is taken when trimtab attaches, and named in every call.
"""

from __future__ import annotations

import re
import time
from typing import Any, Final

from trimtab.runtime.tracking import Told

_NOT_ALLOWED: Final = re.compile(r"[^\w\-. /]")


class MlflowTracker:
    """Logs to one run of MLflow.

    Args:
        module: The package ``mlflow``, as the training script has imported it.
        run_id: The run.
    """

    def __init__(self, module: Any, run_id: str) -> None:
        self._entities = module.entities
        self._client = module.MlflowClient(tracking_uri=module.get_tracking_uri())
        self._run_id = run_id
        self._num_interventions = 0

    def track(self, told: Told) -> None:
        """Log it: each intervention under a tag of its own, of other things the newest."""
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(_name(name), value, now, told.step) for name, value in told.values.items()]
        tags: list[Any] = []
        if told.text:
            name = f"trimtab.{told.subject}"
            if told.subject == "intervention":
                self._num_interventions += 1
                name = f"{name}.{self._num_interventions:04d}"
            tags.append(self._entities.RunTag(name, f"step {told.step}: {told.text}"))
        if metrics or tags:
            self._client.log_batch(self._run_id, metrics=metrics, tags=tags)


def _name(name: str) -> str:
    return _NOT_ALLOWED.sub("_", name)
