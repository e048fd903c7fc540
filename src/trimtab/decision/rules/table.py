"""The rules as data: what to try against a symptom, in which order, why, and on whose word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from trimtab.controls.catalogue import DROPOUT, LEARNING_RATE, WEIGHT_DECAY
from trimtab.diagnosis.base import SymptomName

How = Literal["multiply", "add"]

END_OF_RUN: Final = "end_of_run"
LAST_CHANCE: Final = "last_chance"


@dataclass(frozen=True, slots=True)
class Nudge:
    """Move a control by about ``amount``: to the executable value nearest to that, on the same side.

    Args:
        control: Its name; a run without that control does without this nudge.
        how: Whether ``amount`` is a factor or a difference.
        amount: A factor > 0 and not 1, or a difference that is not 0.
        at_least: A floor for the aim, for controls that start at or near zero.
    """

    control: str
    how: How
    amount: float
    at_least: float = 0.0

    @property
    def is_upward(self) -> bool:
        """Whether the nudge raises the control."""
        return self.amount > (1 if self.how == "multiply" else 0)

    def aim(self, value: float, strength: int = 1) -> float:
        """Return the value aimed at from ``value``, the nudge applied ``strength`` times."""
        aimed = value * self.amount**strength if self.how == "multiply" else value + strength * self.amount
        return max(aimed, self.at_least) if self.is_upward else aimed


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing to try against one symptom.

    Args:
        name: Short and unique; it opens the proposal's reason, by which earlier trials are recognized.
        answers: The symptom it answers, or ``end_of_run`` for the last part of a run of known
            length, or ``last_chance`` for its last question if the run is in a worse state than its best.
        rolls_back: Whether to start from the best checkpoint.
        evaluations: Evaluations by which its effect shows, 1 to 3.
        halts: Whether it succeeds by halting a decline: then no loss beyond the noise is enough.
        nudges: The controls it moves, at most three; at least one.
        reason: Why it should help.
        source: Where that is known from.
    """

    name: str
    answers: SymptomName | Literal["end_of_run", "last_chance"]
    rolls_back: bool
    evaluations: int
    halts: bool
    nudges: tuple[Nudge, ...]
    reason: str
    source: str


RULES: Final = (
    Rule(
        "regularize",
        "overfitting",
        True,
        3,
        True,
        (Nudge(DROPOUT, "add", 0.1), Nudge(WEIGHT_DECAY, "multiply", 10.0, at_least=0.01)),
        "the model memorizes: go back to where it generalized best and make memorizing harder",
        "Srivastava et al. (2014), Dropout; Loshchilov and Hutter (2019), Decoupled Weight Decay",
    ),
    Rule(
        "anneal_from_best",
        "overfitting",
        True,
        3,
        True,
        (Nudge(LEARNING_RATE, "multiply", 0.5),),
        "take smaller steps from the best state: less noise in the weights, slower memorizing",
        "Smith et al. (2018), Don't Decay the Learning Rate, Increase the Batch Size: noise scale",
    ),
    Rule(
        "anneal",
        "plateau",
        False,
        3,
        False,
        (Nudge(LEARNING_RATE, "multiply", 0.5),),
        "the steps are as large as the progress they make: halve them",
        "ReduceLROnPlateau; He et al. (2016), Deep Residual Learning: divide the rate on a plateau",
    ),
    Rule(
        "cool_down",
        "end_of_run",
        False,
        1,
        True,
        (Nudge(LEARNING_RATE, "multiply", 0.25),),
        "the run is about to end: settle with small steps",
        "Haegele et al. (2024), Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations: cooldown",
    ),
    Rule(
        "return_to_best",
        "last_chance",
        True,
        1,
        True,
        (Nudge(LEARNING_RATE, "multiply", 0.25),),
        "the run is about to end in a worse state than its best one: go back, and move little from there",
        "Prechelt (1998), Early Stopping - But When?",
    ),
    Rule(
        "calm",
        "divergence",
        True,
        2,
        True,
        (Nudge(LEARNING_RATE, "multiply", 0.5),),
        "the rate is above what the loss surface allows here",
        "Cohen et al. (2021), Gradient Descent Typically Occurs at the Edge of Stability",
    ),
)
