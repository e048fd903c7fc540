"""Replies that keep to a JSON schema: which tokens may come next, and which must.

The text is compact JSON with one space after a comma and a colon, so that all of it but the model's choices is forced. In
strings only the escapes of quote, backslash and newline are allowed: no half of a surrogate pair can be written. A string or
array to which the schema sets no end gets one, because a small model may never end it by itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from trimtab.errors import ProviderError

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

MAX_CHARACTERS: Final = 300
MAX_ITEMS: Final = 8

_FORM: Final[JsonCompileOptions] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": '"\\n',
}


def bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema narrowed so that every reply has an end: what keeps to it keeps to the given one too.

    Free text that the schema does not measure gets 1 to 300 characters, an array at most 8 items.
    """
    narrow = dict(schema)
    for key in {"properties", "$defs"} & set(schema):
        narrow[key] = {name: bounded(one) for name, one in schema[key].items()}
    if "anyOf" in schema:
        narrow["anyOf"] = [bounded(one) for one in schema["anyOf"]]
    if "items" in schema:
        narrow["items"] = bounded(schema["items"])
    if schema.get("type") == "array" and "maxItems" not in schema:
        narrow["maxItems"] = max(MAX_ITEMS, schema.get("minItems", 0))
    is_free_text = schema.get("type") == "string" and not {"enum", "const", "pattern", "format", "maxLength"} & set(schema)
    if is_free_text:
        narrow["minLength"] = schema.get("minLength", 1)
        narrow["maxLength"] = max(MAX_CHARACTERS, narrow["minLength"])
    return narrow


class Grammars:
    """Makes a grammar of a schema, for the tokens of one model.

    Args:
        tokenizer: The tokenizer, as the JSON of the library tokenizers.
        num_scores: How many tokens the model gives scores to.
        end_tokens: The tokens that end a reply.
    """

    def __init__(self, tokenizer: str, num_scores: int, end_tokens: Sequence[int]) -> None:
        # Never llguidance.torch: importing it starts torch.compile.
        from llguidance import LLTokenizer

        self._tokenizer = LLTokenizer(tokenizer, n_vocab=num_scores, eos_token=list(end_tokens))

    def grammar(self, schema: dict[str, Any]) -> Grammar:
        """Return the grammar of a reply at its beginning.

        Raises:
            ProviderError: The schema cannot be enforced; change it.
        """
        from llguidance import LLMatcher, LLParserLimits

        source = LLMatcher.grammar_from_json_schema(json.dumps(bounded(schema)), overrides=_FORM)
        limits = LLParserLimits(verbose_errors=False)
        matcher = LLMatcher(self._tokenizer, source, log_level=0, limits=limits)
        if matcher.is_error():
            detail = f"the schema cannot be enforced: {matcher.get_error()}"
            raise ProviderError("failed", detail, input_tokens=0, output_tokens=0)
        return Grammar(matcher, self._tokenizer)


class Grammar:
    """Where one reply stands in its schema."""

    def __init__(self, matcher: Any, tokenizer: Any) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer

    @property
    def has_ended(self) -> bool:
        """Whether nothing can follow any more."""
        return self._matcher.is_stopped()

    def take(self, token: int) -> None:
        """Go on by a token that the model chose.

        Raises:
            ProviderError: The grammar has become too complex; make the schema simpler.
        """
        self._matcher.consume_token(token)
        self._require_sound()

    def take_forced(self) -> list[int]:
        """Go on by all tokens that have to follow, and return them."""
        forced: list[int] = self._matcher.compute_ff_tokens()
        if forced:
            self._matcher.consume_tokens(forced)
        self._require_sound()
        return forced

    def allowed(self) -> bytes:
        """Return the tokens that may follow: one bit each, the lowest first."""
        mask: bytes = self._matcher.compute_bitmask()
        self._require_sound()
        return mask

    def text(self, tokens: list[int]) -> str:
        """Return the text of a whole reply."""
        return self._tokenizer.decode_bytes(tokens).decode("utf-8")

    def _require_sound(self) -> None:
        if self._matcher.is_error():
            raise ProviderError("failed", f"the schema could not be followed: {self._matcher.get_error()}")
