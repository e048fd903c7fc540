"""Weights & Biases: into the row that is open, on an axis of its own.

A row of a wandb run belongs to one step, and rows that come for an earlier step are dropped without an error: whoever logs
with a step of its own, or commits a row, breaks what the user logs next. So nothing is committed here and no step is
given: the values go into the row that the user's next `log` commits, or the end of the run. Their axis is ``trimtab/step``.
"""

from __future__ import annotations

from typing import Any, Final

from trimtab.runtime.tracking import Told

STEP: Final = "trimtab/step"
_LONGEST_TITLE: Final = 63
_QUIET_SECONDS: Final = 300


class WandbTracker:
    """Logs to an active run of wandb.

    Args:
        run: The run, as `wandb.init` returned it.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        self._is_defined = False

    def track(self, told: Told) -> None:
        """Log it; what calls for attention is an alert too, of one title at most every five minutes."""
        if not self._is_defined:
            self._run.define_metric(STEP)
            self._run.define_metric("trimtab/*", step_metric=STEP)
            self._is_defined = True
        row: dict[str, object] = {**told.values, STEP: told.step}
        if told.text:
            row[f"trimtab/{told.subject}"] = f"step {told.step}: {told.text}"
        self._run.log(row, commit=False)
        if told.is_warning:
            title = f"trimtab: {told.subject}: {told.text}"[:_LONGEST_TITLE]
            self._run.alert(title=title, text=f"step {told.step}: {told.text}", level="WARN", wait_duration=_QUIET_SECONDS)
