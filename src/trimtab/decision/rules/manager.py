"""The rules manager: the table, and a memory of what was tried and what was measured after it.

Rules:
1. While an intervention is being measured, wait.
2. Against a symptom, try its rules in the table's order; what met its expectation last time keeps
   its turn, what did not gives the turn to the next rule.
3. Never propose the same recipe from the same state again when it did not help.
4. When several repairs in a row did not help, go back to the best state; if the symptom stays, stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from trimtab.decision.action import Action, Adjust, Change, Rollback, RollbackAndAdjust, Stop, changes_of, checkpoint_of
from trimtab.decision.briefing import Briefing, Intervention
from trimtab.decision.proposal import Expectation, Proposal, hold
from trimtab.decision.rules.table import RULES, Nudge, Rule
from trimtab.decision.surface import Options, RollbackOption
from trimtab.diagnosis.base import Symptom

FAILED_REPAIRS: Final = 4
COOLDOWN: Final = 0.15
_LEAST_GAIN: Final = 0.002


@dataclass(frozen=True, slots=True)
class _Finding:
    """What the rules answer now: a symptom, or the end of the run."""

    name: str
    symptom: Symptom | None


@dataclass(frozen=True, slots=True)
class RulesManager:
    """Proposes from a table of rules.

    Args:
        rules: The table, in order of preference.
    """

    rules: tuple[Rule, ...] = RULES

    def propose(self, briefing: Briefing) -> Proposal:
        """Return the next thing to try against the most urgent symptom."""
        if briefing.interventions and not briefing.interventions[-1].is_complete:
            return hold(f"intervention {briefing.interventions[-1].number} is still being measured")
        finding = _finding(briefing, self.rules)
        if finding is None:
            return hold("no symptom that the rules answer")
        if finding.symptom is not None and _failed_in_a_row(briefing.interventions) >= FAILED_REPAIRS:
            return _give_up(briefing, finding.name)
        for rule in self._in_turn(briefing, finding):
            action = _act(briefing, rule)
            if action is not None and not _was_tried_in_vain(briefing, action):
                return _proposal(briefing, finding, rule, action)
        return hold(f"no rule against {finding.name} is executable or left to try")

    def _in_turn(self, briefing: Briefing, finding: _Finding) -> list[Rule]:
        """Return the finding's rules, beginning with the one used last if it helped, else behind it."""
        rules = [rule for rule in self.rules if rule.answers == finding.name]
        for earlier in reversed(briefing.interventions):
            for at, rule in enumerate(rules):
                if earlier.reason.startswith(_opening(rule)):
                    turn = at if earlier.met else at + 1
                    return rules[turn:] + rules[:turn]
        return rules


def _finding(briefing: Briefing, rules: tuple[Rule, ...]) -> _Finding | None:
    """Return the first symptom that a rule answers; else the end of the run, if it is near."""
    for symptom in briefing.symptoms:
        if any(rule.answers == symptom.name for rule in rules):
            return _Finding(symptom.name, symptom)
    total = briefing.timing.total_steps
    if total is not None and briefing.timing.asked_step >= (1 - COOLDOWN) * total:
        return _Finding("end_of_run", None)
    return None


def _opening(rule: Rule) -> str:
    return f"{rule.name}: "


def _failed_in_a_row(interventions: tuple[Intervention, ...]) -> int:
    failed = 0
    for earlier in reversed(interventions):
        if earlier.met is not False:
            break
        failed += 1
    return failed


def _give_up(briefing: Briefing, symptom: str) -> Proposal:
    """Go back to the best state once; if the symptom is there again, ask to stop."""
    why = f"{FAILED_REPAIRS} repairs in a row did not help against {symptom}"
    last = briefing.interventions[-1]
    best = _best(briefing)
    if isinstance(last.action, Rollback) or best is None:
        return Proposal(Stop(), f"give_up: {why}; the best state is kept") if briefing.surface.may_stop else hold(why)
    return Proposal(Rollback(best.checkpoint), f"give_up: {why}", Expectation(0.0, 1), (briefing.objective.signal,))


def _act(briefing: Briefing, rule: Rule) -> Action | None:
    """Return the rule as an executable action; None if nothing of it is executable."""
    surface = briefing.surface
    if not rule.rolls_back:
        changes = _changes(rule, briefing, surface.adjustable)
        return Adjust(changes) if changes else None
    best = _best(briefing)
    if best is None or briefing.best is None:
        return None
    changes = _changes(rule, briefing, best.adjustable)
    return RollbackAndAdjust(best.checkpoint, changes) if changes else None


def _best(briefing: Briefing) -> RollbackOption | None:
    return next((option for option in briefing.surface.rollbacks if option.is_best), None)


def _changes(rule: Rule, briefing: Briefing, adjustable: tuple[Options, ...]) -> tuple[Change, ...]:
    base = briefing.best.recipe if rule.rolls_back and briefing.best is not None else briefing.recipe
    changes: list[Change] = []
    for nudge in rule.nudges:
        options = next((option for option in adjustable if option.control == nudge.control), None)
        value = None if options is None else _nearest(nudge, base[nudge.control], options)
        if value is not None:
            changes.append(Change(nudge.control, value))
    return tuple(changes[: briefing.surface.max_controls])


def _nearest(nudge: Nudge, value: float, options: Options) -> float | None:
    aim = nudge.aim(value)
    sided = [option for option in options.values if (option > value) == nudge.is_upward]
    return min(sided, key=lambda option: abs(option - aim), default=None)


def _was_tried_in_vain(briefing: Briefing, action: Action) -> bool:
    """Return whether the same values were already set from the same state, and did not help."""
    origin = briefing.best.objective if checkpoint_of(action) and briefing.best else None
    return any(
        earlier.met is False
        and earlier.action.kind == action.kind
        and changes_of(earlier.action) == changes_of(action)
        and (origin is None or earlier.objective_before == origin)
        for earlier in briefing.interventions
    )


def _proposal(briefing: Briefing, finding: _Finding, rule: Rule, action: Action) -> Proposal:
    items = finding.symptom.evidence if finding.symptom is not None else ()
    evidence = ", ".join(f"{item.name}={item.value:.4g}" for item in items)
    reference = briefing.best.objective if briefing.best is not None else None
    gain = _LEAST_GAIN * abs(reference) if reference is not None else 0.0
    return Proposal(
        action=action,
        reason=f"{_opening(rule)}{rule.reason} ({finding.name}{evidence and ': '}{evidence})",
        expectation=Expectation(gain, within_evaluations=3),
        watch=(briefing.objective.signal, "loss"),
    )
