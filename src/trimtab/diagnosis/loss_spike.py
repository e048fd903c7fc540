"""loss_spike: one loss far above the recent ones; most are absorbed by the optimizer, unless they come again and again."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.progress import is_reinforcement, newest_values
from trimtab.telemetry.signal import LOSS

_NEIGHBOURS = 8


@dataclass(frozen=True, slots=True)
class LossSpike:
    """Finds a loss more than ``deviations`` mean absolute deviations above its running average.

    References:
        Takase et al. (2023), "Spike No More", arXiv 2312.16903.
    """

    deviations: float = 10.0

    def detect(self, view: View) -> Symptom | None:
        """Return a notice if the newest loss is a spike."""
        window = view.window(LOSS)
        if window is None or window.jump < self.deviations or window.points[-1][0] != view.step:
            return None
        return Symptom(
            "loss_spike",
            "notice",
            view.step,
            view.name(LOSS),
            (Evidence("loss", window.points[-1][1]), Evidence("deviations_above_average", window.jump)),
        )


@dataclass(frozen=True, slots=True)
class RecurringSpikes:
    """Finds several spikes among the newest losses: then something makes them.

    A loss is measured against the median of its neighbours, so that a falling loss has no spikes; losses next to
    each other are one spike. Losses with a heavy tail of their own, as from very small batches, have large
    deviations to begin with. Silent in reinforcement learning and where the loss takes both signs: it has no scale there.

    Args:
        deviations: Median absolute deviations from the neighbours' median that make a spike.
        relative: Least height, as a fraction of that median's magnitude.
        patience: Spikes among the newest losses that count as recurring.
        least_losses: Losses before the run is judged.

    References:
        Takase et al. (2023), "Spike No More", arXiv 2312.16903; Molybog et al. (2023), "A Theory on Adam
        Instability in Large-Scale Machine Learning".
    """

    deviations: float = 15.0
    relative: float = 0.5
    patience: int = 3
    least_losses: int = 64

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if spikes keep coming."""
        window = view.window(LOSS)
        if window is None or len(window.points) < self.least_losses or is_reinforcement(view):
            return None
        values = newest_values(window, len(window.points))
        if min(values) < 0 < max(values):
            return None
        levels = [median(values[max(0, at - _NEIGHBOURS) : at + _NEIGHBOURS + 1]) for at in range(len(values))]
        usual = median(abs(value - level) for value, level in zip(values, levels, strict=True))
        heights = [value - level for value, level in zip(values, levels, strict=True)]
        high = [
            at for at, height in enumerate(heights) if height > max(self.deviations * usual, self.relative * abs(levels[at]))
        ]
        spikes = [at for number, at in enumerate(high) if number == 0 or at - high[number - 1] > 1]
        if len(spikes) < self.patience:
            return None
        return Symptom(
            "loss_spike",
            "warning",
            view.step,
            view.name(LOSS),
            (
                Evidence("spikes", float(len(spikes))),
                Evidence("among_losses", float(len(values))),
                Evidence("highest_above_neighbours", max(heights)),
                Evidence("usual_deviation", usual),
            ),
        )
