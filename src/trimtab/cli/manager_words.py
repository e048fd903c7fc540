"""The `manager` section of an envelope in words: what differs from the defaults, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Final

from trimtab.cli.terminal import counted
from trimtab.controls.envelope import Envelope
from trimtab.controls.manager_settings import Fallback, ManagerSettings, Output

_OUTPUT: Final[dict[Output, str]] = {
    "native": "in the provider's structured output",
    "tool": "as a tool call",
    "text": "asked for in the text alone",
}
_FALLBACK: Final[dict[Fallback, str]] = {
    "by_kind": "the rules answer for a language model, nobody for all others",
    "rules": "the rules answer",
    "no_action": "nobody answers: no action",
}
_DEFAULTS: Final = ManagerSettings()


def manager_words(envelope: Envelope) -> Iterator[tuple[str, str]]:
    """Yield pairs of a label and a sentence, for what differs from the defaults only."""
    settings, changed = envelope.manager, changed_settings(envelope.manager)

    def any_of(*names: str) -> bool:
        return any(name in changed for name in names)

    if "guidance" in changed:
        yield "guidance", settings.guidance.strip()
    asked = list(_asked(settings, changed))
    if asked:
        yield "model", "; ".join(asked)
    if any_of("calls", "tokens", "usd"):
        yield "caps", _caps(settings)
    if any_of("input_usd_per_million", "output_usd_per_million"):
        read, written = settings.input_usd_per_million, settings.output_usd_per_million
        yield "prices", f"{read:g} USD for a million tokens read, {written:g} USD for a million written"
    if "fallback" in changed:
        yield "fallback", f"when the manager fails, {_FALLBACK[settings.fallback]}"
    if any_of("breaker_failures", "breaker_questions"):
        yield "breaker", _breaker(settings)
    if "approval_default" in changed:
        yield "approval", f"what no person approves or rejects is approved; {time_for_a_person(envelope)}"


def changed_settings(settings: ManagerSettings) -> dict[str, Any]:
    """Return the settings that differ from the defaults, by name."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {name: value for name, value in values.items() if value != getattr(_DEFAULTS, name)}


def time_for_a_person(envelope: Envelope) -> str:
    """Say how long a person has, with a manager whose proposals one approves."""
    timing = envelope.deliberation
    seconds = f"{timing.deadline_seconds:g} seconds"
    if timing.mode == "boundary":
        return f"a person has {seconds}, less what the manager takes"
    steps = counted(timing.stale_after_steps, "step")
    return f"a person has {steps} and {seconds}, whichever ends first, less what the manager takes"


def _asked(settings: ManagerSettings, changed: dict[str, Any]) -> Iterator[str]:
    if "stages" in changed:
        yield "two calls a question: one reasons in prose, one transcribes it"
    if "output" in changed:
        yield f"the schema is {_OUTPUT[settings.output]}"
    if "briefing_tokens" in changed:
        yield f"a prompt has at most {counted(settings.briefing_tokens, 'token')}"
    if "reply_tokens" in changed:
        yield f"a reply has at most {counted(settings.reply_tokens, 'token')}"
    if "temperature" in changed:
        yield f"temperature {settings.temperature:g}"
    if "device" in changed:
        yield f"a local one runs on {settings.device}"
    if "show_reasons" in changed:
        yield "it sees the reasons of earlier interventions"


def _caps(settings: ManagerSettings) -> str:
    most = [
        counted(settings.calls, "call") if settings.calls is not None else "",
        counted(settings.tokens, "token") if settings.tokens is not None else "",
        f"{settings.usd:g} USD" if settings.usd is not None else "",
    ]
    is_priced = settings.usd is None or settings.input_usd_per_million is not None
    known = "" if is_priced else "; the model's price must be known, or given here, for the run to start"
    return f"in the whole run at most {', '.join(filter(None, most))}{known}"


def _breaker(settings: ManagerSettings) -> str:
    if settings.breaker_failures == 0:
        return "off: the manager is asked however often it fails"
    if settings.breaker_failures is None:
        after = "after 3 failures in a row of a language model"
    else:
        after = f"after {counted(settings.breaker_failures, 'failure')} in a row"
    return f"{after} it is not asked {counted(settings.breaker_questions, 'question')}, and then tried again"
