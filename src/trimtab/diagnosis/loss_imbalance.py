"""loss_imbalance: one term of the loss drowns another, which does not improve."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from trimtab.controls.entries import LOSS_WEIGHT
from trimtab.diagnosis.base import Evidence, Symptom, View
from trimtab.diagnosis.progress import newest_values
from trimtab.telemetry.roles import LOSS_TERM
from trimtab.telemetry.window import Window

_NEWEST = 64


@dataclass(frozen=True, slots=True)
class LossImbalance:
    """Finds a term of the loss that is dominated by another and stays where it began.

    Terms are the signals ``loss_term/NAME``. Where the recipe has ``loss_weight/NAME``, the signal is
    taken to be the term before weighting, else as it enters the loss.

    A small term is often as it should be. So a term is drowned only if the dominating one fell and it did
    not keep up, nor rise by much, as a penalty would that began near 0; or if the dominating one has jumped
    far above its early level, as when its weight was changed, and it does not fall any more. A balancing
    loss at its optimum looks the same; therefore it is a warning only where the weight of the term is a
    control, and a notice elsewhere.
    Terms that are not always positive, such as the surrogate loss of a policy or a bonus, have no level
    and are left out.

    Args:
        factor: How many times the drowned term's contribution the dominating one's must be.
        keeps_up: Least fall of a term that is not drowned, as a fraction of the dominating one's fall, both
            relative to the levels they began with.
        most_rise: Most that the drowned term may have risen, as a fraction of the level it began with.
        least_fall: Least fall of the dominating term, as a fraction of the level it began with.
        jump: How many times its early level the dominating term must be to have jumped.
        least_values: Values of a term before it is judged.

    References:
        Chen et al. (2018), "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
        Multitask Networks"; Kendall et al. (2018), "Multi-Task Learning Using Uncertainty".
    """

    factor: float = 300.0
    keeps_up: float = 0.1
    most_rise: float = 0.5
    least_fall: float = 0.1
    jump: float = 10.0
    least_values: int = 100

    def detect(self, view: View) -> Symptom | None:
        """Return a warning or a notice if a term of the loss is drowned."""
        terms = self._terms(view)
        if len(terms) < 2:
            return None
        dominating = max(terms, key=lambda name: terms[name][1])
        initial, contribution = terms[dominating]
        fall = 1 - contribution / initial
        small = [(level, name, began) for name, (began, level) in terms.items() if level * self.factor < contribution]
        if fall >= self.least_fall:
            drowned = [term for term in small if -self.most_rise <= 1 - term[0] / term[2] < self.keeps_up * fall]
        elif contribution > self.jump * initial:
            drowned = [term for term in small if not _falls(view.telemetry.window(LOSS_TERM + term[1]))]
        else:
            return None
        if not drowned:
            return None
        level, name, began = min(drowned)
        evidence = (
            Evidence("contribution", level),
            Evidence("initial_contribution", began),
            Evidence("dominating_contribution", contribution),
            Evidence("dominating_initial_contribution", initial),
            Evidence("ratio", contribution / level),
        )
        severity = "warning" if f"{LOSS_WEIGHT}/{name}" in view.recipe else "notice"
        return Symptom("loss_imbalance", severity, view.step, LOSS_TERM + name, evidence)

    def _terms(self, view: View) -> dict[str, tuple[float, float]]:
        """Return by term its initial and its present contribution, of those that can be judged."""
        found = dict[str, tuple[float, float]]()
        for signal in view.telemetry.names("step"):
            window = view.telemetry.window(signal) if signal.startswith(LOSS_TERM) else None
            if window is None or window.count < self.least_values or not _is_positive(window):
                continue
            name = signal.removeprefix(LOSS_TERM)
            control = f"{LOSS_WEIGHT}/{name}"
            weight = dict(view.recipe.values).get(control, 1.0)
            found[name] = weight * window.initial, weight * fmean(newest_values(window, _NEWEST))
        return {name: levels for name, levels in found.items() if min(levels) > 0}


def _falls(window: Window | None) -> bool:
    newest = newest_values(window, 2 * _NEWEST) if window is not None else []
    return len(newest) == 2 * _NEWEST and fmean(newest[_NEWEST:]) < 0.95 * fmean(newest[:_NEWEST])


def _is_positive(window: Window) -> bool:
    return window.initial > 0 and all(value > 0 for _, value in window.points)
