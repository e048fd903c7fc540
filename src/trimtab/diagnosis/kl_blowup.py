"""kl_blowup: updates move the policy much farther than its data can vouch for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from trimtab.controls.entries import TARGET_KL
from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.telemetry.roles import KL


@dataclass(frozen=True, slots=True)
class KlBlowup:
    """Finds several updates of late whose divergence is far above what it should be, or usually is; or one that is ruinous.

    Args:
        times_target: Limit as a multiple of the recipe's ``target_kl``, if that is a control.
        times_usual: Limit as a multiple of the run's own earlier median, if it is not.
        least_limit: Lowest limit, in nats per action: below it no update is long.
        most_limit: Highest limit without a target, in nats per action: beyond it every update is long.
        newest: Newest updates looked at.
        num_above: How many of them must be above the limit.
        ruinous: Divergence from which one update is enough, in nats per action: the policy has become another, and if
            it can no longer choose, later updates will not move it.

    References:
        Schulman et al. (2017), "Proximal Policy Optimization Algorithms", section 4; Huang et al. (2022), "The 37
        Implementation Details of Proximal Policy Optimization": the approximate divergence stays below 0.02 as a rule.
    """

    times_target: float = 3.0
    times_usual: float = 5.0
    least_limit: float = 0.05
    most_limit: float = 0.15
    newest: int = 8
    num_above: int = 4
    ruinous: float = 1.0

    def detect(self, view: View) -> Symptom | None:
        """Return a warning if the updates are too long."""
        window = view.window(KL)
        if window is None or window.count < self.num_above:
            return None
        values = [value for _, value in window.points]
        newest, earlier = values[-self.newest :], values[: -self.newest]
        limit = self._limit(view, earlier)
        above = [value for value in newest if value > limit]
        if len(above) < self.num_above and max(above, default=0.0) < self.ruinous:
            return None
        return Symptom(
            "kl_blowup",
            "warning",
            view.step,
            view.name(KL),
            (
                Evidence("kl", newest[-1]),
                Evidence("median_above_limit", median(above)),
                Evidence("limit", limit),
                Evidence("updates_above", float(len(above))),
                Evidence("updates", float(len(newest))),
            ),
        )

    def _limit(self, view: View, earlier: list[float]) -> float:
        target = dict(view.recipe.values).get(TARGET_KL, math.inf)
        if 0 < target < math.inf:
            return max(self.times_target * target, self.least_limit)
        if len(earlier) < self.newest:
            return self.most_limit
        return min(max(self.times_usual * median(earlier), self.least_limit), self.most_limit)
