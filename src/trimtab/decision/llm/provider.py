"""What a provider of language models has to do: one call, from messages to text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Request:
    """One call to a model.

    Args:
        messages: The system's message first, then the user's; after a reply that could not be read, that reply and
            what is wrong with it.
        schema: JSON schema of the reply; None for prose.
        reply_tokens: Most tokens of the reply, >= 1.
        timeout_seconds: Longest the whole call may take, > 0.
        temperature: Of the sampling; None leaves it to the provider.
    """

    messages: tuple[Message, ...]
    schema: dict[str, Any] | None
    reply_tokens: int
    timeout_seconds: float
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote.

    Args:
        text: The reply: JSON if a schema was asked for, else prose. Not checked yet.
        model: The model, as the provider names it.
        input_tokens: Tokens read; None if the provider does not say.
        output_tokens: Tokens written; None if the provider does not say.
    """

    text: str
    model: str
    input_tokens: int | None
    output_tokens: int | None


class Provider(Protocol):
    """A language model, wherever it runs."""

    @property
    def model(self) -> str:
        """Name of the model that is asked."""
        ...

    def complete(self, request: Request) -> Completion:
        """Return the model's reply; called from one thread, one request at a time.

        Raises:
            ProviderError: Ask again at the next question.
        """
        ...

    def most_input_tokens(self, request: Request) -> int:
        """Return a number of tokens that reading ``request`` cannot exceed, for reserving what it may cost."""
        ...
