"""The detectors that run after a step and after an evaluation, in order of urgency."""

from __future__ import annotations

from typing import Final

from trimtab.diagnosis.base import Detector, Symptom, View
from trimtab.diagnosis.divergence import Divergence
from trimtab.diagnosis.loss_spike import LossSpike
from trimtab.diagnosis.non_finite import NonFinite
from trimtab.diagnosis.overfitting import Overfitting
from trimtab.diagnosis.plateau import Plateau

STEP_DETECTORS: Final[tuple[Detector, ...]] = (NonFinite(), Divergence(), LossSpike())
EVALUATION_DETECTORS: Final[tuple[Detector, ...]] = (NonFinite(), Divergence(), Overfitting(), Plateau())


def examine(view: View, detectors: tuple[Detector, ...]) -> tuple[Symptom, ...]:
    """Return the symptoms that ``detectors`` find in ``view``, in their order."""
    found = (detector.detect(view) for detector in detectors)
    return tuple(symptom for symptom in found if symptom is not None)
