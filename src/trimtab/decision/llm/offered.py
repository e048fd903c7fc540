"""The section on what is executable, and the form of a reply, both made from the offer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from trimtab.decision.briefing import Briefing
from trimtab.decision.llm.detail import Detail
from trimtab.decision.llm.offer import Choices, Offer
from trimtab.decision.llm.plain import aligned, name, number, signed
from trimtab.decision.llm.tables import Section
from trimtab.decision.surface import Options

TITLE: Final = "What you may do now"

_LEAST_RATIO: Final = 0.1


def offered(briefing: Briefing, offer: Offer, detail: Detail) -> Section:
    """What is executable, by its labels, with what each means."""
    body = ["no_action: leave the run as it is"]
    if offer.adjustable:
        most = min(offer.max_controls, len(offer.adjustable))
        controls = "one control" if most == 1 else f"one to {most} different controls"
        body.append(f"adjust: give {controls} a value")
        body.extend(_controls(briefing, offer.adjustable, detail))
    body.extend(_returns(briefing, offer, detail))
    if offer.skips:
        body.append(f"skip_batches: pass over the next {', '.join(offer.skips)} batches")
    if offer.may_stop:
        body.append("stop: ask the training to end")
    return Section(TITLE, tuple(body), ", ".join(_missing(briefing, offer)))


def _controls(briefing: Briefing, adjustable: Iterable[Choices], detail: Detail) -> list[str]:
    if detail.relative:
        rows = [[f"  {one.control}", ", ".join(_meanings(briefing, one))] for one in adjustable]
        return aligned(["  control", "value (against now)"], rows)
    now = {control: number(value) for control, value in briefing.recipe.values}
    rows = [[f"  {one.control}", now.get(one.control, ""), ", ".join(one.labels)] for one in adjustable]
    return aligned(["  control", "now", "value"], rows)


def _meanings(briefing: Briefing, choices: Choices) -> list[str]:
    now = dict(briefing.recipe.values).get(choices.control)
    if now is None:
        return list(choices.labels)
    values = [value for value, _ in choices.values if value != now]
    is_positive = now > 0 and all(value > 0 for value in values) and _is_above_zero(briefing, choices.control)
    # A factor of nearly 1 says nothing: 0.9995 against 0.999 is a difference.
    is_ratio = is_positive and all(abs(value / now - 1) >= _LEAST_RATIO for value in values)
    return [f"{label} ({_relative(value, now, is_ratio)})" for value, label in choices.values]


def _is_above_zero(briefing: Briefing, control: str) -> bool:
    return all(limit.low > 0 for limit in briefing.limits if limit.control == control)


def _relative(value: float, now: float, is_ratio: bool) -> str:
    if value == now:
        return "as now"
    return f"x{number(value / now, 3)}" if is_ratio else signed(value - now, 3)


def _returns(briefing: Briefing, offer: Offer, detail: Detail) -> Iterator[str]:
    if not offer.returns:
        return
    now = briefing.snapshot.get(briefing.objective.signal)
    yield "rollback: back to a checkpoint, its weights, optimizer and recipe"
    rows: list[list[str]] = []
    for one in offer.returns:
        gain = "" if now is None else signed(briefing.objective.gain(now.last, one.option.objective), 3)
        best = " (best)" if one.option.is_best else ""
        rows.append([f"  {one.option.checkpoint}", str(one.option.step), number(one.option.objective) + best, gain])
    yield from aligned(("  checkpoint", "step", name(briefing.objective.signal), "better than now by"), rows)
    yield from _adjustments(briefing, offer, detail)


def _adjustments(briefing: Briefing, offer: Offer, detail: Detail) -> Iterator[str]:
    """Say what can be adjusted after a rollback; what is the same as without one is not said again."""
    as_now: dict[str, list[str]] = {}
    for one in offer.returns:
        own = [choices for choices in one.adjustable if choices not in offer.adjustable]
        same = ", ".join(choices.control for choices in one.adjustable if choices in offer.adjustable)
        if not own and same:
            as_now.setdefault(same, []).append(one.option.checkpoint)
        elif own:
            yield f"rollback_and_adjust: back to {one.option.checkpoint}, then adjust"
            yield from _controls(briefing, own, detail)
            if same:
                yield f"  {same}: values as under adjust"
    for same, checkpoints in as_now.items():
        yield f"rollback_and_adjust: back to {' or '.join(checkpoints)}, then adjust"
        yield f"  {same}: values as under adjust"


def _missing(briefing: Briefing, offer: Offer) -> Iterator[str]:
    """Say what is executable and not offered, for want of room."""
    surface = briefing.surface
    hidden = _values(surface.adjustable) - sum(len(one.values) for one in offer.adjustable) if surface.max_controls else 0
    if hidden:
        yield f"{hidden} values"
    if len(surface.rollbacks) > len(offer.returns):
        hidden = len(surface.rollbacks) - len(offer.returns)
        yield "1 checkpoint" if hidden == 1 else f"{hidden} checkpoints"
    left = {option.checkpoint: _values(option.adjustable) for option in surface.rollbacks}
    after = sum(left[one.option.checkpoint] - sum(len(choices.values) for choices in one.adjustable) for one in offer.returns)
    if after and surface.max_controls:
        yield f"{after} values after a rollback"
    if surface.max_skip and not offer.skips:
        yield "skipping batches"
    if surface.may_stop and not offer.may_stop:
        yield "stopping"


def _values(options: Iterable[Options]) -> int:
    return sum(len(option.values) for option in options)


def action_forms(offer: Offer) -> list[dict[str, Any]]:
    """Return one action of each kind that is offered, as it stands in a reply."""
    forms: list[dict[str, Any]] = [{"kind": "no_action"}]
    if offer.adjustable:
        forms.append({"kind": "adjust", "changes": [_change(offer.adjustable[0])]})
    if offer.returns:
        forms.append({"kind": "rollback", "checkpoint": offer.returns[-1].option.checkpoint})
    for one in offer.returns:
        if one.adjustable:
            change = _change(one.adjustable[0])
            forms.append({"kind": "rollback_and_adjust", "checkpoint": one.option.checkpoint, "changes": [change]})
            break
    if offer.skips:
        forms.append({"kind": "skip_batches", "count": offer.skips[0]})
    if offer.may_stop:
        forms.append({"kind": "stop"})
    return forms


def _change(choices: Choices) -> dict[str, str]:
    return {"control": choices.control, "value": choices.labels[len(choices.labels) // 2]}


def example_reply(offer: Offer) -> dict[str, Any]:
    """Return a whole reply that is valid whatever is executable."""
    return {
        "reason": "No trend is clear.",
        "action": {"kind": "no_action"},
        "expected_gain": offer.gains[0],
        "within_evaluations": "1",
        "watch": [],
    }


def as_json(tree: object) -> str:
    """Return a tree as the JSON that a model is shown."""
    return json.dumps(tree, ensure_ascii=True)
