"""What several detectors ask about the course of a run: how much it has learned, and whether it still learns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Final

from trimtab.controls.envelope import Objective
from trimtab.diagnosis.base import View
from trimtab.telemetry.roles import ENTROPY, EXPLAINED_VARIANCE, KL
from trimtab.telemetry.signal import LOSS
from trimtab.telemetry.snapshot import trend
from trimtab.telemetry.window import Window

# Last parts of names under which a held-out loss is reported that is of the kind of the training loss.
_LOSS_NAMES: Final = ("loss", "nll", "cross_entropy", "mse")
# Words of the names under which libraries report what an episode brought: eval/return, rollout/ep_rew_mean, episode_reward.
_RETURNS: Final = frozenset(("return", "returns", "reward", "rewards", "rew"))
_NEWEST: Final = 128


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the training loss has come.

    Args:
        initial: Level the run began with.
        level: Mean of the newest losses, at most 128.
        lowest: Lowest level since the run began or its recipe last changed; never above ``level``.
        gained: Fall from ``initial`` to ``level`` as a fraction of the magnitude of ``initial``; negative if it rose.
        is_falling: Whether the newest losses fall by more than chance and by more than 1 % of their level.
    """

    initial: float
    level: float
    lowest: float
    gained: float
    is_falling: bool

    @property
    def is_near_start(self) -> bool:
        """Whether the loss is near where it began, or has gone back there: it is at no floor that it came down to."""
        return self.gained <= 0.05 or self.level > (self.initial + self.lowest) / 2


def progress(view: View, least_losses: int) -> Progress | None:
    """Return how far the training loss has come, or None before ``least_losses`` were reported.

    A loss that began at exactly 0 has no level to compare with: None too.
    """
    window = view.window(LOSS)
    if window is None or window.count < max(20, least_losses) or window.initial == 0:
        return None
    steps, values = zip(*newest_points(window, _NEWEST), strict=True)
    level = sum(values) / len(values)
    slope, error = trend([float(step) for step in steps], list(values))
    span = steps[-1] - steps[0]
    is_falling = -slope > 3 * error and -slope * span > 0.01 * abs(level)
    return Progress(
        window.initial, level, min(level, window.lowest_fast), (window.initial - level) / abs(window.initial), is_falling
    )


def newest_points(window: Window, most: int) -> list[tuple[int, float]]:
    """Return the newest points, at most ``most``, oldest first."""
    return list(islice(reversed(window.points), most))[::-1]


def newest_values(window: Window, most: int) -> list[float]:
    """Return the newest values, at most ``most``, oldest first."""
    return [value for _, value in islice(reversed(window.points), most)][::-1]


def is_reinforcement(view: View) -> bool:
    """Return whether the run is about a return, or reports what only reinforcement learning has.

    Its loss is then no measure of progress.
    """
    reported = (view.window(role) is not None for role in (ENTROPY, KL, EXPLAINED_VARIANCE))
    return _is_return(view.objective) or any(reported)


@cache  # it is asked after every step
def _is_return(objective: Objective) -> bool:
    words = re.split(r"[^a-z]+", objective.signal.lower())
    return objective.direction == "maximize" and not _RETURNS.isdisjoint(words)


def is_held_out_loss(objective: Objective) -> bool:
    """Return whether the objective is a loss like the training loss, as far as its name tells."""
    name = objective.signal.replace(".", "/").rpartition("/")[2]
    return objective.direction == "minimize" and (name in _LOSS_NAMES or name.endswith("_loss"))
