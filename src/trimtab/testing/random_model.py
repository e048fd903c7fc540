"""A language model that needs no weights: it writes at random whatever the schema of a request allows.

For tests of what stands around a model. It reads nothing of its prompt, so what it chooses is as bad as a valid reply can be.
`random_language_manager` is a manager that asks it.
"""

from __future__ import annotations

import json
from typing import Any

from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.draws import Draws
from trimtab.decision.llm.manager import LlmManager
from trimtab.decision.llm.provider import Completion, Request

MOST_ITEMS = 2


class RandomModel:
    """A provider whose replies depend on the seed and on the number of the request alone.

    Args:
        seed: Any integer.

    Example:
        >>> from trimtab.decision.llm.provider import Message, Request
        >>> schema = {"type": "object", "properties": {"size": {"enum": ["small", "large"]}}}
        >>> RandomModel(0).complete(Request((Message("user", "Choose."),), schema, 50, 1.0)).text
        '{"size": "small"}'
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._num_requests = 0

    @property
    def model(self) -> str:
        """The name it is recorded under."""
        return f"random-model:{self._seed}"

    def complete(self, request: Request) -> Completion:
        """Return a reply that keeps to the request's schema; a word of prose if there is none."""
        self._num_requests += 1
        draws = Draws(f"{self._seed}/{self._num_requests}")
        text = "Perhaps." if request.schema is None else json.dumps(_written(request.schema, draws))
        return Completion(text, self.model, self.most_input_tokens(request), len(text))

    def most_input_tokens(self, request: Request) -> int:
        """Return the bytes of all messages: this model reads byte by byte."""
        return sum(len(message.text.encode("utf-8", "replace")) for message in request.messages)


class NoLimit:
    """An account without caps, for a model that costs nothing."""

    def reserve(self, input_tokens: int, output_tokens: int) -> int:
        """Set nothing aside."""
        return 0

    def settle(self, reservation: int, input_tokens: int, output_tokens: int) -> None:
        """Keep no books."""

    def usd(self, input_tokens: int, output_tokens: int) -> float | None:
        """Return that no price is known."""
        return None


def random_language_manager(seed: int, settings: ManagerSettings) -> LlmManager:
    """Return a manager that asks a `RandomModel`, for whom time stands still."""
    return LlmManager(RandomModel(seed), settings, NoLimit(), "", 10.0, lambda: 0.0)


def _written(schema: dict[str, Any], draws: Draws) -> Any:
    if "anyOf" in schema:
        return _written(schema["anyOf"][draws.below(len(schema["anyOf"]))], draws)
    if "enum" in schema:
        return schema["enum"][draws.below(len(schema["enum"]))]
    match schema.get("type"):
        case "object":
            return {name: _written(inner, draws) for name, inner in schema.get("properties", {}).items()}
        case "array":
            return _items(schema["items"], draws)
        case _:
            return "drawn at random"


def _items(schema: dict[str, Any], draws: Draws) -> list[Any]:
    """Return one or two items, not the same thing twice."""
    kinds: list[dict[str, Any]] = list(schema.get("anyOf", [schema]))
    number = 1 + draws.below(min(MOST_ITEMS, len(kinds)))
    return [_written(kinds.pop(draws.below(len(kinds))), draws) for _ in range(number)]
