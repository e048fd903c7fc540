"""loss_spike: one loss far above the recent ones; most are absorbed by the optimizer."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.telemetry.signal import LOSS


@dataclass(frozen=True, slots=True)
class LossSpike:
    """Finds a loss more than ``deviations`` mean absolute deviations above its running average.

    References:
        Takase et al. (2023), "Spike No More", arXiv 2312.16903.
    """

    deviations: float = 10.0

    def detect(self, view: View) -> Symptom | None:
        """Return a notice if the newest loss is a spike."""
        window = view.telemetry.window(LOSS)
        if window is None or window.jump < self.deviations or window.points[-1][0] != view.step:
            return None
        return Symptom(
            "loss_spike",
            "notice",
            view.step,
            LOSS,
            (Evidence("loss", window.points[-1][1]), Evidence("deviations_above_average", window.jump)),
        )
