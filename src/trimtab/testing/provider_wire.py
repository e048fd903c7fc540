"""What providers of language models send, well and badly: the bodies of three wire formats, and what can be wrong with them.

The formats are OpenAI's chat completions, which most servers speak, Anthropic's messages and Google's generateContent.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, Final, Literal

Wire = Literal["openai", "anthropic", "google"]

INPUT_TOKENS: Final = 21
OUTPUT_TOKENS: Final = 7
HUGE_BYTES: Final = 100 * 2**20


class Misbehaviour(Enum):
    """A way in which a provider fails; the value says what it does."""

    # The connection.
    SILENCE = "takes the request and never answers"
    SLOW_HEADERS = "sends its headers a byte at a time, with a second between"
    SLOW_DRIP = "sends its body a byte at a time, with a second between"
    RESET = "resets the connection"
    HANG_UP = "closes the connection without an answer"
    NOT_HTTP = "answers in another protocol"
    # The status.
    BAD_REQUEST = "answers 400 and says why"
    UNAUTHORIZED = "answers 401 and repeats the request's headers, the key among them"
    FORBIDDEN = "answers 403"
    NOT_FOUND = "answers 404"
    RATE_LIMITED = "answers 429 and asks for an hour's wait"
    SERVER_ERROR = "answers 500"
    OVERLOADED = "answers 503"
    REDIRECT = "answers 307 and names another host"
    # The body.
    EMPTY_BODY = "answers 200 with nothing"
    TRUNCATED_BODY = "promises more bytes than it sends"
    TRUNCATED_JSON = "sends half of its JSON as if it were all"
    HTML = "answers 200 with a web page"
    WRONG_CONTENT_TYPE = "calls its JSON plain text"
    NOT_UTF8 = "sends bytes that are no text"
    HUGE_BODY = "sends 100 MiB without saying so beforehand"
    PACKED_BODY = "sends 100 MiB packed into 100 KiB"
    DEEP_JSON = "nests its JSON 100,000 deep"
    DUPLICATE_KEYS = "says everything twice"
    NOT_A_NUMBER = "counts NaN tokens"
    # The reply.
    NO_CHOICES = "answers 200 with no reply in it"
    EMPTY_REPLY = "replies with an empty text"
    LONE_SURROGATE = "replies with half a character"
    REFUSAL = "refuses to answer"
    CONTENT_FILTER = "has its reply blocked by a filter"
    CUT_OFF = "stops at its token limit"
    OTHER_TOOL = "calls a tool that it was not given"
    NOT_THE_SCHEMA = "replies with JSON of another schema"
    # The counts of tokens.
    NO_USAGE = "does not count its tokens"
    NEGATIVE_USAGE = "counts fewer than no tokens"
    HUGE_USAGE = "counts 10**15 tokens"


STATUS: Final[dict[Misbehaviour, int]] = {
    Misbehaviour.BAD_REQUEST: 400,
    Misbehaviour.UNAUTHORIZED: 401,
    Misbehaviour.FORBIDDEN: 403,
    Misbehaviour.NOT_FOUND: 404,
    Misbehaviour.RATE_LIMITED: 429,
    Misbehaviour.SERVER_ERROR: 500,
    Misbehaviour.OVERLOADED: 503,
    Misbehaviour.REDIRECT: 307,
}


def wire_of(path: str) -> Wire | None:
    """Return the wire format that is spoken at a path."""
    path = path.partition("?")[0]
    if path.endswith("/chat/completions"):
        return "openai"
    if path.endswith("/messages"):
        return "anthropic"
    return "google" if path.endswith(":generateContent") else None


def tool_of(wire: Wire, request: dict[str, Any]) -> str | None:
    """Return the name of the first tool that a request offers."""
    tools: list[Any] = request.get("tools") or []
    if not tools:
        return None
    tool: Any = tools[0]
    if wire == "openai":
        tool = tool["function"]
    elif wire == "google":
        tool = tool["functionDeclarations"][0]
    return str(tool["name"])


def reply_body(wire: Wire, text: str, tool: str | None = None) -> dict[str, Any]:
    """Return the body of a reply.

    Args:
        wire: The format.
        text: What the model wrote.
        tool: Name of the tool whose arguments ``text`` is, as JSON; None for a plain reply.
    """
    return {"openai": _openai, "anthropic": _anthropic, "google": _google}[wire](text, tool)


def bad_body(wire: Wire, misbehaviour: Misbehaviour, body: dict[str, Any]) -> bytes:
    """Return what a provider sends instead of ``body``."""
    good = json.dumps(body).encode()
    match misbehaviour:
        case Misbehaviour.EMPTY_BODY:
            return b""
        case Misbehaviour.TRUNCATED_BODY | Misbehaviour.TRUNCATED_JSON:
            return good[: len(good) // 2]
        case Misbehaviour.HTML:
            return b"<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>"
        case Misbehaviour.NOT_UTF8:
            return good[:-1] + b', "note": "\xff\xfe"}'
        case Misbehaviour.PACKED_BODY:
            return _packed()
        case Misbehaviour.DEEP_JSON:
            return good[:-1] + b', "note": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        case Misbehaviour.DUPLICATE_KEYS:
            return good[:-1] + b", " + good[1:]
        case Misbehaviour.NOT_A_NUMBER:
            return good.replace(b": %d" % INPUT_TOKENS, b": NaN")
        case _:
            changed = _CHANGES.get(misbehaviour, {}).get(wire)
            return good if changed is None else json.dumps(changed(body)).encode()


@cache
def _packed() -> bytes:
    # Packed parts one after the other are one packed whole.
    blank = gzip.compress(b" " * 2**20)
    return gzip.compress(b'{"choices": "') + blank * (HUGE_BYTES // 2**20) + gzip.compress(b'"}')


def _openai(text: str, tool: str | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text if tool is None else None}
    if tool is not None:
        message["tool_calls"] = [{"id": "call-1", "type": "function", "function": {"name": tool, "arguments": text}}]
    return {
        "id": "reply-1",
        "object": "chat.completion",
        "created": 1,
        "model": "test-model",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop" if tool is None else "tool_calls"}],
        "usage": {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        },
    }


def _anthropic(text: str, tool: str | None) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "text", "text": text}
    if tool is not None:
        part = {"type": "tool_use", "id": "call-1", "name": tool, "input": json.loads(text)}
    return {
        "id": "reply-1",
        "type": "message",
        "role": "assistant",
        "model": "test-model",
        "content": [part],
        "stop_reason": "end_turn" if tool is None else "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS},
    }


def _google(text: str, tool: str | None) -> dict[str, Any]:
    part: dict[str, Any] = {"text": text} if tool is None else {"functionCall": {"name": tool, "args": json.loads(text)}}
    return {
        "responseId": "reply-1",
        "modelVersion": "test-model",
        "candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": INPUT_TOKENS,
            "candidatesTokenCount": OUTPUT_TOKENS,
            "totalTokenCount": INPUT_TOKENS + OUTPUT_TOKENS,
        },
    }


Change = Callable[[dict[str, Any]], dict[str, Any]]


def _without_choices(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in ("choices", "content", "candidates")}


def _ended(reason: str, *, silent: bool) -> dict[Wire, Change]:
    """Return the ways to end a reply for ``reason``, as each format calls it."""
    openai, anthropic, google = reason.split(" ")

    def in_openai(body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": None} if silent else body["choices"][0]["message"]
        return {**body, "choices": [{"index": 0, "message": message, "finish_reason": openai}]}

    def in_anthropic(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "content": [] if silent else body["content"], "stop_reason": anthropic}

    def in_google(body: dict[str, Any]) -> dict[str, Any]:
        content = {} if silent else {"content": body["candidates"][0]["content"]}
        return {**body, "candidates": [{"index": 0, **content, "finishReason": google}]}

    return {"openai": in_openai, "anthropic": in_anthropic, "google": in_google}


def _counted(count: int | None) -> dict[Wire, Change]:
    def change(body: dict[str, Any], name: str, keys: str) -> dict[str, Any]:
        rest = {key: value for key, value in body.items() if key != name}
        return rest if count is None else {**rest, name: dict.fromkeys(keys.split(" "), count)}

    return {
        "openai": lambda body: change(body, "usage", "prompt_tokens completion_tokens total_tokens"),
        "anthropic": lambda body: change(body, "usage", "input_tokens output_tokens"),
        "google": lambda body: change(body, "usageMetadata", "promptTokenCount candidatesTokenCount totalTokenCount"),
    }


def _said(text: str, tool: str | None = None) -> dict[Wire, Change]:
    return {
        "openai": lambda _: _openai(text, tool),
        "anthropic": lambda _: _anthropic(text, tool),
        "google": lambda _: _google(text, tool),
    }


def _openai_refusal(body: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    return {**body, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def _google_blocked(body: dict[str, Any]) -> dict[str, Any]:
    return {**_without_choices(body), "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}


_CHANGES: Final[dict[Misbehaviour, dict[Wire, Change]]] = {
    Misbehaviour.NO_CHOICES: {"openai": _without_choices, "anthropic": _without_choices, "google": _without_choices},
    Misbehaviour.EMPTY_REPLY: _said(""),
    Misbehaviour.LONE_SURROGATE: _said("\ud800"),
    Misbehaviour.REFUSAL: {**_ended("- refusal SAFETY", silent=True), "openai": _openai_refusal},
    Misbehaviour.CONTENT_FILTER: {**_ended("content_filter refusal -", silent=True), "google": _google_blocked},
    Misbehaviour.CUT_OFF: _ended("length max_tokens MAX_TOKENS", silent=False),
    Misbehaviour.OTHER_TOOL: _said("{}", "format_disk"),
    Misbehaviour.NOT_THE_SCHEMA: _said('{"weather": "fine"}'),
    Misbehaviour.NO_USAGE: _counted(None),
    Misbehaviour.NEGATIVE_USAGE: _counted(-7),
    Misbehaviour.HUGE_USAGE: _counted(10**15),
}
