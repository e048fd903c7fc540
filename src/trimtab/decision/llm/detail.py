"""How much of a briefing is shown, and in which order it becomes less.

What is least useful for the decision goes first: signals that nobody watches, old interventions, evidence; then values
that a control could take. The task, the names of the symptoms and no_action always stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Detail:
    """The most that is shown of each thing.

    Args:
        signals: Signals in the table of trends; also the most that can be chosen for watching.
        columns: How much is said of each thing: 2 all, 1 no lowest and highest and the like, 0 the least; then the rules and
            the reply's form are the short ones, too.
        relative: Whether each value says what it is relative to the present one; 0 or 1.
        interventions: Earlier interventions, the newest.
        evidence: Numbers behind each symptom.
        values: Values per control, the nearest to the present one.
        controls: Controls that can be adjusted.
        combined: Checkpoints after which controls can be adjusted, the best first.
        rollbacks: Checkpoints that can be rolled back to, the best first.
        others: Whether skipping batches and stopping are offered; 0 or 1.
        guidance: Characters of the user's guidance.
        prose: Characters of the decision in prose that is transcribed, its end.
    """

    signals: int = 1000
    columns: int = 2
    relative: int = 1
    interventions: int = 1000
    evidence: int = 1000
    values: int = 1000
    controls: int = 1000
    combined: int = 1000
    rollbacks: int = 1000
    others: int = 1
    guidance: int = 4000
    prose: int = 8000


FULL: Final = Detail()

_CUTS: Final[tuple[tuple[str, int], ...]] = (
    *(("signals", most) for most in (80, 64, 48, 40, 32)),
    ("columns", 1),
    *(("signals", most) for most in (28, 24, 20)),
    ("interventions", 12),
    ("signals", 16),
    ("evidence", 4),
    ("interventions", 8),
    ("signals", 14),
    ("signals", 12),
    ("prose", 4000),
    ("combined", 2),
    ("combined", 1),
    ("signals", 10),
    ("interventions", 6),
    ("values", 8),
    ("signals", 8),
    ("evidence", 2),
    ("interventions", 4),
    ("values", 6),
    ("signals", 6),
    ("prose", 2000),
    ("rollbacks", 2),
    ("interventions", 3),
    ("values", 4),
    ("controls", 150),
    ("controls", 80),
    ("controls", 40),
    ("signals", 5),
    ("guidance", 1000),
    ("prose", 800),
    ("columns", 0),
    ("relative", 0),
    ("interventions", 2),
    ("combined", 0),
    ("evidence", 1),
    ("signals", 3),
    ("controls", 20),
    ("controls", 12),
    ("evidence", 0),
    ("values", 3),
    ("controls", 8),
    ("guidance", 400),
    ("interventions", 1),
    ("values", 2),
    ("rollbacks", 1),
    ("signals", 2),
    ("controls", 6),
    ("controls", 4),
    ("guidance", 150),
    ("controls", 3),
    ("signals", 1),
    ("controls", 2),
    ("interventions", 0),
    ("prose", 300),
    ("others", 0),
    ("signals", 0),
    ("controls", 1),
    ("guidance", 0),
    ("rollbacks", 0),
    ("controls", 0),
)


# What decides how much of the surface is offered.
_OF_THE_OFFER: Final = ("values", "controls", "combined", "rollbacks", "others")


def capped(detail: Detail, most: Detail) -> Detail:
    """Return ``detail`` with no more of the surface offered than ``most`` offers."""
    return replace(detail, **{what: min(getattr(detail, what), getattr(most, what)) for what in _OF_THE_OFFER})


def details() -> Iterator[Detail]:
    """Yield all details from the fullest to the smallest."""
    detail = FULL
    yield detail
    for what, most in _CUTS:
        detail = replace(detail, **{what: most})
        yield detail
