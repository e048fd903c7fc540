"""What a rule is: one thing to try against one symptom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from trimtab.diagnosis.base import SymptomName

How = Literal["multiply", "add"]

END_OF_RUN: Final = "end_of_run"
LAST_CHANCE: Final = "last_chance"


@dataclass(frozen=True, slots=True)
class Nudge:
    """Move a control by about ``amount``: to the executable value nearest to that, on the same side.

    Args:
        control: Its name; a run without that control does without this nudge. ``NAME/{part}`` is the control of
            the part that the symptom was found in (its signal's last part). A bare name stands for all controls
            ``NAME/PART`` where the run has no control of that very name.
        how: Whether ``amount`` is a factor or a difference.
        amount: A factor > 0 and not 1, or a difference that is not 0.
        at_least: A floor for the aim of a nudge upward, for controls that start at or near zero.
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
        nudges: The controls it moves, at most three; none for a rule that holds:
            whatever else is found, while the symptom is about the objective, be it only a notice.
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

    @property
    def holds(self) -> bool:
        """Whether the answer is to leave the run alone until the symptom has gone."""
        return not self.nudges
