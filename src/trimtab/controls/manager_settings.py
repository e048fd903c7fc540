"""Settings of the manager: how a language model is asked, what it may cost, and what happens when it fails."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from trimtab.errors import UsageError

Fallback = Literal["by_kind", "rules", "no_action"]
Approval = Literal["approve", "reject"]
Output = Literal["native", "tool", "text"]

MAX_GUIDANCE: Final = 4000

_NEEDED: Final = ("stages", "briefing_tokens", "reply_tokens", "breaker_questions")


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    """What the user says about the manager, besides who it is.

    Args:
        guidance: What a language model is told about the task, at most 4,000 characters.
        show_reasons: Whether the reasons of earlier interventions, which are free text, are put in the prompt.
        stages: 1: one call answers in the schema. 2: one call reasons in prose, another transcribes it to the schema.
        output: How the schema is asked for: the provider's ``native`` structured output, a ``tool`` call, or in ``text``
            alone, for servers that know neither.
        briefing_tokens: Most tokens a prompt may have, >= 500; the least useful parts are left out first.
        reply_tokens: Most tokens one reply may have, a reasoning model's thoughts included, >= 50.
        temperature: Of the sampling, 0 to 2; None leaves it to the provider.
        device: Where a local model runs, as torch names it.
        calls: Most calls in the run; None for no cap. So for the next two.
        tokens: Most tokens in the run, read and written.
        usd: Most money in the run, in US dollars.
        input_usd_per_million: Price of a million tokens read; None to look the model up.
        output_usd_per_million: Price of a million tokens written; both prices or neither.
        fallback: Who answers when the manager fails: ``rules`` or ``no_action``; ``by_kind`` means rules for a
            language model and no_action for all others.
        breaker_failures: Failures in a row after which the manager is not asked for a while, >= 0; 0 means never, None
            means 3 for a language model and never for all others.
        breaker_questions: Questions it is then not asked, >= 1; the next one tries it again.
        approval_default: What a proposal gets that nobody has approved or rejected before the deadline.

    Raises:
        UsageError: Correct the field that the message names.
    """

    guidance: str = ""
    show_reasons: bool = False
    stages: int = 1
    output: Output = "native"
    briefing_tokens: int = 6000
    reply_tokens: int = 2000
    temperature: float | None = None
    device: str = "cpu"
    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    input_usd_per_million: float | None = None
    output_usd_per_million: float | None = None
    fallback: Fallback = "by_kind"
    breaker_failures: int | None = None
    breaker_questions: int = 5
    approval_default: Approval = "reject"

    def __post_init__(self) -> None:
        for name in ("guidance", "device"):
            _require_type(name, getattr(self, name), str, "text")
        _require_type("show_reasons", self.show_reasons, bool, "true or false")
        _require_choice("fallback", self.fallback, ("by_kind", "rules", "no_action"))
        _require_choice("output", self.output, ("native", "tool", "text"))
        _require_choice("approval_default", self.approval_default, ("approve", "reject"))
        _require_range("stages", self.stages, 1, 2)
        _require_range("briefing_tokens", self.briefing_tokens, 500, 1_000_000)
        _require_range("reply_tokens", self.reply_tokens, 50, 1_000_000)
        _require_range("breaker_failures", self.breaker_failures, 0, 1_000_000)
        _require_range("breaker_questions", self.breaker_questions, 1, 1_000_000)
        _require_range("calls", self.calls, 0, 1_000_000_000)
        _require_range("tokens", self.tokens, 0, 1_000_000_000_000)
        for name in ("usd", "input_usd_per_million", "output_usd_per_million"):
            _require_range(name, getattr(self, name), 0, 1_000_000, is_whole=False)
        _require_range("temperature", self.temperature, 0, 2, is_whole=False)
        if len(self.guidance) > MAX_GUIDANCE:
            allowed = f"at most {MAX_GUIDANCE} characters"
            raise UsageError("manager.guidance is too long", received=f"{len(self.guidance)} characters", allowed=allowed)
        if (self.input_usd_per_million is None) != (self.output_usd_per_million is None):
            raise UsageError(
                "manager.input_usd_per_million and manager.output_usd_per_million belong together",
                received="one of them",
                allowed="both or neither",
            )


def _require_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"manager.{name} is unknown", received=value, allowed=", ".join(allowed))


def _require_type(name: str, value: object, kind: type, allowed: str) -> None:
    if not isinstance(value, kind):
        raise UsageError(f"manager.{name} is wrong", received=repr(value), allowed=allowed)


def _require_range(name: str, value: object, low: float, high: float, *, is_whole: bool = True) -> None:
    if value is None and name not in _NEEDED:
        return
    kind = "whole number" if is_whole else "number"
    if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
        raise UsageError(f"manager.{name} is not a {kind}", received=repr(value), allowed=f"a {kind} from {low} to {high}")
    if not math.isfinite(value) or not low <= value <= high:
        raise UsageError(f"manager.{name} is out of range", received=value, allowed=f"{low} to {high}")
