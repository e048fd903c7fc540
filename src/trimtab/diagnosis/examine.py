"""The detectors that run after a step and after an evaluation, in order of urgency."""

from __future__ import annotations

from typing import Final

from trimtab.diagnosis.base import Detector, Symptom, View
from trimtab.diagnosis.cautious_exploration import CautiousExploration
from trimtab.diagnosis.dead_units import DeadUnits
from trimtab.diagnosis.divergence import Divergence
from trimtab.diagnosis.entropy_collapse import EntropyCollapse
from trimtab.diagnosis.entropy_runaway import EntropyRunaway
from trimtab.diagnosis.gradient_explosion import GradientExplosion
from trimtab.diagnosis.gradient_vanishing import GradientVanishing
from trimtab.diagnosis.kl_blowup import KlBlowup
from trimtab.diagnosis.loss_imbalance import LossImbalance
from trimtab.diagnosis.loss_spike import LossSpike, RecurringSpikes
from trimtab.diagnosis.metric_stale import MetricStale, ObjectiveOverdue
from trimtab.diagnosis.noisy_metrics import NoisyMetrics
from trimtab.diagnosis.non_finite import NonFinite
from trimtab.diagnosis.oscillation import Oscillation
from trimtab.diagnosis.over_regularization import OverRegularization
from trimtab.diagnosis.overfitting import Overfitting
from trimtab.diagnosis.plateau import Plateau
from trimtab.diagnosis.underfitting import Underfitting
from trimtab.diagnosis.unsafe_exploration import UnsafeExploration
from trimtab.diagnosis.value_fit_poor import ValueFitPoor

STEP_DETECTORS: Final[tuple[Detector, ...]] = (NonFinite(), Divergence(), GradientExplosion(), LossSpike(), ObjectiveOverdue())
EVALUATION_DETECTORS: Final[tuple[Detector, ...]] = (
    NonFinite(),
    Divergence(),
    UnsafeExploration(),
    KlBlowup(),
    EntropyCollapse(),
    EntropyRunaway(),
    CautiousExploration(),
    ValueFitPoor(),
    GradientExplosion(only_onset=False),
    RecurringSpikes(),
    GradientVanishing(),
    DeadUnits(),
    Oscillation(),
    LossImbalance(),
    Overfitting(),
    OverRegularization(),
    Underfitting(),
    Plateau(),
    NoisyMetrics(),
    MetricStale(),
)


def examine(view: View, detectors: tuple[Detector, ...]) -> tuple[Symptom, ...]:
    """Return the symptoms that ``detectors`` find in ``view``, in their order."""
    found = (detector.detect(view) for detector in detectors)
    return tuple(symptom for symptom in found if symptom is not None)
