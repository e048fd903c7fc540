"""Random moves within the envelope: the baseline that every other manager has to beat."""

from __future__ import annotations

from trimtab.decision.action import Action, Adjust, Change, NoAction, Rollback, RollbackAndAdjust
from trimtab.decision.briefing import Briefing
from trimtab.decision.draws import Draws
from trimtab.decision.proposal import Expectation, Proposal, hold


class RandomManager:
    """Chooses evenly among no_action, adjusting, rolling back and both, then among the values.

    The choice depends on the seed and the question's number alone, so a run can be repeated. It
    never stops the run and never skips batches.

    Args:
        seed: Any integer.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def propose(self, briefing: Briefing) -> Proposal:
        """Return one executable action, chosen at random."""
        surface, draws = briefing.surface, Draws(f"{self._seed}/{briefing.question}")
        actions: list[Action] = [NoAction()]
        if surface.adjustable:
            option = surface.adjustable[draws.below(len(surface.adjustable))]
            actions.append(Adjust((Change(option.control, option.values[draws.below(len(option.values))]),)))
        if surface.rollbacks:
            rollback = surface.rollbacks[draws.below(len(surface.rollbacks))]
            actions.append(Rollback(rollback.checkpoint))
            if rollback.adjustable:
                option = rollback.adjustable[draws.below(len(rollback.adjustable))]
                change = Change(option.control, option.values[draws.below(len(option.values))])
                actions.append(RollbackAndAdjust(rollback.checkpoint, (change,)))
        action = actions[draws.below(len(actions))]
        if isinstance(action, NoAction):
            return hold("drawn at random")
        return Proposal(action, "drawn at random", Expectation(gain=0.0, within_evaluations=2))
