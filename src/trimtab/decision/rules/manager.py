"""The rules manager: the table, and a memory of what was done or tried and what was measured after it.

Rules:
1. While an intervention is being measured, wait.
2. Near the end of a run of known length, settle; before that, answer the most urgent symptom.
3. Try a symptom's rules in the table's order; a rule that brought a gain last time keeps its turn, one
   that did not, or lost its trial, gives the turn to the next.
4. Go back to a checkpoint once, but for the end; after that start from the present state. Never repeat what did not
   help: go farther.
5. Hold while the objective itself cannot be relied on, and leave alone what only a notice shows.
6. When several repairs in a row did not help, go back to the best state; if the symptom stays, stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final

from trimtab.controls.catalogue import base_name, part_name
from trimtab.controls.recipe import Recipe
from trimtab.decision.action import Action, Adjust, Change, Rollback, RollbackAndAdjust, Stop, changes_of, checkpoint_of
from trimtab.decision.briefing import Briefing, Intervention, LostTrial
from trimtab.decision.proposal import Expectation, Proposal, hold
from trimtab.decision.rules.rule import END_OF_RUN, LAST_CHANCE, Nudge, Rule
from trimtab.decision.rules.table import RULES
from trimtab.decision.surface import Options, RollbackOption
from trimtab.diagnosis.base import Symptom

FAILED_REPAIRS: Final = 4
COOLDOWN: Final = 0.15
STRENGTHS: Final = (1, 2)
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
        """Return the next thing to try."""
        findings = _findings(briefing)
        is_urgent = any(finding.name == LAST_CHANCE for finding in findings)
        if briefing.interventions and not briefing.interventions[-1].is_complete and not is_urgent:
            return hold(f"intervention {briefing.interventions[-1].number} is still being measured")
        if not any(rule.answers == finding.name for finding in findings for rule in self.rules):
            return hold("no symptom that the rules answer")
        if findings[0].symptom is not None and (blind := self._blind(briefing)) is not None:
            return hold(f"{_opening(blind)}{blind.reason} ({blind.answers})")
        for finding in findings:
            if finding.symptom is not None and _failed_in_a_row(briefing.interventions) >= FAILED_REPAIRS:
                return _give_up(briefing, finding.name)
            rules = self._in_turn(briefing, finding)
            for strength, rule in product(STRENGTHS, rules):
                action = _act(briefing, finding, rule, strength)
                if action is not None and not _was_tried(briefing, action):
                    return _proposal(briefing, finding, rule, action)
        return hold(f"no rule against {findings[0].name} is executable or left to try")

    def _blind(self, briefing: Briefing) -> Rule | None:
        """Return the rule that holds because of what is wrong with the objective's own signal, if any; a notice is enough."""
        about = {symptom.name for symptom in briefing.symptoms if symptom.signal == briefing.objective.signal}
        return next((rule for rule in self.rules if rule.holds and rule.answers in about), None)

    def _in_turn(self, briefing: Briefing, finding: _Finding) -> list[Rule]:
        """Return the finding's rules, beginning with the one used last if it helped, else behind it."""
        rules = [rule for rule in self.rules if rule.answers == finding.name]
        for earlier in sorted((*briefing.interventions, *briefing.lost_trials), key=lambda one: one.step, reverse=True):
            for at, rule in enumerate(rules):
                if earlier.reason.startswith(_opening(rule)):
                    turn = at if _helped(earlier) else at + 1
                    return rules[turn:] + rules[:turn]
        return rules


def _findings(briefing: Briefing) -> list[_Finding]:
    """Return the end of the run, if it is near, and the symptoms."""
    found = [_Finding(symptom.name, symptom) for symptom in briefing.symptoms if symptom.severity != "notice"]
    total = briefing.timing.total_steps
    if total is not None and briefing.timing.asked_step >= (1 - COOLDOWN) * total:
        found.insert(0, _Finding(END_OF_RUN, None))
        is_last = total - briefing.timing.asked_step <= briefing.timing.evaluate_every_steps
        if is_last and _is_worse_than_best(briefing):
            found.insert(0, _Finding(LAST_CHANCE, None))
    return found


def _opening(rule: Rule) -> str:
    return f"{rule.name}: "


def _helped(earlier: Intervention | LostTrial) -> bool:
    return isinstance(earlier, Intervention) and bool(earlier.met) and (earlier.gain or 0.0) > 0


def _failed_in_a_row(interventions: tuple[Intervention, ...]) -> int:
    failed = 0
    for earlier in reversed(interventions):
        if earlier.met is not False:
            break
        failed += 1
    return failed


def _give_up(briefing: Briefing, symptom: str) -> Proposal:
    """Go back to the best state once; if the symptom is there again, ask to stop."""
    why = f"give_up: {FAILED_REPAIRS} repairs in a row did not help against {symptom}"
    best = next((option for option in briefing.surface.rollbacks if option.is_best), None)
    if best is not None and not isinstance(briefing.interventions[-1].action, Rollback):
        return Proposal(Rollback(best.checkpoint), why, Expectation(0.0, 1), (briefing.objective.signal,))
    return Proposal(Stop(), why) if briefing.surface.may_stop else hold(why)


def _act(briefing: Briefing, finding: _Finding, rule: Rule, strength: int) -> Action | None:
    """Return the rule as an executable action; None if nothing of it is executable."""
    part = part_name(finding.symptom.signal) if finding.symptom is not None else None
    most = briefing.surface.max_controls
    option = next((option for option in briefing.surface.rollbacks if option.is_best), None)
    goes_back = rule.rolls_back and (rule.answers == LAST_CHANCE or not _was_revisited(briefing, option))
    if goes_back and option is not None and briefing.best is not None:
        changes = _changes(rule, part, strength, briefing.best.recipe, option.adjustable)
        if changes:
            return RollbackAndAdjust(option.checkpoint, changes[:most])
        return Rollback(option.checkpoint) if rule.answers == LAST_CHANCE else None
    changes = _changes(rule, part, strength, briefing.recipe, briefing.surface.adjustable)
    return Adjust(changes[:most]) if changes else None


def _was_revisited(briefing: Briefing, option: RollbackOption | None) -> bool:
    """Return whether the run went back to that checkpoint before: once more would undo all it learned since."""
    return option is not None and any(checkpoint_of(earlier.action) == option.checkpoint for earlier in briefing.interventions)


def _is_worse_than_best(briefing: Briefing) -> bool:
    summary = briefing.snapshot.get(briefing.objective.signal)
    best = briefing.best.objective if briefing.best is not None else None
    return summary is not None and best is not None and briefing.objective.better(best, summary.last)


def _changes(rule: Rule, part: str | None, strength: int, base: Recipe, adjustable: tuple[Options, ...]) -> tuple[Change, ...]:
    changes: list[Change] = []
    for nudge in rule.nudges:
        for options in _meant(nudge, part, base, adjustable):
            value = _nearest(nudge, strength, base[options.control], options)
            if value is not None:
                changes.append(Change(options.control, value))
    return tuple(changes)


def _meant(nudge: Nudge, part: str | None, base: Recipe, adjustable: tuple[Options, ...]) -> list[Options]:
    """Return the controls a nudge is for: the one of its name, or all parts of it if the run has none of that name."""
    name = nudge.control.replace("{part}", part or "{part}")
    is_whole = "/" not in name and name not in base
    return [options for options in adjustable if options.control == name or (is_whole and base_name(options.control) == name)]


def _nearest(nudge: Nudge, strength: int, value: float, options: Options) -> float | None:
    aim = nudge.aim(value, strength)
    sided = [option for option in options.values if (option > value) == nudge.is_upward]
    return min(sided, key=lambda option: abs(option - aim), default=None)


def _was_tried(briefing: Briefing, action: Action) -> bool:
    """Return whether the same was already done or tried, and did not help."""
    in_vain = [earlier.action for earlier in briefing.interventions if earlier.met is False]
    in_vain += [lost.action for lost in briefing.lost_trials]
    return any(earlier.kind == action.kind and changes_of(earlier) == changes_of(action) for earlier in in_vain)


def _proposal(briefing: Briefing, finding: _Finding, rule: Rule, action: Action) -> Proposal:
    return Proposal(
        action=action,
        reason=f"{_opening(rule)}{_from_here(rule, action)}{rule.reason} ({finding.name})",
        expectation=Expectation(_expected_gain(briefing, rule), within_evaluations=rule.evaluations),
        watch=(briefing.objective.signal, "loss"),
    )


def _from_here(rule: Rule, action: Action) -> str:
    """Return what to say first if the rule would go back, but the run has been back at its best state before."""
    is_other = rule.rolls_back and checkpoint_of(action) is None
    return "from the present state, as the best one was gone back to before; " if is_other else ""


def _expected_gain(briefing: Briefing, rule: Rule) -> float:
    """Return the gain that counts as success: a real one, or for a rule that halts a decline, no loss beyond noise."""
    summary = briefing.snapshot.get(briefing.objective.signal)
    if summary is None:
        return 0.0
    return -summary.noise if rule.halts else _LEAST_GAIN * abs(summary.last)
