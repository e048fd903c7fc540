"""The prompt: versioned templates filled with a rendered briefing that fits its token budget.

The same briefing and settings always give the same text, so `trimtab prompt` shows exactly what was sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.briefing import Briefing
from trimtab.decision.consultation import MAX_REPLY_TEXT
from trimtab.decision.llm.detail import Detail
from trimtab.decision.llm.fit import estimate_tokens, fitted
from trimtab.decision.llm.plain import lines, plain, quoted
from trimtab.decision.llm.provider import Message
from trimtab.decision.llm.render import Briefed, brief, brief_surface
from trimtab.decision.llm.schema import schema_of
from trimtab.decision.llm.templates import TEMPLATE, fill
from trimtab.errors import ReplyError

__all__ = [
    "TEMPLATE",
    "Prompt",
    "count_prompt",
    "decision_prompt",
    "reasoning_prompt",
    "retry_messages",
    "transcription_prompt",
]

_DECISION_TAG: Final = re.compile(r"<(?=/?decision)", re.IGNORECASE)
_MAX_SHOWN_REPLY: Final = 2000
_MAX_SHOWN_PROBLEM: Final = 600


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one call sends.

    Args:
        messages: The exact messages, the system's first.
        schema: JSON schema of the reply; None for prose.
        left_out: Titles of the sections that did not fit and were shortened or left out.
        template: Version of the templates.
    """

    messages: tuple[Message, ...]
    schema: dict[str, Any] | None
    left_out: tuple[str, ...] = ()
    template: str = TEMPLATE

    @property
    def hash(self) -> str:
        """SHA-256 of the messages' roles and exact texts, in hex."""
        return _hash([[message.role, message.text] for message in self.messages])

    @property
    def schema_hash(self) -> str:
        """SHA-256 of the schema, in hex; of nothing if there is none."""
        return sha256().hexdigest() if self.schema is None else _hash(self.schema)


def decision_prompt(briefing: Briefing, settings: ManagerSettings) -> Prompt:
    """Return the prompt of the one call that answers in the schema."""

    def draft(detail: Detail) -> Prompt:
        briefed = brief(briefing, settings, detail)
        texts = {"briefing": briefed.text, "reply": _reply_form(briefed)}
        return _prompt("decide", texts, briefed, schema_of(briefed.offer))

    return _fit(briefing, settings, draft)


def reasoning_prompt(briefing: Briefing, settings: ManagerSettings) -> Prompt:
    """Return the prompt of the first of two calls, which reasons in prose."""

    def draft(detail: Detail) -> Prompt:
        briefed = brief(briefing, settings, detail)
        texts = {"briefing": briefed.text, "objective": briefed.objective, "gains": ", ".join(briefed.offer.gains)}
        return _prompt("reason", texts, briefed, None)

    return _fit(briefing, settings, draft)


def transcription_prompt(briefing: Briefing, prose: str, settings: ManagerSettings) -> Prompt:
    """Return the prompt of the second of two calls, which puts the decision of ``prose`` into the schema.

    Of a long ``prose`` only what the ledger keeps of it is used, and of that the end, where the decision stands.
    """
    kept = _DECISION_TAG.sub("(", lines(plain(prose[:MAX_REPLY_TEXT])[:MAX_REPLY_TEXT]))

    def draft(detail: Detail) -> Prompt:
        briefed = brief_surface(briefing, detail)
        shown = kept[max(0, len(kept) - detail.prose) :]
        texts = {"briefing": briefed.text, "prose": shown, "reply": _reply_form(briefed)}
        return _prompt("transcribe", texts, briefed, schema_of(briefed.offer))

    return _fit(briefing, settings, draft)


def retry_messages(reply: str, problem: ReplyError) -> tuple[Message, ...]:
    """Return what follows a reply that could not be read: the reply, and what is wrong with it."""
    shown = lines(reply[:_MAX_SHOWN_REPLY]) or "(nothing)"
    said = quoted(str(problem), _MAX_SHOWN_PROBLEM)[1:-1]
    return Message("assistant", shown), Message("user", fill("retry", problem=said))


def _fit(briefing: Briefing, settings: ManagerSettings, draft: Callable[[Detail], Prompt]) -> Prompt:
    prompt, too_many = fitted(briefing, settings.briefing_tokens, draft, count_prompt)
    if too_many is None:
        return prompt
    note = f"about {too_many} tokens even in the smallest form, more than {settings.briefing_tokens}"
    return Prompt(prompt.messages, prompt.schema, (*prompt.left_out, note))


def offers_something(prompt: Prompt) -> bool:
    """Return whether a prompt with a schema offers anything but no_action; a small budget may leave no room for more."""
    return prompt.schema is None or len(prompt.schema["properties"]["action"]["anyOf"]) > 1


def count_prompt(prompt: Prompt) -> int:
    """Return the estimated tokens of all messages of a prompt."""
    return sum(estimate_tokens(message.text) for message in prompt.messages)


def _prompt(stage: str, texts: dict[str, str], briefed: Briefed, schema: dict[str, Any] | None) -> Prompt:
    rules = fill("rules_short" if briefed.is_short else "rules")
    system = Message("system", fill(f"system_{stage}", rules=rules))
    return Prompt((system, Message("user", fill(f"user_{stage}", **texts))), schema, briefed.left_out)


def _reply_form(briefed: Briefed) -> str:
    return fill(
        "reply_short" if briefed.is_short else "reply",
        forms="\n".join(briefed.forms),
        objective=briefed.objective,
        gains=", ".join(briefed.offer.gains),
        example=briefed.example,
    )


def _hash(tree: object) -> str:
    return sha256(json.dumps(tree, ensure_ascii=True, separators=(",", ":")).encode("ascii")).hexdigest()
