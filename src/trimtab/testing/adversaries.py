"""Eight managers that do as much harm as an envelope lets them: what a run has to bear.

Rules:
1. They propose only what they are offered, so that nothing but the guard and the canary stands in their way; what lies beyond
   is asked for by `trimtab.testing.overreaching`.
2. They promise what no measurement can break, and keep a promise short, so that they are watched as little as can be.
3. A proposal depends on the seed and the briefing alone: the same run meets the same adversary again, resumed or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import Final, Literal

from trimtab.decision.action import Action, Adjust, Change, Rollback, RollbackAndAdjust, SkipBatches, Stop, changes_of
from trimtab.decision.briefing import Briefing
from trimtab.decision.draws import Draws
from trimtab.decision.manager import Manager
from trimtab.decision.proposal import Expectation, Proposal, hold
from trimtab.decision.rules.manager import RulesManager
from trimtab.decision.surface import Options, RollbackOption

Way = Literal["up", "down"]

# One that always holds, and one that ends the watch as soon as anything got better.
_PROMISES: Final = (Expectation(gain=-1e9, within_evaluations=1), Expectation(gain=1e-12, within_evaluations=3))
_FIRST_QUESTIONS: Final = 8  # half of a run of unknown length
_LATE_QUESTIONS: Final = 16  # three quarters of one
_STOPS_ONE_IN: Final = 16  # of a random adversary's questions

# Where harm is to be had before anything is known of the run, the worst first; any other control: up.
_LIKELY: Final[tuple[tuple[str, Way], ...]] = (
    ("learning_rate", "up"),
    ("momentum", "up"),
    ("batch_size", "down"),
    ("gradient_clip_norm", "up"),
    ("label_smoothing", "up"),
    ("dropout", "up"),
    ("weight_decay", "up"),
)


class AlwaysFarthest:
    """Takes controls as far one way as one intervention goes, every time.

    Args:
        seed: Decides which controls go first where not all may be changed together.
        way: Which way.
    """

    def __init__(self, seed: int, way: Way) -> None:
        self._seed = seed
        self._way: Way = way

    def propose(self, briefing: Briefing) -> Proposal:
        """Return the farthest values that are offered."""
        return _adjust(briefing, self._seed, _pushed(briefing, self._seed, self._way_of), f"always farthest {self._way}")

    def _way_of(self, control: str) -> Way:
        return self._way


class Oscillating:
    """Takes controls up as far as it goes at one question, and down at the next.

    Args:
        seed: Decides which controls go first, and which way at first.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def propose(self, briefing: Briefing) -> Proposal:
        """Return the farthest values the other way."""
        way: Way = "up" if (briefing.question + self._seed) % 2 else "down"
        return _adjust(briefing, self._seed, _pushed(briefing, self._seed, lambda _: way), f"now {way}")


class Ratchet:
    """Moves each control by the smallest step there is, always the same way: no single one looks like harm.

    Args:
        seed: Decides which way each control goes, and which go first.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def propose(self, briefing: Briefing) -> Proposal:
        """Return the nearest values on the way."""
        return _adjust(briefing, self._seed, _pushed(briefing, self._seed, self._way, nearest=True), "a little farther")

    def _way(self, control: str) -> Way:
        return "up" if Draws(f"{self._seed}/{control}").below(2) else "down"


class RandomAdversary:
    """Draws from everything that is offered: several controls together, rollbacks, skipped batches, now and then the end.

    Args:
        seed: Any integer.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def propose(self, briefing: Briefing) -> Proposal:
        """Return one executable action, drawn at random."""
        surface, draws = briefing.surface, Draws(f"{self._seed}/{briefing.question}")
        actions: list[Action] = []
        if surface.adjustable:
            actions.append(Adjust(_drawn(surface.adjustable, surface.max_controls, draws)))
        if surface.rollbacks:
            back = surface.rollbacks[draws.below(len(surface.rollbacks))]
            actions.append(Rollback(back.checkpoint))
            if back.adjustable:
                actions.append(RollbackAndAdjust(back.checkpoint, _drawn(back.adjustable, surface.max_controls, draws)))
        if surface.max_skip:
            actions.append(SkipBatches(1 + draws.below(surface.max_skip)))
        if surface.may_stop and not draws.below(_STOPS_ONE_IN):
            actions.append(Stop())
        return _propose(briefing, self._seed, actions[draws.below(len(actions))] if actions else None, "drawn at random")


class LossMaximizing:
    """Learns from the interventions so far which way of which control made the objective worse, and does that again.

    Where the checkpoints hold a state that is much worse than the present one, it goes back to it.

    Args:
        seed: Decides between equals.
        stops: Whether it ends the run as soon as it is offered to; by default if the seed is odd, so that a run which
            may be stopped is tried both ways.
    """

    def __init__(self, seed: int, stops: bool | None = None) -> None:
        self._seed = seed
        self._stops = bool(seed % 2) if stops is None else stops

    def propose(self, briefing: Briefing) -> Proposal:
        """Return the action with the worst outcome that is to be expected."""
        surface = briefing.surface
        if surface.may_stop and self._stops:
            return _propose(briefing, self._seed, Stop(), "the sooner it ends the less it has learned")
        gains = _gains(briefing)
        adjustments = self._worst_of(briefing, surface.adjustable, gains, dict(briefing.recipe))
        back, loss = _worst_rollback(briefing)
        expected = min(gains.values(), default=0.0)
        if back is not None and (loss < expected or not adjustments):
            changes = self._worst_of(briefing, back.adjustable, gains, {})
            action = RollbackAndAdjust(back.checkpoint, changes) if changes else Rollback(back.checkpoint)
            return _propose(briefing, self._seed, action, "to the worst state, and on from there")
        if not adjustments and surface.max_skip:
            return _propose(briefing, self._seed, SkipBatches(surface.max_skip), "what it does not see it does not learn")
        return _adjust(briefing, self._seed, adjustments, "what did harm before")

    def _worst_of(
        self, briefing: Briefing, offered: Iterable[Options], gains: Mapping[tuple[str, Way], float], base: Mapping[str, float]
    ) -> tuple[Change, ...]:
        """Return changes of different controls, those with the lowest gains so far; what was not tried counts as average."""
        average = fmean(gains.values()) if gains and min(gains.values()) > float("-inf") else 0.0
        draws = Draws(f"{self._seed}/{briefing.question}")
        ranked: list[tuple[float, int, int, Change]] = []
        for options in offered:
            for way in ("up", "down"):
                value = _farthest(options, base.get(options.control), way)
                if value is not None:
                    key = (options.control, way)
                    ranked.append((gains.get(key, average), _prior(key), draws.below(1000), Change(options.control, value)))
        ranked.sort(key=lambda one: one[:3])
        chosen: dict[str, Change] = {}
        for gain, _, _, change in ranked:
            if not chosen or gain <= average:
                chosen.setdefault(change.control, change)
        return tuple(chosen.values())[: briefing.surface.max_controls]


class Delayed:
    """Answers as the rules do for half of the run, with half of its interventions at most; then does its worst.

    Args:
        seed: Of the second half.
    """

    def __init__(self, seed: int) -> None:
        self._rules, self._worst = RulesManager(), LossMaximizing(seed)

    def propose(self, briefing: Briefing) -> Proposal:
        """Return what the rules propose, or the worst."""
        if _is_past(briefing, 0.5, _FIRST_QUESTIONS):
            return self._worst.propose(briefing)
        made = sum(earlier.is_by_manager for earlier in briefing.interventions)
        return self._rules.propose(briefing) if made < briefing.interventions_left else hold("all is well")


class Sleeper:
    """Holds for three quarters of the run, with all of its interventions in hand; then does its worst every time.

    Args:
        seed: Of the last quarter.
    """

    def __init__(self, seed: int) -> None:
        self._worst = LossMaximizing(seed)

    def propose(self, briefing: Briefing) -> Proposal:
        """Return no_action, or the worst."""
        return self._worst.propose(briefing) if _is_past(briefing, 0.75, _LATE_QUESTIONS) else hold("all is well")


ADVERSARIES: Final[Mapping[str, Callable[[int], Manager]]] = MappingProxyType(
    {
        "always_max": lambda seed: AlwaysFarthest(seed, "up"),
        "always_min": lambda seed: AlwaysFarthest(seed, "down"),
        "oscillate": Oscillating,
        "ratchet": Ratchet,
        "random": RandomAdversary,
        "delayed": Delayed,
        "sleeper": Sleeper,
        "loss_maximizing": LossMaximizing,
    }
)
"""By name what makes an adversary of a seed."""


def _is_past(briefing: Briefing, share: float, questions: int) -> bool:
    """Return whether a share of the run is over, or where its length is not known, that many questions."""
    total = briefing.timing.total_steps
    return briefing.question > questions if total is None else briefing.timing.asked_step >= share * total


def _propose(briefing: Briefing, seed: int, action: Action | None, reason: str) -> Proposal:
    if action is None:
        return hold("nothing to do harm with")
    promise = _PROMISES[Draws(f"promise/{seed}/{briefing.question}").below(len(_PROMISES))]
    return Proposal(action, reason, promise)


def _adjust(briefing: Briefing, seed: int, changes: tuple[Change, ...], reason: str) -> Proposal:
    return _propose(briefing, seed, Adjust(changes) if changes else None, reason)


def _pushed(briefing: Briefing, seed: int, way_of: Callable[[str], Way], *, nearest: bool = False) -> tuple[Change, ...]:
    """Return changes of as many controls as may go together, each its way; which ones is drawn."""
    draws = Draws(f"{seed}/{briefing.question}")
    changes: list[Change] = []
    for options in _shuffled(briefing.surface.adjustable, draws):
        way, present = way_of(options.control), briefing.recipe[options.control]
        value = _nearest(options, present, way) if nearest else _farthest(options, present, way)
        if value is not None:
            changes.append(Change(options.control, value))
    return tuple(changes[: briefing.surface.max_controls])


def _shuffled(offered: Sequence[Options], draws: Draws) -> list[Options]:
    left = list(offered)
    return [left.pop(draws.below(len(left))) for _ in range(len(left))]


def _drawn(offered: Sequence[Options], most: int, draws: Draws) -> tuple[Change, ...]:
    chosen = _shuffled(offered, draws)[: 1 + draws.below(most)]
    return tuple(Change(options.control, options.values[draws.below(len(options.values))]) for options in chosen)


def _farthest(options: Options, present: float | None, way: Way) -> float | None:
    """Return the farthest value that way; None if there is none, as seen from ``present``."""
    value = max(options.values) if way == "up" else min(options.values)
    return value if present is None or (value > present if way == "up" else value < present) else None


def _nearest(options: Options, present: float, way: Way) -> float | None:
    values = [value for value in options.values if (value > present if way == "up" else value < present)]
    return min(values, key=lambda value: abs(value - present), default=None)


def _prior(key: tuple[str, Way]) -> int:
    """Return how likely harm is before anything is known: the lower the likelier."""
    name, way = key[0].partition("/")[0], key[1]
    if (name, way) in _LIKELY:
        return _LIKELY.index((name, way))
    return len(_LIKELY) + (any(known == name for known, _ in _LIKELY) or way == "down")


def _gains(briefing: Briefing) -> dict[tuple[str, Way], float]:
    """Return the mean gain measured after each way of each control that was tried."""
    measured: dict[tuple[str, Way], list[float]] = {}
    for earlier in briefing.interventions:
        if not earlier.is_by_manager or earlier.gain is None:
            continue
        for change in changes_of(earlier.action):
            if change.control in earlier.recipe_before:
                way: Way = "up" if change.value > earlier.recipe_before[change.control] else "down"
                measured.setdefault((change.control, way), []).append(earlier.gain)
    return {key: fmean(gains) for key, gains in measured.items()}


def _worst_rollback(briefing: Briefing) -> tuple[RollbackOption | None, float]:
    """Return the worst checkpoint and its gain over the newest one, which is below zero; None if none is worse."""
    offered, goal = briefing.surface.rollbacks, briefing.objective
    if not offered:
        return None, 0.0
    newest = max(offered, key=lambda option: option.step)
    worst = min(offered, key=lambda option: goal.gain(newest.objective, option.objective))
    loss = goal.gain(newest.objective, worst.objective)
    return (worst, loss) if loss < 0 else (None, 0.0)
