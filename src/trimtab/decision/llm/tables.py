"""The sections of a briefing that say how the run stands, as aligned plain text.

What is absent is left out, never written as a null; what is not finite is shown as such.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.action import describe
from trimtab.decision.briefing import Briefing, ControlLimits, Intervention, LostTrial
from trimtab.decision.llm.detail import Detail
from trimtab.decision.llm.offer import ranked_signals, significance
from trimtab.decision.llm.plain import aligned, lines, name, number, quoted, signed
from trimtab.telemetry.snapshot import Summary

_MAX_REASON: Final = 160
_FEW: Final = 3
_NARROW_RECIPE: Final = 5
_SOME_COLUMNS: Final = "some columns"


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a briefing.

    Args:
        title: Its heading.
        body: Its lines.
        left_out: What did not fit, in a few words; empty if nothing was left out.
    """

    title: str
    body: tuple[str, ...]
    left_out: str = ""

    def __str__(self) -> str:
        if not self.body:
            return f"({self.title}: {self.left_out} left out)"
        note = (f"({self.left_out} left out)",) if self.left_out else ()
        return "\n".join((f"## {self.title}", *self.body, *note))


def task(briefing: Briefing, settings: ManagerSettings, detail: Detail) -> Iterator[Section]:
    """What the run is about, and what its user says about it."""
    timing = briefing.timing
    planned = f" of {timing.total_steps}" if timing.total_steps is not None else ""
    steps = f"{timing.asked_step}{planned} steps done, evaluated every {timing.evaluate_every_steps}"
    yield Section("Task", (f"{briefing.objective.direction} {name(briefing.objective.signal)}; {steps}",))
    guidance = lines(settings.guidance)
    if guidance:
        kept = guidance[: detail.guidance]
        cut = len(guidance) - len(kept)
        yield Section("Guidance from the user", (kept,) if kept else (), f"{cut} characters" if cut else "")


def recipe(briefing: Briefing, detail: Detail) -> Section:
    """How each control stands; where there is no room for all, those that can be adjusted."""
    values = briefing.recipe.values
    if not values:
        return Section("Recipe", ("no controls",))
    if not detail.columns:  # what can be adjusted says its present value itself
        return Section("Recipe", (), _counted(len(values), "control"))
    if len(values) > detail.controls:
        chosen = {option.control for option in briefing.surface.adjustable[: detail.controls]}
        values = tuple(pair for pair in values if pair[0] in chosen)
    limits = {limit.control: limit for limit in briefing.limits}
    header = ["control", "now", "start", "lowest", "highest", "changed at step", "may change", "unit"]
    rows = [_control(briefing, control, value, limits.get(control)) for control, value in values]
    hidden = [_counted(len(briefing.recipe.values) - len(values), "control")]
    if detail.columns < 2:
        header, rows = header[:_NARROW_RECIPE], [row[:_NARROW_RECIPE] for row in rows]
        hidden.append(_SOME_COLUMNS)
    return Section("Recipe", tuple(aligned(header, rows)), ", ".join(filter(None, hidden)))


def _control(briefing: Briefing, control: str, value: float, limits: ControlLimits | None) -> list[str]:
    start = number(briefing.initial[control]) if control in briefing.initial else ""
    if limits is None:
        return [name(control), number(value), start, "", "", "", "", ""]
    waits = limits.free_from_step > briefing.timing.applies_at_step
    return [
        name(control),
        number(value),
        start,
        number(limits.low),
        number(limits.high),
        "never" if limits.changed_step is None else str(limits.changed_step),
        f"from step {limits.free_from_step}" if waits else "now",
        _words(limits.unit),
    ]


def trends(briefing: Briefing, detail: Detail) -> Section:
    """The signals over their recent windows, the most useful first."""
    shown = ranked_signals(briefing)[: detail.signals]
    hidden = len(briefing.snapshot.summaries) - len(shown)
    rows = [_signal(briefing, summary, detail) for summary in shown]
    body = aligned(list(rows[0]), (row.values() for row in rows)) if rows else []
    body += [_newest(summary) for summary in shown if len(summary.newest) > 1 and detail.columns]
    if not briefing.snapshot.summaries:
        body = ["nothing measured yet"]
    left_out = [_counted(hidden, "signal"), _SOME_COLUMNS if shown and detail.columns == 1 else ""]
    return Section("Trends", tuple(body), ", ".join(filter(None, left_out)))


def _signal(briefing: Briefing, summary: Summary, detail: Detail) -> dict[str, str]:
    slope, error = number(summary.slope_per_step * 100, 2), number(summary.slope_error * 100, 2)
    non_finite = {"non-finite": str(summary.num_non_finite) if summary.num_non_finite else ""}
    cells = {"signal": summary.name, "last": number(summary.last), "trend": _trend(briefing, summary), **non_finite}
    if detail.columns:
        cells["slope/100 steps"] = f"{slope} +-{error}" if summary.num_samples >= _FEW else ""
        cells["noise"] = number(summary.noise, 2)
        cells["samples"] = str(summary.num_samples)
    if detail.columns == 2:
        cells["mean"] = number(summary.mean)
        cells["lowest"] = number(summary.lowest)
        cells["highest"] = number(summary.highest)
        cells["age"] = str(summary.age_steps) if summary.age_steps else ""
    return cells


def _newest(summary: Summary) -> str:
    values = ", ".join(map(number, summary.newest))
    return f"{summary.name} at the newest evaluations, oldest first: {values}"


def _trend(briefing: Briefing, summary: Summary) -> str:
    if summary.num_samples < _FEW:
        return "too few samples"
    if not math.isfinite(summary.slope_per_step):
        return "not known"
    if summary.slope_per_step == 0 or (summary.slope_error > 0 and significance(summary) <= 2):
        return "flat within noise"
    rises = summary.slope_per_step > 0
    if summary.name != briefing.objective.signal:
        return "rising" if rises else "falling"
    return "getting better" if rises == (briefing.objective.direction == "maximize") else "getting worse"


def symptoms(briefing: Briefing, detail: Detail) -> Section:
    """What the diagnosis found, and the numbers behind it."""
    rows: list[list[str]] = []
    hidden = 0
    for symptom in briefing.symptoms:
        shown = symptom.evidence[: detail.evidence]
        hidden += len(symptom.evidence) - len(shown)
        evidence = ", ".join(f"{name(one.name)}={number(one.value)}" for one in shown)
        step = str(symptom.step) if detail.columns else ""
        rows.append([symptom.name, symptom.severity, step, name(symptom.signal), evidence])
    body = aligned(("symptom", "severity", "step", "signal", "evidence"), rows) if rows else ["none found"]
    return Section("Symptoms", tuple(body), _counted(hidden, "number", "of evidence"))


def best_checkpoint(briefing: Briefing, detail: Detail) -> Section:
    """The best state so far, and how the present one compares with it."""
    best = briefing.best
    if best is None or best.objective is None:
        return Section("Best checkpoint", ("none yet",))
    said = [f"{name(best.id)}: {name(briefing.objective.signal)} {number(best.objective)} at step {best.step}"]
    now = briefing.snapshot.get(briefing.objective.signal)
    if now is not None:
        said.append(f"now {number(now.last)}, {_compared(briefing.objective.gain(best.objective, now.last))}")
    other = ", ".join(f"{name(control)} {number(value)}" for control, value in best.recipe.difference(briefing.recipe))
    if detail.columns:
        said.append(f"recipe then: {other}, else as now" if other else "recipe as now")
    return Section("Best checkpoint", ("; ".join(said),))


def _who(source: str) -> str:
    """Say who acted, seen by the manager that is asked: its own name, which may be a URL, says nothing to it."""
    return source if source in ("reflex", "guard", "rules") else "you"


def _compared(gain: float) -> str:
    if gain == 0:
        return "just as good"
    return f"{number(abs(gain), 3)} {'better' if gain > 0 else 'worse'}"


def interventions(briefing: Briefing, settings: ManagerSettings, detail: Detail) -> Section:
    """What was done before, what was expected of it and what came of it."""
    known = briefing.interventions
    shown = known[max(0, len(known) - detail.interventions) :]
    rows = [
        [str(one.number), str(one.step), _who(one.source), _words(describe(one.action)), _expected(one), *_measured(one)]
        for one in shown
    ]
    body = aligned(("no.", "step", "by", "action", "expected gain", "measured gain", "as expected"), rows) if rows else []
    if settings.show_reasons:
        body += [f"reason of {one.number}, quoted: {quoted(one.reason, _MAX_REASON)}" for one in shown]
    if not known:
        body = ["none so far"]
    lost = briefing.lost_trials
    told = lost[max(0, len(lost) - detail.interventions) :]
    body += [_lost(briefing, one) for one in told]
    hidden = [_counted(len(known) - len(shown), "older intervention"), _counted(len(lost) - len(told), "older lost trial")]
    return Section("Earlier interventions", tuple(body), ", ".join(filter(None, hidden)))


def _lost(briefing: Briefing, one: LostTrial) -> str:
    """Say what was tried and not applied, and what was measured with and without it."""
    tried = f"tried from step {one.step} on, not better and so not applied: {_words(describe(one.action))}"
    if one.with_it is None or one.without_it is None:
        return f"{tried}; a fault ended it"
    return f"{tried}; {name(briefing.objective.signal)} {number(one.with_it)} with it, {number(one.without_it)} without"


def _expected(one: Intervention) -> str:
    if one.expectation is None:
        return ""
    return f"{number(one.expectation.gain)} within {one.expectation.within_evaluations}"


def _measured(one: Intervention) -> tuple[str, str]:
    gain = signed(one.gain, 3) if one.gain is not None else ""
    if not one.is_complete:
        return gain, f"measuring, {one.evaluations_measured} so far"
    return gain, "no, taken back" if one.taken_back else "" if one.met is None else "yes" if one.met else "no"


def timing(briefing: Briefing, detail: Detail) -> Section:
    """When the answer counts, when a change shows, and what is left of the budget."""
    when = briefing.timing
    if not detail.columns:
        return Section("Timing and budget", (f"applied after step {when.applies_at_step}",))
    body = [f"asked after step {when.asked_step}, applied after {when.applies_at_step}, dropped after {when.stale_after_step}"]
    lags = [f"{name(limit.control)} {limit.effect_lag_steps}" for limit in briefing.limits if limit.effect_lag_steps]
    if lags:
        body.append(f"steps until a change can show: {', '.join(lags)}")
    if briefing.interventions_left:
        body.append(f"left: {briefing.interventions_left} interventions, of these {briefing.rollbacks_left} rollbacks")
    return Section("Timing and budget", tuple(body))


def _words(text: str) -> str:
    return " ".join(map(name, text.split()))


def _counted(count: int, noun: str, of: str = "") -> str:
    return " ".join(filter(None, (str(count), noun if count == 1 else f"{noun}s", of))) if count else ""
