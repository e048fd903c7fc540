"""trackio: values beside the steps, what happened as alerts at their step.

`log` of a trackio run moves the counter that gives the user's next rows their steps, whatever step it is given. So values
go through `log_system`, whose axis is the time, with ``trimtab/step`` beside them; alerts carry the step themselves.
"""

from __future__ import annotations

from typing import Any, Final

from trimtab.runtime.tracking import Told

STEP: Final = "trimtab/step"
_ALERTED: Final = ("intervention", "outcome")


class TrackioTracker:
    """Logs to an active run of trackio.

    Args:
        module: The package ``trackio``, as the training script has imported it.
        run: The run, as `trackio.init` returned it.
    """

    def __init__(self, module: Any, run: Any) -> None:
        self._levels = module.AlertLevel
        self._run = run

    def track(self, told: Told) -> None:
        """Log it; trackio prints alerts, so only interventions, their outcomes and warnings are alerts."""
        row: dict[str, object] = {**told.values, STEP: told.step}
        if told.text:
            row[f"trimtab/{told.subject}"] = told.text
        self._run.log_system(row)
        if told.is_warning or told.subject in _ALERTED:
            level = self._levels.WARN if told.is_warning else self._levels.INFO
            self._run.alert(title=f"trimtab: {told.subject}", text=told.text, level=level, step=told.step)
