"""Whether a state is sound: finite, and of the scale that the run's saved states had.

What is wrong with a state need not show in the loss at once: weights that somebody has multiplied, a second moment that one
huge gradient has filled so that nothing is learned for thousands of steps, a rate that was set by hand. Such a state must not
become one to go back to.

Rules:
1. Only growth by orders of magnitude counts, against the largest of all states saved since the run has settled: what a run
   does in its first steps, and all it does by itself, is far below that.
2. After a gradient far out of the ordinary the optimizer's state is looked at more closely, against the newest saved state:
   one that took the gradient as any other (clipped, or averaged away) has hardly grown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from trimtab.diagnosis.base import STATE_DAMAGED, Evidence, Symptom

_SETTLED_STEPS: Final = 20
_WEIGHTS: Final = 100.0
_BUFFERS: Final = 1e5  # running sums grow with the steps
_OPTIMIZER: Final = 1e6  # second moments are squares
_RATE: Final = 100.0
_AFTER_SHOCK: Final = 1e3


class Soundness:
    """Remembers how large the parts of sound states were, and finds what has left that scale."""

    def __init__(self) -> None:
        self._largest: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self.is_suspect = False

    def judge(self, step: int, scales: Mapping[str, float], floors: Mapping[str, float]) -> Symptom | None:
        """Return the first part of a state that is not sound; None before a settled state was saved.

        Args:
            step: Step after which the state is looked at.
            scales: Largest magnitude of each part.
            floors: What the magnitude of a part has to exceed to count.
        """
        if not self._largest:
            return None
        for part, value in scales.items():
            before, factor = self._largest.get(part, 0.0), _factor(part)
            if self.is_suspect and part.startswith("optimizer/"):
                before, factor = self._last.get(part, 0.0), _AFTER_SHOCK
            # With what was 0, or was not there, nothing can be compared.
            has_left = before > 0 and value > max(factor * before, floors.get(part, 0.0))
            if has_left or not math.isfinite(value):
                evidence = (Evidence("largest_magnitude", value), Evidence("largest_magnitude_before", before))
                return Symptom(STATE_DAMAGED, "critical", step, part, evidence)
        return None

    def learn(self, step: int, scales: Mapping[str, float]) -> None:
        """Take a state that is saved for sound; it is no longer suspect."""
        self.is_suspect = False
        if step >= _SETTLED_STEPS:
            self._last = dict(scales)
            self._largest = {part: max(value, self._largest.get(part, 0.0)) for part, value in scales.items()}

    def state(self) -> dict[str, Any]:
        """Return what it knows as JSON-ready values: that of a state just saved, which is not suspect."""
        return {"largest": dict(self._largest), "last": dict(self._last)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._largest, self._last = dict(state["largest"]), dict(state["last"])


def _factor(part: str) -> float:
    if part == "weights":
        return _WEIGHTS
    if part == "buffers":
        return _BUFFERS
    return _OPTIMIZER if part.startswith("optimizer/") else _RATE
