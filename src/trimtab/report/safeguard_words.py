"""What guard and canary did, in words, for the terminal and the page alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Final, Literal

from trimtab.controls.safeguards import CanaryMode
from trimtab.ledger.record import Arm, HarmFound
from trimtab.report.account import Decision, RunSummary, TakenBack, Tried
from trimtab.report.words import clean, counted, number

# How a row is told: bad news, what was done about it, or neither.
Tone = Literal["bad", "warn", ""]

_ARMS: Final[dict[Arm, str]] = {"candidate": "with it", "no_action": "without"}
CANARY_MODES: Final[dict[CanaryMode, str]] = {
    "none": "off: proposals are not tried first",
    "win": "only what wins its trial is applied",
    "veto": "what loses its trial is not applied",
}


def tried_words(tried: Tried) -> str:
    """Say how a trial ended, what it cost and what was compared."""
    if tried.outcome is None:
        return f"under way since step {tried.began:,}{_look(tried)}"
    steps = f"steps {tried.began:,} to {tried.ended:,}, {counted(tried.spent, 'step')} spent"
    return f"{tried.outcome} · {clean(tried.reason, 300)}{_look(tried)} · {steps}"


def _look(tried: Tried) -> str:
    """Say what the early look showed, unless the trial ended there: then that is what was compared."""
    if not tried.looks or (tried.gain is not None and not tried.measured):
        return ""
    return " · early look: " + ", ".join(f"{value:.6g} {_ARMS[arm]}" for arm, value in reversed(tried.looks))


def trial_ending(decision: Decision) -> str:
    """Say what the trial makes of a decision that came to nothing, or has not yet; empty if it says no more than the ending."""
    if decision.tried is None:
        return ""
    if decision.ending == "open":
        return "on trial"
    if decision.ending != "not_better":
        return ""
    return "its trial was abandoned" if decision.tried.outcome == "abandoned" else _lost(decision.tried.gain)


def _lost(gain: float | None) -> str:
    """Say by how much a trial was lost; empty where that is no number."""
    if gain is None or not math.isfinite(gain):
        return ""
    how = f"worse by {-gain:.4g}" if gain < 0 else f"better by {gain:.4g} only" if gain else "no better"
    return f"tried, {how}, and not applied"


def harm_rows(decision: Decision, signal: str) -> Iterator[tuple[str, str, Tone]]:
    """Yield what there is to tell of harm at a decision: a label, the words, and how they are told."""
    harm, back = decision.harm, decision.taken_back
    if harm is not None:
        yield "harm", harm_words(harm, signal), "bad"
    if back is not None:
        yield "taken back", taken_back_words(back, harm), "warn"
    elif harm is not None:
        yield "taken back", f"not taken back: {decision.harm_stays}" if decision.harm_stays else "not taken back yet", "bad"
    if decision.takes_back:
        yield "takes back", takes_back_words(decision), ""


def harm_words(harm: HarmFound, signal: str) -> str:
    """Say what the guard measured, and what it held that against."""
    verdict = "is worse than before it" if harm.is_worse else "gains less than without it"
    gain = f"gain {harm.gain:+.4g} since intervention {harm.intervention}"
    borne = f"expected without it: {harm.expected:+.4g}, less {number(harm.tolerance)} that is borne"
    return f"{clean(signal, 80)} of {number(harm.objective)} at step {harm.step:,} {verdict}: {gain}; {borne}"


def taken_back_words(back: TakenBack, harm: HarmFound | None) -> str:
    """Say by what an intervention was taken back; why, unless harm was found, which tells it."""
    words = f"by the guard at step {back.step:,}, as intervention {back.intervention}: {clean(back.action, 200)}"
    if harm is None:
        words += f"; {clean(back.reason, 300)}"
    return words


def takes_back_words(decision: Decision) -> str:
    """Say which interventions the guard takes back, and if that failed."""
    several = "" if len(decision.takes_back) == 1 else "s"
    failed = ", and failed" if decision.ending == "failed" else ""
    return f"intervention{several} {' and '.join(map(str, decision.takes_back))}{failed}"


def by_whom(summary: RunSummary) -> str:
    """Say how many interventions nobody was asked for; empty if there are none."""
    counts = (("reflex", summary.reflex_interventions), ("guard", summary.guard_interventions))
    return ", ".join(f"{count} by the {who}" for who, count in counts if count)


def canary_words(summary: RunSummary) -> tuple[str, str]:
    """Return what became of trials, and what they cost."""
    if not summary.trials:
        return "no trial", summary.untried or CANARY_MODES[summary.canary]
    share = summary.trial_steps / max(1, summary.steps)
    cost = f"{counted(summary.trial_steps, 'step')} spent, {share:.1%} of the run"
    return f"{counted(summary.trials, 'trial')}, {summary.trials_won} won", cost


def guard_words(summary: RunSummary) -> tuple[str, str]:
    """Return what the guard watched and took back, and what else there is to say: what it could not do, and that it holds."""
    if not summary.is_guarded:
        return "off", "no intervention is taken back"
    if not (summary.watched or summary.unwatched):
        return "nothing to watch", "no intervention of the manager"
    watched = f"watched {counted(summary.watched, 'intervention')}" if summary.watched else "watched no intervention"
    taken = f", took {summary.taken_back or 'none'} back" if summary.watched else ""
    notes = [f"{count} not watched: {why}" for why, count in Counter(summary.unwatched).items()]
    notes += [f"harm stays: {why}" for why in summary.harm_stays]
    if summary.held_since is not None:
        notes.append(f"the recipe is held since step {summary.held_since:,}")
    elif summary.taken_back:
        notes.append("the recipe is not held")
    return f"{watched}{taken}", " · ".join(notes) or "no harm was found"
