"""A consultation: what asking a language model for one answer took, for the record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

MAX_REPLY_TEXT: Final = 8000


@dataclass(frozen=True, slots=True)
class Consultation:
    """What one question to a language model took, over all its calls.

    Args:
        model: The model that answered, as its provider names it; before that the one that was asked.
        template: Version of the prompt's templates.
        prompt: SHA-256 of the exact text of the first call's messages, in hex.
        schema: SHA-256 of the reply's JSON schema, in hex.
        envelope: SHA-256 of the envelope, in hex.
        calls: Calls begun, >= 1.
        input_tokens: Tokens read, as the provider counts them; for an unsettled call, the most it can have been.
        output_tokens: Tokens written, likewise.
        usd: Price of that; None if the model's price is not known.
        replies: What came back, the oldest first, each cut at `MAX_REPLY_TEXT` characters.
        unsettled_calls: Calls of which only the most that they can have used is known.
    """

    model: str
    template: str
    prompt: str
    schema: str
    envelope: str
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    replies: tuple[str, ...] = ()
    unsettled_calls: int = 0


@runtime_checkable
class Consulting(Protocol):
    """A manager that says what its answers take."""

    def report_to(self, listener: Callable[[Consultation], None]) -> None:
        """Call ``listener`` before and after every call, with the consultation so far."""
        ...
