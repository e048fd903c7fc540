"""Settings of the manager: how a language model is asked, what it may cost, and what happens when it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from trimtab.controls.setting_checks import require_choice, require_number, require_range, require_switch
from trimtab.errors import UsageError

Fallback = Literal["by_kind", "rules", "no_action"]
Approval = Literal["approve", "reject"]
Output = Literal["native", "tool", "text"]

MAX_GUIDANCE: Final = 4000

_COUNTS: Final = (
    ("stages", 1, 2),
    ("briefing_tokens", 500, 1_000_000),
    ("reply_tokens", 50, 1_000_000),
    ("breaker_questions", 1, 1_000_000),
)
_COUNTS_OR_NONE: Final = (("breaker_failures", 1_000_000), ("calls", 1_000_000_000), ("tokens", 1_000_000_000_000))
_NUMBERS_OR_NONE: Final = (
    ("temperature", 2),
    ("usd", 1_000_000),
    ("input_usd_per_million", 1_000_000),
    ("output_usd_per_million", 1_000_000),
)


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
            if not isinstance(text := getattr(self, name), str):
                raise UsageError(f"manager.{name} is wrong", received=repr(text), allowed="text")
        require_switch("manager.show_reasons", self.show_reasons)
        require_choice("manager.fallback", self.fallback, get_args(Fallback))
        require_choice("manager.output", self.output, get_args(Output))
        require_choice("manager.approval_default", self.approval_default, get_args(Approval))
        for name, low, high in _COUNTS:
            require_range(f"manager.{name}", getattr(self, name), low, high)
        for name, high in _COUNTS_OR_NONE:
            if getattr(self, name) is not None:
                require_range(f"manager.{name}", getattr(self, name), 0, high)
        for name, high in _NUMBERS_OR_NONE:
            if getattr(self, name) is not None:
                require_number(f"manager.{name}", getattr(self, name), 0, high)
        if len(self.guidance) > MAX_GUIDANCE:
            allowed = f"at most {MAX_GUIDANCE} characters"
            raise UsageError("manager.guidance is too long", received=f"{len(self.guidance)} characters", allowed=allowed)
        if (self.input_usd_per_million is None) != (self.output_usd_per_million is None):
            raise UsageError(
                "manager.input_usd_per_million and manager.output_usd_per_million belong together",
                received="one of them",
                allowed="both or neither",
            )
